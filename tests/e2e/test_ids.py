"""Ids of any script, in every endpoint and tool, in every normal form of Unicode."""

import json
import re
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.artifacts.test_artifacts import artifacts, done, refused
from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel
from tests.e2e.test_metrics import value
from tests.promises.keys import bearer, make_key

SIZE = (100, 80)
OK = [png(steel(seed, SIZE)) for seed in range(3)]
ROLE, ROI = "Línea 1", "Prüfstand 2"
PAIRS = [(ROLE, ROI), ("検査 第3", "部品-一"), ("خط ٣", "منطقة ٤"), ("हिन्दी", "भाग")]


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.fixture(scope="module")
def site(launch, small_model_repository, tmp_path_factory) -> Iterator[tuple[Gateway, Path, str]]:
    """A gateway with keys and a file of boxes, its folder for heatmaps, and the key of one line."""
    folder = tmp_path_factory.mktemp("ids")
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps({decomposed(f"{ROLE}/{ROI}"): [0, 64, 0, 64]}), encoding="utf-8")
    admin, all_rois = make_key("admin", "teach", "*")
    line, one_line = make_key("line", "inspect", decomposed(f"{ROLE}/{ROI}"), "検査 第3/*")
    with launch(
        "ids",
        model_repository=small_model_repository,
        heatmap_dir=folder / "heatmaps",
        roi_config=boxes,
        api_keys=json.dumps([all_rois, one_line]),
    ) as gateway:
        gateway.client.headers.update(bearer(admin))
        yield gateway, folder / "heatmaps", line


@pytest.fixture(scope="module", params=PAIRS, ids=["latin", "chinese", "arabic", "devanagari"])
def fitted(request, site) -> tuple[Gateway, str, str]:
    gateway = site[0]
    role, roi = request.param
    fitted = gateway.fit(decomposed(roi), OK[:2], role=decomposed(role))
    assert (fitted["role_id"], fitted["roi_id"]) == (role, roi)
    assert gateway.fit(roi, OK[2:], role=role)["n_ok_total"] == 3
    return gateway, role, roi


def url(role: str, roi: str, rest: str = "") -> str:
    return f"/rois/{quote(role, safe='')}/{quote(roi, safe='')}{rest}"


def test_every_form_of_an_id_reaches_the_same_roi(fitted) -> None:
    gateway, role, roi = fitted
    for named in ((role, roi), (decomposed(role), decomposed(roi))):
        calibrated = gateway.calibrate(named[1], role=named[0])
        assert (calibrated["role_id"], calibrated["roi_id"]) == (role, roi)
        answer = gateway.infer(named[1], OK[0], role=named[0])
        assert (answer["role_id"], answer["roi_id"], answer["version"]) == (role, roi, 2)
        assert answered(gateway.client.get(url(*named)))["n_ok_total"] == 3
        assert answered(gateway.client.get(url(*named, "/drift")))["roi_id"] == roi
        assert roi in gateway.client.get(url(*named, "/report")).text
        audit = answered(gateway.client.get(url(*named, "/audit")))["entries"]
        assert {(entry["role_id"], entry["roi_id"]) for entry in audit} == {(role, roi)}
        assert "fit" in {entry["action"] for entry in audit}
    item = {"role_id": decomposed(role), "roi_id": roi, "mm_per_px": 0.2}
    batch = gateway.client.post("/infer_batch", data={"items": json.dumps([item])}, files=[("images", OK[0])])
    assert answered(batch)["results"][0]["role_id"] == role
    listed = [(each["role_id"], each["roi_id"]) for each in answered(gateway.client.get("/rois"))["rois"]]
    assert listed.count((role, roi)) == 1


def test_a_rollback_and_metrics_name_the_roi_as_it_is(fitted) -> None:
    gateway, role, roi = fitted
    rolled_back = answered(gateway.client.post(url(role, decomposed(roi), "/rollback"), json={"version": 1}))
    assert (rolled_back["role_id"], rolled_back["version"]) == (role, 1)
    answered(gateway.client.post(url(role, roi, "/rollback"), json={"version": 2}))
    before = value(gateway.client, "gateway_verdicts_total", role_id=role, roi_id=roi, verdict="ok")
    gateway.calibrate(roi, role=role)
    assert gateway.infer(roi, OK[0], role=role)["verdict"] == "ok"
    assert value(gateway.client, "gateway_verdicts_total", role_id=role, roi_id=roi, verdict="ok") == before + 1
    assert value(gateway.client, "gateway_bank_ok_images", role_id=role, roi_id=roi) == 3


def test_an_export_is_imported_under_its_own_and_under_another_name(fitted, tmp_path) -> None:
    gateway, role, roi = fitted
    tar = tmp_path / "roi.tar"
    assert f"{role}/{roi} version 2" in done(artifacts(gateway.models_dir, "export", decomposed(f"{role}/{roi}"), tar))
    assert f"{role}/{roi} version 2" in done(artifacts(tmp_path / "models", "import", tar))
    renamed = decomposed(f"Überholt/{roi}")
    done(artifacts(tmp_path / "models", "import", tar, "--as", renamed))
    assert {f"{role}/{roi}", f"Überholt/{roi}"} == {
        f"{each['role_id']}/{each['roi_id']}"
        for each in json.loads(done(artifacts(tmp_path / "models", "list", "--json")))["rois"]
    }
    done(artifacts(tmp_path / "models", "verify"))
    refused(artifacts(tmp_path / "models", "import", tar, "--as", f"überholt/{roi}"), "differs only in case", "Use the")
    names = {path.name for path in (tmp_path / "models").rglob("*")}
    assert all(name.isascii() for name in names)


def test_a_key_and_a_box_for_an_roi_in_another_normal_form_apply_to_it(site) -> None:
    gateway, _, line = site
    fitted = gateway.fit(ROI, OK[:2], role=ROLE)
    assert fitted["spatial_weights"]["kind"] == "manual"
    gateway.fit("部品", OK[:2], role="検査 第3")
    gateway.fit("other", OK[:2], role=ROLE)

    def status(role: str, roi: str) -> int:
        return gateway.client.get(url(role, roi), headers=bearer(line)).status_code

    assert [status(ROLE, ROI), status(decomposed(ROLE), decomposed(ROI)), status("検査 第3", "部品")] == [200] * 3
    assert [status(ROLE, "other"), status("検査", "部品"), status("linea 1", ROI)] == [403] * 3
    seen = answered(gateway.client.get("/rois", headers=bearer(line)))["rois"]
    assert {each["role_id"] for each in seen} == {ROLE, "検査 第3"}
    assert "other" not in {each["roi_id"] for each in seen}


def test_a_heatmap_file_is_where_the_answer_says(site) -> None:
    gateway, heatmaps, _ = site
    gateway.fit(ROI, OK[:2], role=ROLE)
    path = gateway.infer(ROI, OK[0], role=ROLE, heatmap="path")["heatmap_path"]
    assert path.startswith("L%C3%ADnea 1/Pr%C3%BCfstand 2/")
    assert (heatmaps / path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("role", "roi", "says"),
    [
        ("línea 1", ROI, "role_id: 'línea 1' differs only in case from the existing role 'Línea 1'"),
        (ROLE, "PRÜFSTAND 2", "roi_id: 'PRÜFSTAND 2' differs only in case from the existing ROI 'Línea 1/Prüfstand 2'"),
        (ROLE, "nul.png", "roi_id: Windows reserves the name 'nul.png'"),
        ("Com1", "a", "role_id: Windows reserves the name 'Com1'"),
        (ROLE, "検" * 28, "roi_id: .* is too long: its folder name has 252 bytes; the limit is 249"),
        (ROLE, "a\u200db", "roi_id: .* is not a valid id"),
    ],
)
def test_a_name_that_cannot_be_new_is_refused_and_leaves_nothing(site, role: str, roi: str, says: str) -> None:
    gateway = site[0]
    gateway.fit(ROI, OK[:2], role=ROLE)
    before = sorted(path for path in gateway.models_dir.rglob("*"))
    response = gateway.post("/fit_ok", roi, OK[:1], "images", role)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert error["hint"].startswith("Use")
    assert re.match(says, error["message"]), error["message"]
    assert sorted(path for path in gateway.models_dir.rglob("*")) == before


def test_of_two_first_fits_that_differ_only_in_case_one_wins(site) -> None:
    gateway = site[0]
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(gateway.post, "/fit_ok", "a", OK[:1], "images", role) for role in ("Part", "part") * 2]
    roles = {each["role_id"] for each in answered(gateway.client.get("/rois"))["rois"]} & {"Part", "part"}
    assert len(roles) == 1
    (winner,) = roles
    for role, response in zip(("Part", "part") * 2, sent, strict=True):
        assert response.result().status_code == (200 if role == winner else 422), response.result().text
