"""`scripts/artifacts` over a bucket, and copies between folders and buckets."""

import shutil
from pathlib import Path

import pytest

from gateway.store.artifact_store import ArtifactStore
from tests.artifacts.test_artifacts import artifacts, done, refused, tree
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench


@pytest.fixture
def folder(tmp_path: Path) -> Bench:
    """A models folder with an ROI: three versions, a calibration, stored images and a deleted one."""
    bench = Bench(tmp_path / "here" / "models")
    bench.fit(EVEN)
    bench.calibrate()
    bench.fit([STRAY])
    bench.keep("ng", [image(200), image(201)])
    bench.images.delete(KEY, bench.images.all(KEY).images[-1].record.id)
    bench.fit([image(130)])
    return bench


def test_a_folder_copied_to_a_bucket_and_back_is_the_same(folder, server, url, bench, tmp_path):
    where = folder.store.storage.root
    said = done(artifacts(where, "copy", url, cache_dir=tmp_path / "c"))
    assert said.startswith("part/face: ")
    there = bench("there")
    expected, answer = folder.infer(STRAY), there.infer(STRAY)
    assert (answer.version, answer.score, answer.threshold) == (3, expected.score, expected.threshold)
    assert there.store.audit.read(KEY, 100) == folder.store.audit.read(KEY, 100)
    assert there.store.images(KEY).records() == folder.store.images(KEY).records()

    back = tmp_path / "back"
    done(artifacts(url, "copy", back, cache_dir=tmp_path / "c"))
    returned = Bench(back)
    assert returned.infer(STRAY).score == expected.score
    files = tree(back / "part")
    original = {name: data for name, data in tree(where / "part").items() if not _is_tokens(name)}
    assert files == original
    assert there.fit([image(131)]).manifest.version == returned.fit([image(131)]).manifest.version == 4


def _is_tokens(name: str) -> bool:
    return name.endswith(".npz") and "/versions/" not in name


def test_every_command_works_on_a_bucket(folder, server, url, tmp_path):
    done(artifacts(folder.store.storage.root, "copy", url, cache_dir=tmp_path / "c"))
    assert "part/face" in done(artifacts(url, "list", cache_dir=tmp_path / "c"))
    assert done(artifacts(url, "verify", cache_dir=tmp_path / "c")) == ""
    tar = tmp_path / "face.tar"
    done(artifacts(url, "export", "part/face", tar, cache_dir=tmp_path / "c"))
    done(artifacts(url, "import", tar, "--as", "part/other", cache_dir=tmp_path / "c"))
    assert "part/other" in done(artifacts(url, "list", cache_dir=tmp_path / "c"))


def test_what_is_there_already_is_left_as_it_is(folder, server, url, tmp_path, bench):
    where = folder.store.storage.root
    done(artifacts(where, "copy", url, cache_dir=tmp_path / "c"))
    folder.fit([image(140)])
    assert "is there already, and is left as it is" in done(artifacts(where, "copy", url, cache_dir=tmp_path / "c"))
    assert bench("there").infer(STRAY).version == 3


def test_a_damaged_roi_is_not_copied(folder, server, url, tmp_path, bench):
    where = folder.store.storage.root
    (where / "part/face/versions/2/memory.npz").write_bytes(b"x")
    refused(
        artifacts(where, "copy", url, cache_dir=tmp_path / "c"), "part/face is damaged, and is not copied", "version 2"
    )
    assert bench("there").store.rois() == []


def test_a_copy_that_cannot_be_written_leaves_nothing(folder, server, url, tmp_path, bench, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "reader")
        refused(artifacts(folder.store.storage.root, "copy", url, cache_dir=tmp_path / "c"), "accepts no writes")
    assert bench("there").store.folders() == []


def test_a_whole_folder_is_copied_with_all_its_rois(folder, server, url, tmp_path, bench):
    where = folder.store.storage.root
    shutil.copytree(where / "part" / "face", where / "part" / "L%C3%ADnea")
    refused(artifacts(where, "copy", url, "--roi", "part/none", cache_dir=tmp_path / "c"), "part/none")
    done(artifacts(where, "copy", url, "--roi", "part/face", cache_dir=tmp_path / "c"))
    assert [str(key) for key in ArtifactStore(bench("there").store.storage, keep_versions=5).rois()] == ["part/face"]


def test_the_url_of_a_copy_has_no_credentials(folder, tmp_path):
    run = artifacts(folder.store.storage.root, "copy", "s3://key:secret@bucket/x", cache_dir=tmp_path / "c")
    assert run.returncode == 2
    assert "a URL without credentials" in run.stderr
    assert "secret" not in run.stderr
