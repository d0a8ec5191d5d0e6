"""`scripts/artifacts import-gui` takes over what the former server of the desktop GUI kept."""

import base64
import json
from pathlib import Path

import pytest

from tests.artifacts.test_artifacts import artifacts, done, refused
from tests.e2e.gateway_process import answered as core_answered
from tests.e2e.gui_client import MM, SHAPE, Gui, answered, part, spoiled

OK = [part(seed) for seed in range(700, 711)]
NG = [spoiled(720)]


def folder_of(role: str, roi: str, *, padded: bool = False) -> str:
    both = [base64.urlsafe_b64encode(text.encode()).decode() for text in (role, roi)]
    return "__".join(both if padded else (text.rstrip("=") for text in both))


def kept(root: Path, recipe: str, name: str, label: str, images: list[bytes], **meta: object) -> Path:
    """Write a class of a data set as that server did; return its folder."""
    folder = root / "recipes" / recipe / "datasets" / name / label
    folder.mkdir(parents=True)
    for i, image in enumerate(images):
        (folder / f"{i:03}.png").write_bytes(image)
        if meta:
            (folder / f"{i:03}.json").write_text(
                json.dumps({**meta, "filename": f"{i:03}.png", "created_at_utc": "2025"})
            )
    return folder


@pytest.fixture(scope="module")
def moved(gateway, small_model_repository, tmp_path_factory):
    """The folder of the former server, and what the import into the folder of a running gateway said."""
    root = tmp_path_factory.mktemp("former")
    name = folder_of("Inspection", "moved")
    bad = kept(root, "Moved A", name, "ok", OK, mm_per_px=MM, shape_json=SHAPE)
    (bad / "010.json").unlink()  # an image may have no metadata
    (bad / "100.png").write_bytes(OK[0][:-60])
    (bad / "101.png").write_bytes(part(730))
    (bad / "101.json").write_text("{")
    (bad / "102.png").write_bytes(part(731))
    (bad / "102.png.json").write_text(json.dumps({"mm_per_px": 2 * MM}))
    (bad / "103.png").symlink_to(bad / "000.png")
    (bad / "Thumbs.db").write_bytes(b"x")
    kept(root, "Moved A", name, "ng", [*NG, OK[0]], mm_per_px=MM, shape_json=json.loads(SHAPE))
    kept(root, "Moved A", folder_of("Master1", "Prüfstelle", padded=True), "ok", OK[:3], mm_per_px=MM)
    kept(root, "Moved B", name, "ok", OK)
    kept(root, "last", name, "ok", OK)
    kept(root, "Moved A", "no_base64", "ok", OK)
    return root, artifacts(gateway.models_dir, "import-gui", root, model_repository=small_model_repository)


def test_a_data_set_is_stored_fitted_and_calibrated(gateway, moved):
    _, run = moved
    gui = Gui(gateway.port, "Moved A", roi="moved")
    assert (len(gui.files("ok")), len(gui.files("ng"))) == (len(OK), len(NG))
    manifest = answered(gui.ask("GET", "manifest", **gui.names))
    assert (manifest["memory"], manifest["calib"]["n_ok"], manifest["calib"]["n_ng"]) == (True, len(OK), len(NG))
    assert "Moved A/Inspection/moved: 11 OK and 1 NG images, version 1, threshold " in run.stdout
    for i, name in enumerate(gui.files("ok")):
        query = {**gui.names, "label": "ok", "filename": name}
        assert gui.ask("GET", "datasets/file", **query).content == OK[i]
        meta = answered(gui.ask("GET", "datasets/meta", **query))
        assert (meta["filename"], meta.get("mm_per_px")) == (name, None if i == 10 else MM)
        assert i == 10 or meta["created_at_utc"] == "2025"
    assert answered(gui.infer(part(740)))["decision"] == "ok"
    assert answered(gui.infer(NG[0]))["decision"] == "ng"
    assert gui.infer(part(740), mm_per_px=2 * MM).status == 409
    trail = core_answered(gateway.client.get("/rois/Inspection/moved/audit", params={"recipe_id": "Moved A"}))
    assert {entry["actor"].partition(",")[0] for entry in trail["entries"]} == {"scripts/artifacts"}


def test_what_is_skipped_is_said_with_its_reason(moved):
    root, run = moved
    assert run.returncode == 1
    said = run.stderr.splitlines()
    name = f"skipped: recipes/Moved A/datasets/{folder_of('Inspection', 'moved')}: "
    master = f"skipped: recipes/Moved A/datasets/{folder_of('Master1', 'Prüfstelle', padded=True)}: "
    for start, reason in (
        (f"{name}ok/100.png: ", "damaged"),
        (f"{name}ok/101.png: ", "is not JSON"),
        (f"{name}ok/102.png: ", "fixed at 0.5"),
        (f"{name}ok/103.png: ", "not an image"),
        (f"{name}ok/Thumbs.db: ", "not an image"),
        (f"{name}ng/001.png: ", "is stored with the label ok"),
        (master, "3 OK images; a fit needs at least 10"),
        ("skipped: recipes/Moved B/", "--mm-per-px"),
        ("skipped: recipes/last/", "reserved"),
        ("skipped: recipes/Moved A/datasets/no_base64: ", "0 readings"),
    ):
        found = [line for line in said if line.startswith(start)]
        assert len(found) == 1, start
        assert reason in found[0]
    assert len([line for line in said if line.startswith("skipped: ")]) == 10
    assert "Moved A/Master1/Prüfstelle: 3 OK and 0 NG images, not fitted" in run.stdout
    assert (root / "recipes" / "Moved A" / "datasets" / "no_base64").is_dir(), "the former folder stays as it is"


def test_a_second_run_adds_nothing_and_goes_on_where_the_first_one_ended(gateway, moved, small_model_repository):
    root, first = moved
    options = {"model_repository": small_model_repository}
    again = artifacts(gateway.models_dir, "import-gui", root, "--mm-per-px", "0.25", **options)
    line = next(each for each in first.stdout.splitlines() if each.startswith("Moved A/Inspection/"))
    assert line in again.stdout
    assert "Moved B/Inspection/moved: 11 OK and 0 NG images, version 1" in again.stdout
    assert "--mm-per-px" not in again.stderr


def test_an_id_that_ends_like_the_separator_is_read_as_it_was_meant(tmp_path, small_model_repository):
    name = folder_of("aÿ", "k__x")
    assert name.startswith("YcO___")
    kept(tmp_path, "A", name, "ok", OK[:1], mm_per_px=MM)
    run = artifacts(tmp_path / "models", "import-gui", tmp_path, model_repository=small_model_repository)
    assert "A/aÿ/k__x: 1 OK and 0 NG images" in run.stdout


def test_a_folder_without_data_sets_is_refused(tmp_path):
    refused(artifacts(tmp_path / "models", "import-gui", tmp_path), "has no folder recipes/RECIPE/datasets")
    done(artifacts(tmp_path, "list"))
