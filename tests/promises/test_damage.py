"""Every file of an ROI, damaged at any byte: nothing is served from it. Damage of a file that is read is told at once.

No inspection reads OK images, older versions and `index.faiss`: `verify` finds their damage.
"""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from artifacts.checking import damages
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import INDEX
from gateway.store.roi_key import RoiKey
from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel, with_blob

SIZE = (120, 100)
OK = [png(steel(seed, SIZE)) for seed in range(1, 5)]
UNSEEN = png(with_blob(steel(900, SIZE), (60, 50), 20)[0])
_SERVED = ("score", "heatmap_png_base64", "heatmap_max", "token_shape", "image_size")
_JUDGED = ("threshold", "pixel_threshold", "verdict", "verdict_reason", "regions")
_SEED = 6
KEY = RoiKey("steel", "kept")


@dataclass(frozen=True, slots=True)
class Fitted:
    """An ROI of two versions, each calibrated."""

    gateway: Gateway
    folder: Path
    files: tuple[Path, ...]
    """All that there is, whatever it is."""
    answers: tuple[dict[str, Any], ...]
    """What was answered for one image after each change, the last the current one."""

    @property
    def whole(self) -> dict[str, Any]:
        return self.answers[-1]


@pytest.fixture(scope="module")
def fitted(launch, small_model_repository) -> Iterator[Fitted]:
    """At a gateway that keeps one bank loaded: to ask for another ROI makes it load this one again."""
    with launch("damaged", model_repository=small_model_repository, bank_cache_bytes=1) as gateway:
        gateway.fit("other", OK[:2])
        answers = []
        for images, mark in ((OK[:2], 1.0), (OK[2:3], 2.0)):
            gateway.fit("kept", images, spatial_weights="variance", coreset_rate=0.5)
            answers.append(gateway.infer("kept", UNSEEN))
            gateway.calibrate("kept", area_mm2_thr=mark, pixel_threshold="ok_pixels")
            answers.append(gateway.infer("kept", UNSEEN))
        for label, image in (("ok", OK[0]), ("ng", UNSEEN)):
            path = "/rois/steel/kept/images"
            answered(gateway.client.post(path, data={"label": label}, files=[("images", image)]))
        folder = gateway.models_dir / "steel" / "kept"
        files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
        assert len({answer["score"] for answer in answers}) == 2, "the two versions score alike: nothing to tell apart"
        assert {path.name for path in files} > {"current", "calib.json", "memory.npz", "search.npz", "spatial_mask.npy"}
        yield Fitted(gateway, folder, files, tuple(answers))


def damaged_copies(path: Path, n_each: int) -> Iterator[tuple[str, bytes]]:
    """Flips of one bit of one byte and truncations, the ends of the file among them."""
    whole = path.read_bytes()
    if not whole:
        return
    rng = random.Random(f"{_SEED} {path.name} {len(whole)}")
    places = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(n_each))}
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        yield f"byte {place} of {len(whole)} is {flipped[place]:#x}, was {whole[place]:#x}", bytes(flipped)
    for length in sorted({0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(n_each))}):
        yield f"cut to {length} of {len(whole)}", whole[:length]


def test_nothing_is_served_from_a_damaged_file_and_the_answer_says_so(fitted, full, record_property):
    """An answer is that of the last whole version, with a warning, or an error: over the socket, loaded again."""
    gateway = fitted.gateway
    n = 0
    current = fitted.folder / "versions" / str(fitted.whole["version"])
    for path in fitted.files:
        name = path.relative_to(fitted.folder)
        whole = path.read_bytes()
        for how, damaged in damaged_copies(path, 100 if full else 1):
            n += 1
            gateway.infer("other", UNSEEN, heatmap="none")
            path.write_bytes(damaged)
            try:
                reply = gateway.post("/infer", "kept", [UNSEEN], "image")
            finally:
                path.write_bytes(whole)
            said = f"{name}, {how}: {reply.text[:300]}"
            if reply.status_code != 200:
                assert (reply.status_code, reply.json()["error"]["code"]) == (500, "artifact_corrupt"), said
                continue
            answer = reply.json()
            before = [known for known in fitted.answers if known["version"] == answer["version"]]
            assert before, said
            assert {field: answer[field] for field in _SERVED} == {field: before[0][field] for field in _SERVED}, said
            assert [answer[field] for field in _JUDGED] in [[known[field] for field in _JUDGED] for known in before], (
                said
            )
            is_served_from = path.parent in (fitted.folder, current) and path.name != INDEX
            if is_served_from or answer != fitted.whole:
                assert "damaged" in " ".join(answer["warnings"]), said
    gateway.infer("other", UNSEEN, heatmap="none")
    assert gateway.infer("kept", UNSEEN) == fitted.whole
    record_property("damages", f"{n} in {len(fitted.files)} files")


def test_every_flip_and_truncation_of_every_file_is_noticed_by_verify(fitted, full, record_property):
    """Also of what no inspection reads: older versions, OK images and their tokens."""
    store = ArtifactStore(fitted.gateway.models_dir, keep_versions=5)
    assert list(damages(store, KEY)) == []
    n = 0
    for path in fitted.files:
        whole = path.read_bytes()
        for how, damaged in damaged_copies(path, 300 if full else 5):
            path.write_bytes(damaged)
            n += 1
            found = list(damages(store, KEY))
            path.write_bytes(whole)
            assert found, f"{path.relative_to(fitted.folder)}, {how}: not noticed"
    assert list(damages(store, KEY)) == []
    record_property("damages", f"{n} in {len(fitted.files)} files")


def test_a_fit_over_damaged_ok_images_or_tokens_learns_the_same_or_nothing(fitted, full, tmp_path):
    gateway = fitted.gateway
    gateway.fit("reference", OK[:3], spatial_weights="variance", coreset_rate=0.5)
    expected = gateway.fit("reference", OK[3:], spatial_weights="variance")["checksum"]
    backup = tmp_path / "kept"
    shutil.copytree(fitted.folder, backup)
    outcomes = set()
    for i, path in enumerate(path for path in fitted.files if path.parent.name == "ok"):
        # Of the copies of one file every other, of the next file those between.
        for how, damaged in damaged_copies(path, 20) if full else [*damaged_copies(path, 1)][i % 2 :: 2]:
            path.write_bytes(damaged)
            reply = gateway.post("/fit_ok", "kept", OK[3:], "images", fields={"spatial_weights": "variance"})
            said = f"{path.name}, {how}: {reply.text[:300]}"
            if reply.status_code == 200:
                assert reply.json()["checksum"] == expected, said
            else:
                assert (reply.status_code, reply.json()["error"]["code"]) == (500, "artifact_corrupt"), said
            outcomes.add(reply.status_code)
            shutil.rmtree(fitted.folder)
            shutil.copytree(backup, fitted.folder)
    assert 200 in outcomes
    assert gateway.infer("kept", UNSEEN) == fitted.whole
