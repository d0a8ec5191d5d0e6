"""Loaded memory banks: read once, kept until ``current`` changes, bounded in number and bytes."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from anyio import to_thread

from gateway.roi_key import RoiKey
from gateway.storage import ArtifactStore, Calibration, LoadedBank, VersionRef


@dataclass(frozen=True, slots=True)
class FittedRoi:
    """What an inspection needs of an ROI: its bank and, once it is calibrated, its thresholds."""

    bank: LoadedBank
    calibration: Calibration | None


class BankCache:
    """Least recently used banks go first. All methods run on the event loop; files are read in worker threads."""

    def __init__(self, store: ArtifactStore, *, max_entries: int, max_bytes: int) -> None:
        self._store = store
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._banks: OrderedDict[RoiKey, LoadedBank] = OrderedDict()
        self._loading: dict[RoiKey, asyncio.Lock] = {}

    async def get(self, key: RoiKey) -> FittedRoi:
        """The ROI as it is on disk now.

        Raises:
            UnknownRoiError: never fitted.
            ArtifactCorruptError: nothing whole is stored.
        """
        ref, calibration = await to_thread.run_sync(self._on_disk, key)
        bank = self._cached(key, ref)
        if bank is None:
            lock = self._loading.setdefault(key, asyncio.Lock())
            try:
                async with lock:
                    bank = self._cached(key, ref)
                    if bank is None:
                        bank = await to_thread.run_sync(self._store.load, key, ref)
                        self._keep(key, bank)
            finally:
                if not lock.locked():
                    self._loading.pop(key, None)
        return FittedRoi(bank, calibration)

    def _on_disk(self, key: RoiKey) -> tuple[VersionRef, Calibration | None]:
        return self._store.current(key), self._store.calibration(key)

    def _cached(self, key: RoiKey, ref: VersionRef) -> LoadedBank | None:
        bank = self._banks.get(key)
        if bank is None or bank.ref != ref:
            return None
        self._banks.move_to_end(key)
        return bank

    def _keep(self, key: RoiKey, bank: LoadedBank) -> None:
        self._banks[key] = bank
        self._banks.move_to_end(key)
        while len(self._banks) > 1 and (
            len(self._banks) > self._max_entries or sum(b.n_bytes for b in self._banks.values()) > self._max_bytes
        ):
            self._banks.popitem(last=False)
