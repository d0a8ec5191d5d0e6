"""From the bytes of an image file to the network's input: limits from the header, decode, one resize."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from gateway.errors import TooLargeError, UnsupportedImageError
from gateway.images.picture import Picture, Samples
from gateway.images.structure import excess_of, inflates_beyond_its_pixels

# Pillow reads headers only; its own limit would warn before ours speaks.
Image.MAX_IMAGE_PIXELS = None

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
_EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "BMP": "bmp", "TIFF": "tif"}
_TIFF_MODES = {"1", "L", "P", "RGB", "I;16", "I;16B"}  # as Pillow names them; OpenCV reads others as something else
_MAX_SIDE = 65_500  # of libjpeg, and more than any canonical ROI

# EXIF orientation -> what to do to the stored pixels to see them upright.
_TRANSPOSED = {5, 6, 7, 8}
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # cv2.flip codes, after the transposition where there is one


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may be."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a file says of itself before anything is decoded."""

    extension: str
    width: int
    height: int
    orientation: int
    """EXIF orientation, 1–8."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as seen, which is the pixel grid of every answer."""
        return (self.height, self.width) if self.orientation in _TRANSPOSED else (self.width, self.height)


def read_header(data: bytes, name: str, limits: Limits) -> ImageHeader:
    """Tell format and size by content, whatever the file is called.

    Args:
        data: the file.
        name: what to call it in an error.
        limits: of bytes and pixels.

    Raises:
        UnsupportedImageError: empty, not an image, of another format than PNG, JPEG, BMP and TIFF, or a TIFF with
            transparency, in CMYK or of other samples than 8 and 16 bits.
        TooLargeError: over a limit, or of so many scans, segments or so large tiles that it costs more than its pixels.
    """
    if not data:
        raise UnsupportedImageError(f"{name}: the file is empty")
    if len(data) > limits.max_bytes:
        raise TooLargeError(f"{name}: {len(data)} bytes; at most {limits.max_bytes} are served")
    excess = excess_of(data)
    if excess is not None:
        raise TooLargeError(f"{name}: {excess}", "Write the image anew with an ordinary encoder.")
    try:
        with Image.open(io.BytesIO(data), formats=tuple(_EXTENSIONS)) as image:
            extension = _EXTENSIONS.get(image.format or "", "jpg")  # MPO is a JPEG with further pictures behind it
            mode = image.mode
            width, height = image.size
            # The base class's: a PNG's own would decode the whole image, before its size was judged.
            exif = Image.Image.getexif(image)
            tile_pixels = _tile_pixels(image)
    except UnidentifiedImageError as error:
        raise UnsupportedImageError(
            f"{name}: not a PNG, JPEG, BMP or TIFF file (begins with {data[:8].hex(' ')})"
        ) from error
    except Exception as error:  # fed with hostile bytes, a header parser may raise anything
        raise UnsupportedImageError(f"{name}: its header is damaged ({type(error).__name__})") from error
    if width * height > limits.max_pixels:
        raise TooLargeError(f"{name}: {width} × {height} pixels; at most {limits.max_pixels} are served")
    if max(width, height) > _MAX_SIDE:
        raise TooLargeError(f"{name}: {width} × {height} pixels; a side has at most {_MAX_SIDE}")
    if tile_pixels > limits.max_pixels:
        raise TooLargeError(f"{name}: tiles of {tile_pixels} pixels; at most {limits.max_pixels} are served")
    if width < 1 or height < 1:
        raise UnsupportedImageError(f"{name}: {width} × {height} pixels")
    if inflates_beyond_its_pixels(data, width, height):
        raise TooLargeError(f"{name}: its data inflates to more than twice its pixels")
    if extension == "tif" and mode not in _TIFF_MODES:
        raise UnsupportedImageError(f"{name}: a TIFF of mode {mode}; grey, palette and RGB are served")
    # Both readers turn a TIFF themselves: its size is the upright one, and so are its pixels.
    orientation = 1 if extension == "tif" else exif.get(ExifTags.Base.Orientation, 1)
    return ImageHeader(extension, width, height, orientation if orientation in range(1, 9) else 1)


def _tile_pixels(image: Image.Image) -> int:
    """Of one tile of a TIFF, which a decoder makes room for whatever the size of the image."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    width, height = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    return int(width) * int(height)


def decode(data: bytes, name: str, header: ImageHeader) -> NDArray[np.uint8]:
    """Return the pixels of `decode_picture`, uint8 [H, W] or [H, W, 3] RGB."""
    return decode_picture(data, name, header).pixels


def decode_picture(data: bytes, name: str, header: ImageHeader, bit_depth: int | None = None) -> Picture:
    """Decode a file to 8 bits, upright.

    16-bit samples are divided by 65535 and multiplied by 255, whatever the image holds; where the camera's bit depth
    is stated, by 2^bit_depth - 1, and larger values become 255. A transparent pixel is blended over black; a palette
    is looked up; EXIF orientation is applied, as every viewer does.

    Args:
        data: the file.
        name: what to call it in an error.
        header: from `read_header` of the same bytes.
        bit_depth: bits a sample of the camera, 8 to 16, for files of more than 8 bits; None takes the file's.

    Returns:
        The pixels, uint8 [H, W] for a grey image and [H, W, 3] RGB for any other, and what the file held.

    Raises:
        UnsupportedImageError: truncated or damaged, or samples that are neither 8 nor 16 bits.
    """
    try:
        # Unchanged: a grey image stays grey until the network's input is made.
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnsupportedImageError(f"{name}: cannot be decoded ({error.err})") from error
    if raw is None:
        raise UnsupportedImageError(f"{name}: truncated or damaged, it cannot be decoded")
    if raw.shape[:2] != (header.height, header.width):
        height, width = raw.shape[:2]
        said = f"{header.width} × {header.height}"
        raise UnsupportedImageError(f"{name}: its header says {said} pixels, but {width} × {height} were decoded")
    if raw.dtype == np.uint8:
        colour, alpha = _to_rgb_or_grey(np.asarray(raw, np.uint8), name)
        bits = 8
    elif raw.dtype == np.uint16:
        colour, alpha = _to_rgb_or_grey(np.asarray(raw, np.uint16), name)
        bits = 16
    else:
        raise UnsupportedImageError(f"{name}: samples are {raw.dtype}; 8 and 16 bits unsigned are served")
    samples = Samples.of(colour, bits, is_transparent=alpha is not None and not alpha.any())
    pixels = _to_8_bits(colour, bits if bit_depth is None else bit_depth)
    if alpha is not None:
        pixels = _over_black(pixels, _to_8_bits(alpha, bits))
    return Picture(_upright(pixels, header.orientation), samples, bit_depth)


_Stored = NDArray[np.uint8] | NDArray[np.uint16]


def _to_rgb_or_grey(image: _Stored, name: str) -> tuple[_Stored, _Stored | None]:
    """Split what OpenCV decodes into grey [H, W] or RGB [H, W, 3], and alpha [H, W] where there is any."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return _as_stored(image.reshape(image.shape[:2])), None
    if channels == 2:
        return _as_stored(image[..., 0].copy()), _as_stored(image[..., 1])
    if channels == 3:
        return _as_stored(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), None
    if channels == 4:
        return _as_stored(cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)), _as_stored(image[..., 3])
    raise UnsupportedImageError(f"{name}: {channels} channels; 1 to 4 are served")


def _as_stored(image: object) -> _Stored:
    array = np.asarray(image)
    return np.asarray(array, np.uint16) if array.dtype == np.uint16 else np.asarray(array, np.uint8)


def _to_8_bits(samples: _Stored, depth: int) -> NDArray[np.uint8]:
    """Scale samples of 9 to 16 bits from 0 to 2^depth - 1 to 0 to 255; those of 8 bits stay."""
    if samples.dtype == np.uint8:
        return np.asarray(samples, np.uint8)
    return np.asarray(cv2.convertScaleAbs(samples, alpha=255 / (2**depth - 1)), np.uint8)


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
    """Bring an image to the network's input with one resize; aspect ratio is not kept, since the map is scaled back.

    Args:
        image: uint8 [H, W] grey or [H, W, 3] RGB.
        size: S.

    Returns:
        uint8 [S, S, 3] RGB, contiguous.
    """
    height, width = image.shape[:2]
    if (height, width) != (size, size):
        # Area averaging where the image shrinks: linear would skip pixels, and with them small defects.
        shrinks = height > size or width > size
        image = np.asarray(
            cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
        )
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.ascontiguousarray(image)
