"""`scripts/artifacts` as somebody uses it: the command itself, on folders that real gateways serve."""

import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from artifacts.__main__ import main
from artifacts.moving import export_roi, import_roi
from gateway.inspection.version_cache import load_version
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from tests.e2e.conftest import launch, pytest_runtest_makereport
from tests.e2e.gateway_process import PROJECT, answered, environment
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.export.tiny_model import write_version
from tests.fork_server import fork
from tests.gateway import fit_bench

__all__ = ["launch", "pytest_runtest_makereport"]

SIZE = (120, 100)
OK = [png(steel(seed, SIZE)) for seed in range(1, 6)]
UNSEEN = png(with_blob(steel(900, SIZE), (60, 50), 20)[0])
SHAPE = json.dumps({"kind": "circle", "r": 45})
KEY = RoiKey("steel", "kept")
IMAGES = "/rois/steel/kept/images"


@dataclass(frozen=True, slots=True)
class Site:
    """A site whose gateway was stopped: its folder, its exports, and what it answered."""

    models_dir: Path
    tar: Path
    folder: Path
    answer: dict[str, Any]
    images: dict[str, Any]
    """The list of its stored images."""
    refitted: str
    """Checksum of the bank that one more image made."""


def artifacts(models_dir: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command in this process, which spares its start."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr("os.environ", environment({"models_dir": models_dir, **settings}))
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            status = int(usage.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def command(models_dir: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "artifacts", *map(str, arguments)],
        cwd=PROJECT,
        env=environment({"models_dir": models_dir, **settings}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def done(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def refused(run: subprocess.CompletedProcess[str], *says: str) -> None:
    assert run.returncode == 1, run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: ")  # after warnings, such as that no model is served here
    for words in says:
        assert words in run.stderr


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder but locks, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if ".locks" not in path.parts
    }


@pytest.fixture(scope="module")
def site(launch, small_model_repository, tmp_path_factory) -> Site:
    """Exported while its gateway serves."""
    where = tmp_path_factory.mktemp("exports")
    with launch("site", model_repository=small_model_repository) as gateway:
        gateway.fit("kept", OK[:2], spatial_weights="variance", shape=SHAPE)
        gateway.fit("kept", OK[2:4], spatial_weights="variance")
        gateway.calibrate("kept", area_mm2_thr=2.5, pixel_threshold="ok_pixels")
        answer = gateway.infer("kept", UNSEEN)
        for label, image, meta in (("ok", OK[0], '{"n": 1.50}'), ("ng", UNSEEN, "{}"), ("ok", OK[4], "")):
            files = [("images", ("x.png", image)), ("metas", (None, meta))]
            answered(gateway.client.post(IMAGES, data={"label": label}, files=files))
        gateway.client.delete(f"{IMAGES}/{answered(gateway.client.get(IMAGES))['images'][-1]['id']}")
        images = answered(gateway.client.get(IMAGES))
        tar, folder = where / "kept.tar", where / "kept"
        done(command(gateway.models_dir, "export", "steel/kept", tar))
        done(command(gateway.models_dir, "export", "steel/kept", folder))
        models_dir = where / "models"
        shutil.copytree(gateway.models_dir, models_dir)
        refitted = gateway.fit("kept", OK[4:], spatial_weights="variance")["checksum"]
    return Site(models_dir, tar, folder, answer, images, refitted)


@pytest.mark.parametrize("source", ["tar", "folder"])
def test_an_roi_scores_the_same_at_another_site_to_the_bit(site, launch, small_model_repository, source):
    """Imported while the other gateway serves; a fit there makes of it what a fit here would have."""
    with launch(f"other site, {source}", model_repository=small_model_repository) as other:
        assert other.post("/infer", "kept", [UNSEEN], "image").status_code == 404
        done(command(other.models_dir, "import", getattr(site, source)))
        assert other.infer("kept", UNSEEN) == site.answer
        assert answered(other.client.get(IMAGES)) == site.images
        assert site.images["n_ng"] == 1
        (told,) = [image["id"] for image in site.images["images"] if image["has_metadata"] and image["label"] == "ok"]
        assert other.client.get(f"{IMAGES}/{told}/metadata").text == '{"n": 1.50}'
        assert other.client.get(f"{IMAGES}/{told}").content == OK[0]
        assert other.fit("kept", OK[4:], spatial_weights="variance")["checksum"] == site.refitted
        assert done(command(other.models_dir, "verify")) == ""


def test_imported_over_another_it_is_the_next_version_and_can_be_rolled_back(site, launch, small_model_repository):
    with launch("rolled back", model_repository=small_model_repository) as other:
        for seed in (71, 72, 73):
            other.fit("mine", [png(steel(seed, SIZE))])
        other.calibrate("mine", ok_scores=[0.2, 0.3])
        before = other.infer("mine", UNSEEN)
        done(command(other.models_dir, "import", site.tar, "--as", "steel/mine"))
        after = other.infer("mine", UNSEEN)
        assert (after["score"], after["threshold"]) == (site.answer["score"], site.answer["threshold"])
        assert (before["version"], after["version"], after["calibration_stale"]) == (3, 4, False)
        assert other.client.post("/rois/steel/mine/rollback", json={"version": 3}).status_code == 200
        assert other.infer("mine", UNSEEN) == before


def test_an_older_version_is_exported_by_its_number(site, tmp_path):
    done(artifacts(site.models_dir, "export", "steel/kept", tmp_path / "first.tar", "--version", 1))
    done(artifacts(tmp_path / "models", "import", tmp_path / "first.tar"))
    manifest, _ = ArtifactStore(tmp_path / "models", keep_versions=5).served_manifest(KEY)
    assert (manifest.version, len(manifest.images)) == (1, 2)
    refused(artifacts(site.models_dir, "export", "steel/kept", tmp_path / "x.tar", "--version", 7), "version 7", "1, 2")


def test_an_export_never_takes_the_place_of_a_file(site, tmp_path):
    (tmp_path / "x.tar").write_bytes(b"mine")
    refused(artifacts(site.models_dir, "export", "steel/kept", tmp_path / "x.tar"), "exists")
    assert tree(tmp_path) == {"x.tar": b"mine"}


def test_another_model_is_told(site, tmp_path, model_repository):
    run = artifacts(tmp_path / "models", "import", site.tar, model_repository=model_repository)
    done(run)
    assert "was fitted with model" in run.stderr


def test_who_imported_what_stands_in_the_audit_trail(site, tmp_path):
    done(artifacts(tmp_path / "models", "import", site.tar))
    (change,) = ArtifactStore(tmp_path / "models", keep_versions=5).audit.read(KEY, 10)
    assert (change["action"], change["outcome"], change["version_before"], change["version_after"]) == (
        "import",
        "done",
        None,
        2,
    )
    assert "scripts/artifacts" in change["actor"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_one_changed_byte_of_any_file_is_refused_and_nothing_is_written(site, tmp_path):
    for path in sorted(path for path in site.folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        models_dir = tmp_path / path.name
        for place in (0, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 4
            try:
                path.write_bytes(changed)
                refused(artifacts(models_dir, "import", site.folder), path.name)
            finally:
                path.write_bytes(whole)
        assert tree(models_dir) == {}


def _plain(name: str, size: int = 3) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


OTHER_OK = f"ok/{'a' * 64}.png"


@pytest.mark.parametrize(
    "member",
    [
        _plain("../canary"),
        _plain("/tmp/canary-of-artifacts"),
        _plain("ok/../../canary"),
        _plain(f"ok/{'a' * 64}.png/x"),
        _plain("ok/CON.png"),
        _plain("ok\\..\\canary"),
        _plain("ok/" + "a" * 10_000),
        _plain("manifest.json"),
        _plain("versions/1/manifest.json"),
        _plain("memory.pkl"),
        _plain("manifest.json\n"),
        _plain(OTHER_OK),
        _special(OTHER_OK, tarfile.SYMTYPE, "/etc/passwd"),
        _special(OTHER_OK, tarfile.LNKTYPE, "manifest.json"),
        _special(OTHER_OK, tarfile.CHRTYPE),
        _special(OTHER_OK, tarfile.BLKTYPE),
        _special(OTHER_OK, tarfile.FIFOTYPE),
        _special("ok", tarfile.DIRTYPE),
    ],
    ids=lambda member: f"{member.name[:24]!r} {member.type.decode()}",
)
def test_a_member_that_no_export_writes_is_refused_and_nothing_is_written_anywhere(site, tmp_path, member):
    bad = tmp_path / "outer" / "bad.tar"
    bad.parent.mkdir()
    shutil.copy(site.tar, bad)
    with tarfile.open(bad, "a:") as tar:
        tar.addfile(member, io.BytesIO(b"bad") if member.isreg() else None)
    (tmp_path / "canary").write_bytes(b"alive")
    before = tree(tmp_path)
    refused(artifacts(tmp_path / "outer" / "models", "import", bad))
    after = tree(tmp_path)
    after.pop("outer/models", None)
    assert after == before
    assert not Path("/tmp/canary-of-artifacts").exists()


def test_a_compressed_tar_is_refused_before_it_is_unpacked(site, tmp_path):
    with tarfile.open(tmp_path / "bomb.tar", "w:gz") as tar:
        tar.add(site.folder, ".")
    refused(artifacts(tmp_path / "models", "import", tmp_path / "bomb.tar"), "cannot be read as a tar")


def test_a_tar_cut_anywhere_is_refused(site, tmp_path):
    whole = site.tar.read_bytes()
    for length in range(0, len(whole) - 20 * 512, len(whole) // 9):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        refused(artifacts(tmp_path / "models", "import", tmp_path / "cut.tar"))
    assert tree(tmp_path / "models") == {}


def test_more_than_the_settings_allow_is_refused(site, tmp_path):
    refused(artifacts(tmp_path, "import", site.tar, max_image_bytes=1000), "at most 1000")
    refused(artifacts(tmp_path, "import", site.tar, max_roi_images=3), "4 OK images; at most 3")
    refused(artifacts(tmp_path, "import", site.tar, bank_cache_bytes=1000), "at most 1000")


def test_a_link_in_a_folder_is_refused(site, tmp_path):
    shutil.copytree(site.folder, tmp_path / "folder")
    (tmp_path / "folder" / "manifest.json").unlink()
    (tmp_path / "folder" / "manifest.json").symlink_to(site.folder / "manifest.json")
    refused(artifacts(tmp_path / "models", "import", tmp_path / "folder"), "not a plain file")


def _rewritten(site: Site, target: Path, change: Callable[[dict[str, Any]], None], name: str = "contents.json") -> None:
    """The folder with one sealed JSON file changed and everything that vouches for it written again."""
    from gateway.store.checksummed import sealed, sha256_of

    shutil.copytree(site.folder, target)
    for each in (name, "contents.json"):
        content = json.loads((target / each).read_bytes())
        content.pop("sha256")
        if each == name:
            change(content)
        if each == "contents.json" and name != each:
            content["files"][name] = sha256_of((target / name).read_bytes())
        (target / each).write_bytes(sealed(json.dumps(content)))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("contents.json", lambda content: content.update(format=99), "format 99"),
        ("manifest.json", lambda content: content.update(format=99), "format 99"),
        ("manifest.json", lambda content: content.update(role_id="../../etc"), "is not a valid id"),
        ("manifest.json", lambda content: content.update(dim=5), "not the one that the manifest describes"),
        ("manifest.json", lambda content: content["images"].pop(), "not the one"),
        ("manifest.json", lambda content: content["images"][0].update(sha256="../" * 21 + "x"), "manifest.json"),
        ("manifest.json", lambda content: content["images"][0].update(shape="{}"), "not a whole version"),
        ("manifest.json", lambda content: content["images"][0].update(width=7), "the manifest says"),
        ("manifest.json", lambda content: content["files"].update({"../x": "0" * 64}), "manifest.json"),
        ("manifest.json", lambda content: content["files"].pop("memory.npz"), "not a whole version"),
    ],
)
def test_an_archive_that_vouches_for_nonsense_is_refused(site, tmp_path, name, change, says):
    """Checksums prove no honesty: somebody may have written them anew."""
    _rewritten(site, tmp_path / "folder", change, name)
    refused(artifacts(tmp_path / "models", "import", tmp_path / "folder"), says)
    assert [path for path in tree(tmp_path / "models") if not path.startswith(".")] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record.update(id="a" * 64), "is the record of another image"),
        (lambda record: record.update(width=7), "is not what its record says"),
        (lambda record: record.update(bit_depth="x"), ".json"),
        (lambda record: record.update(metadata="{"), ".json"),
        (lambda record: record.update(shape="{}"), ".json"),
        (lambda record: record.update(extension="../x"), ".json"),
        (lambda record: record.update(label="deleted"), "has no record"),
        (lambda record: record.update(file_sha256="a" * 64), "is not the image that its record names"),
    ],
)
def test_a_stored_image_that_vouches_for_nonsense_is_refused(site, tmp_path, change, says):
    name = min((site.folder / "images").glob("*.png")).with_suffix(".json")
    _rewritten(site, tmp_path / "folder", change, name.relative_to(site.folder).as_posix())
    refused(artifacts(tmp_path / "models", "import", tmp_path / "folder"), says)
    assert [path for path in tree(tmp_path / "models") if not path.startswith(".")] == []


def test_the_labels_of_this_site_stay_when_an_archive_has_others(site, tmp_path):
    models_dir = tmp_path / "models"
    done(artifacts(models_dir, "import", site.tar))
    images = ArtifactStore(models_dir, keep_versions=5).images(KEY)
    first = images.records().stored[0]
    images.replace_record(first.model_copy(update={"label": "ng"}))
    run = artifacts(models_dir, "import", site.tar)
    done(run)
    assert "1 stored images have another label here, which stays: x.png is the first" in run.stderr
    assert [record.label for record in images.records().stored] == ["ng", "ng"]


# --- cut off ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True], ids=["new", "over another"])
def test_an_import_killed_at_any_step_leaves_the_roi_as_it_was_or_wholly_imported(site, tmp_path, exists, pytestconfig):
    models_dir = tmp_path / "models"
    if exists:
        done(artifacts(site.models_dir, "export", "steel/kept", tmp_path / "first.tar", "--version", 1))
        done(artifacts(models_dir, "import", tmp_path / "first.tar"))
    store = ArtifactStore(models_dir, keep_versions=5)
    outcomes = []
    for step in range(1, 200, 1 if pytestconfig.getoption("--all") else 17):
        dying = ("tests.promises.dying", str(step), "whole", "artifacts", "import", str(site.tar))
        log = tmp_path / f"{step}.log"
        status = fork(dying, environment({"models_dir": models_dir}), log).wait(120)
        if store.is_fitted(KEY):
            loaded = load_version(store, KEY, store.current(KEY))
            assert loaded.damaged == ()
            assert all(store.ok(KEY).image(image) for image in loaded.manifest.images)
            images = store.images(KEY)
            assert all(images.content(record) for record in images.records().stored)
            assert len(loaded.manifest.images) < 4 or [r.label for r in images.records().stored] == ["ok", "ng"]
            outcomes.append(len(loaded.manifest.images))
        else:
            outcomes.append(0)
        if status == 0:
            break
        assert status == -signal.SIGKILL, log.read_text()
        if outcomes[-1] == 4 and exists:
            break
    assert set(outcomes) == {2 if exists else 0, 4}
    assert outcomes == sorted(outcomes)


# --- looked at --------------------------------------------------------------------------------------------------------


def test_list_and_verify_know_an_roi_with_stored_images_alone(site, tmp_path):
    shutil.copytree(site.models_dir / "steel/kept/images", tmp_path / "steel/new/images")
    n_stored = len(ArtifactStore(tmp_path, keep_versions=5).images(RoiKey("steel", "new")).records().stored)
    expected = {"role_id": "steel", "roi_id": "new", "recipe_id": "default", "n_stored": n_stored}
    listed = json.loads(done(artifacts(tmp_path, "list", "--json")))
    assert (listed["rois"], listed["unfitted"]) == ([], [expected])
    assert f"steel/new: never fitted; {n_stored} stored images" in done(artifacts(tmp_path, "list"))
    done(artifacts(tmp_path, "verify"))
    path = next(path for path in (tmp_path / "steel/new/images").iterdir() if path.suffix == ".png")
    path.write_bytes(b"")
    run = artifacts(tmp_path, "verify")
    assert (run.returncode, path.stem in run.stdout) == (1, True), run.stdout


def test_list_tells_versions_counts_and_calibration(site):
    (listed,) = json.loads(done(artifacts(site.models_dir, "list", "--json")))["rois"]
    size = sum(path.stat().st_size for path in (site.models_dir / "steel" / "kept").rglob("*") if path.is_file())
    assert {name: listed[name] for name in ("role_id", "roi_id", "version", "kept", "n_ok", "calibration")} == {
        "role_id": "steel",
        "roi_id": "kept",
        "version": 2,
        "kept": [1, 2],
        "n_ok": 4,
        "calibration": "current",
    }
    assert (listed["n_bytes"], listed["damaged"]) == (size, [])
    assert "steel/kept" in done(artifacts(site.models_dir, "list"))


def test_verify_names_every_damaged_file(site, tmp_path):
    models_dir = tmp_path / "models"
    shutil.copytree(site.models_dir, models_dir)
    assert done(artifacts(models_dir, "verify", "steel/kept")) == ""
    for path in sorted(path for path in (models_dir / "steel" / "kept").rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        run = artifacts(models_dir, "verify")
        assert run.returncode == 1, path
        lines = run.stdout.splitlines()
        assert len(lines) == 1, f"{path.name}: {lines}"
        assert lines[0].startswith("steel/kept: ")
        assert path.stem in lines[0]
        path.write_bytes(whole)


def test_what_is_not_there_is_an_error_and_no_traceback(site, tmp_path):
    refused(artifacts(site.models_dir, "export", "steel/none", tmp_path / "x.tar"), "never fitted")
    refused(artifacts(site.models_dir, "verify", "steel/none"), "never fitted")
    refused(artifacts(tmp_path / "nowhere", "list"), "is not a folder")
    refused(artifacts(tmp_path / "models", "import", tmp_path / "none.tar"), "none.tar")
    assert artifacts(site.models_dir, "export", "../x/y", tmp_path / "x.tar").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_an_import_warns_where_another_model_answers_for_the_input_size_of_the_roi(tmp_path):
    grids = {
        "both": {"dinov2_vits14": 2, "dinov2_vits14_56": 4},
        "large": {"dinov2_vits14": 4},
        "small": {"dinov2_vits14": 2},
    }
    for site, models in grids.items():
        for name, grid in models.items():
            write_version(tmp_path / site / name / "1", factor=1 / 256, grid=grid)
    bench = fit_bench.Bench(tmp_path / "models", model_repository=tmp_path / "both", precision="f32")
    bench.fit(fit_bench.EVEN[:2], input_size=56)
    export_roi(bench.store, fit_bench.KEY, tmp_path / "56.tar")

    def said(site):
        run = artifacts(tmp_path / f"{site} models", "import", tmp_path / "56.tar", model_repository=tmp_path / site)
        done(run)
        return run.stderr

    assert said("both") == said("large") == ""
    assert (
        "this site serves no token model of input size 56: it answers 409 until a fit with another input_size (28);"
        in said("small")
    )
    # The configured model of the site that exported it stands beside another one here.
    bench.fit(fit_bench.EVEN[:2], input_size=16)
    bench.store.delete(fit_bench.KEY)
    fingerprint = bench.fit(fit_bench.EVEN[:2]).manifest.model_fingerprint
    export_roi(bench.store, fit_bench.KEY, tmp_path / "plain.tar")
    other = ArtifactStore(tmp_path / "other", keep_versions=2)
    (warning,) = import_roi(
        other, bench.settings, tmp_path / "plain.tar", serves={None: "small", 28: "small", 56: fingerprint}
    ).warnings
    assert "this site serves model small: it answers 409 until a fit with input_size=56;" in warning
