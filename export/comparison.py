"""Compare runtimes on the same images. Pure NumPy, since TensorRT's container has no torch."""

import numpy as np
from numpy.typing import NDArray

from gateway.networks.model_description import Parity


def compare(tokens: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> Parity:
    """Compare tokens float32 [B, N, D] with the expected tokens. A value that is not finite counts as 0."""
    a = np.nan_to_num(tokens.astype(np.float64), nan=0, posinf=0, neginf=0)
    b = expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    cosine = float(((a * b).sum(-1) / np.maximum(norms, 1e-12)).min())
    return Parity(
        max_abs_error=float(np.abs(a - b).max()),
        min_cosine=cosine,
        tolerance_cosine=tolerance,
        passed=cosine >= tolerance,
    )


def camera_images(count: int, size: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw images of machined metal under uneven light, uint8 [count, size, size, 3] RGB.

    They have a brushed texture along one direction, a lighting gradient, a highlight, a hole, a scratch and sensor
    noise. So they contain smooth areas, edges and saturation, which plain noise does not.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    images = np.empty((count, size, size, 3), np.uint8)
    for image in images:
        angle = rng.uniform(0, np.pi)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        brushed = sum(rng.normal(0, 5) * np.sin(across * rng.uniform(40, 800) + rng.uniform(0, 6)) for _ in range(8))
        light = 90 + 90 * rng.uniform() + 70 * rng.normal() * (along - 0.5)
        cx, cy, hx, hy = rng.uniform(0.2, 0.8, 4)
        highlight = 140 * np.exp(-((x - hx) ** 2 + (y - hy) ** 2) / 0.01)
        grey = light + brushed + highlight
        grey = np.where((x - cx) ** 2 + (y - cy) ** 2 < rng.uniform(0.05, 0.15) ** 2, 25, grey)
        grey = np.where((np.abs(along - rng.uniform(0.1, 0.5)) < 0.006) & (across > 0), 230, grey)
        tint = 1 + rng.normal(0, 0.04, 3)
        noise = rng.normal(0, 4, (size, size, 3))
        image[:] = np.clip(grey[..., None] * tint + noise, 0, 255)
    return images
