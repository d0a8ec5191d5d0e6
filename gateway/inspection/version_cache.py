"""Loaded memory banks: read once, kept until ``current`` changes, bounded in number and bytes.

Which ROIs were used last is noted in a file, so that a gateway that starts again has their banks before it is asked.
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

from gateway.detectors import Detector, load_detector
from gateway.detectors.memory_bank.search.neighbours import SearchBackend
from gateway.errors import ArtifactCorruptError, GatewayError, UnknownRoiError
from gateway.monitoring import metrics
from gateway.store.artifact_store import ArtifactStore, VerifiedVersion
from gateway.store.atomic import replace_file
from gateway.store.calibration_file import StoredCalibration
from gateway.store.damage import ServingKind
from gateway.store.manifest import Calibration, Manifest, VersionRef
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

log = logging.getLogger(__name__)

_READ_S = 10.0
"""How long an inspection goes after versions that are replaced faster than it can read them."""


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A verified version, ready to inspect."""

    ref: VersionRef
    manifest: Manifest
    detector: Detector
    weights: NDArray[np.float32] | None = None
    """[h, w], the spatial weights of the ROI."""
    damaged: tuple[str, ...] = ()
    """What was found damaged on the way to this version, when it is not the current one."""

    @property
    def n_bytes(self) -> int:
        """Memory held by the detector."""
        return self.detector.n_bytes


def load_version(store: ArtifactStore, key: RoiKey, ref: VersionRef, search: SearchBackend = "auto") -> LoadedVersion:
    """Load and verify a version; where it is damaged, the last whole one before it. Blocks.

    Raises:
        ArtifactCorruptError: none is whole.
        NewerFormatError: a newer gateway wrote it.
    """

    def ready(version: VerifiedVersion) -> LoadedVersion:
        detector = load_detector(version.files, version.manifest, search)
        return LoadedVersion(version.ref, version.manifest, detector, version.weights, version.damaged)

    return store.load(key, ref, ready)


@dataclass(frozen=True, slots=True)
class FittedRoi:
    """What an inspection needs of an ROI: its version in use and, once it is calibrated, its thresholds."""

    loaded: LoadedVersion
    calibration: Calibration | None
    calibration_damaged: str | None = None
    """What of the calibration is damaged, where its copy answers."""

    @property
    def is_degraded(self) -> bool:
        """Whether something answers in the place of what is damaged."""
        return bool(self.loaded.damaged or self.calibration_damaged)


class BankCache:
    """Least recently used banks go first. All methods run on the event loop; files are read in worker threads."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        max_entries: int,
        max_bytes: int,
        search: SearchBackend = "auto",
        notes: Path | None = None,
    ) -> None:
        """Start empty.

        Args:
            store: where banks are.
            max_entries: kept at most.
            max_bytes: kept at most, all together; a single bank may exceed it.
            search: how nearest neighbours are found.
            notes: file in which the ROIs used last are noted.
        """
        self._store = store
        self._search = search
        self._notes = notes
        # Threads of their own: an inspection does not wait behind whatever else blocks.
        self._threads = CapacityLimiter(8)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._banks: OrderedDict[RoiKey, LoadedVersion] = OrderedDict()
        self._loading: dict[RoiKey, asyncio.Lock] = {}

    async def get(self, key: RoiKey) -> FittedRoi:
        """The ROI as it is on disk now.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: nothing whole is stored.
        """
        bank = self._banks.get(key)
        ends = time.monotonic() + _READ_S
        for attempt in itertools.count(1):
            # A bank loaded for this very request may answer though a fit came since: else it would wait for the fits.
            ref, stored = await in_thread(self._on_disk, key, bank, attempt > 1, limiter=self._threads)
            if bank is not None and stored is not None:
                if attempt == 1:
                    metrics.BANK_HITS.inc()
                if key in self._banks:
                    self._banks.move_to_end(key)
                return self._told(key, FittedRoi(bank, stored.calibration, stored.damaged))
            try:
                bank = await self._bank(key, ref)
            except ArtifactCorruptError as error:
                # A fit or a deletion may have come between two reads: then there is another version, or none.
                now, _ = await in_thread(self._on_disk, key, None, False, limiter=self._threads)
                if now == ref or time.monotonic() > ends:
                    self._store.faults.serving(key, {"version": error.message})
                    raise
        raise AssertionError("unreachable")

    def _told(self, key: RoiKey, roi: FittedRoi) -> FittedRoi:
        found: dict[ServingKind, str] = {}
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
                        await to_thread.run_sync(self._note, list(self._banks))
            finally:
                if not lock.locked():
                    self._loading.pop(key, None)
        return bank

    async def warm(self) -> list[FittedRoi]:
        """Load the ROIs that were used last before the process ended, the latest last; quietly skips what is gone."""
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
            pairs = json.loads(self._notes.read_bytes())
            return [RoiKey(role_id, roi_id) for role_id, roi_id in pairs][-self._max_entries :]
        except (OSError, ValueError, TypeError, GatewayError):
            return []  # none yet, or not ours: the cache fills as it is used

    def _note(self, keys: list[RoiKey]) -> None:
        if self._notes is None:
            return
        try:
            self._notes.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._notes, json.dumps([[key.role_id, key.roi_id] for key in keys]).encode())
        except OSError as error:
            log.warning("the ROIs used last are not noted: %s", error)

    def _on_disk(
        self, key: RoiKey, bank: LoadedVersion | None, is_fresh: bool
    ) -> tuple[VersionRef, StoredCalibration | None]:
        """The version in use and, where the bank at hand may answer, the calibration that goes with it."""
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
        # Were the ROI deleted and fitted anew in between, the number might be another version's.
        now = self._store.current(key)
        return now, stored if now == ref or now.keeps(bank.ref) else None

    def _cached(self, key: RoiKey, ref: VersionRef) -> LoadedVersion | None:
        bank = self._banks.get(key)
        if bank is None or bank.ref != ref:
            return None
        self._banks.move_to_end(key)
        return bank

    def _keep(self, key: RoiKey, bank: LoadedVersion) -> None:
        self._banks[key] = bank
        self._banks.move_to_end(key)
        while len(self._banks) > 1 and (
            len(self._banks) > self._max_entries or sum(b.n_bytes for b in self._banks.values()) > self._max_bytes
        ):
            self._banks.popitem(last=False)
        metrics.BANKS_LOADED.set(len(self._banks))
        metrics.BANK_BYTES.set(sum(b.n_bytes for b in self._banks.values()))
