"""Recipes: two with the same role and ROI share nothing, in any endpoint or tool."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.artifacts.test_artifacts import artifacts, done
from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel
from tests.e2e.test_metrics import value
from tests.promises.keys import bearer, make_key

SIZE = (100, 80)
OK = [png(steel(seed, SIZE)) for seed in range(6)]
WINTER = {"recipe_id": "winter"}
ROI = "/rois/steel/pad"
Q = {"params": WINTER}


class Site:
    """A gateway where the ROI `steel/pad` has three images by default, and two others in the recipe `winter`."""

    def __init__(self, gateway: Gateway, heatmaps: Path, line: str) -> None:
        self.gateway, self.client = gateway, gateway.client
        self.heatmaps, self.line = heatmaps, line
        gateway.fit("pad", OK[:3])
        gateway.fit("pad", OK[3:5], **WINTER)

    def get(self, path: str = "", **more: Any) -> httpx.Response:
        return self.client.get(f"{ROI}{path}", **more)

    def state(self, recipe_id: str) -> dict[str, Any]:
        """What the endpoints tell of the ROI, but what inspections change."""
        query = {"params": {"recipe_id": recipe_id}}
        roi = answered(self.get(**query))
        return {"roi": roi, "audit": answered(self.get("/audit", **query))["entries"]}


@pytest.fixture(scope="module")
def site(launch, small_model_repository, tmp_path_factory) -> Iterator[Site]:
    heatmaps = tmp_path_factory.mktemp("recipes") / "heatmaps"
    admin, everything = make_key("admin", "teach", "*")
    line, by_default = make_key("line", "inspect", "steel/*")
    with launch(
        "recipes",
        model_repository=small_model_repository,
        heatmap_dir=heatmaps,
        api_keys=json.dumps([everything, by_default]),
    ) as gateway:
        gateway.client.headers.update(bearer(admin))
        yield Site(gateway, heatmaps, line)


def test_a_fit_and_a_calibration_of_one_recipe_leave_the_other_as_it_was(site) -> None:
    before = site.state("default")
    fitted = site.gateway.fit("pad", OK[5:], **WINTER)
    assert (fitted["recipe_id"], fitted["n_ok_total"]) == ("winter", 3)
    calibrated = site.gateway.calibrate("pad", ok_scores=[0.123], **WINTER)
    assert calibrated["recipe_id"] == "winter"
    assert site.state("default") == before
    own = site.state("winter")
    assert own["roi"]["version"] == 2
    assert {entry["recipe_id"] for entry in own["audit"]} == {"winter"}
    assert {entry["recipe_id"] for entry in before["audit"]} == {"default"}
    assert [entry["action"] for entry in own["audit"]] == ["calibrate", "fit", "fit"]


def test_an_inspection_is_answered_from_its_recipe(site) -> None:
    scores = {}
    for recipe_id, image in (("default", OK[0]), ("winter", OK[3])):
        own = site.gateway.infer("pad", image, recipe_id=recipe_id)
        assert own["recipe_id"] == recipe_id
        scores[recipe_id] = own["score"]
        assert "learned" in " ".join(own["warnings"])
    other = site.gateway.infer("pad", OK[0], **WINTER)
    assert other["score"] != scores["default"]
    assert "learned" not in " ".join(other["warnings"])
    assert site.gateway.infer("pad", OK[0])["recipe_id"] == "default"


def test_metrics_drift_and_report_tell_recipes_apart(site) -> None:
    labels = {"role_id": "steel", "roi_id": "pad"}

    def counted(recipe: str) -> float:
        verdicts = ("ok", "ng", "uncalibrated")
        named = {"recipe": recipe, **labels}
        return sum(value(site.client, "gateway_verdicts_total", verdict=each, **named) for each in verdicts)

    def seen(recipe_id: str) -> int:
        return answered(site.get("/drift", params={"recipe_id": recipe_id}))["n"]

    before = counted("default"), counted("winter"), seen("default"), seen("winter")
    site.gateway.infer("pad", OK[1], **WINTER)
    after = counted("default"), counted("winter"), seen("default"), seen("winter")
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 1, 0, 1]
    assert value(site.client, "gateway_bank_ok_images", **labels) == 3
    report = answered(site.get("/report", params={"format": "json", **WINTER}))
    assert (report["recipe_id"], report["roi"]["recipe_id"]) == ("winter", "winter")
    assert "<title>winter/steel/pad" in site.get("/report", **Q).text
    assert "<title>steel/pad" in site.get("/report").text


def test_an_roi_that_a_recipe_does_not_have_is_404_and_never_answered_from_another(site) -> None:
    missing = {"recipe_id": "summer"}
    replies = [
        site.gateway.post("/infer", "pad", OK[:1], "image", fields=missing),
        site.client.post("/calibrate_ng", json={"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2, **missing}),
        *(site.get(path, params=missing) for path in ("", "/drift", "/report", "/audit")),
        site.client.delete(ROI, params=missing),
        site.client.post(f"{ROI}/rollback", params=missing, json={"version": 1}),
        site.get(headers={"X-Recipe-Id": "summer"}),
    ]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_roi"), reply.text
        assert "summer/steel/pad" in reply.json()["error"]["message"]
    item = {"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2}
    items = [item, {**item, **missing}, {**item, **WINTER}]
    batch = site.client.post(
        "/infer_batch", data={"items": json.dumps(items)}, files=[("images", image) for image in OK[:3]]
    )
    default, unknown, winter = answered(batch)["results"]
    assert (default["recipe_id"], winter["recipe_id"]) == ("default", "winter")
    assert unknown["error"]["code"] == "unknown_roi"
    assert not list(site.gateway.models_dir.rglob("summer"))


def test_field_and_query_win_over_the_header_and_a_field_that_differs_from_the_query_is_refused(site) -> None:
    def recipe(fields: dict[str, str], **more: Any) -> Any:
        form = {"role_id": "steel", "roi_id": "pad", "mm_per_px": "0.2", "heatmap": "none", **fields}
        reply = site.client.post("/infer", data=form, files=[("image", OK[0])], **more)
        return reply.json()["recipe_id"] if reply.status_code == 200 else reply.json()["error"]

    header = {"headers": {"X-Recipe-Id": "winter"}}
    assert recipe({}) == "default"
    assert recipe({}, **header) == "winter"
    assert recipe({}, **Q) == "winter"
    assert recipe({"recipe_id": "default"}, **header) == "default"
    assert recipe({"recipe_id": ""}, **header) == "winter"
    assert recipe({"recipe_id": "null"}) == "default"
    assert recipe({"recipe_id": "winter"}, **Q) == "winter"
    assert "'default' in the body and 'winter' in the query" in recipe({"recipe_id": "default"}, **Q)["message"]
    assert answered(site.get(params={"recipe_id": "default"}, **header))["recipe_id"] == "default"
    assert answered(site.get(**header))["recipe_id"] == "winter"
    body = {"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2, "ok_scores": [0.3]}
    assert answered(site.client.post("/calibrate_ng", json={**body, "recipe_id": None}, **header))["recipe_id"] == (
        "winter"
    )
    assert answered(site.client.post("/calibrate_ng", json={**body, **WINTER}))["recipe_id"] == "winter"


@pytest.mark.parametrize("name", ["../default", ".hidden", "a/b", "x" * 65, "winter ", "m²"])
def test_an_invalid_recipe_is_422(site, name) -> None:
    body = {"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2, "recipe_id": name}
    replies = [
        site.gateway.post("/fit_ok", "pad", OK[:1], "images", fields={"recipe_id": name}),
        site.gateway.post("/infer", "pad", OK[:1], "image", fields={"recipe_id": name}),
        site.client.post("/calibrate_ng", json=body),
        site.get(params={"recipe_id": name}),
        site.client.get("/rois", params={"recipe_id": name}),
    ]
    for reply in replies:
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request"), reply.text
        assert "recipe_id" in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", ["Winter", "DEFAULT", "nul"])
def test_a_new_recipe_differs_in_more_than_case_and_is_no_device(site, name) -> None:
    reply = site.gateway.post("/fit_ok", "pad", OK[:1], "images", fields={"recipe_id": name})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"].startswith("recipe_id: ")


def test_a_recipe_of_any_script_is_named_in_the_header_by_utf_8_or_percent_encoded(site) -> None:
    fitted = site.gateway.fit("pad", OK[:2], recipe_id="Fru\u0308hling")
    assert fitted["recipe_id"] == "Frühling"
    for sent in ("Frühling".encode(), b"Fr%C3%BChling", "Frühling".encode("latin-1")):
        assert answered(site.get(headers=[(b"X-Recipe-Id", sent)]))["recipe_id"] == "Frühling"
    assert (site.gateway.models_dir / ".recipes" / "Fr%C3%BChling" / "steel" / "pad" / "current").is_file()
    twice = site.get(headers=[("X-Recipe-Id", "winter"), ("X-Recipe-Id", "default")])
    assert (twice.status_code, twice.json()["error"]["code"]) == (422, "invalid_request")


def test_the_list_names_the_recipe_of_each_roi_and_can_be_restricted_to_one(site) -> None:
    def listed(**more: Any) -> set[tuple[str, str]]:
        return {(each["recipe_id"], each["roi_id"]) for each in answered(site.client.get("/rois", **more))["rois"]}

    assert listed() >= {("default", "pad"), ("winter", "pad")}
    assert listed(**Q) == {("winter", "pad")} == listed(headers={"X-Recipe-Id": "winter"})
    assert listed(params={"recipe_id": "summer"}) == set()


def test_a_key_for_the_default_recipe_reaches_no_other(site) -> None:
    line = bearer(site.line)
    assert site.get(headers=line).status_code == 200
    assert site.get(headers=line, **Q).status_code == 403
    assert site.get(headers={**line, "X-Recipe-Id": "winter"}).status_code == 403
    seen = answered(site.client.get("/rois", headers=line))["rois"]
    assert {each["recipe_id"] for each in seen} == {"default"}


def test_stored_images_belong_to_one_recipe(site) -> None:
    files = [("images", image) for image in OK[:2]]
    stored = answered(site.client.post(f"{ROI}/images", data={"label": "ok"}, files=files, params={"recipe_id": "box"}))
    assert stored["recipe_id"] == "box"
    assert answered(site.get("/images", params={"recipe_id": "box", "label": "ok"}))["total"] == 2
    assert answered(site.get("/images", **Q))["total"] == answered(site.get(**Q))["n_ok_total"]


def test_a_heatmap_file_is_in_the_folder_of_its_recipe(site) -> None:
    path = site.gateway.infer("pad", OK[0], heatmap="path", **WINTER)["heatmap_path"]
    assert path.startswith(".recipes/winter/steel/pad/")
    assert (site.heatmaps / path).read_bytes().startswith(b"\x89PNG")


def test_an_export_of_a_recipe_is_imported_into_the_same_or_into_another(site, tmp_path) -> None:
    tar, models = tmp_path / "winter.tar", tmp_path / "models"
    assert "winter/steel/pad version" in done(artifacts(site.gateway.models_dir, "export", "winter/steel/pad", tar))
    assert "winter/steel/pad version" in done(artifacts(models, "import", tar))
    done(artifacts(models, "import", tar, "--as", "autumn/steel/pad"))
    listed = json.loads(done(artifacts(models, "list", "--json")))["rois"]
    assert [(each["recipe_id"], each["roi_id"]) for each in listed] == [("autumn", "pad"), ("winter", "pad")]
    assert "autumn/steel/pad" in done(artifacts(models, "list"))
    done(artifacts(models, "verify"))
    assert not (models / "steel").exists()


def test_deleting_and_rolling_back_an_roi_of_one_recipe_leaves_the_other(site) -> None:
    site.gateway.fit("gone", OK[:2])
    site.gateway.fit("gone", OK[2:3])
    site.gateway.fit("gone", OK[:2], **WINTER)
    assert answered(site.client.post("/rois/steel/gone/rollback", json={"version": 1}))["recipe_id"] == "default"
    assert site.client.post("/rois/steel/gone/rollback", json={"version": 2}, **Q).status_code == 409
    deleted = answered(site.client.delete("/rois/steel/gone", **Q))
    assert deleted == {"role_id": "steel", "roi_id": "gone", "recipe_id": "winter", "deleted": True}
    assert site.client.get("/rois/steel/gone", **Q).status_code == 404
    assert answered(site.client.get("/rois/steel/gone"))["version"] == 1
