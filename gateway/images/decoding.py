"""From the bytes of an image file to the network's input: limits from the header, decoding, one resize.

OpenCV decodes PNG and BMP files with a palette, `gateway.images.jpeg`, `tiff` and `bmp` the others.
"""

import io
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from gateway.errors import TooLargeError, UnsupportedImageError
from gateway.images import bmp, tiff
from gateway.images.bmp import BmpLayout, decode_bmp
from gateway.images.jpeg import decode_jpeg, require_8_bits
from gateway.images.picture import Picture, Samples, Stored, StoredSamples
from gateway.images.png import with_stored_pixels
from gateway.images.structure import excess_of, has_whole_chunks, inflates_beyond_its_pixels
from gateway.images.tiff import TiffLayout, decode_tiff, require_affordable

# Pillow reads headers only; `read_header` has a limit of its own.
Image.MAX_IMAGE_PIXELS = None

_BEGINNINGS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"BM": "bmp"}
_BEGINNINGS |= dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tif")
_MAX_SIDE = 65_500  # of libjpeg, and more than any canonical ROI

# EXIF orientation -> how to turn the stored pixels upright.
_TRANSPOSED = {5, 6, 7, 8}
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # codes of cv2.flip, after the transposition where there is one


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one image."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header of a file says, before anything is decoded."""

    extension: str
    width: int
    height: int
    orientation: int
    """EXIF orientation, 1–8."""
    layout: BmpLayout | TiffLayout | None = field(default=None, compare=False, repr=False)
    """What else the decoder needs of a BMP or TIFF file."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright image, which is the pixel grid of every answer."""
        return (self.height, self.width) if self.orientation in _TRANSPOSED else (self.width, self.height)


def read_header(data: bytes, name: str, limits: Limits) -> ImageHeader:
    """Read the format and the size of an image from its content, whatever the file is called.

    Args:
        data: the file.
        name: name of the file, for errors.
        limits: of bytes and pixels.

    Raises:
        UnsupportedImageError: empty, not an image, of another format than PNG, JPEG, BMP and TIFF, or of a kind that is
            not served; the error names it.
        TooLargeError: over a limit, or with so many scans, segments or tiles that it costs more than its pixels.
    """
    if not data:
        raise UnsupportedImageError(f"{name}: the file is empty")
    if len(data) > limits.max_bytes:
        raise TooLargeError(f"{name}: {len(data)} bytes; at most {limits.max_bytes} are served")
    excess = excess_of(data)
    if excess is not None:
        raise TooLargeError(f"{name}: {excess}", "Save the image again with an ordinary encoder.")
    extension = next((kind for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)), None)
    if extension is None:
        raise UnsupportedImageError(f"{name}: not a PNG, JPEG, BMP or TIFF file (begins with {data[:8].hex(' ')})")
    layout: BmpLayout | TiffLayout | None = None
    if extension == "bmp":
        layout = bmp.read_layout(data, name)
        width, height, orientation = layout.width, layout.height, 1
    elif extension == "tif":
        layout = tiff.read_layout(data, name)
        width, height, orientation = layout.width, layout.height, layout.orientation
    else:
        if extension == "jpg":
            require_8_bits(data, name)
        elif not has_whole_chunks(data):
            raise UnsupportedImageError(f"{name}: truncated or damaged: a PNG without its end")
        width, height, orientation = _size_and_orientation(data, name)
    _require_size(data, name, width, height, limits)
    if isinstance(layout, TiffLayout):
        require_affordable(layout, name, limits.max_pixels)
    return ImageHeader(extension, width, height, orientation, layout)


def _size_and_orientation(data: bytes, name: str) -> tuple[int, int, int]:
    """Return the width, height and EXIF orientation of a PNG or JPEG file."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:  # JPEG takes in MPO, which is opened as it
            width, height = image.size
            # The method of the base class: that of a PNG would decode the whole image before its size is known.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except UnidentifiedImageError as error:
        raise UnsupportedImageError(
            f"{name}: not a PNG, JPEG, BMP or TIFF file, or its header is damaged (begins with {data[:8].hex(' ')})"
        ) from error
    except Exception as error:  # damaged bytes may raise anything in a parser
        raise UnsupportedImageError(f"{name}: its header is damaged ({type(error).__name__})") from error
    return width, height, orientation if orientation in range(1, 9) else 1


def _require_size(data: bytes, name: str, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise TooLargeError(f"{name}: {width} × {height} pixels; at most {limits.max_pixels} are served")
    if max(width, height) > _MAX_SIDE:
        raise TooLargeError(f"{name}: {width} × {height} pixels; a side has at most {_MAX_SIDE}")
    if width < 1 or height < 1:
        raise UnsupportedImageError(f"{name}: {width} × {height} pixels")
    if inflates_beyond_its_pixels(data, width, height):
        raise TooLargeError(f"{name}: its data inflates to more than twice its pixels")


def decode(data: bytes, name: str, header: ImageHeader) -> NDArray[np.uint8]:
    """Return the pixels of `decode_picture`, uint8 [H, W] or [H, W, 3] RGB."""
    return decode_picture(data, name, header).pixels


def decode_picture(data: bytes, name: str, header: ImageHeader, bit_depth: int | None = None) -> Picture:
    """Decode a file to 8 bits, upright.

    Samples of b bits, 9 to 16, are divided by 2^b - 1 and multiplied by 255, whatever the image holds. Where the bit
    depth of the camera is stated, they are divided by 2^bit_depth - 1, and larger values become 255. A transparent
    pixel is blended over black; a palette is looked up; EXIF orientation is applied.

    Args:
        data: the file.
        name: name of the file, for errors.
        header: from `read_header` of the same bytes.
        bit_depth: bits a sample of the camera, 8 to 16, for files of more than 8 bits; None takes the file's.

    Returns:
        The pixels, uint8 [H, W] for a grey image and [H, W, 3] RGB for any other, and what the file held.

    Raises:
        UnsupportedImageError: truncated or damaged, or of a kind that is not served.
    """
    stored = _stored(data, name, header)
    if stored.colour.shape[:2] != (header.height, header.width):
        height, width = stored.colour.shape[:2]
        said = f"{header.width} × {header.height}"
        raise UnsupportedImageError(f"{name}: its header says {said} pixels, but {width} × {height} were decoded")
    is_transparent = stored.alpha is not None and not stored.alpha.any()
    samples = Samples.of(stored.colour, stored.bits, is_transparent=is_transparent)
    pixels = _to_8_bits(stored.colour, stored.bits if bit_depth is None else bit_depth)
    if stored.alpha is not None and not stored.is_premultiplied:
        pixels = _over_black(pixels, _to_8_bits(stored.alpha, stored.bits))
    return Picture(_upright(pixels, header.orientation), samples, bit_depth)


def _stored(data: bytes, name: str, header: ImageHeader) -> Stored:
    if isinstance(header.layout, TiffLayout):
        return decode_tiff(data, name, header.layout)
    if isinstance(header.layout, BmpLayout) and not header.layout.has_palette:
        return decode_bmp(data, name, header.layout)
    if header.extension == "jpg":
        return decode_jpeg(data, name, (header.width, header.height))
    return _decode_by_opencv(with_stored_pixels(data) if header.extension == "png" else data, name)


def _decode_by_opencv(data: bytes, name: str) -> Stored:
    try:
        # Unchanged: a grey image stays grey until the network's input is made.
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedImageError(f"{name}: cannot be decoded ({error.err})") from error
    if raw is None:
        raise UnsupportedImageError(f"{name}: truncated or damaged, it cannot be decoded")
    if raw.dtype not in (np.uint8, np.uint16):
        raise UnsupportedImageError(f"{name}: samples are {raw.dtype}; 8 and 16 bits unsigned are served")
    image = _as_stored(raw)
    bits = 8 * image.itemsize
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return Stored(_as_stored(image.reshape(image.shape[:2])), bits)
    if channels == 2:
        return Stored(_as_stored(image[..., 0].copy()), bits, _as_stored(image[..., 1]))
    if channels == 3:
        return Stored(_as_stored(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), bits)
    if channels == 4:
        return Stored(_as_stored(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)), bits, _as_stored(image[..., 3]))
    raise UnsupportedImageError(f"{name}: {channels} channels; 1 to 4 are served")


def _as_stored(image: object) -> StoredSamples:
    array = np.asarray(image)
    return np.asarray(array, np.uint16) if array.dtype == np.uint16 else np.asarray(array, np.uint8)


def _to_8_bits(samples: StoredSamples, depth: int) -> NDArray[np.uint8]:
    """Scale samples of 9 to 16 bits from 0 to 2^depth - 1 to 0 to 255; those of 8 bits stay."""
    if samples.dtype == np.uint8:
        return np.asarray(samples, np.uint8)
    return np.asarray(cv2.convertScaleAbs(samples, alpha=255 / ((1 << depth) - 1)), np.uint8)


def _over_black(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if alpha.min() == 255:
        return colour
    shares = alpha if colour.ndim == 2 else alpha[..., None]
    return ((colour.astype(np.uint16) * shares + 127) // 255).astype(np.uint8)


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == 1:
        return image
    if orientation in _TRANSPOSED:
        image = np.asarray(cv2.transpose(image), np.uint8)
    if orientation in _FLIPS:
        image = np.asarray(cv2.flip(image, _FLIPS[orientation]), np.uint8)
    return image


def to_model_input(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize an image to the network's input. The aspect ratio is not kept, since the map is scaled back.

    An axis that shrinks is averaged by area, so that no pixel and no small defect is skipped; an axis that grows is
    interpolated.

    Args:
        image: uint8 [H, W] grey or [H, W, 3] RGB.
        size: S.

    Returns:
        uint8 [S, S, 3] RGB, contiguous.
    """
    return resized(image, (size, size))


def resized(image: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image to RGB of any size, as `to_model_input` does.

    Args:
        image: uint8 [H, W] grey or [H, W, 3] RGB.
        size_wh: `(W', H')` in pixels.

    Returns:
        uint8 [H', W', 3] RGB, contiguous.
    """
    to_width, to_height = size_wh
    height, width = image.shape[:2]
    if height > to_height and width < to_width:
        image = _resize(image, (width, to_height), cv2.INTER_AREA)
    elif width > to_width and height < to_height:
        image = _resize(image, (to_width, height), cv2.INTER_AREA)
    # INTER_AREA averages only where no axis grows; after the step above, none shrinks where one grows.
    height, width = image.shape[:2]
    if (width, height) != size_wh:
        grows = height < to_height or width < to_width
        image = _resize(image, size_wh, cv2.INTER_LINEAR if grows else cv2.INTER_AREA)
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.ascontiguousarray(image)


def _resize(image: NDArray[np.uint8], size_wh: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size_wh, interpolation=interpolation), np.uint8)
