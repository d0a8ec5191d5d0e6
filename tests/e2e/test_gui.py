"""The desktop GUI's whole life at the gateway, over raw sockets: two recipes with the same ROI names."""

import base64
import json

import cv2
import numpy as np
import pytest

from tests.e2e.dotnet_multipart import Part
from tests.e2e.gui_client import MM, SHAPE, SIZE, Gui, answered, part, spoiled, text_of
from tests.e2e.synthetic_images import jpeg, steel

OK = {"Disc A": [part(seed) for seed in range(200, 211)], "Disc B": [part(seed) for seed in range(220, 230)]}
UNSEEN = {"Disc A": [part(seed) for seed in range(240, 244)], "Disc B": [part(seed) for seed in range(250, 254)]}
NG = {"Disc A": [spoiled(260), spoiled(261)], "Disc B": [spoiled(262)]}
RECIPES = pytest.mark.parametrize("recipe", OK)
CALIBRATE = {"mm_per_px": MM, "ok_scores": [], "ng_scores": None, "area_mm2_thr": 1.0, "score_percentile": 99}


@pytest.fixture(scope="module")
def trained(gateway) -> dict[str, Gui]:
    """Both recipes, each collected, fitted and calibrated from its own data set."""
    found = {}
    for recipe, images in OK.items():
        gui = found[recipe] = Gui(gateway.port, recipe)
        assert len(answered(gui.upload("ok", images))["saved"]) == len(images)
        assert len(answered(gui.upload("ng", NG[recipe]))["saved"]) == len(NG[recipe])
        fit = answered(gui.fit())
        assert fit["token_shape"] == [8, 8]
        assert 0 < fit["coreset_size"] < fit["n_embeddings"] == 64 * len(images)
        calibrated = answered(gui.post_json("calibrate_dataset", default_mm_per_px=None))
        assert (calibrated["n_ok"], calibrated["n_ng"]) == (len(images), len(NG[recipe]))
        assert type(calibrated["score_percentile"]) is int
    return found


@pytest.fixture
def gui(gateway, request) -> Gui:
    """A recipe of its own, without anything."""
    return Gui(gateway.port, request.node.name.partition("[")[0][:60])


# --- data set --------------------------------------------------------------------------------------------------------


@RECIPES
def test_a_data_set_has_the_images_of_its_recipe_as_uploaded(trained, recipe):
    gui = trained[recipe]
    classes = answered(gui.ask("GET", "datasets/list", **gui.names))["classes"]
    assert {label: listed["count"] for label, listed in classes.items()} == {
        "ok": len(OK[recipe]),
        "ng": len(NG[recipe]),
    }
    assert classes["ok"]["meta"] == dict.fromkeys(classes["ok"]["files"], True)
    for label, images in (("ok", OK[recipe]), ("ng", NG[recipe])):
        for i, (name, image) in enumerate(zip(classes[label]["files"], images, strict=True)):
            query = {**gui.names, "label": label, "filename": name}
            reply = gui.ask("GET", "datasets/file", **query)
            assert (reply.content, reply.headers["content-type"]) == (image, "image/png")
            assert reply.headers["x-recipe-id"] == recipe
            meta = answered(gui.ask("GET", "datasets/meta", **query))
            assert {key: meta[key] for key in ("mm_per_px", "shape_json", "angle")} == {
                "mm_per_px": MM,
                "shape_json": SHAPE,
                "angle": i,
            }
            assert (meta["filename"], meta["label"]) == (name, label)
            assert meta["created_at_utc"]


def test_a_sample_is_relabelled_by_delete_and_upload_and_its_class_is_cleared(gui):
    images = [part(300), part(301), jpeg(steel(302, SIZE))]
    first, _, third = answered(gui.upload("ok", images))["saved"]
    assert third.endswith(".jpg")
    moved = {**gui.names, "label": "ok", "filename": first}
    assert gui.upload("ng", images[:1]).status == 409
    assert answered(gui.ask("DELETE", "datasets/file", **{**moved, "label": "ng"}))["deleted"] is False
    assert answered(gui.ask("DELETE", "datasets/file", **moved))["deleted"] is True
    assert answered(gui.ask("DELETE", "datasets/file", **moved))["deleted"] is False
    assert gui.ask("GET", "datasets/file", **moved).status == 404
    assert answered(gui.upload("ng", images[:1]))["saved"] == [first]
    assert (len(gui.files("ok")), gui.files("ng")) == (2, [first])
    assert answered(gui.upload("ok", images[1:2]))["saved"] == [gui.files("ok")[0]], "the same picture counts once"
    assert answered(gui.ask("DELETE", "datasets/clear", **gui.names, label="ok"))["cleared"] == 2
    assert answered(gui.ask("DELETE", "datasets/clear", **gui.names, label="ok"))["cleared"] == 0
    assert (gui.files("ok"), gui.files("ng")) == ([], [first])


def test_metadata_is_kept_whatever_it_says(gui):
    sent = {"mm_per_px": MM, "shape_json": json.loads(SHAPE), "operator": "Jörg", "big": 2**70, "label": "draft"}
    (name,) = answered(gui.upload("ok", [part(303)], sent))["saved"]
    meta = answered(gui.ask("GET", "datasets/meta", **gui.names, label="ok", filename=name))
    assert {**meta, **sent, "label": "ok"} == meta
    (bare,) = answered(gui.post_form("datasets/ok/upload", Part.file("images", "x.png", part(304))))["saved"]
    listed = answered(gui.ask("GET", "datasets/list", **gui.names))["classes"]["ok"]["meta"]
    assert listed == {name: True, bare: False}
    assert answered(gui.ask("GET", "datasets/meta", **gui.names, label="ok", filename=bare))["filename"] == bare


# --- training and decision -------------------------------------------------------------------------------------------


@RECIPES
def test_state_and_manifest_say_what_there_is(trained, recipe):
    gui = trained[recipe]
    state = answered(gui.ask("GET", "state", **gui.names, model_key="inspection-1"))
    expected = {"status": "ok", "memory_fitted": True, "calib_present": True, **gui.names, "model_key": "inspection-1"}
    assert {key: state[key] for key in expected} == expected
    manifest = answered(gui.ask("GET", "manifest", **gui.names))
    assert manifest["memory"] is True
    assert manifest["calib"]["n_ok"] == len(OK[recipe])
    assert manifest["datasets"]["classes"]["ng"]["count"] == len(NG[recipe])
    assert manifest["recipe_id"] == manifest["datasets"]["recipe_id"] == recipe


@RECIPES
def test_a_decision_is_that_of_its_recipe_and_score_and_threshold_say_the_same(trained, gateway, recipe):
    gui = trained[recipe]
    threshold = answered(gui.ask("GET", "manifest", **gui.names))["calib"]["threshold"]
    for image, expected in [*((image, "ok") for image in UNSEEN[recipe]), *((image, "ng") for image in NG[recipe])]:
        answer = answered(gui.infer(image))
        assert answer["decision"] == expected
        assert (answer["score"] > answer["threshold"]) == (expected == "ng")
        assert answer["threshold"] == threshold
        core = gateway.infer(gui.roi, image, role="Inspection", mm_per_px=MM, shape=SHAPE, recipe_id=recipe)
        assert (core["verdict"], answer["score"]) == (expected, core["peak"])
        assert (answer["heatmap_png_base64"] is not None) == (expected == "ng")
        assert bool(answer["regions"]) == (expected == "ng")
        for found, region in zip(answer["regions"], core["regions"], strict=True):
            assert [found[key] for key in "xywh"] == found["bbox"] == region["bbox"]
            assert (found["area_px"], found["area_mm2"]) == (region["area_px"], region["area_mm2"])


def test_two_recipes_share_no_bank_and_no_threshold(trained):
    a, b = trained["Disc A"], trained["Disc B"]
    one, other = answered(a.infer(UNSEEN["Disc A"][0])), answered(b.infer(UNSEEN["Disc A"][0]))
    assert one["score"] != other["score"]
    assert one["threshold"] != other["threshold"]
    assert (one["recipe_id"], other["recipe_id"]) == ("Disc A", "Disc B")
    assert "learned" in " ".join(answered(a.infer(OK["Disc A"][0]))["warnings"])
    assert "learned" not in " ".join(answered(b.infer(OK["Disc A"][0]))["warnings"])


def test_a_heatmap_is_sent_as_asked(trained):
    gui = trained["Disc A"]
    ok, ng = UNSEEN["Disc A"][0], NG["Disc A"][0]

    def heatmap(image, asked):
        return answered(gui.infer(image, Part.text("include_heatmap", asked)))["heatmap_png_base64"]

    assert heatmap(ng, "false") is None
    data = base64.b64decode(heatmap(ok, "True"))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED).shape == SIZE[::-1]


def test_a_rect_by_its_corner_is_where_the_gui_drew_it(trained):
    gui = trained["Disc A"]
    beside = answered(gui.infer(NG["Disc A"][0], shape='{"kind": "rect", "x": 64, "y": 0, "w": 32, "h": 80}'))
    on_it = answered(gui.infer(NG["Disc A"][0], shape='{"kind": "rect", "x": 16, "y": 16, "w": 48, "h": 48}'))
    assert on_it["decision"] == "ng"
    assert on_it["score"] > beside["score"]
    assert all(region["x"] >= 16 for region in on_it["regions"])


@RECIPES
def test_a_whole_data_set_is_inspected_image_by_image(trained, gateway, recipe):
    gui = trained[recipe]
    counted = answered_drift(gateway, recipe)
    answer = answered(gui.post_json("infer_dataset", include_heatmap=True, default_mm_per_px=None))
    assert (answer["n_total"], answer["n_errors"]) == (len(OK[recipe]) + len(NG[recipe]), 0)
    for item in answer["items"]:
        assert item["filename"] in gui.files(item["label"])
        assert (item["score"] > item["threshold"]) == (item["label"] == "ng")
        assert (item["mm_per_px"], item["error"], item["n_regions"]) == (MM, None, len(item["regions"]))
        assert base64.b64decode(item["heatmap_png_base64"]).startswith(b"\x89PNG")
    only = answered(gui.post_json("infer_dataset", include_heatmap=False, labels=["ng"]))["items"]
    assert [(item["label"], item["heatmap_png_base64"]) for item in only] == [("ng", None)] * len(NG[recipe])
    assert answered_drift(gateway, recipe) == counted, "a data set is no stream of parts"


def answered_drift(gateway, recipe):
    return gateway.client.get("/rois/Inspection/inspection-1/drift", params={"recipe_id": recipe}).json()["n"]


def test_a_calibration_rests_on_the_images_and_tells_what_it_used(trained):
    gui = trained["Disc B"]
    by_data_set = answered(gui.post_json("calibrate_dataset", default_mm_per_px=MM, area_mm2_thr=1.0))
    answer = answered(gui.post_json("calibrate_ng", **{**CALIBRATE, "ok_scores": [0.1, 0.3], "ng_scores": [9.0] * 5}))
    assert answer["threshold"] == by_data_set["threshold"]
    assert (answer["ok_mean"], answer["ng_mean"]) == (pytest.approx(0.2), 9)
    bare = answered(gui.post_json("calibrate_ng", **CALIBRATE))
    assert 0 < bare["ok_mean"] < bare["threshold"] < bare["ng_mean"]


def test_every_token_is_kept_where_the_gui_asks_for_it_and_the_next_fit_may_undo_it(gui):
    answered(gui.upload("ok", OK["Disc A"]))
    every = answered(gui.fit(memory_fit=True))
    assert every["coreset_size"] == every["n_embeddings"] == 64 * len(OK["Disc A"])
    assert answered(gui.fit(memory_fit=False))["coreset_size"] == round(0.02 * every["n_embeddings"])


# --- flows that start with an error ----------------------------------------------------------------------------------


def test_what_is_not_fitted_and_not_calibrated_is_400_with_the_text_that_the_gui_looks_for(gui):
    calls = [gui.infer(part(1)), gui.post_json("calibrate_ng", **CALIBRATE), gui.post_json("calibrate_dataset")]
    for reply in [*calls, gui.post_json("infer_dataset", include_heatmap=False)]:
        assert reply.status == 400
        assert "memory not found" in text_of(reply)
        assert "not fitted" in text_of(reply)
    assert answered(gui.ask("GET", "state", **gui.names))["memory_fitted"] is False
    manifest = answered(gui.ask("GET", "manifest", **gui.names))
    assert (manifest["memory"], manifest["calib"]) == (False, None)
    reply = gui.fit()
    assert (reply.status, "0 OK images; a fit needs at least 10" in text_of(reply)) == (400, True)
    answered(gui.upload("ok", OK["Disc A"][:9]))
    assert gui.fit().status == 400
    answered(gui.upload("ok", OK["Disc A"][9:10]))
    answered(gui.fit())
    for reply in (gui.infer(part(1)), gui.post_json("infer_dataset", include_heatmap=False)):
        assert (reply.status, "calibration_missing" in text_of(reply)) == (400, True)
    state = answered(gui.ask("GET", "state", **gui.names))
    assert (state["memory_fitted"], state["calib_present"]) == (True, False)
    reply = gui.post_json("calibrate_dataset", default_mm_per_px=MM)
    assert (reply.status, "no NG image" in text_of(reply)) == (400, True)
    answered(gui.post_json("calibrate_dataset", default_mm_per_px=MM, require_ng=False))
    assert answered(gui.infer(part(1)))["decision"] in ("ok", "ng")


def test_the_scale_of_a_recipe_is_fixed_by_what_states_it_first(gui):
    assert gui.upload("ok", [b"no image"], {"mm_per_px": 0.25}).status == 415
    answered(gui.upload("ok", OK["Disc A"], *[{"mm_per_px": MM}] * len(OK["Disc A"])))
    other = Gui(gui.port, gui.recipe, roi="inspection-2")
    replies = [
        gui.upload("ng", NG["Disc A"][:1], {"mm_per_px": 0.25}),
        gui.fit(mm_per_px=0.25),
        other.fit(*OK["Disc A"][:2], mm_per_px=0.25),
        gui.infer(part(1), mm_per_px=0.25),
    ]
    for reply in replies:
        assert (reply.status, "fixed at 0.5" in text_of(reply)) == (409, True), reply.content
    assert gui.files("ng") == []
    answered(other.fit(*OK["Disc A"][:2]))
    assert gui.post_json("calibrate_ng", **{**CALIBRATE, "mm_per_px": 0.25}).status == 409
    elsewhere = Gui(gui.port, f"{gui.recipe}-2")
    answered(elsewhere.upload("ok", [part(1)], {"mm_per_px": 0.25}))
    answered(elsewhere.ask("DELETE", "datasets/clear", **gui.names, label="ok"))
    answered(elsewhere.upload("ok", [part(1)], {"mm_per_px": MM}))  # an empty recipe has no scale


@pytest.mark.parametrize("name", ["last", "LAST"])
def test_the_recipe_last_is_reserved(gateway, name):
    gui = Gui(gateway.port, name)
    replies = [gui.ask("GET", "state", **gui.names), gui.fit(part(1)), gui.infer(part(1)), gui.upload("ok", [part(1)])]
    for reply in [*replies, gui.post_json("calibrate_dataset"), gui.ask("GET", "health")]:
        assert (reply.status, "reserved" in text_of(reply)) == (400, True)


@pytest.mark.parametrize("name", ["../../current", f"{'0' * 64}.png", "\0", "é.png", "x" * 5000])
def test_no_file_name_leads_anywhere_else(trained, name):
    gui = trained["Disc A"]
    query = {**gui.names, "label": "ok", "filename": name}
    assert [gui.ask("GET", path, **query).status for path in ("datasets/file", "datasets/meta")] == [404, 404]
    assert answered(gui.ask("DELETE", "datasets/file", **query))["deleted"] is False
    assert gui.ask("GET", "state", **{**gui.names, "role_id": f"../{name}"}).status == 422


def test_a_field_names_the_recipe_before_the_header_does(trained):
    gui = trained["Disc A"]
    state = answered(gui.ask("GET", "state", **gui.names, recipe_id="Disc B"))
    assert state["recipe_id"] == "Disc B"
    assert answered(gui.infer(part(1), Part.text("recipe_id", "Disc B")))["recipe_id"] == "Disc B"
    assert answered(gui.post_json("infer_dataset", labels=["ng"], recipe_id="Disc B"))["n_total"] == 1


def test_what_a_recipe_lacks_is_read_from_default_and_never_written_there(gateway, gui):
    default = Gui(gateway.port, None, roi="inspection-3")
    assert default.fit(*OK["Disc B"]).status == 200
    answered(default.upload("ok", UNSEEN["Disc B"]))
    answered(default.post_json("calibrate_ng", **CALIBRATE))
    guest = Gui(gateway.port, gui.recipe, roi="inspection-3")
    assert guest.files("ok") == default.files("ok")
    name = guest.files("ok")[0]
    file = guest.ask("GET", "datasets/file", **guest.names, label="ok", filename=name)
    assert (file.content, file.headers["x-recipe-id"]) == (UNSEEN["Disc B"][0], "default")
    own, foreign = answered(default.infer(part(1))), answered(guest.infer(part(1)))
    assert (foreign["recipe_id"], foreign["score"]) == ("default", own["score"])
    assert answered(guest.ask("GET", "state", **guest.names))["recipe_id"] == "default"
    delete = {**guest.names, "label": "ok", "filename": name}
    assert answered(guest.ask("DELETE", "datasets/file", **delete))["deleted"] is False
    assert answered(guest.ask("DELETE", "datasets/clear", **guest.names, label="ok"))["cleared"] == 0
    assert guest.post_json("calibrate_ng", **CALIBRATE).status == 400
    assert len(default.files("ok")) == len(UNSEEN["Disc B"])
    answered(guest.post_form("datasets/ok/upload", Part.file("images", "x.png", part(305))))
    assert len(guest.files("ok")) == 1
    told = answered(guest.post_json("infer_dataset", include_heatmap=False))
    assert (told["n_total"], told["n_errors"], "mm_per_px" in told["items"][0]["error"]) == (1, 1, True)
    (item,) = answered(guest.post_json("infer_dataset", include_heatmap=False, default_mm_per_px=MM))["items"]
    assert (item["error"], item["mm_per_px"]) == (None, MM)
    answered(guest.fit(part(306), part(307)))
    assert (guest.infer(part(1)).status, answered(guest.ask("GET", "state", **guest.names))["recipe_id"]) == (
        400,
        guest.recipe,
    )


def test_the_gui_learns_which_endpoints_exist_without_calling_them(gateway):
    gui = Gui(gateway.port)
    paths = ["health", "state", "manifest", "fit_ok", "calibrate_ng", "calibrate_dataset", "infer", "infer_dataset"]
    data_set = ["ok/upload", "ng/upload", "list", "file", "meta", "clear"]
    for path in [*paths, *(f"datasets/{each}" for each in data_set)]:
        assert gui.ask("OPTIONS", path).status == 405, path
    assert gui.ask("OPTIONS", "analyze").status == 404
    health = answered(gui.ask("GET", "health"))
    assert (health["status"], health["device"], health["model"]) == ("ok", "cpu", "dinov2-vit-s/14")
    assert health["version"]


@pytest.mark.parametrize(
    ("path", "parts", "status", "said"),
    [
        ("infer", [Part.text("mm_per_px", "0,5"), Part.file("image", "x.png", part(1))], 422, "point"),
        ("infer", [Part.text("mm_per_px", "0.5")], 422, "image"),
        ("infer", [Part.text("mm_per_px", "0.5"), Part.file("image", "x.png", part(1)[:-50])], 415, "x.png"),
        (
            "infer",
            [Part.text("mm_per_px", "0.5"), Part.text("shape", "{"), Part.file("image", "x.png", part(1))],
            422,
            "shape",
        ),
        ("fit_ok", [Part.text("mm_per_px", "0.5")], 422, "neither was sent"),
        (
            "fit_ok",
            [Part.text("mm_per_px", "0.5"), Part.text("use_dataset", "true"), Part.file("images", "x.png", part(1))],
            422,
            "both",
        ),
        (
            "datasets/ok/upload",
            [Part.file("images", "x.png", part(1)), Part.text("metas", '{"mm_per_px": "fine"}')],
            422,
            "metas: number 1: mm_per_px",
        ),
        (
            "datasets/ok/upload",
            [Part.file("images", "x.png", part(1)), Part.text("metas", '{"shape_json": "{\\"kind\\": 1}"}')],
            422,
            "shape_json",
        ),
        (
            "datasets/ok/upload",
            [Part.file("images", "x.png", part(1)), *[Part.text("metas", "{}")] * 2],
            422,
            "metas: 2 for 1",
        ),
        (
            "infer",
            [Part.text("mm_per_px", "0.5"), Part.text("shape", "[" * 99), Part.file("image", "x.png", part(1))],
            422,
            "shape",
        ),
        ("datasets/maybe/upload", [Part.file("images", "x.png", part(1))], 422, "maybe"),
    ],
)
def test_a_wrong_request_is_refused_with_a_text_for_its_user(trained, path, parts, status, said):
    gui = trained["Disc A"]
    before = gui.files("ok")
    reply = gui.post_form(path, *parts)
    assert (reply.status, said in text_of(reply)) == (status, True), reply.content
    assert (reply.json()["recipe_id"], gui.files("ok")) == ("Disc A", before)


def test_fields_of_other_releases_of_the_gui_are_left_out(trained):
    gui = trained["Disc A"]
    assert answered(gui.infer(part(1), Part.text("rotation", "12")))["decision"]
    assert answered(gui.post_json("infer_dataset", labels=["ng"], verbose=True))["n_total"] == 2
    assert answered(gui.ask("GET", "state", **gui.names, detail="1"))["memory_fitted"]


def test_the_api_knows_nothing_of_the_dialect(gateway):
    document = gateway.client.get("/openapi.json").json()
    assert not [path for path in document["paths"] if path.startswith(("/gui", "/state", "/datasets"))]
    assert gateway.client.get("/state").status_code == 404
    reply = gateway.post("/infer", "never-fitted", [part(1)], "image", role="Inspection")
    assert (reply.status_code, reply.json().keys()) == (404, {"error"})
