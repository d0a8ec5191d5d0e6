"""HTML page of an ROI's report: figures from the API's answers, pictures from the OK images."""

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from gateway.errors import GatewayError
from gateway.images.decoding import Limits, decode, read_header
from gateway.store.manifest import Manifest, OkImage
from gateway.store.ok_images import OkFiles

log = logging.getLogger(__name__)

_THUMBNAIL = 112
_MOST_THUMBNAILS = 240
_MEAN_OF = 64
"""Largest number of OK images in the mean image. More images give the same picture."""
_MEAN_SIDE = 378
_OVERLAY = 0.45
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)

_templates = Environment(
    loader=PackageLoader("gateway.monitoring.report"),
    autoescape=select_autoescape(default=True),
    undefined=StrictUndefined,
)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture of an OK image."""

    image: OkImage
    data_uri: str | None
    """None if the stored image is damaged or missing."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of the page."""

    thumbnails: list[Thumbnail]
    """Learned images first, then excluded ones."""
    mean_image: str | None
    weights: str | None
    """Spatial weights drawn over the mean image."""
    weights_range: tuple[float, float] | None


def pictures(
    stored: OkFiles, manifest: Manifest, order: Sequence[str], weights: NDArray[np.float32] | None, limits: Limits
) -> Pictures:
    """Make the pictures of the page. Blocks for a few milliseconds per image.

    Args:
        stored: the OK images of the ROI.
        manifest: manifest of the version in use.
        order: SHA-256 of the learned images, in the order of the page.
        weights: float32 [h, w], spatial weights of the version.
        limits: limits of the decoder.
    """
    by_sha256 = {image.sha256: image for image in manifest.images}
    thumbnails: list[Thumbnail] = []
    total, n = np.zeros((_MEAN_SIDE, _MEAN_SIDE), np.float32), 0
    step = max(1, len(manifest.images) // _MEAN_OF)
    for i, image in enumerate((*(by_sha256[sha256] for sha256 in order), *manifest.excluded)):
        in_mean = i < len(manifest.images) and i % step == 0
        if i >= _MOST_THUMBNAILS and not in_mean:
            continue
        pixels = _pixels(stored, image, limits)
        if i < _MOST_THUMBNAILS:
            thumbnails.append(Thumbnail(image, None if pixels is None else _thumbnail(pixels)))
        if in_mean and pixels is not None:
            grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
            total += cv2.resize(grey, (_MEAN_SIDE, _MEAN_SIDE), interpolation=cv2.INTER_AREA)
            n += 1
    if not n:
        return Pictures(thumbnails, None, None, None)
    mean = (total / n).astype(np.uint8)
    if weights is None:
        return Pictures(thumbnails, _uri(mean), None, None)
    return Pictures(
        thumbnails,
        _uri(mean),
        _uri(_overlaid(mean, weights)),
        (float(weights.min()), float(weights.max())),
    )


def render(report: dict[str, Any], shown: Pictures) -> str:
    """Return the page. It is self-contained: it has no script and loads no other file."""
    return _templates.get_template("report.html.j2").render(
        report=report,
        pictures=shown,
        score_chart=score_chart(report),
        peak_chart=peak_chart(report),
        n_left_out=len(report["roi"]["images"]) + len(report["roi"]["excluded_images"]) - len(shown.thumbnails),
        scores={image["sha256"]: image for image in report["roi"]["images"]},
        when=_when,
    )


def score_chart(report: dict[str, Any]) -> dict[str, Any] | None:
    """Return bars, ticks and threshold of the score histogram. None without scores."""
    calibration, counted = report["roi"]["calibration"], report["drift"]["histogram"]
    threshold = None if calibration is None else calibration["threshold"]
    return _chart(counted["edges"], {name: counted[name] for name in ("ok_images", "recent")}, threshold)


def peak_chart(report: dict[str, Any]) -> dict[str, Any] | None:
    """Return bars, ticks and threshold of the histogram of the OK peaks. None where the peak does not decide."""
    counted = report["peaks"]
    if counted is None:
        return None
    return _chart(counted["edges"], {"ok_images": counted["ok_images"]}, report["roi"]["calibration"]["peak_threshold"])


def _chart(edges: Sequence[float], counts: dict[str, Sequence[int]], threshold: float | None) -> dict[str, Any] | None:
    """Return the bars of each series, ticks and threshold, in a box of 640 × 220. None where nothing was counted."""
    if not any(map(sum, counts.values())):
        return None
    low, high = edges[0], edges[-1]
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    pad = 0.03 * (high - low or 1.0)
    low, high = low - pad, high + pad

    def x(value: float) -> float:
        return 640 * (value - low) / (high - low)

    shares = {name: np.asarray(own, np.float64) / max(sum(own), 1) for name, own in counts.items()}
    top = max(float(own.max()) for own in shares.values())
    bars = {
        name: [
            {"x": x(a), "width": x(b) - x(a), "y": 200 - 190 * share / top, "height": 190 * share / top}
            for a, b, share in zip(edges[:-1], edges[1:], own, strict=True)
        ]
        for name, own in shares.items()
    }
    return {
        "bars": bars,
        "threshold": None if threshold is None else {"x": x(threshold), "value": threshold},
        "ticks": [{"x": x(value), "text": f"{value:.2f}"} for value in _ticks(low, high)],
    }


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in _STEPS if (high - low) / s <= 8 or s == _STEPS[-1])
    return [float(v) for v in np.arange(np.ceil(low / step) * step, high, step)]


def _pixels(stored: OkFiles, image: OkImage, limits: Limits) -> NDArray[np.uint8] | None:
    try:
        data = stored.image(image)
        return decode(data, image.file_name, read_header(data, image.file_name, limits))
    except GatewayError as error:
        log.warning("missing in the report: %s", error.message)
        return None


def _thumbnail(pixels: NDArray[np.uint8]) -> str:
    height, width = pixels.shape[:2]
    scale = _THUMBNAIL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return _uri(small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2BGR))


def _overlaid(mean: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a grey image with the weights drawn over it in colour: uint8 [H, W, 3] BGR."""
    spread = float(weights.max() - weights.min()) or 1.0
    scaled = ((weights - weights.min()) / spread * 255).astype(np.uint8)
    colour = cv2.applyColorMap(
        cv2.resize(scaled, mean.shape[::-1], interpolation=cv2.INTER_LINEAR), cv2.COLORMAP_VIRIDIS
    )
    return cv2.addWeighted(colour, _OVERLAY, cv2.cvtColor(mean, cv2.COLOR_GRAY2BGR), 1 - _OVERLAY, 0).astype(np.uint8)


def _uri(image: NDArray[Any]) -> str:
    """Return a picture as a data URI.

    Args:
        image: uint8 [H, W] grey or [H, W, 3] BGR.
    """
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _when(iso: str) -> str:
    """Return a stored ISO time in readable form, in UTC."""
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC"


def sheet_order(images: Sequence[dict[str, Any]]) -> list[str]:
    """Return the SHA-256 of the images in the order of the page: suspects first, then by descending score."""
    ordered = sorted(images, key=lambda i: (not i["suspect"], -(i["score"] if i["score"] is not None else 0.0)))
    return [image["sha256"] for image in ordered]
