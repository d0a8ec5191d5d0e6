"""Drift on real images that a gateway inspected: no alarm without a change, an alarm soon after one."""

from typing import Any

import cv2
import numpy as np
import pytest

from gateway.monitoring.drift.measure import measure
from gateway.monitoring.drift.recent import Recent, RecentInspections
from gateway.monitoring.drift.watch import expected_rejects
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from tests.e2e.synthetic_images import png
from tests.e2e.test_real_tiles import tiles

__all__ = ["tiles"]

WINDOW = 200


def bright(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.15, 0, 255).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def shifted(image: np.ndarray) -> np.ndarray:
    """Move the crop by 8 % of the image, so that the surroundings of the part become visible."""
    height, width = image.shape
    down, right = int(0.08 * height), int(0.08 * width)
    return cv2.copyMakeBorder(image, down, 0, right, 0, cv2.BORDER_REPLICATE)[:height, :width]


CHANGES = {"unchanged": lambda image: image, "bright": bright, "blurred": blurred, "shifted": shifted}


@pytest.fixture(scope="module")
def streams(request, tiles, launch, tmp_path_factory, full) -> dict[str, Any]:
    """Recent inspections of unseen tiles, unchanged and changed, by a gateway that learned the good tiles."""
    network = request.getfixturevalue("real_model_repository" if full else "small_real_model_repository")
    state, models = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("models")
    key = RoiKey("steel", "tile")
    with launch("drift", model_repository=network, models_dir=models, state_dir=state, drift_window=1000) as gateway:
        learned = sorted((tiles / "train" / "good").iterdir())
        gateway.fit("tile", [(path.name, path.read_bytes()) for path in learned])
        gateway.calibrate("tile")
        paths = sorted((tiles / "test" / "good").iterdir())
        unseen = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths]
        for change in CHANGES.values():
            for image in unseen:
                gateway.infer("tile", png(change(image)), heatmap="none")
    store = ArtifactStore(models, keep_versions=5)
    manifest, _ = store.served_manifest(key)
    calibration = store.calibration(key, manifest).calibration
    kept = RecentInspections(state / "drift", 1000).of(key, manifest)
    parts = np.split(np.arange(len(kept)), len(CHANGES))
    return {
        "manifest": manifest,
        "expected": expected_rejects(calibration),
        **dict(zip(CHANGES, parts, strict=True)),
        "kept": kept,
    }


def window(streams: dict[str, Any], name: str, seed: int) -> Recent:
    drawn = np.random.default_rng(seed).choice(streams[name], WINDOW)
    kept = streams["kept"]
    fields = ("time", "score", "threshold", "brightness", "sharpness", "verdict", "scored_alike")
    return Recent(**{field: getattr(kept, field)[drawn] for field in fields})


def alarms(streams: dict[str, Any], name: str, n_windows: int) -> list[tuple[str, ...]]:
    manifest, expected = streams["manifest"], streams["expected"]
    return [measure(window(streams, name, seed), manifest, expected).alarms for seed in range(n_windows)]


def test_an_unchanged_stream_of_real_parts_raises_no_drift_alarm(streams, full, record_property) -> None:
    assert alarms(streams, "unchanged", 20) == [()] * 20
    if full:
        false = 1000 - alarms(streams, "unchanged", 1000).count(())
        record_property("false_alarms_of_1000", false)
        assert false <= 20  # of windows drawn from the same 48 images, whose own offset is in all of them


@pytest.mark.parametrize(
    ("change", "signal"), [("bright", "brightness"), ("blurred", "sharpness"), ("shifted", "rejects")]
)
def test_a_change_of_light_focus_or_crop_raises_a_drift_alarm_within_one_window(
    streams, change, signal, full, record_property
) -> None:
    assert signal in alarms(streams, change, 1)[0]
    if full:
        seen = sum(signal in each for each in alarms(streams, change, 1000))
        record_property(f"{change}_seen_of_1000", seen)
        assert seen >= 900
