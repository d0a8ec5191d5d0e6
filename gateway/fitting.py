"""OK images to a memory bank: tokens, coreset, leave-one-out scores, a new version on disk."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from anyio import CapacityLimiter, from_thread, to_thread
from numpy.typing import NDArray

from gateway.engines import Priority, TokenEngine
from gateway.errors import TooLargeError
from gateway.images import Limits, decode, read_header, to_model_input
from gateway.model_description import ModelDescription
from gateway.patchcore.memory_bank import MemoryBank, build_memory_bank, leave_one_out_distances
from gateway.pipeline import mask_of
from gateway.roi_key import RoiKey
from gateway.settings import Settings
from gateway.storage import ArtifactStore, Manifest, OkImage
from gateway.timing import StageTimes
from postprocess.anomaly_map import anomaly_map, score, upsample
from postprocess.roi_mask import Shape, parse_shape

log = logging.getLogger(__name__)

_BATCH = 8
_LARGEST_DISTANCE = 2.0


@dataclass(frozen=True, slots=True)
class FitRequest:
    """OK images to learn; what is None comes from the settings."""

    key: RoiKey
    images: Sequence[tuple[str, bytes]]
    """File names, for messages only, and the files."""
    mm_per_px: float
    shape: Shape | None = None
    shape_json: str | None = None
    coreset_rate: float | None = None
    seed: int | None = None
    warnings: tuple[str, ...] = ()
    """Found while the request was read."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """What was learned."""

    manifest: Manifest
    n_added: int
    duplicates: int
    warnings: list[str]
    times: StageTimes


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked image: with its tokens where they are stored already, else with its pixels."""

    image: OkImage
    data: bytes
    pixels: NDArray[np.uint8] | None
    tokens: NDArray[np.float16] | None


@dataclass(frozen=True, slots=True)
class _NewImage:
    image: OkImage
    data: bytes
    tokens: NDArray[np.float16]


class FitService:
    """Learns in worker threads of its own, so that inspections never wait for them."""

    def __init__(self, engine: TokenEngine, store: ArtifactStore, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._settings = settings
        self._limits = Limits(settings.max_image_bytes, settings.max_image_pixels)
        self._threads = CapacityLimiter(settings.max_queued_fits)

    async def fit(self, request: FitRequest) -> FitResult:
        """Add OK images to an ROI and build its bank anew over all of them.

        Raises:
            GatewayError: nothing of the request was learned, and what was stored before answers as before.
        """
        times = StageTimes()
        model = self._engine.model
        if len(request.images) > self._settings.max_fit_images:
            raise TooLargeError(
                f"images: {len(request.images)} in one request; at most {self._settings.max_fit_images} are served"
            )
        new = await self._extract(request, model, times)
        duplicates = len(request.images) - len(new)
        return await to_thread.run_sync(self._learn, request, model, new, duplicates, times, limiter=self._threads)

    async def _extract(self, request: FitRequest, model: ModelDescription, times: StageTimes) -> list[_NewImage]:
        """Decode and tokenise each image once, however often it was sent."""
        unique = {hashlib.sha256(data).hexdigest(): (name, data) for name, data in reversed(request.images)}
        items = [(sha256, *unique[sha256]) for sha256 in reversed(unique)]
        new: list[_NewImage] = []
        for start in range(0, len(items), _BATCH):
            batch = items[start : start + _BATCH]
            with times.stage("decode"):
                prepared = await to_thread.run_sync(self._prepare, request, batch, model)
            pixels = [p.pixels for p in prepared if p.pixels is not None]
            with times.stage("engine"):
                fresh = iter(await self._tokens(pixels, model) if pixels else ())
            for p in prepared:
                tokens = p.tokens if p.tokens is not None else next(fresh).astype(np.float16)
                new.append(_NewImage(p.image, p.data, tokens))
        return new

    async def _tokens(self, pixels: Sequence[NDArray[np.uint8]], model: ModelDescription) -> NDArray[np.float32]:
        return await self._engine.tokens(np.stack(pixels), model=model, priority=Priority.FIT)

    def _prepare(
        self, request: FitRequest, items: Sequence[tuple[str, str, bytes]], model: ModelDescription
    ) -> list[_Prepared]:
        prepared = []
        for sha256, name, data in items:
            header = read_header(data, name, self._limits)
            if request.shape is not None:
                mask_of(request.shape, header.upright_size)
            width, height = header.upright_size
            image = OkImage(
                sha256=sha256,
                file_name=name[:255],
                extension=header.extension,
                width=width,
                height=height,
                shape=request.shape_json,
                added_in=0,
            )
            stored = self._store.ok_tokens(request.key, sha256, model.fingerprint)
            pixels = None if stored is not None else to_model_input(decode(data, name, header), model.input_size)
            prepared.append(_Prepared(image, data, pixels, stored))
        return prepared

    def _learn(
        self,
        request: FitRequest,
        model: ModelDescription,
        new: list[_NewImage],
        duplicates: int,
        times: StageTimes,
    ) -> FitResult:
        key = request.key
        rate = request.coreset_rate if request.coreset_rate is not None else self._settings.coreset_rate
        seed = request.seed if request.seed is not None else self._settings.seed
        warnings = list(request.warnings)
        with self._store.lock(key, self._settings.fit_lock_timeout_s):
            latest = self._store.latest_manifest(key)
            before = None if latest is None else latest[0]
            if latest is not None and latest[1]:
                warnings.append(
                    f"damaged: {'; '.join(latest[1])}; built on version {latest[0].version} instead, "
                    "OK images added since then must be sent again"
                )
            version = self._store.next_version(key)
            known = {image.sha256 for image in before.images} if before else set()
            added = [n for n in new if n.image.sha256 not in known]
            duplicates += len(new) - len(added)
            images = [
                *(before.images if before else ()),
                *(n.image.model_copy(update={"added_in": version}) for n in added),
            ]
            if len(images) > self._settings.max_roi_images:
                raise TooLargeError(
                    f"{key} would have {len(images)} OK images; at most {self._settings.max_roi_images} are learned"
                )
            if before is not None and abs(request.mm_per_px / before.mm_per_px - 1) > 0.01:
                warnings.append(f"mm_per_px: {request.mm_per_px:g} here, {before.mm_per_px:g} at the fit before")
            if before is not None and not added and _same_recipe(before, model, rate, seed, request.mm_per_px):
                return FitResult(before, 0, duplicates, warnings, times)

            with times.stage("store"):
                for n in added:
                    self._store.add_ok_image(key, n.image, n.data)
                    self._store.add_ok_tokens(key, n.image.sha256, model.fingerprint, n.tokens)
            tokens = self._all_tokens(key, model, images, {n.image.sha256: n.tokens for n in new})
            with times.stage("coreset"):
                bank = build_memory_bank(tokens, rate, seed)
            with times.stage("loo"):
                ok_scores = self._leave_one_out(bank, tokens, images, model)
            manifest = Manifest(
                role_id=key.role_id,
                roi_id=key.roi_id,
                version=version,
                created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                model_fingerprint=model.fingerprint,
                extractor=model.extractor,
                token_hw=model.token_hw,
                dim=model.dim,
                coreset_rate=rate,
                coreset_rate_applied=len(bank) / (tokens.shape[0] * tokens.shape[1]),
                seed=seed,
                k=self._settings.k,
                p_score=self._settings.p_score,
                mm_per_px=request.mm_per_px,
                n_embeddings=len(bank),
                n_tokens_total=tokens.shape[0] * tokens.shape[1],
                covering_radius=bank.covering_radius,
                images=tuple(images),
                ok_scores=tuple(ok_scores),
                heatmap_max=_heatmap_max(ok_scores),
            )
            with times.stage("store"):
                _, manifest = self._store.publish(key, manifest, bank)
        log.info("%s: version %d, %d OK images, %d embeddings", key, version, len(images), len(bank))
        return FitResult(manifest, len(added), duplicates, warnings, times)

    def _all_tokens(
        self, key: RoiKey, model: ModelDescription, images: Sequence[OkImage], fresh: dict[str, NDArray[np.float16]]
    ) -> NDArray[np.float16]:
        """Float16 [I, N, D]: those just computed, those stored, and anew those that another model computed."""
        tokens = np.empty((len(images), model.n_tokens, model.dim), np.float16)
        for i, image in enumerate(images):
            stored = fresh.get(image.sha256)
            if stored is None:
                stored = self._store.ok_tokens(key, image.sha256, model.fingerprint)
            tokens[i] = self._recomputed(key, model, image) if stored is None else stored
        return tokens

    def _recomputed(self, key: RoiKey, model: ModelDescription, image: OkImage) -> NDArray[np.float16]:
        data = self._store.ok_image(key, image)
        header = read_header(data, image.file_name, self._limits)
        pixels = to_model_input(decode(data, image.file_name, header), model.input_size)
        tokens = from_thread.run(lambda: self._engine.tokens(pixels[None], model=model, priority=Priority.FIT))
        half: NDArray[np.float16] = tokens[0].astype(np.float16)
        self._store.add_ok_tokens(key, image.sha256, model.fingerprint, half)
        return half

    def _leave_one_out(
        self, bank: MemoryBank, tokens: NDArray[np.float16], images: Sequence[OkImage], model: ModelDescription
    ) -> list[float]:
        distances = leave_one_out_distances(bank, tokens, self._settings.k)
        if distances is None:
            return []
        scores = []
        for image, image_distances in zip(images, distances, strict=True):
            size_wh = (image.width, image.height)
            mask = None if image.shape is None else mask_of(parse_shape(image.shape)[0], size_wh)
            full = upsample(anomaly_map(image_distances, model.token_hw), size_wh)
            scores.append(score(full, self._settings.p_score, mask))
        return scores


def _same_recipe(before: Manifest, model: ModelDescription, rate: float, seed: int, mm_per_px: float) -> bool:
    return (
        before.model_fingerprint == model.fingerprint
        and before.coreset_rate == rate
        and before.seed == seed
        and before.mm_per_px == mm_per_px
    )


def _heatmap_max(ok_scores: Sequence[float]) -> float:
    """Twice the score of the worst OK images, so that a threshold stands near mid-grey in every heatmap of the ROI."""
    p99 = float(np.percentile(ok_scores, 99)) if ok_scores else 0.0
    return min(_LARGEST_DISTANCE, 2 * p99) if p99 > 1e-3 else _LARGEST_DISTANCE
