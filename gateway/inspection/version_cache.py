"""Loaded versions of ROIs: read once, kept until ``current`` changes, bounded in bytes.

A file notes which ROIs were used last, so that a gateway that starts again loads their versions before requests come.
"""

import asyncio
import itertools
import json
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anyio import CapacityLimiter, to_thread
from numpy.typing import NDArray

from gateway.calibration.within_shape import ShapeThresholds
from gateway.detectors import Detector, load_detector
from gateway.detectors.memory_bank.search.backend import SearchBackend
from gateway.errors import ArtifactCorruptError, GatewayError, UnknownRoiError
from gateway.monitoring import metrics
from gateway.store.artifact_store import ArtifactStore
from gateway.store.atomic import replace_file
from gateway.store.damage import ServingKind
from gateway.store.manifest import Calibration, Manifest, VersionRef
from gateway.store.place import StorageProblem
from gateway.store.reader import VerifiedVersion
from gateway.store.roi_key import RoiKey
from gateway.store.version_folder import ok_maps_in
from gateway.worker_threads import in_thread

log = logging.getLogger(__name__)

_NOTE_EVERY_S = 10.0
"""Shortest time between two notes of the ROIs used last: each names all of them."""
_BYTES_PER_IMAGE = 1500
"""Memory of one image in a loaded manifest."""
_READ_S = 10.0
"""How long an inspection retries while versions are replaced faster than it can read them."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A verified version that is ready to inspect."""

    ref: VersionRef
    manifest: Manifest
    detector: Detector
    thresholds: ShapeThresholds
    """The thresholds of its calibration within the shape of a request."""
    weights: NDArray[np.float32] | None = None
    """[h, w], the spatial weights of the ROI; None where it has none."""
    damaged: tuple[str, ...] = ()
    """The damage that was found before this version, where it answers in place of the current one."""

    @property
    def n_bytes(self) -> int:
        """Memory that the detector, the weights and the manifest hold, in bytes."""
        weights = 0 if self.weights is None else self.weights.nbytes
        n_images = len(self.manifest.images) + len(self.manifest.excluded)
        return self.detector.n_bytes + self.thresholds.n_bytes + weights + _BYTES_PER_IMAGE * n_images


def load_version(store: ArtifactStore, key: RoiKey, ref: VersionRef, search: SearchBackend = "auto") -> LoadedVersion:
    """Load and verify a version, or the last undamaged one before it. Blocks.

    Raises:
        ArtifactCorruptError: every version is damaged.
        NewerFormatError: a newer gateway wrote it.
    """

    def ready(version: VerifiedVersion) -> LoadedVersion:
        detector = load_detector(version.files, version.manifest, search)
        manifest = version.manifest
        frames = [image.frame for image in manifest.images]
        thresholds = ShapeThresholds(ok_maps_in(version.files, manifest, version.weights), frames)
        return LoadedVersion(version.ref, manifest, detector, thresholds, version.weights, version.damaged)

    return store.load(key, ref, ready)


@dataclass(frozen=True, slots=True)
class FittedRoi:
    """What an inspection needs of an ROI: the version in use and, once it is calibrated, the thresholds."""

    loaded: LoadedVersion
    calibration: Calibration | None
    calibration_damaged: str | None = None
    """The damage of the calibration, where its copy answers."""
    storage_problem: StorageProblem | None = None
    """Why the version may be old, where the store does not answer."""

    @property
    def is_degraded(self) -> bool:
        """Whether an older version, a copy or what is known from before answers, since the data in use cannot."""
        return bool(self.loaded.damaged or self.calibration_damaged or self.storage_problem)


class VersionCache:
    """A cache that drops the least recently used version first.

    All methods but `in_use` run on the event loop; worker threads read the files.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        max_bytes: int,
        search: SearchBackend = "auto",
        notes: Path | None = None,
    ) -> None:
        """Start empty.

        Args:
            store: the stored versions.
            max_bytes: largest memory of all loaded versions together; a single version may exceed it.
            search: backend of the nearest-neighbour search.
            notes: file that notes the ROIs used last; None notes nothing.
        """
        self._store = store
        self._search = search
        self._notes = notes
        # These threads are for loading alone, so that an inspection does not wait for other blocking work.
        self._threads = CapacityLimiter(8)
        self._max_bytes = max_bytes
        self._banks: OrderedDict[RoiKey, LoadedVersion] = OrderedDict()
        self._n_bytes = 0
        """Of all loaded versions together."""
        self._noted_at = -_NOTE_EVERY_S
        self._loading: dict[RoiKey, asyncio.Lock] = {}

    def loaded(self, key: RoiKey) -> LoadedVersion | None:
        """Return the version that is loaded of an ROI, if any. `in_use` tells whether it may answer."""
        bank = self._banks.get(key)
        if bank is not None:
            self._banks.move_to_end(key)
        return bank

    def in_use(self, key: RoiKey, bank: LoadedVersion) -> FittedRoi | None:
        """Return the ROI as it is on disk now, or None if another version is in use: `get` loads it. Blocks.

        Raises:
            UnknownRoiError: the ROI was deleted.
            ArtifactCorruptError: the pointer or the calibration is damaged.
        """
        _, roi = self._on_disk(key, bank, False)
        if roi is not None:
            metrics.BANK_HITS.inc()
        return roi

    async def get(self, key: RoiKey) -> FittedRoi:
        """Return the ROI as it is on disk now, and load its version if it is not loaded.

        Raises:
            UnknownRoiError: the ROI was never fitted.
            ArtifactCorruptError: every stored version is damaged.
        """
        bank = self._banks.get(key)
        ends = time.monotonic() + _READ_S
        for attempt in itertools.count(1):
            # A version that this call has loaded may answer even after a newer fit; otherwise frequent fits would keep
            # the request waiting.
            ref, roi = await in_thread(self._on_disk, key, bank, attempt > 1, limiter=self._threads)
            if roi is not None:
                if attempt == 1:
                    metrics.BANK_HITS.inc()
                if key in self._banks:
                    self._banks.move_to_end(key)
                return roi
            try:
                bank = await self._bank(key, ref)
            except ArtifactCorruptError as error:
                # A fit or a deletion between two reads looks like damage; then the version on disk is another one.
                now, _ = await in_thread(self._on_disk, key, None, False, limiter=self._threads)
                if now == ref or time.monotonic() > ends:
                    self._store.faults.serving(key, {"version": error.message})
                    raise
        raise AssertionError("unreachable")

    def _told(self, key: RoiKey, roi: FittedRoi) -> FittedRoi:
        found: dict[ServingKind, str] = {}
        if roi.storage_problem is not None:
            found[roi.storage_problem.kind] = roi.storage_problem.what
        if roi.loaded.ref.damaged:
            found["pointer"] = roi.loaded.ref.damaged
        versions = [what for what in roi.loaded.damaged if what != roi.loaded.ref.damaged]
        if versions:
            found["version"] = "; ".join(versions)
        if roi.calibration_damaged:
            found["calibration"] = roi.calibration_damaged
        self._store.faults.serving(key, found)
        return roi

    async def _bank(self, key: RoiKey, ref: VersionRef) -> LoadedVersion:
        bank = self._cached(key, ref)
        if bank is not None:
            metrics.BANK_HITS.inc()
        else:
            lock = self._loading.setdefault(key, asyncio.Lock())
            try:
                async with lock:
                    bank = self._cached(key, ref)
                    if bank is None:
                        metrics.BANK_MISSES.inc()
                        bank = await in_thread(load_version, self._store, key, ref, self._search, limiter=self._threads)
                        self._keep(key, bank)
                        if time.monotonic() - self._noted_at >= _NOTE_EVERY_S:
                            self._noted_at = time.monotonic()
                            await to_thread.run_sync(self._note, list(self._banks))
            finally:
                if not lock.locked():
                    self._loading.pop(key, None)
        return bank

    async def warm(self) -> list[FittedRoi]:
        """Load the ROIs that were used last before the process ended, the latest last. Deleted ROIs are skipped."""
        loaded = []
        for key in await to_thread.run_sync(self._noted):
            try:
                loaded.append(await self.get(key))
            except GatewayError as error:
                log.info("not loaded at start: %s", error.message)
        return loaded

    async def close(self) -> None:
        """Note the ROIs used last."""
        await to_thread.run_sync(self._note, list(self._banks))

    def _noted(self) -> list[RoiKey]:
        if self._notes is None:
            return []
        try:
            return [RoiKey.parse(text) for text in json.loads(self._notes.read_bytes())]
        except (OSError, ValueError, TypeError, AttributeError, GatewayError):
            return []  # no notes, or unreadable ones: the cache fills as it is used

    def _note(self, keys: list[RoiKey]) -> None:
        if self._notes is None:
            return
        try:
            self._notes.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._notes, json.dumps([str(key) for key in keys]).encode())
        except OSError as error:
            log.warning("the ROIs used last are not noted: %s", error)

    def _on_disk(self, key: RoiKey, bank: LoadedVersion | None, is_fresh: bool) -> tuple[VersionRef, FittedRoi | None]:
        """Return the version in use and, where the given version may answer, the ROI with it."""
        kind: ServingKind = "pointer"
        try:
            ref = self._store.current(key)
            if bank is None or not (bank.ref == ref or (is_fresh and ref.keeps(bank.ref))):
                return ref, None
            kind = "calibration"
            stored = self._store.calibration(key, bank.manifest)
        except UnknownRoiError:
            self._store.faults.forget(key)
            raise
        except ArtifactCorruptError as error:
            if kind == "calibration" and (now := self._store.current(key)) != ref:
                return now, None
            self._store.faults.serving(key, {kind: error.message})
            raise
        # If the ROI was deleted and fitted again meanwhile, the number may belong to another version.
        now = self._store.current(key)
        if now != ref and not now.keeps(bank.ref):
            return now, None
        problem = self._store.storage.problem(key)
        return now, self._told(key, FittedRoi(bank, stored.calibration, stored.damaged, problem))

    def _cached(self, key: RoiKey, ref: VersionRef) -> LoadedVersion | None:
        bank = self._banks.get(key)
        if bank is None or bank.ref != ref:
            return None
        self._banks.move_to_end(key)
        return bank

    def _keep(self, key: RoiKey, bank: LoadedVersion) -> None:
        replaced = self._banks.pop(key, None)
        self._banks[key] = bank
        self._n_bytes += bank.n_bytes - (0 if replaced is None else replaced.n_bytes)
        while len(self._banks) > 1 and self._n_bytes > self._max_bytes:
            _, oldest = self._banks.popitem(last=False)
            self._n_bytes -= oldest.n_bytes
        metrics.BANKS_LOADED.set(len(self._banks))
        metrics.BANK_BYTES.set(self._n_bytes)
