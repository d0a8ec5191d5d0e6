"""ROI masks: the shape a client sends, and the pixels inside it.

Coordinates are continuous: a W×H image spans [0, W] × [0, H], and pixel (x, y) covers [x, x+1) × [y, y+1). A pixel is
inside a shape if its centre (x + 0.5, y + 0.5) is inside or on the edge.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Far larger than any image, and far smaller than numbers at which float64 loses fractions of a pixel.
_LARGEST = 1e6
# A pixel centre this near to an edge, in pixels, is on it, so that rounding of sines and decimals does not decide.
_ON_EDGE = 1e-6


class ShapeError(ValueError):
    """A shape that cannot be used. The message names the key, the value and what was expected."""


@dataclass(frozen=True, slots=True)
class Circle:
    """A disc of radius `r` around (`cx`, `cy`), in pixels; `None` means the centre of the image.

    Raises:
        ShapeError: `r` is not above 0.
    """

    cx: float | None
    cy: float | None
    r: float

    def __post_init__(self) -> None:
        """Refuse a disc without area."""
        _require_positive("r", self.r)


@dataclass(frozen=True, slots=True)
class Annulus:
    """A ring around (`cx`, `cy`) from radius `r_inner` to radius `r`, in pixels; `None` means the centre of the image.

    Raises:
        ShapeError: `0 <= r_inner < r` does not hold.
    """

    cx: float | None
    cy: float | None
    r: float
    r_inner: float

    def __post_init__(self) -> None:
        """Refuse a ring without area."""
        _require_positive("r", self.r)
        if not 0 <= self.r_inner < self.r:
            raise ShapeError(f"shape.r_inner is {self.r_inner:g}; expected at least 0 and less than r, {self.r:g}")


@dataclass(frozen=True, slots=True)
class Rect:
    """A `w`×`h` rectangle around (`cx`, `cy`), in pixels; `None` means the centre of the image.

    `angle` rotates it about its centre, in degrees, clockwise on the screen, as in WPF's RotateTransform and OpenCV's
    RotatedRect.

    Raises:
        ShapeError: `w` or `h` is not above 0.
    """

    cx: float | None
    cy: float | None
    w: float
    h: float
    angle: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a rectangle without area."""
        _require_positive("w", self.w)
        _require_positive("h", self.h)


Shape = Circle | Annulus | Rect

KEYS = frozenset({"kind", "x", "y", "cx", "cy", "r", "r_inner", "w", "h", "angle"})
"""The keys of every kind of shape."""


def parse_shape(text: str) -> tuple[Shape, list[str]]:
    """Read a shape from its JSON text.

    `cx`, `cy` and `angle` may be missing or null. A rect may have `x` and `y` instead of `cx` and `cy`: its top left
    corner before it is turned about its centre. Keys of the other kinds are ignored, since a client may serialise one
    class for all kinds. Keys of no kind are ignored with a warning.

    Args:
        text: `{"kind": "circle" | "annulus" | "rect", "x", "y", "cx", "cy", "r", "r_inner", "w", "h", "angle"}`, in
            pixels and degrees.

    Returns:
        The shape, and the warnings.

    Raises:
        ShapeError: the text is anything else.

    Example:
        >>> parse_shape('{"kind": "circle", "cx": 10, "cy": null, "r": 5, "w": null, "colour": "red"}')
        (Circle(cx=10.0, cy=None, r=5.0), ['shape: unknown key "colour" ignored'])
        >>> parse_shape('{"kind": "rect", "x": 10, "y": 0, "w": 8, "h": 4}')
        (Rect(cx=14.0, cy=2.0, w=8.0, h=4.0, angle=0.0), [])
    """
    try:
        # Every number becomes a float: an int may have any number of digits, and `true` counts as an int.
        given = json.loads(text, parse_int=float)
    except RecursionError:
        raise ShapeError("shape is nested too deeply; expected one JSON object of numbers") from None
    except ValueError as error:
        raise ShapeError(f"shape is {_seen(text)}, which is not JSON ({error}); expected a JSON object") from None
    if not isinstance(given, dict):
        raise ShapeError(f"shape is {_seen(given)}; expected a JSON object")

    def number(key: str) -> float:
        value = optional(key)
        if value is None:
            raise ShapeError(f"shape.{key} is {'null' if key in given else 'missing'}; a {kind} needs a number there")
        return value

    def optional(key: str) -> float | None:
        value = given.get(key)
        if value is None:
            return None
        if not isinstance(value, float):
            raise ShapeError(f"shape.{key} is {_seen(value)}; expected a number, with a point as decimal separator")
        # Not `>`: Python also reads NaN, which is not JSON.
        if not abs(value) <= _LARGEST:
            raise ShapeError(f"shape.{key} is {_seen(value)}; expected a number from -{_LARGEST:g} to {_LARGEST:g}")
        return value

    def require_centre() -> None:
        corner = next((key for key in ("x", "y") if optional(key) is not None), None)
        if corner is not None and cx is None and cy is None:
            raise ShapeError(f"shape.{corner} is the corner of a rect; a {kind} has a centre, cx and cy")

    kind = given.get("kind")
    cx, cy = optional("cx"), optional("cy")
    shape: Shape
    match kind:
        case "circle":
            require_centre()
            shape = Circle(cx, cy, number("r"))
        case "annulus":
            require_centre()
            shape = Annulus(cx, cy, number("r"), number("r_inner"))
        case "rect":
            w, h, x, y = number("w"), number("h"), optional("x"), optional("y")
            if x is not None or y is not None:
                if cx is not None or cy is not None:
                    raise ShapeError(
                        "shape has both x or y, the top left corner, and cx or cy, the centre; expected one of the two"
                    )
                cx, cy = number("x") + w / 2, number("y") + h / 2
            shape = Rect(cx, cy, w, h, optional("angle") or 0.0)
        case _:
            seen = _seen(kind) if "kind" in given else "missing"
            raise ShapeError(f'shape.kind is {seen}; expected "circle", "annulus" or "rect"')
    return shape, [f"shape: unknown key {_seen(key)} ignored" for key in given if key not in KEYS]


def shape_text(shape: Shape) -> str:
    """Return the JSON text of a shape, which `parse_shape` reads; a rect by its centre.

    Example:
        >>> shape_text(Circle(10, None, 5))
        '{"kind": "circle", "cx": 10, "cy": null, "r": 5}'
    """
    return json.dumps({"kind": type(shape).__name__.lower(), **asdict(shape)})


def rasterise(shape: Shape, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a shape: the pixels whose centre it covers.

    Args:
        shape: in pixels of the image; parts outside the image are ignored.
        size_wh: `(W, H)` of the image.

    Returns:
        bool `[H, W]`, true inside.

    Raises:
        ShapeError: the shape covers no pixel of the image.

    Example:
        >>> rasterise(Circle(None, None, 1.6), (4, 4)).astype(int)
        array([[0, 1, 1, 0],
               [1, 1, 1, 1],
               [1, 1, 1, 1],
               [0, 1, 1, 0]])
    """
    width, height = size_wh
    cx = width / 2 if shape.cx is None else shape.cx
    cy = height / 2 if shape.cy is None else shape.cy
    reach_x, reach_y = _reach(shape)
    columns, rows = _span(cx, reach_x, width), _span(cy, reach_y, height)
    # Pixel centres relative to the shape's centre: a row and a column, so that only comparisons visit all pixels.
    dx = np.arange(columns.start, columns.stop)[None, :] + (0.5 - cx)
    dy = np.arange(rows.start, rows.stop)[:, None] + (0.5 - cy)

    match shape:
        case Circle(r=r):
            inside = dx**2 <= (r + _ON_EDGE) ** 2 - dy**2
        case Annulus(r=r, r_inner=r_inner):
            inside = dx**2 <= (r + _ON_EDGE) ** 2 - dy**2
            inside &= dx**2 >= max(r_inner - _ON_EDGE, 0) ** 2 - dy**2
        case Rect(w=w, h=h):
            cos, sin = _cos_sin(shape.angle)
            half_w, half_h = w / 2 + _ON_EDGE, h / 2 + _ON_EDGE
            # |dx cos + dy sin| <= w/2 and |dy cos - dx sin| <= h/2
            inside = dx * cos >= -half_w - dy * sin
            inside &= dx * cos <= half_w - dy * sin
            inside &= dx * sin >= dy * cos - half_h
            inside &= dx * sin <= dy * cos + half_h

    if not inside.any():
        raise ShapeError(f"shape {shape} covers no pixel of the {width}×{height} image")
    mask = np.zeros((height, width), np.bool_)
    mask[rows, columns] = inside
    return mask


def _reach(shape: Shape) -> tuple[float, float]:
    """Return half the width and half the height of a shape's upright bounding box."""
    if isinstance(shape, Rect):
        cos, sin = map(abs, _cos_sin(shape.angle))
        return (shape.w * cos + shape.h * sin) / 2, (shape.w * sin + shape.h * cos) / 2
    return shape.r, shape.r


def _cos_sin(degrees: float) -> tuple[float, float]:
    radians = math.radians(math.fmod(degrees, 360))
    return math.cos(radians), math.sin(radians)


def _span(centre: float, reach: float, size: int) -> slice:
    """Return the pixels of one axis that a shape may touch, with one more at each end for rounding; may be empty."""
    first, last = math.floor(centre - reach) - 1, math.ceil(centre + reach) + 1
    start = min(max(first, 0), size)
    return slice(start, max(min(last, size), start))


def _require_positive(key: str, value: float) -> None:
    if not value > 0:
        raise ShapeError(f"shape.{key} is {value:g}; expected a number above 0")


def _seen(value: Any) -> str:
    """Return a JSON value for a message: shortened, and without the contents of objects and arrays."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
