"""Compare the state on disk with the answers that clients got."""

import hashlib
import itertools
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from gateway.errors import GatewayError, UnknownRoiError
from gateway.images.identity import pixel_digest
from gateway.inspection.version_cache import load_version
from gateway.store.artifact_store import ArtifactStore
from gateway.store.roi_key import RoiKey
from tests.e2e.synthetic_images import decoded, png, steel

_ROLE = "steel"
_SIZE = (64, 48)
_LOCK_S = 30
_seeds = itertools.count(1)


class BrokenPromiseError(AssertionError):
    """An acknowledged change is missing, a change is half written, or an answer is not allowed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The verified state of an ROI on disk; `Seen()` if there is no such ROI."""

    images: frozenset[str] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    """The stored images, each with its label."""
    mark: float | None = None
    """`area_mm2_thr` of the calibration: each one that a client asks for has another."""
    version: int = field(default=0, compare=False)
    checksum: str | None = field(default=None, compare=False)


def seen(store: ArtifactStore, key: RoiKey) -> Seen:
    """Load an ROI like a gateway, and check every checksum.

    Raises:
        BrokenPromiseError: a part of it is damaged.
    """
    labels = _seen_labels(store, key)
    try:
        ref = store.current(key)
        loaded = load_version(store, key, ref)
        for image in loaded.manifest.images:
            store.ok(key).image(image)
            if store.ok(key).tokens(image.sha256, loaded.manifest.model_fingerprint) is None:
                raise BrokenPromiseError(f"{key}: tokens of {image.sha256} are damaged")
        stored = store.calibration(key, loaded.manifest)
    except UnknownRoiError:
        return Seen(labels=labels)
    except GatewayError as error:
        raise BrokenPromiseError(f"{key}: {error.message}") from error
    if loaded.damaged or stored.damaged:
        raise BrokenPromiseError(f"{key}: {loaded.damaged or stored.damaged}")
    images = frozenset(image.sha256 for image in loaded.manifest.images)
    mark = None if stored.calibration is None else stored.calibration.area_mm2_thr
    return Seen(images, labels, mark, loaded.manifest.version, loaded.manifest.checksum)


def _seen_labels(store: ArtifactStore, key: RoiKey) -> frozenset[tuple[str, str]]:
    images = store.images(key)
    try:
        with store.image_lock(key, _LOCK_S):  # as the next upload or start does, which completes what was interrupted
            found = images.records()
        for record in found.stored:
            images.content(record)
    except (GatewayError, FileNotFoundError) as error:
        raise BrokenPromiseError(f"{key}: {error}") from error
    if found.damaged:
        raise BrokenPromiseError(f"{key}: damaged records of {found.damaged}")
    return frozenset((record.file_sha256, record.label) for record in found.stored)


def _new_images(n: int) -> dict[str, bytes]:
    images = [png(steel(next(_seeds), _SIZE)) for _ in range(n)]
    return {hashlib.sha256(image).hexdigest(): image for image in images}


def _fit(gateway, key: RoiKey, images: dict[str, bytes]) -> httpx.Response:
    """Fit with enough tokens for each image, since a calibration needs leave-one-out scores."""
    fields = {"coreset_rate": 0.2}
    return gateway.post("/fit_ok", key.roi_id, list(images.values()), "images", role=key.role_id, fields=fields)


def _store(gateway, key: RoiKey, label: str, images: dict[str, bytes]) -> httpx.Response:
    files = [("images", image) for image in images.values()]
    return gateway.client.post(f"/rois/{key}/images", data={"label": label}, files=files)


def _is_done(reply: httpx.Response) -> bool:
    """Return whether a request was done: True for success, False for 429.

    Raises:
        BrokenPromiseError: the answer has another status.
    """
    if reply.status_code not in (200, 429):
        raise BrokenPromiseError(f"{reply.request.method} {reply.request.url.path}: {reply.text}")
    if reply.status_code == 200 and "damaged" in reply.text:
        raise BrokenPromiseError(f"{reply.request.method} {reply.request.url.path}: {reply.text[:2000]}")
    return reply.status_code == 200


class OneClient:
    """An ROI that one client fits, calibrates, rolls back and deletes, and whose images it stores and labels."""

    def __init__(self, roi_id: str, rng: random.Random) -> None:
        self.key = RoiKey(_ROLE, roi_id)
        self._rng = rng
        self._is = Seen()
        self._may_be: Seen | None = None
        """What it is instead, if the request whose answer was lost had been done."""
        self._versions: dict[int, Seen] = {}
        """Each version as it was when it was last in use, to roll back to."""
        self._ids: dict[str, str] = {}
        """Ids of stored images by their SHA-256."""
        self._deleted: set[str] = set()
        """Stored images that were deleted: the next fit does not keep them."""

    def change(self, gateway) -> None:
        """Request one change, and record the state of the ROI after it.

        Raises:
            httpx.TransportError: the answer was lost.
            BrokenPromiseError: an answer is not allowed.
        """
        ways = [self._fit, self._calibrate, self._roll_back, self._fit, self._calibrate, self._delete]
        ways += [self._keep, self._relabel, self._drop, self._fit_stored]
        if not self._is.images:
            self._rng.choice([self._fit, self._fit, self._keep])(gateway)
        else:
            self._rng.choice(ways)(gateway)

    def check(self, store: ArtifactStore) -> None:
        """Raise BrokenPromiseError unless the ROI is in the acknowledged state, or in that of a lost answer."""
        now = seen(store, self.key)
        if now not in (self._is, self._may_be):
            raise BrokenPromiseError(f"{self.key} is {now}, acknowledged was {self._is}, asked for {self._may_be}")
        if now == self._is and self._is.checksum not in (None, now.checksum):
            raise BrokenPromiseError(f"{self.key}: another memory bank than was acknowledged")
        self._becomes(now)
        self._may_be = None
        self._note()

    def _becomes(self, now: Seen) -> None:
        self._deleted |= {sha256 for sha256, _ in self._is.labels} - {sha256 for sha256, _ in now.labels}
        self._is = now

    def _note(self) -> None:
        if not self._is.images:
            self._versions.clear()
        else:
            self._versions[self._is.version] = self._is

    def _fit(self, gateway) -> None:
        images = _new_images(2)
        self._learn(images.keys(), lambda: _fit(gateway, self.key, images))

    def _fit_stored(self, gateway) -> None:
        ok = {sha256 for sha256, label in self._is.labels if label == "ok"}
        if ok | self._learned():
            self._learn(ok, lambda: _fit(gateway, self.key, {}))

    def _learned(self) -> set[str]:
        """The images that the next fit keeps."""
        return set(self._is.images) - self._deleted - {sha256 for sha256, label in self._is.labels if label == "ng"}

    def _learn(self, new: Collection[str], send: Callable[[], httpx.Response]) -> None:
        would_be = replace(self._is, images=frozenset(self._learned() | set(new)))
        answer = self._ask(would_be, send)
        if answer is not None:
            self._is = replace(self._is, version=answer["version"], checksum=answer["checksum"])
            self._note()

    def _keep(self, gateway) -> None:
        images = _new_images(2)
        label = self._rng.choice(["ok", "ok", "ng"])
        would_be = replace(self._is, labels=self._is.labels | {(sha256, label) for sha256 in images})
        self._ids |= {sha256: pixel_digest(decoded(image)) for sha256, image in images.items()}
        self._ask(would_be, lambda: _store(gateway, self.key, label, images))

    def _relabel(self, gateway) -> None:
        if not self._is.labels:
            return
        sha256, label = self._rng.choice(sorted(self._is.labels))
        other = "ng" if label == "ok" else "ok"
        would_be = replace(self._is, labels=self._is.labels - {(sha256, label)} | {(sha256, other)})
        path = f"/rois/{self.key}/images/{self._ids[sha256]}"
        self._ask(would_be, lambda: gateway.client.patch(path, json={"label": other}))

    def _drop(self, gateway) -> None:
        if not self._is.labels:
            return
        sha256, label = self._rng.choice(sorted(self._is.labels))
        would_be = replace(self._is, labels=self._is.labels - {(sha256, label)})
        path = f"/rois/{self.key}/images/{self._ids[sha256]}"
        self._ask(would_be, lambda: gateway.client.delete(path))

    def _calibrate(self, gateway) -> None:
        mark = self._rng.uniform(0.1, 10)
        body = {"role_id": self.key.role_id, "roi_id": self.key.roi_id, "mm_per_px": 0.2, "area_mm2_thr": mark}
        if self._rng.random() < 0.5:
            body["ok_scores"] = [0.4, 0.5]
        self._ask(replace(self._is, mark=mark), lambda: gateway.client.post("/calibrate_ng", json=body))
        self._note()

    def _roll_back(self, gateway) -> None:
        """Roll back to one of the last three versions, which are always kept."""
        others = [number for number in sorted(self._versions)[-3:] if number != self._is.version]
        if not others:
            return
        number = self._rng.choice(others)
        path = f"/rois/{self.key}/rollback"
        would_be = replace(self._versions[number], labels=self._is.labels)
        self._ask(would_be, lambda: gateway.client.post(path, json={"version": number}))

    def _delete(self, gateway) -> None:
        self._ask(Seen(), lambda: gateway.client.delete(f"/rois/{self.key}"))
        self._note()

    def _ask(self, would_be: Seen, send: Callable[[], httpx.Response]) -> dict[str, Any] | None:
        """Return the answer after a change; None if it was refused and changed nothing."""
        self._may_be = would_be
        reply = send()
        if _is_done(reply):
            self._becomes(would_be)
        self._may_be = None
        return reply.json() if reply.status_code == 200 else None


class ManyClients:
    """An ROI that several clients fit and store images of at once.

    Each request is stored completely or, if its answer was lost, not at all.
    """

    def __init__(self, roi_id: str) -> None:
        self.key = RoiKey(_ROLE, roi_id)
        self._acknowledged: set[str] = set()
        self._lost: list[frozenset[str]] = []
        self._kept: set[tuple[str, str]] = set()
        self._lost_kept: list[frozenset[tuple[str, str]]] = []
        self._turns = itertools.count()

    def change(self, gateway) -> None:
        """See `OneClient.change`."""
        if next(self._turns) % 2:
            self._keep(gateway)
        else:
            self._fit(gateway)

    def _keep(self, gateway) -> None:
        images = _new_images(3)
        labels = frozenset((sha256, "ng") for sha256 in images)
        try:
            if _is_done(_store(gateway, self.key, "ng", images)):
                self._kept |= labels
        except httpx.TransportError:
            self._lost_kept.append(labels)
            raise

    def _fit(self, gateway) -> None:
        images = _new_images(2)
        try:
            if _is_done(_fit(gateway, self.key, images)):
                self._acknowledged |= images.keys()
        except httpx.TransportError:
            self._lost.append(frozenset(images))
            raise

    def check(self, store: ArtifactStore) -> None:
        """See `OneClient.check`."""
        state = seen(store, self.key)
        if not self._kept <= state.labels <= self._kept.union(*self._lost_kept):
            raise BrokenPromiseError(f"{self.key}: stored are {state.labels}, acknowledged were {self._kept}")
        for labels in self._lost_kept:
            if len(labels & state.labels) not in (0, len(labels)):
                raise BrokenPromiseError(f"{self.key}: half of an upload is there: {sorted(labels & state.labels)}")
        self._kept = set(state.labels)
        self._lost_kept.clear()
        now = state.images
        if missing := self._acknowledged - now:
            raise BrokenPromiseError(f"{self.key}: acknowledged and lost: {sorted(missing)}")
        for images in self._lost:
            if len(images & now) not in (0, len(images)):
                raise BrokenPromiseError(f"{self.key}: half of a request is there: {sorted(images & now)}")
        if unknown := now - self._acknowledged.union(*self._lost):
            raise BrokenPromiseError(f"{self.key}: never sent: {sorted(unknown)}")
        self._acknowledged = set(now)
        self._lost.clear()
