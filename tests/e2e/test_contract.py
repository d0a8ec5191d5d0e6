"""The HTTP contract, key by key, as the GUI and PLC programs use it."""

import base64
import json
import re
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from gateway.errors import ERRORS
from tests.e2e.synthetic_images import decoded, png, steel, with_blob

SIZE = (300, 240)
TOKENS = 8
NG, _ = with_blob(steel(60, SIZE), (200, 80), 20)
RANDOM_WEIGHTS = "the model has random weights: scores mean nothing"
NUMBER = (int, float)


@pytest.fixture(scope="module")
def calibrated(gateway) -> str:
    """An ROI of four OK images with a threshold made at p_score 99 and 0.2 mm/px."""
    gateway.fit("calibrated", [png(steel(seed)) for seed in range(4)], role="contract")
    gateway.calibrate("calibrated", role="contract", ok_scores=[0.3, 0.31], area_mm2_thr=0.5, score_percentile=99)
    return "calibrated"


@pytest.fixture
def infer(gateway, calibrated):
    def ask(image=None, **fields):
        return gateway.infer(calibrated, png(NG) if image is None else image, role="contract", **fields)

    return ask


def has(answer, types):
    """Require exactly these keys, each with its type."""
    assert set(answer) == set(types)
    for key, kind in types.items():
        assert isinstance(answer[key], kind), f"{key}: {answer[key]!r}"
        assert not isinstance(answer[key], bool) or kind is bool, key


INFER = {
    "role_id": str,
    "roi_id": str,
    "recipe_id": str,
    "score": float,
    "threshold": float | None,
    "peak": float | None,
    "peak_threshold": float | None,
    "pixel_threshold": float | None,
    "review_threshold": float | None,
    "threshold_source": str | None,
    "verdict": str,
    "verdict_reason": str | None,
    "calibration_stale": bool,
    "weights_stale": bool,
    "degraded": bool,
    "heatmap_png_base64": str | None,
    "heatmap_path": str | None,
    "heatmap_max": float,
    "regions": list,
    "token_shape": list,
    "image_size": list,
    "params": dict,
    "version": int,
    "explanation": dict | None,
    "warnings": list,
}
SCORES = {"n": int, "mean": float, "p50": float, "p95": float, "p99": float, "max": float}


def test_infer_answers_with_these_keys_and_types(infer):
    answer = infer()
    has(answer, INFER)
    params = {"extractor": str, "coreset_rate": float, "k": int, "p_score": NUMBER, "blur_sigma": NUMBER}
    has(answer["params"], {**params, "area_mm2_thr": NUMBER, "mm_per_px": NUMBER, "bit_depth": int | None})
    assert answer["token_shape"] == [TOKENS, TOKENS]
    assert answer["image_size"] == list(SIZE)
    assert answer["params"]["extractor"] == "dinov2-vit-s/14"
    has(answer["regions"][0], {"bbox": list, "area_px": int, "area_mm2": float, "contour": list})
    assert all(isinstance(value, int) for value in answer["regions"][0]["bbox"])
    assert all(len(point) == 2 and all(isinstance(v, int) for v in point) for point in answer["regions"][0]["contour"])


def test_infer_before_calibration_has_the_same_keys(gateway, small_roi):
    answer = gateway.infer(small_roi, png(NG))
    has(answer, INFER)
    assert (answer["threshold"], answer["regions"]) == (None, [])


def test_fit_answers_with_these_keys_and_types(gateway):
    answer = gateway.fit("keys", [png(steel(0)), png(steel(1))], role="contract")
    counts = dict.fromkeys(("n_ok_total", "n_ok_added", "duplicates", "n_embeddings", "n_tokens_total"), int)
    rates = dict.fromkeys(("coreset_rate", "coreset_rate_applied", "covering_radius"), float)
    others = {
        "seed": int,
        "checksum": str,
        "version": int,
        "token_shape": list,
        "tiles": list,
        "input_size": type(None),
        "ok_scores": dict,
        "warnings": list,
    }
    teaching = {"n_ok_excluded": int, "suspect_images": list, "spatial_weights": dict, "calibration": str}
    has(answer, {"role_id": str, "roi_id": str, "recipe_id": str, **counts, **rates, **others, **teaching})
    has(answer["ok_scores"], SCORES)
    assert re.fullmatch(r"[0-9a-f]{64}", answer["checksum"])


def test_calibrate_answers_with_these_keys_and_types(gateway, calibrated):
    scores = {"ok_scores": [0.3, 0.31], "area_mm2_thr": 0.5, "score_percentile": 99}
    answer = gateway.calibrate(calibrated, role="contract", **scores)
    floats = dict.fromkeys(("threshold", "p99_ok", "mm_per_px", "area_mm2_thr", "score_percentile"), NUMBER)
    counts = dict.fromkeys(("n_ok", "n_ng", "ok_above", "ng_below", "version"), int)
    others = {"p5_ng": float | None, "method": str, "ok_source": str, "separable": bool | None, "warnings": list}
    rates = {"false_alarm_rate", "guaranteed", "n_ok_needed", "expected_false_alarm_rate", "verdict_false_alarm_rate"}
    intervals = {"expected_false_alarm_interval", "verdict_false_alarm_interval"}
    more = {
        "peak_threshold",
        "review_threshold",
        "review_rate",
        "missed_ng",
        "stored_images",
        "n_ok_unseen",
        "pixel_threshold",
        "pixel_threshold_source",
        "blind_area_mm2",
        *rates,
        *intervals,
    }
    assert set(answer) == {"role_id", "roi_id", "recipe_id", *floats, *counts, *others, *more}
    has({key: answer[key] for key in floats}, floats)
    has({key: answer[key] for key in counts}, counts)
    assert answer["p5_ng"] is None


def test_health_answers_with_these_keys(gateway):
    answer = gateway.client.get("/health").json()
    assert answer["status"] == "ok"
    assert answer["device"] in ("cpu", "cuda")
    assert answer["model"] == "dinov2-vit-s/14"
    assert answer["version"]
    assert answer["model_weights"] == "seed"


def test_ready_says_ready(gateway):
    reply = gateway.client.get("/ready")
    assert reply.status_code == 200
    parts = {"engine": "ready", "storage": "ready", "process": "ready"}
    assert reply.json() == {"ready": True, **parts, "networks": [], "input_sizes": [112], "degraded": [], "error": None}


def test_numbers_of_a_calibration_may_be_written_as_strings_or_integers(gateway, calibrated):
    body = {"role_id": "contract", "roi_id": calibrated, "mm_per_px": "0.2", "ok_scores": [0.3, 0.31], "ng_scores": []}
    reply = gateway.client.post("/calibrate_ng", json={**body, "area_mm2_thr": 0.5, "score_percentile": 99})
    assert reply.status_code == 200, reply.text


# --- heatmaps --------------------------------------------------------------------------------------------------------


def test_the_heatmap_is_a_grey_8_bit_png_of_the_images_size(infer):
    data = base64.b64decode(infer()["heatmap_png_base64"], validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data[24:26] == b"\x08\x00", "8 bits, grey"
    assert decoded(data).shape == SIZE[::-1]


def test_heatmap_none_and_base64_differ_in_nothing_else(infer):
    with_heatmap, without = infer(heatmap="base64"), infer(heatmap="none")
    assert without["heatmap_png_base64"] is None
    assert without["heatmap_path"] is None
    assert {**with_heatmap, "heatmap_png_base64": None} == without


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        ({"kind": "circle", "cx": 150, "cy": 120, "r": 60}, lambda x, y: np.hypot(x - 150, y - 120) <= 60),
        (
            {"kind": "annulus", "cx": 200, "cy": 80, "r": 70, "r_inner": 30},
            lambda x, y: (np.hypot(x - 200, y - 80) <= 70) & (np.hypot(x - 200, y - 80) >= 30),
        ),
        (
            {"kind": "rect", "cx": 200, "cy": 80, "w": 50, "h": 31},
            lambda x, y: (abs(x - 200) <= 25) & (abs(y - 80) <= 15.5),
        ),
        (
            {"kind": "rect", "x": 175, "y": 60, "w": 50, "h": 31},
            lambda x, y: (abs(x - 200) <= 25) & (abs(y - 75.5) <= 15.5),
        ),
        ({"kind": "circle", "r": 40}, lambda x, y: np.hypot(x - 150, y - 120) <= 40),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_the_map_is_zero_outside_the_shape(infer, shape, inside):
    x, y = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    mask = inside(x, y)
    answer, whole = infer(shape=json.dumps(shape), area_mm2_thr=0), infer(area_mm2_thr=0)
    heatmap, unmasked = (decoded(base64.b64decode(a["heatmap_png_base64"])) for a in (answer, whole))
    np.testing.assert_array_equal(heatmap, np.where(mask, unmasked, 0))
    for region in answer["regions"]:
        left, top, width, height = region["bbox"]
        assert mask[top : top + height, left : left + width].any()
        assert all(mask[y, x] for x, y in region["contour"])
    assert answer["heatmap_max"] == whole["heatmap_max"]


def test_the_score_is_that_of_the_pixels_inside_the_shape(infer):
    away = {"kind": "rect", "cx": 60, "cy": 180, "w": 100, "h": 100}
    on_it = {"kind": "circle", "cx": 200, "cy": 80, "r": 20}
    assert infer(shape=json.dumps(away))["score"] < infer()["score"] < infer(shape=json.dumps(on_it))["score"]


def test_grey_and_its_rgb_copy_score_the_same(infer):
    grey, colour = infer(png(NG)), infer(png(np.dstack([NG] * 3)))
    assert grey == colour


def test_all_heatmaps_of_an_roi_are_on_one_scale(gateway, infer, calibrated):
    detail = gateway.client.get(f"/rois/contract/{calibrated}").json()
    assert infer()["heatmap_max"] == infer(png(steel(61)))["heatmap_max"] == detail["heatmap_max"]


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["7f3a", "line-3:cam_2.0815", "x" * 64])
def test_a_harmless_request_id_is_echoed(gateway, given):
    assert gateway.client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "<script>", "ä".encode(), b"\xff", "a;b", '"', "${x}"])
def test_any_other_request_id_is_replaced(gateway, given):
    chosen = gateway.client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", chosen)


def test_each_request_has_its_own_id_even_when_it_fails(gateway):
    paths = ["/health", "/health", "/rois", "/nothing", "/rois/never/fitted", "/openapi.json"]
    ids = [gateway.client.get(path).headers["x-request-id"] for path in paths]
    assert len(set(ids)) == len(ids)


def test_server_timing_names_the_stages(gateway, small_roi):
    reply = gateway.post("/infer", small_roi, [png(NG)], "image")
    stages = dict(
        re.fullmatch(r"(\w+);dur=([\d.]+)", entry).groups() for entry in reply.headers["server-timing"].split(", ")
    )
    assert {"decode", "engine", "knn", "postprocess"} <= set(stages)
    fitted = gateway.post("/fit_ok", small_roi, [png(steel(0)), png(steel(1))], "images")
    assert "engine;dur=" in fitted.headers["server-timing"]


# --- precedence and warnings -----------------------------------------------------------------------------------------


def test_without_a_calibration_the_settings_apply(gateway, small_roi):
    params = gateway.infer(small_roi, png(NG))["params"]
    assert (params["k"], params["p_score"], params["blur_sigma"], params["area_mm2_thr"]) == (1, 99, 1, 1)


def test_the_calibration_overrides_the_settings(gateway):
    gateway.fit("precedence", [png(steel(seed)) for seed in range(2)], role="contract")
    gateway.calibrate("precedence", role="contract", ok_scores=[0.3], area_mm2_thr=7.5, score_percentile=98)
    params = gateway.infer("precedence", png(NG), role="contract")["params"]
    assert (params["p_score"], params["area_mm2_thr"]) == (98, 7.5)


def test_the_request_overrides_the_calibration(infer):
    params = infer(k=3, p_score=97.5, blur_sigma=0, area_mm2_thr=3)["params"]
    assert (params["k"], params["p_score"], params["blur_sigma"], params["area_mm2_thr"]) == (3, 97.5, 0, 3)


def test_parameters_do_what_they_say(infer):
    base = infer()
    assert infer(p_score=100)["score"] > base["score"] > infer(p_score=95)["score"]
    assert infer(k=5)["score"] > base["score"], "the mean of five is above the nearest"
    assert infer(blur_sigma=9)["score"] == base["score"], "the score is taken before the blur"
    assert infer(blur_sigma=9)["heatmap_png_base64"] != base["heatmap_png_base64"]


def warnings_of(answer):
    return [warning for warning in answer["warnings"] if warning != RANDOM_WEIGHTS]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, []),
        ({"p_score": 99}, []),
        ({"p_score": 98}, ["p_score", "98", "99"]),
        ({"mm_per_px": 0.2019}, []),
        ({"mm_per_px": 0.203}, ["mm_per_px", "0.203", "0.2"]),
        ({"mm_per_px": 0.19}, ["mm_per_px", "0.19", "0.2"]),
    ],
    ids=str,
)
def test_a_parameter_that_differs_from_fit_or_calibration_gives_a_warning(infer, fields, says):
    found = warnings_of(infer(**fields))
    assert len(found) == bool(says)
    assert all(words in found[0] for words in says)


def test_random_weights_give_a_warning(infer):
    assert RANDOM_WEIGHTS in infer()["warnings"]


def test_an_image_of_the_ok_set_is_recognised(infer):
    assert any("OK images" in warning for warning in infer(png(steel(0)))["warnings"])


def test_more_neighbours_than_tokens_means_all_tokens(gateway, small_roi):
    answer = gateway.infer(small_roi, png(NG), k=100)
    n_embeddings = gateway.client.get(f"/rois/steel/{small_roi}").json()["n_embeddings"]
    assert answer["params"]["k"] == n_embeddings < 100
    assert any(warning.startswith("k: 100") for warning in answer["warnings"])


# --- learning more, and forgetting -----------------------------------------------------------------------------------


def test_an_image_sent_twice_counts_once(gateway):
    images = [png(steel(seed)) for seed in (0, 1, 0)]
    first = gateway.fit("twice", images, role="contract")
    assert (first["n_ok_total"], first["n_ok_added"], first["duplicates"]) == (2, 2, 1)
    again = gateway.fit("twice", [("another name.png", images[0])], role="contract")
    assert (again["n_ok_total"], again["n_ok_added"], again["duplicates"]) == (2, 0, 1)
    assert (again["checksum"], again["version"]) == (first["checksum"], first["version"])


def test_a_further_fit_adds_to_what_was_learned_and_makes_the_threshold_stale(gateway):
    roi = {"role": "contract"}
    first = gateway.fit("further", [png(steel(0)), png(steel(1))], **roi)
    gateway.calibrate("further", ok_scores=[0.3, 0.31], **roi)
    assert warnings_of(gateway.infer("further", png(NG), **roi)) == []
    assert gateway.client.get("/rois/contract/further").json()["calibration"]["stale"] is False

    second = gateway.fit("further", [png(steel(2))], **roi)
    assert (second["n_ok_total"], second["n_ok_added"], second["version"]) == (3, 1, 2)
    assert second["n_tokens_total"] == 3 * TOKENS**2 > first["n_tokens_total"]
    assert second["checksum"] != first["checksum"]
    answer = gateway.infer("further", png(NG), **roi)
    assert answer["version"] == 2
    assert answer["threshold"] is not None
    assert any("calibrate again" in warning for warning in answer["warnings"])
    detail = gateway.client.get("/rois/contract/further").json()
    assert detail["calibration"]["stale"] is True
    assert [image["added_in"] for image in detail["images"]] == [1, 1, 2]

    gateway.calibrate("further", **roi)
    assert warnings_of(gateway.infer("further", png(NG), **roi)) == []


def test_a_single_image_has_no_scores_to_calibrate_from(gateway):
    fit = gateway.fit("alone", [png(steel(0))], role="contract")
    assert fit["ok_scores"] is None
    body = {"role_id": "contract", "roi_id": "alone", "mm_per_px": 0.2, "ok_scores": [], "ng_scores": []}
    reply = gateway.client.post("/calibrate_ng", json=body)
    assert reply.status_code == 422
    assert "ok_scores" in reply.json()["error"]["message"]
    assert gateway.calibrate("alone", role="contract", ok_scores=[0.4])["threshold"] == pytest.approx(0.4)


def test_without_given_scores_the_scores_of_the_fit_are_used(gateway):
    fit = gateway.fit("own", [png(steel(seed)) for seed in range(3)], role="contract")
    chosen = gateway.calibrate("own", role="contract")
    assert (chosen["ok_source"], chosen["n_ok"]) == ("leave-one-out", 3)
    assert chosen["p99_ok"] == pytest.approx(fit["ok_scores"]["p99"])
    assert chosen["threshold"] >= chosen["p99_ok"]
    assert chosen["n_ok_needed"] == 46, "49 for the default rate of 2 %"
    by_score = gateway.calibrate("own", role="contract", pixel_threshold="score")
    assert by_score["threshold"] == pytest.approx(fit["ok_scores"]["p99"])


def test_a_deleted_roi_leaves_only_its_audit_trail(launch, small_model_repository, tmp_path):
    with launch("leaving", model_repository=small_model_repository, state_dir=tmp_path) as gateway:
        gateway.fit("brief", [png(steel(0))])
        gateway.infer("brief", png(steel(1)))
        (database,) = tmp_path.rglob("*.sqlite3")

        def inspections():
            with closing(sqlite3.connect(database)) as connection:
                return connection.execute("SELECT roi_id FROM inspection").fetchall()

        assert inspections() == [("brief",)]
        assert gateway.client.delete("/rois/steel/brief").status_code == 200
        assert inspections() == []
        left = [path for path in gateway.models_dir.rglob("*") if path.is_file() and "brief" in str(path)]
        assert [path for path in left if path.suffix not in (".jsonl", ".lock")] == []
        assert len(gateway.client.get("/rois/steel/brief/audit").json()["entries"]) == 2


def test_a_fitted_roi_is_listed_and_described_until_it_is_deleted(gateway):
    roi, path = {"role": "contract"}, "/rois/contract/short.lived 1_-"
    name = "short.lived 1_-"
    fit = gateway.fit(name, [("ok 1.png", png(steel(0))), ("ok 2.png", png(steel(1)))], **roi)
    listed = [one for one in gateway.client.get("/rois").json()["rois"] if one["roi_id"] == name]
    detail = gateway.client.get(path).json()
    assert len(listed) == 1
    assert listed[0] == {key: detail[key] for key in listed[0]}
    for key in ("role_id", "roi_id", "version", "n_ok_total", "n_embeddings", "checksum", "ok_scores", "seed"):
        assert detail[key] == fit[key]
    assert detail["calibration"] is None
    assert [image["file_name"] for image in detail["images"]] == ["ok 1.png", "ok 2.png"]
    assert [(image["width"], image["height"]) for image in detail["images"]] == [(384, 384)] * 2

    assert gateway.client.delete(path).json() == {
        "role_id": "contract",
        "roi_id": name,
        "recipe_id": "default",
        "deleted": True,
    }
    gone = [gateway.client.get(path), gateway.client.delete(path)]
    for reply in (*gone, gateway.post("/infer", name, [png(NG)], "image", "contract")):
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "unknown_roi"
    assert name not in [one["roi_id"] for one in gateway.client.get("/rois").json()["rois"]]

    refitted = gateway.fit(name, [png(steel(2))], **roi)
    assert (refitted["n_ok_total"], refitted["version"]) == (1, 1), "nothing is left of what it learned before"
    answer = gateway.infer(name, png(NG), **roi)
    assert (answer["threshold"], answer["version"]) == (None, 1)


# --- the document ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(gateway):
    return gateway.client.get("/openapi.json").json()


def test_the_document_lists_every_endpoint(document):
    assert {
        "/fit_ok": {"post"},
        "/calibrate_ng": {"post"},
        "/infer": {"post"},
        "/health": {"get"},
        "/ready": {"get"},
        "/rois": {"get"},
        "/rois/{role_id}/{roi_id}": {"get", "delete"},
    }.items() <= {path: set(methods) for path, methods in document["paths"].items()}.items()


def test_the_document_lists_every_error_code_and_its_status(document):
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    for error in ERRORS:
        answers = [operation["responses"].get(str(error.status), {}) for operation in operations]
        assert any(f"`{error.code}`" in answer.get("description", "") for answer in answers), error.code
    for code in ("not_found", "method_not_allowed", "internal"):
        assert f"`{code}`" in document["info"]["description"]


def test_the_document_has_only_the_envelope_for_errors(document):
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize("schema", ["FitAnswer", "CalibrateRequest", "InferAnswer"])
def test_the_document_has_examples(document, schema):
    assert document["components"]["schemas"][schema]["examples"]


@pytest.mark.parametrize(("path", "schema"), [("/infer", "InferAnswer"), ("/fit_ok", "FitAnswer")])
def test_an_example_has_the_keys_of_an_answer(gateway, small_roi, document, path, schema):
    example = document["components"]["schemas"][schema]["examples"][0]
    field = {"/infer": "image", "/fit_ok": "images"}[path]
    answer = gateway.post(path, small_roi, [png(steel(0))], field).json()
    nulls = {key for key, value in answer.items() if value is None}  # FastAPI leaves them out of the document
    assert set(example) | nulls == set(answer)


def test_the_documentation_loads_everything_from_the_gateway(gateway):
    page = gateway.client.get("/docs")
    named = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    parts = [path for pair in named for path in pair if path]
    assert len(parts) == 4
    for path in parts:
        assert path.startswith("/")
        assert gateway.client.get(path).status_code == 200, path
    policy = page.headers["content-security-policy"]
    assert "//" not in policy
    assert "script-src 'self' 'sha256-" in policy
    assert "swagger-ui" in gateway.client.get("/docs/swagger-ui.css").text
    assert gateway.client.get("/docs/__init__.py").status_code == 422


def test_swagger_ui_supports_the_served_version_of_openapi(gateway, document):
    """Swagger UI supports OpenAPI 3.1 since version 5. It does not show a document of an unknown version."""
    assert document["openapi"].startswith("3.1.")
    script = gateway.client.get("/docs/swagger-ui-bundle.js").text
    assert re.search(r'PACKAGE_VERSION:"5[.]', script)


def test_an_ok_image_sent_again_with_a_shape_is_scored_inside_it(gateway):
    images = [png(steel(seed)) for seed in (80, 81, 82)]
    whole = gateway.fit("reshaped", images)
    again = gateway.fit("reshaped", images[:1], shape='{"kind": "circle", "r": 60}')
    assert (again["duplicates"], again["n_ok_total"]) == (1, 3)
    assert again["version"] == whole["version"] + 1
    assert again["n_tokens_total"] < whole["n_tokens_total"]  # tokens outside the shape do not enter the bank
    assert again["ok_scores"] != whole["ok_scores"]
    assert gateway.fit("reshaped", images)["version"] == again["version"]


def test_scores_that_are_null_count_as_absent(gateway):
    gateway.fit("null scores", [png(steel(seed)) for seed in (90, 91, 92)])
    answer = gateway.calibrate("null scores", ok_scores=None, ng_scores=None)
    assert (answer["ok_source"], answer["n_ok"], answer["n_ng"]) == ("leave-one-out", 3, 0)
    kept = gateway.client.get("/rois/steel/null scores").json()["calibration"]["threshold"]
    refused = gateway.client.post(
        "/calibrate_ng",
        json={"role_id": "steel", "roi_id": "null scores", "mm_per_px": 0.2, "false_alarm_rate": 1e-30},
    )
    assert refused.status_code == 422
    assert gateway.client.get("/rois/steel/null scores").json()["calibration"]["threshold"] == kept


def test_a_fit_of_the_same_images_repairs_a_damaged_bank(gateway):
    images = [png(steel(seed)) for seed in (93, 94)]
    first = gateway.fit("repaired", images)
    (gateway.models_dir / "steel" / "repaired" / "versions" / "1" / "memory.npz").write_bytes(b"x")
    again = gateway.fit("repaired", images)
    assert again["version"] == 2
    assert again["checksum"] == first["checksum"]
    assert gateway.infer("repaired", png(steel(95)))["version"] == 2
    (gateway.models_dir / "steel" / "repaired" / "current").write_text("")
    damaged = gateway.infer("repaired", png(steel(95)))
    assert any("current" in warning for warning in damaged["warnings"])
    assert gateway.fit("repaired", images)["version"] == 3
    assert not any("current" in warning for warning in gateway.infer("repaired", png(steel(95)))["warnings"])
