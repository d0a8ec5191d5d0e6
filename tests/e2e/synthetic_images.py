"""Synthetic images of brushed steel and its defects, equal on every machine."""

import cv2
import numpy as np


def steel(seed: int, size_wh: tuple[int, int] = (384, 384)) -> np.ndarray:
    """Return an OK part: uint8 [H, W], brushed along x, lit almost evenly."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (height, width)).astype(np.float32)
    brushed = cv2.GaussianBlur(noise, (0, 0), sigmaX=12, sigmaY=0.7)
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.8)
    light = np.linspace(-4, 4, width, dtype=np.float32)[None, :] * rng.uniform(0.5, 1)
    image = 128 + 14 * brushed / brushed.std() + 3 * grain / grain.std() + light
    return np.clip(image, 0, 255).astype(np.uint8)


def with_blob(image: np.ndarray, centre: tuple[int, int], radius: int, strength: float = 0.5):
    """Add a dark, rough pit. Return the image and the mask of the defect, bool [H, W]."""
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(mask, centre, radius, 255, -1)
    return _spoiled(image, mask, strength)


def with_scratch(image: np.ndarray, start: tuple[int, int], end: tuple[int, int], width: int, strength: float = 0.5):
    """Add a scratch across the brushing. Return the image and the mask of the defect, bool [H, W]."""
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.line(mask, start, end, 255, width)
    return _spoiled(image, mask, strength)


def _spoiled(image: np.ndarray, mask: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    rough = np.random.default_rng(7).integers(0, 90, image.shape[:2]).astype(np.float32)
    soft = strength * cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), 0.8)
    spoiled = image * (1 - soft) + rough * soft
    return spoiled.astype(np.uint8), mask > 0


def png(image: np.ndarray) -> bytes:
    """Encode an image, grey or RGB."""
    return _encode(".png", image)


def jpeg(image: np.ndarray) -> bytes:
    return _encode(".jpg", image)


def _encode(extension: str, image: np.ndarray) -> bytes:
    done, data = cv2.imencode(extension, image[..., ::-1] if image.ndim == 3 else image)
    assert done
    return data.tobytes()


def decoded(data: bytes) -> np.ndarray:
    """Decode an image without any conversion."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image
