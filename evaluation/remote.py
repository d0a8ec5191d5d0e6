"""Evaluate a running gateway over HTTP. The ROI is deleted at the end."""

import base64
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

from evaluation.data import Sample
from evaluation.inspection import Calibrated, Cost, FitRecipe, Judged, Progress
from gateway.monitoring.masking import masked
from gateway.store.manifest import DetectorKind
from postprocess.anomaly_map import ScoreRule

_ROLE = "evaluation"
_FIT_TIMEOUT_S = 3600.0


class RemoteError(RuntimeError):
    """The gateway refused a request. The message is the gateway's."""


class RemoteInspector:
    """A gateway behind a URL."""

    detector: DetectorKind = "memory-bank"
    rule: ScoreRule = "percentile"
    maps = "heatmaps as served: after the blur, in 255 steps up to heatmap_max and clipped there"

    def __init__(
        self, url: str, mm_per_px: float, transport: httpx.AsyncBaseTransport | None = None, *, key: str | None = None
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(base_url=url, timeout=60.0, transport=transport, headers=headers)
        self._mm_per_px = mm_per_px
        self._learn_s: float | None = None
        self._roi_id: str | None = None
        self._health: dict[str, Any] = {}
        self._params: dict[str, Any] = {}

    async def start(self) -> None:
        """Ask the gateway for its model.

        Raises:
            RemoteError: the gateway cannot inspect.
        """
        await self._json("GET", "/ready")
        self._health = await self._json("GET", "/health")

    def describe(self) -> dict[str, Any]:
        """See `Inspector.describe`."""
        weights = {"kind": self._health.get("model_weights"), "detail": "as the gateway says", "sha256": None}
        return {
            "extractor": self._health.get("model"),
            "weights": weights,
            "fingerprint": self._health.get("model_fingerprint"),
            "runtime": self._health.get("runtime"),
            "gateway_version": self._health.get("version"),
            **{name: self._params[name] for name in ("k", "blur_sigma") if name in self._params},
            "mm_per_px": self._mm_per_px,
            "how": "over HTTP",
        }

    async def fit(self, images: Sequence[Path], recipe: FitRecipe, progress: Progress) -> dict[str, Any]:
        """See `Inspector.fit`."""
        await self._forget()
        self._roi_id = uuid.uuid4().hex
        data = self._form() | _given(coreset_rate=recipe.coreset_rate, seed=recipe.seed, tiles=recipe.tiles)
        data["exclude_suspects"] = str(recipe.exclude_suspects).lower()
        files = [("images", (path.name, path.read_bytes())) for path in images]
        started = time.perf_counter()
        answer = await self._json("POST", "/fit_ok", data=data, files=files, timeout=_FIT_TIMEOUT_S)
        self._learn_s = time.perf_counter() - started
        progress(len(images))
        return {
            "coreset_rate": answer["coreset_rate"],
            "seed": answer["seed"],
            "tiles": answer["tiles"],
            "n_ok": answer["n_ok_total"],
            "n_excluded": answer["n_ok_excluded"],
            "n_duplicates": answer["duplicates"],
            "n_embeddings": answer["n_embeddings"],
            "covering_radius": answer["covering_radius"],
            "spatial_weights": answer["spatial_weights"]["kind"],
            "suspects": [suspect["file_name"] for suspect in answer["suspect_images"]],
            "warnings": answer["warnings"],
        }

    async def calibrate(self, p_score: float | None) -> Calibrated:
        """See `Inspector.calibrate`."""
        wish = {"score_percentile": p_score} if p_score is not None else {}
        answer = await self._json("POST", "/calibrate_ng", json=self._ids() | {"mm_per_px": self._mm_per_px} | wish)
        interval, verdict_interval = answer["expected_false_alarm_interval"], answer["verdict_false_alarm_interval"]
        return Calibrated(
            threshold=answer["threshold"],
            pixel_threshold=answer["pixel_threshold"],
            method=f"{answer['method']}, {answer['ok_source']}",
            n_ok=answer["n_ok"],
            stated_rate=answer["expected_false_alarm_rate"],
            stated_interval=(interval[0], interval[1]),
            stated_verdict_rate=answer["verdict_false_alarm_rate"],
            stated_verdict_interval=None if verdict_interval is None else (verdict_interval[0], verdict_interval[1]),
            score_percentile=answer["score_percentile"],
            area_mm2_thr=answer["area_mm2_thr"],
            warnings=answer["warnings"],
        )

    async def inspect(self, samples: Sequence[Sample], progress: Progress) -> list[Judged]:
        """See `Inspector.inspect`."""
        judged = []
        for sample in samples:
            answer = await self._infer(sample, "none")
            contours = [np.asarray(region["contour"], np.int32) for region in answer["regions"]]
            judged.append(Judged(sample, answer["score"], answer["verdict"], answer["verdict_reason"], contours))
            self._params = answer["params"]
            progress(1)
        return judged

    async def cost(self, samples: Sequence[Sample], progress: Progress) -> Cost:
        """See `Inspector.cost`. HTTP is included."""
        took = []
        for sample in samples:
            started = time.perf_counter()
            await self._infer(sample, "base64")
            took.append(1e3 * (time.perf_counter() - started))
            progress(1)
        p50, p95 = np.quantile(took, (0.5, 0.95)).tolist() if took else (None, None)
        return Cost(self._learn_s, p50, p95, len(took), version_bytes=None, memory_bytes=None, shared_bytes=None)

    async def map_of(self, sample: Sample) -> NDArray[np.float32]:
        """See `Inspector.map_of`."""
        answer = await self._infer(sample, "base64")
        png = np.frombuffer(base64.b64decode(answer["heatmap_png_base64"]), np.uint8)
        grey = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        return np.asarray(grey * (answer["heatmap_max"] / 255), np.float32)

    async def close(self) -> None:
        """See `Inspector.close`."""
        await self._forget()
        await self._client.aclose()

    async def _infer(self, sample: Sample, heatmap: str) -> dict[str, Any]:
        files = [("image", (sample.path.name, sample.path.read_bytes()))]
        return await self._json("POST", "/infer", data=self._form() | {"heatmap": heatmap}, files=files)

    async def _forget(self) -> None:
        if self._roi_id is not None:
            roi_id, self._roi_id = self._roi_id, None
            await self._client.delete(f"/rois/{_ROLE}/{roi_id}")

    def _ids(self) -> dict[str, Any]:
        return {"role_id": _ROLE, "roi_id": self._roi_id}

    def _form(self) -> dict[str, Any]:
        return self._ids() | {"mm_per_px": str(self._mm_per_px)}

    async def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            raise RemoteError(masked(f"{method} {path}: {error or type(error).__name__}")) from error
        if response.is_error:
            raise RemoteError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        answer: dict[str, Any] = response.json()
        return answer


def _given(**values: float | str | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
