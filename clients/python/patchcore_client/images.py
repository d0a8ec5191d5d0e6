"""Images as they are sent: a path, bytes, an open file or an array becomes the bytes of a file, and its name."""

import importlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from patchcore_client.errors import ImageError

MAX_NAME_CHARS = 255


@runtime_checkable
class Array(Protocol):
    """What NumPy arrays have, so that this module needs no NumPy."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Memory, shape and dtype."""


@runtime_checkable
class File(Protocol):
    """An open binary file."""

    def read(self, size: int = -1, /) -> bytes:
        """Return its bytes."""


Image: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | File | Array | tuple[str, Any]"
"""An image to send: a path, the bytes of an image file, an open file, an array, or a pair of a name and one of these.

An array is uint8 or uint16 [H, W] (grey), or uint8 [H, W, 3] in RGB order; it is sent as PNG. For BGR, as OpenCV reads
images, give `encode(array, order="bgr")`. Float images have no range that everybody agrees on, and are refused.
"""

Encoded: TypeAlias = tuple[str, bytes]
"""Name and bytes of an image file."""


def load(image: Image, name: str = "image.png") -> Encoded:
    """Return the name and the bytes of an image. Reads and encodes.

    Args:
        image: a path, bytes, an open file, an array, or a pair of a name and one of these.
        name: name of an image that brings none.

    Raises:
        ImageError: the file cannot be read or is empty, or the array is of another shape or dtype.
    """
    if isinstance(image, tuple):
        given, image = image
        name = _short(str(given))
        return name, load(image, name)[1]
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror or error}") from error
        name = path.name
    elif isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
    elif isinstance(image, Array):
        return name, encode(image)
    elif isinstance(image, File):
        data = _read(image)
        name = _short(Path(str(getattr(image, "name", "") or name)).name)
    else:
        raise ImageError(f"expected a path, bytes, an open file or an array, not {type(image).__name__}")
    if not data:
        raise ImageError(f"{name}: the file is empty")
    return _short(name), data


def load_all(images: Sequence[Image]) -> list[Encoded]:
    """Return names and bytes of several images, as `load` does."""
    return [load(image, f"image-{i}.png") for i, image in enumerate(images, 1)]


def encode(array: Array, *, order: Literal["rgb", "bgr"] = "rgb") -> bytes:
    """Return an array as PNG. Needs the extra `images`.

    Args:
        array: uint8 or uint16 [H, W], or uint8 [H, W, 3].
        order: order of the three channels.

    Raises:
        ImageError: another shape or dtype, or Pillow or NumPy is not installed.
    """
    np, pillow = needed("numpy"), needed("PIL.Image")
    pixels = np.asarray(array)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    is_grey = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
    if not (is_colour or is_grey) or pixels.size == 0:
        raise ImageError(
            f"an array of shape {pixels.shape} and dtype {pixels.dtype}: expected uint8 or uint16 [H, W], or uint8 "
            "[H, W, 3]"
        )
    if is_colour and order == "bgr":
        pixels = pixels[..., ::-1]
    file = io.BytesIO()
    pillow.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def needed(module: str) -> Any:
    """Import a module of the extra `images`.

    Raises:
        ImageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f"{module.partition('.')[0]} is not installed: pip install 'patchcore-client[images]'"
        ) from error


def _read(file: File) -> bytes:
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{getattr(file, 'name', 'file')}: {error}") from error
    if not isinstance(data, bytes | bytearray):
        raise ImageError(f"{getattr(file, 'name', 'file')}: open it in binary mode: open(path, 'rb')")
    return bytes(data)


def _short(name: str) -> str:
    return name[-MAX_NAME_CHARS:] or "image.png"
