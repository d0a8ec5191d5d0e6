"""PNG files whose pixels are inflated by libdeflate before OpenCV decodes them.

OpenCV inflates with zlib, which takes most of the time of its decoder; libdeflate takes less than half of that. So the
pixels of an ordinary file are inflated here, and OpenCV gets them in stored blocks (RFC 1951, section 3.2.4), which it
copies. All other chunks stay as they are, and OpenCV still undoes the filters: the image is the same.
"""

import struct

import imagecodecs

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
"""Width, height, bits a sample, colour type, compression, filter, interlace; after the signature and 8 other bytes."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by colour type."""
_MOST_BYTES = 2**24
"""A larger image, which would be in memory three times, is left to OpenCV."""
_BLOCK = 65_535
"""Bytes of the largest stored block."""


def with_stored_pixels(data: bytes) -> bytes:
    """Return a PNG with its pixels in stored blocks. A file that is not ordinary is returned as it is.

    Ordinary is a file whose pixels are not interlaced, lie in consecutive chunks with right checksums, and inflate to
    exactly the size that its header says. So the decoder judges every damaged file as it was sent.

    Args:
        data: the file, from its first to its last byte.
    """
    size = _size_of_pixels(data)
    start, stop, compressed = _compressed_pixels(data) if size else (0, 0, b"")
    if not compressed:
        return data
    try:
        pixels = bytes(imagecodecs.deflate_decode(compressed, out=size))
    except imagecodecs.DeflateError:
        return data
    if len(pixels) != size:
        return data
    chunk: list[bytes | memoryview] = [b"IDAT\x78\x01"]
    for at in range(0, size, _BLOCK):
        block = memoryview(pixels)[at : at + _BLOCK]
        chunk += [struct.pack("<BHH", at + _BLOCK >= size, len(block), len(block) ^ 0xFFFF), block]
    chunk.append(struct.pack(">I", imagecodecs.deflate_adler32(pixels)))
    stored = b"".join(chunk)
    length, checksum = struct.pack(">I", len(stored) - 4), struct.pack(">I", imagecodecs.deflate_crc32(stored))
    return b"".join((data[:start], length, stored, checksum, data[stop:]))


def _size_of_pixels(data: bytes) -> int:
    """Return the bytes of all rows with their filters, or 0 where the header is not that of an ordinary file."""
    at = len(_SIGNATURE) + 8
    if not data.startswith(_SIGNATURE) or len(data) < at + _HEADER.size:
        return 0
    width, height, bits, colour_type, _, _, interlace = _HEADER.unpack_from(data, at)
    if interlace or colour_type not in _SAMPLES:
        return 0
    size = height * (1 + (width * bits * _SAMPLES[colour_type] + 7) // 8)
    return size if size <= _MOST_BYTES else 0


def _compressed_pixels(data: bytes) -> tuple[int, int, bytes]:
    """Return where the chunks of the pixels start and stop, and their content; it is empty where they are damaged."""
    parts: list[bytes] = []
    at, start, stop = len(_SIGNATURE), 0, 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            is_next = not parts or at == stop
            if not is_next or imagecodecs.deflate_crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                return 0, 0, b""
            start, stop = start or at, end
            parts.append(data[at + 8 : end - 4])
        at = end
    return start, stop, b"".join(parts)
