"""``scripts/samples DIR``: a small data set of drawn machined plates, with defects of stated millimetres.

The folders are those of MVTec AD (Bergmann et al., 2019): ``train/good``, ``test/good``, ``test/<defect>``,
``ground_truth/<defect>``. The images are 384 × 384 pixels of 0.1 mm, 8-bit grey; ``--side`` draws larger plates. The
same seed gives the same files.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from evaluation.defects import blob, disc, line, paste

SIDE = 384
MM_PER_PX = 0.1
_LARGEST_SIDE = 4096
N_TRAIN, N_GOOD = 40, 12
_MASK_FROM = 0.5
"""A pixel belongs to the mask if the defect covers at least this share of it."""

Drawn = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""The image with the defect, uint8 [H, W], and the coverage, float32 [H, W]."""


def plate(random: np.random.Generator, side: int = SIDE) -> NDArray[np.uint8]:
    """Draw a brushed steel plate with a drilled hole, as a camera sees it; no two are the same.

    Returns:
        uint8 [side, side].
    """
    tilt = random.uniform(-2.5, 2.5)
    grain = _smooth(random, (2 * side, 2 * side // 16), (0.7, 2.1), 2 * side)
    grain += 0.6 * _smooth(random, (2 * side, 2 * side // 16), (1.6, 5.6), 2 * side)
    turn = cv2.getRotationMatrix2D((side, side), tilt, 1.0)
    turned = cv2.warpAffine(grain, turn, (side * 2, side * 2))
    grain = np.asarray(turned[side // 2 : -side // 2, side // 2 : -side // 2], np.float32)
    clouds = _smooth(random, (side // 16, side // 16), (2.8, 3.7), side)
    fine = _smooth(random, (side, side), (0.6, 0.6), side)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = (
        1
        + random.uniform(-0.07, 0.07) * x
        + random.uniform(-0.07, 0.07) * y
        - random.uniform(0.02, 0.07) * (x**2 + y**2)
    )
    surface = random.uniform(136, 150) * light * (1 + 0.055 * grain + 0.02 * clouds + 0.014 * fine)
    image = np.clip(surface, 0, 255).astype(np.uint8)
    for _ in range(random.integers(2, 6)):  # faint handling marks are normal
        image = paste(
            image, _stroke(random, side, random.uniform(15, 60), random.uniform(0.6, 1.1)), random.uniform(0.03, 0.07)
        )
    return _drilled(image, random)


def _drilled(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Drill a hole of 7 mm with a chamfer near the upper left corner; its place differs by up to 0.3 mm."""
    centre = (82 + random.uniform(-3, 3), 84 + random.uniform(-3, 3))
    size = image.shape
    image = paste(image, _soft(disc(size, centre, 86), 0.8), 0.16)
    image = paste(image, _soft(disc(size, (centre[0] + 1.5, centre[1] + 2), 80), 2.5), -0.3)
    return paste(image, _soft(disc(size, centre, 70), 0.9), -0.78)


def scratch(image: NDArray[np.uint8], mm: float, random: np.random.Generator) -> Drawn:
    """Scratch the plate: `mm` long and 0.3 mm wide, bright with a dark side."""
    stroke = _stroke(random, len(image), mm / MM_PER_PX, 3, across=True)
    shadow = np.roll(stroke, 2, axis=(0, 1))
    return paste(paste(image, _soft(shadow, 0.8), -0.35), _soft(stroke, 0.5), 0.5), stroke


def pit(image: NDArray[np.uint8], mm: float, random: np.random.Generator) -> Drawn:
    """Leave a pit of `mm` diameter: a dark hole with a bright rim."""
    at = _place(random, len(image))
    hole = blob(image.shape, at, mm / MM_PER_PX, random)
    rim = disc(image.shape, (at[0] + 1, at[1] + 1), mm / MM_PER_PX + 4)
    return paste(paste(image, _soft(rim, 1.0), 0.15), _soft(hole, 0.7), -0.62), hole


def dent(image: NDArray[np.uint8], mm: float, random: np.random.Generator) -> Drawn:
    """Dent the plate over `mm`: one side in shadow, the other bright."""
    at, radius = _place(random, len(image)), mm / MM_PER_PX / 2
    whole = disc(image.shape, at, 2 * radius)
    y, x = np.mgrid[0.5 : len(image), 0.5 : len(image)]
    slope = np.clip((x - at[0] + y - at[1]) / (1.4 * radius), -1, 1).astype(np.float32)
    soft = _soft(whole, 1.5 + radius / 8)
    return paste(paste(image, soft * np.maximum(slope, 0), 0.5), soft * np.maximum(-slope, 0), -0.5), whole


def crack(image: NDArray[np.uint8], mm: float, random: np.random.Generator) -> Drawn:
    """Crack the plate over `mm`: a dark jagged line of 0.2 mm."""
    steps, heading = max(6, round(mm * 2)), random.uniform(0.25, 0.75) * np.pi
    turns = heading + random.normal(scale=0.5, size=steps)
    path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0)
    path *= mm / MM_PER_PX / np.hypot(*(path[-1] - path[0]))
    path += np.array(_place(random, len(image))) - path.mean(0)
    found = line(image.shape, path, 2)
    return paste(image, _soft(found, 0.4), -0.7), found


def stain(image: NDArray[np.uint8], mm: float, random: np.random.Generator) -> Drawn:
    """Stain the plate over `mm`: a soft dark spot."""
    spot = blob(image.shape, _place(random, len(image)), mm / MM_PER_PX, random)
    return paste(image, _soft(spot, 2.0), -0.3), spot


DEFECTS: dict[str, tuple[Callable[[NDArray[np.uint8], float, np.random.Generator], Drawn], tuple[float, ...]]] = {
    "scratch": (scratch, (4, 6, 8, 12)),
    "pit": (pit, (1, 1.5, 2, 3)),
    "dent": (dent, (2, 3, 4, 5)),
    "crack": (crack, (4, 6, 8, 12)),
    "stain": (stain, (3, 4, 5, 7)),
}
"""How each defect is drawn, and its sizes in millimetres, one image each."""


def write_samples(folder: Path, seed: int = 0, side: int = SIDE) -> int:
    """Write the data set.

    Args:
        folder: is made if it does not exist; files of the same names are replaced.
        seed: of all drawing.
        side: of the images, in pixels.

    Returns:
        The number of images.
    """
    random = np.random.default_rng(seed)
    n = 0
    for part, count in (("train", N_TRAIN), ("test", N_GOOD)):
        for i in range(count):
            _write(folder / part / "good" / f"{i:03}.png", plate(random, side))
            n += 1
    rows = []
    for kind, (draw, sizes) in DEFECTS.items():
        for i, mm in enumerate(sizes):
            image, coverage = draw(plate(random, side), mm, random)
            name = f"{i:03}.png"
            _write(folder / "test" / kind / name, image)
            mask = coverage >= _MASK_FROM
            _write(folder / "ground_truth" / kind / f"{i:03}_mask.png", (255 * mask).astype(np.uint8))
            rows.append((f"test/{kind}/{name}", kind, f"{mm:g}", f"{mask.sum() * MM_PER_PX**2:.2f}"))
            n += 1
    with (folder / "defects.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "defect", "size_mm", "area_mm2"), *rows])
    return n


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/samples", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawing (default: 0)")
    parser.add_argument(
        "--side", type=_side, default=SIDE, metavar="PIXELS", help="of the images (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    try:
        n = write_samples(given.folder, given.seed, given.side)
    except OSError as error:
        print(f"error: {given.folder}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{n} images of {MM_PER_PX:g} mm a pixel in {given.folder}")
    return 0


def _side(text: str) -> int:
    if not text.isdecimal() or not SIDE <= int(text) <= _LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {SIDE} to {_LARGEST_SIDE}")
    return int(text)


def _place(random: np.random.Generator, side: int) -> tuple[float, float]:
    """Return a place for a defect: away from the edge and the hole."""
    while True:
        x, y = random.uniform(70, side - 70, 2)
        if np.hypot(x - 82, y - 84) > 110:
            return float(x), float(y)


def _stroke(
    random: np.random.Generator, side: int, length: float, width: float, *, across: bool = False
) -> NDArray[np.float32]:
    """Return the coverage of a slightly bent stroke, across the grain or in any direction."""
    centre = np.array(_place(random, side))
    angle = random.uniform(0.2, 0.8) * np.pi if across else random.uniform(0, np.pi)
    along = np.linspace(-length / 2, length / 2, 9)
    bend = random.uniform(-0.06, 0.06) * length * ((2 * along / length) ** 2 - 0.5)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return line((side, side), centre + np.stack([along, bend], 1) @ turn, width)


def _smooth(
    random: np.random.Generator, shape: tuple[int, int], sigma_yx: tuple[float, float], side: int
) -> NDArray[np.float32]:
    """Return blurred noise of standard deviation 1, drawn at `shape` and enlarged to float32 [side, side]."""
    noise = random.standard_normal(shape, np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma_yx[1], sigmaY=sigma_yx[0])
    enlarged = cv2.resize(blurred, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged / enlarged.std(), np.float32)


def _soft(coverage: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return cv2.GaussianBlur(coverage, (0, 0), sigma).astype(np.float32, copy=False)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


if __name__ == "__main__":
    sys.exit(main())
