"""Image files that cost more to decode than their size suggests."""

import struct
import zlib

import cv2
import numpy as np


def deflated_zeros(n: int) -> bytes:
    """What `zlib.compress(bytes(n))` inflates to, made in a moment: a million zeros deflated once, and repeated."""
    many, rest = divmod(n, 10**6)
    deflate = zlib.compressobj()
    parts = [deflate.compress(bytes(rest)) + deflate.flush(zlib.Z_FULL_FLUSH)]
    parts += [deflate.compress(bytes(10**6)) + deflate.flush(zlib.Z_FULL_FLUSH)] * many
    last_block, adler_32 = b"\x03\0", struct.pack(">HH", n % 65521, 1)
    return b"".join((*parts, last_block, adler_32))


def png(chunks: list[tuple[bytes, bytes]] = (), size_wh: tuple[int, int] = (100, 100), n_zeros: int | None = None):
    """A grey PNG with chunks before its pixels, which are zeros; as many as the size needs, or another number."""
    width, height = size_wh
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    deflated = deflated_zeros((width + 1) * height if n_zeros is None else n_zeros)
    all_chunks = [(b"IHDR", header), *chunks, (b"IDAT", deflated), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in all_chunks)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiff_in_tiles(side: int, tile_side: int) -> bytes:
    """A grey TIFF whose one tile is far larger than the image."""
    data = deflated_zeros(side * side)
    tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile_side), (323, tile_side)]
    tags += [(324, 8), (325, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_of_scans(n: int, size_wh: tuple[int, int] = (3000, 3000)) -> bytes:
    """A progressive JPEG with at least n scans of a few bytes each."""
    width, height = size_wh
    done, encoded = cv2.imencode(".jpg", np.zeros((height, width), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    data = encoded.tobytes()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * n + data[-2:]


def bmp(width: int, height: int, compression: int, data: bytes) -> bytes:
    """A BMP of 8 bits with a grey palette."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(data), 0, 0, 1078) + header + palette + data


def jpeg_of_segments(n: int, segment: bytes) -> bytes:
    """A JPEG with segments before its pixels."""
    done, encoded = cv2.imencode(".jpg", np.zeros((100, 100), np.uint8))
    assert done
    data = encoded.tobytes()
    return data[:2] + segment * n + data[2:]
