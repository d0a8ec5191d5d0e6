"""`scripts/artifacts` over a bucket, and copies between folders and buckets."""

import shutil
from pathlib import Path

import obstore
import pytest

from gateway.errors import ArtifactCorruptError
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from tests.artifacts.test_artifacts import artifacts, done, refused, tree
from tests.bucket.server import BUCKET
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


def test_tiles_are_copied_exported_and_verified_with_their_roi(server, url, bench, tmp_path):
    """Its first version has no tiles, and the one in use has six. The network's input has 4 × 4 patches."""

    def part(grey: int) -> bytes:
        return image(grey, grid=(6, 10))

    where, back, cache = tmp_path / "models", tmp_path / "back", tmp_path / "c"
    here = Bench(where)
    assert here.fit([part(grey) for grey in range(40, 120, 10)], tiles=1).manifest.tiles == (1, 1)
    assert here.fit([part(130)], tiles=6).manifest.tiles == (2, 3)
    expected = here.infer(part(75)).score
    done(artifacts(where, "copy", url, cache_dir=cache))
    assert done(artifacts(url, "verify", cache_dir=cache)) == ""
    there = bench("there")
    assert (there.infer(part(75)).score, there.manifest.tiles) == (expected, (2, 3))

    tar = tmp_path / "face.tar"
    done(artifacts(url, "export", "part/face", tar, cache_dir=cache))
    done(artifacts(back, "import", tar))
    assert done(artifacts(back, "verify")) == ""
    imported = Bench(back)
    assert imported.infer(part(75)).score == expected
    assert imported.fit([part(140)]).manifest.tiles == there.fit([part(140)]).manifest.tiles == (2, 3)


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


def test_verify_and_copy_look_at_the_bucket_and_not_at_what_is_cached(folder, server, url, weed, tmp_path):
    where, cache = folder.store.storage.root, tmp_path / "c"
    done(artifacts(where, "copy", url, cache_dir=cache))
    assert "part/face" in done(artifacts(url, "list", cache_dir=cache))
    client, prefix = weed.client(BUCKET), url.removeprefix(f"s3://{BUCKET}/")
    found = {each["path"]: each["size"] for chunk in obstore.list(client, f"{prefix}/objects/") for each in chunk}
    largest = max(found, key=found.__getitem__)
    obstore.put(client, largest, b"x" * found[largest])
    verified = artifacts(url, "verify", cache_dir=cache)
    assert (verified.returncode, "fails its checksum" in verified.stdout) == (1, True), verified.stdout
    refused(artifacts(url, "copy", tmp_path / "there", cache_dir=cache), "part/face is damaged, and is not copied")


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


@pytest.mark.parametrize("how", ["damaged", "missing", "list"])
def test_a_damaged_pointer_is_repaired_from_the_lists_in_the_bucket(server, url, weed, bench, tmp_path, how):
    known = bench("known")
    known.fit(EVEN[:3])
    known.calibrate()
    known.fit([STRAY])
    expected = known.infer(STRAY)
    other = RoiKey("part", "other")
    with known.store.lock(other, 5, creates=True):
        known.store.storage.replace(other, known.store.folder(other) / "calib.json", b"another ROI")
    client, prefix, cache = weed.client(BUCKET), url.removeprefix(f"s3://{BUCKET}/"), tmp_path / "c"
    pointer = f"{prefix}/pointers/part/face"
    assert "its pointer is whole" in done(artifacts(url, "repair", "part/face", cache_dir=cache))
    last = known.store.storage._pointers.ask(KEY).list_object
    if how == "missing":
        obstore.delete(client, pointer)
    elif how == "damaged":
        obstore.put(client, pointer, b"x")
    else:
        obstore.put(client, f"{prefix}/objects/part/face/{last}", b"x")
    if how != "missing":  # nobody can know of one that is missing
        assert bench("new").store.rois() == [KEY]  # a list of ROIs is not broken by one of them
        with pytest.raises(ArtifactCorruptError, match="its pointer in s3://plant/") as refused_:
            bench("new").infer(STRAY)
        assert "scripts/artifacts repair part/face" in refused_.value.hint
        verified = artifacts(url, "verify", cache_dir=cache)
        assert (verified.returncode, "its pointer in s3://plant/" in verified.stdout) == (1, True), verified.stderr

    said = done(artifacts(url, "repair", "part/face", cache_dir=cache))
    assert f"version {2 if how != 'list' else 1} answers" in said
    new = bench("after")
    answer = new.infer(STRAY)
    assert not answer.degraded
    assert (answer.version, answer.score == expected.score) == ((2, True) if how != "list" else (1, False))
    entry = new.store.audit.read(KEY, 1)[0]
    assert (entry["action"], entry["outcome"], "scripts/artifacts" in entry["actor"]) == ("rollback", "done", True)
    assert new.fit([image(200)]).manifest.version == answer.version + 1


def test_of_two_lists_that_may_be_the_last_one_the_operator_says_which(server, url, weed, bench, tmp_path):
    left, right = bench("left"), bench("right")
    left.fit(EVEN[:3])
    left.fit([STRAY])
    pointers = left.store.storage._pointers
    before = pointers.ask(KEY)
    orphan = pointers._with_list(KEY, before, before.files, "0" * 32)  # of a writer that was killed before its move
    right.fit([image(200)])
    client, prefix, cache = weed.client(BUCKET), url.removeprefix(f"s3://{BUCKET}/"), tmp_path / "c"
    obstore.put(client, f"{prefix}/pointers/part/face", b"x")
    last = right.store.storage._pointers.known(KEY)
    assert (orphan.list_object, last.list_object) != (None, None)
    refused(
        artifacts(url, "repair", "part/face", cache_dir=cache),
        f"--list {str(orphan.list_object)[:12]}: of ",
        f"--list {str(last.list_object)[:12]}: of ",
        "versions 1, 2, 3, 5 OK images",
    )
    named = str(last.list_object)[:12]
    assert "version 3 answers" in done(artifacts(url, "repair", "part/face", "--list", named, cache_dir=cache))
    assert bench("after").infer(STRAY).version == 3


def test_a_folder_needs_no_repair(folder):
    assert "nothing to repair" in done(artifacts(folder.store.storage.root, "repair", "part/face"))
