"""A fit holds a few images at a time, is refused where its memory would not suffice, and blocks no other ROI."""

import asyncio
import errno
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from anyio import CapacityLimiter
from numpy.typing import NDArray

from gateway.calibration.calibrate import calibrate
from gateway.calibration.request import CalibrationRequest
from gateway.errors import StorageFullError, TooLargeError
from gateway.learning.memory_need import memory_of_fit
from gateway.learning.request import FitRequest, ImageFile
from gateway.networks import Priority
from gateway.networks.model_description import ModelDescription
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread
from tests.gateway.brightness_engine import image
from tests.gateway.fit_bench import EVEN, KEY, STRAY, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "models")


def test_images_are_read_a_few_at_a_time(bench: Bench) -> None:
    given = bench.engine.tokens
    read, tokenised, ahead = [0], [0], []

    async def tokens(
        images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        tokenised[0] += len(images)
        return await given(images, model=model, priority=priority)

    def reader(data: bytes) -> bytes:
        read[0] += 1
        ahead.append(read[0] - tokenised[0])
        return data

    bench.engine.tokens = tokens  # type: ignore[method-assign]
    files = [ImageFile(f"{i}.png", partial(reader, image(i))) for i in range(1, 101)]
    # Files are read again to be stored, once all are tokenised: those reads are not ahead of anything.
    asyncio.run(bench.fitting.fit(FitRequest(KEY, files, 1.0)))
    assert len(bench.manifest.images) == 100
    assert max(ahead[:100]) <= 16


def test_the_fit_leaves_nothing_in_the_cache_folder(bench: Bench) -> None:
    bench.fit(EVEN)
    bench.remove(EVEN[0])
    assert list((bench.settings.cache_dir / "fits").iterdir()) == []


@pytest.mark.parametrize("at_write", [False, True])
def test_a_cache_folder_that_is_full_is_named_and_nothing_is_learned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at_write: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "pwrite", full) if at_write else (tempfile, "TemporaryFile", full)))
    with pytest.raises(StorageFullError, match="GATEWAY_CACHE_DIR"):
        bench.fit(EVEN)
    assert not bench.store.is_fitted(KEY)


def test_the_memory_of_a_fit_grows_with_its_images_and_centres() -> None:
    few, many = memory_of_fit(1000, 0.02, 16, 8), memory_of_fit(3000, 0.02, 16, 8)
    assert many - few == 2 * (memory_of_fit(2000, 0.02, 16, 8) - few)
    assert memory_of_fit(1000, 0.5, 16, 8) - few == 16 * 8 * (8000 - 320)


def test_a_fit_that_takes_too_much_memory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "models", max_fit_memory_bytes=250 * 2**20)
    file = ImageFile("x.png", lambda: STRAY)
    needed = asyncio.run(bench.fitting.memory_needed(KEY, [file] * 1000, 0.1))
    assert 200 * 2**20 < needed < 250 * 2**20
    with pytest.raises(TooLargeError, match="a fit of 1000000 images") as caught:
        asyncio.run(bench.fitting.memory_needed(KEY, [file] * 1_000_000, 0.1))
    assert "lower coreset_rate" in caught.value.hint
    # The images that the ROI has count, at its own rate.
    bench.fit(EVEN, coreset_rate=0.5)
    assert asyncio.run(bench.fitting.memory_needed(KEY, [file] * 8, None)) == memory_of_fit(20, 0.5, 16, 8)


def test_a_stored_image_that_is_learned_counts_once_for_the_memory_of_a_fit(bench: Bench) -> None:
    bench.fit(EVEN[:3])
    bench.keep("ok", EVEN[1:6])
    expected = memory_of_fit(6, 0.5, 16, 8)
    assert asyncio.run(bench.fitting.memory_needed(KEY, None, 0.5)) == expected
    bench.fit_stored()
    assert asyncio.run(bench.fitting.memory_needed(KEY, None, 0.5)) == expected


def test_a_calibration_does_not_wait_for_a_fit_of_another_roi(bench: Bench) -> None:
    bench.fit(EVEN)
    other = RoiKey("part", "other")

    async def scenario() -> None:
        entered, release = asyncio.Event(), asyncio.Event()
        given = bench.engine.tokens

        async def tokens(
            images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
        ) -> NDArray[np.float32]:
            entered.set()
            await release.wait()
            return await given(images, model=model, priority=priority)

        bench.engine.tokens = tokens  # type: ignore[method-assign]
        files = [ImageFile("x.png", lambda: image(77)), ImageFile("y.png", lambda: image(99))]
        fits = [asyncio.create_task(bench.fitting.fit(FitRequest(other, files, 1.0))) for _ in range(4)]
        await entered.wait()
        request = CalibrationRequest(mm_per_px=1.0)
        await in_thread(calibrate, bench.store, bench.settings, KEY, request, limiter=CapacityLimiter(1))
        assert not any(fit.done() for fit in fits)
        release.set()
        await asyncio.gather(*fits)

    asyncio.run(scenario())
    assert bench.calibration.version == 1
