"""Image files that cost more than their pixels, found from their structure before a library decodes them.

A limit on the pixels of the header does not catch a JPEG whose scans visit the same pixels a hundred thousand times, or
a million empty segments that a parser visits one by one.
"""

import zlib

_MAX_SEGMENTS = 1000  # before the pixels; cameras write a few dozen
_MAX_SCANS = 100  # encoders write 1 scan, or about 10 progressive scans

_MAX_CHUNKS = 50_000  # in a PNG; encoders write one for every 8 KB or more
_QUICKLY_INFLATED = 2**19

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples a pixel, by colour type
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD9), 0xFF}  # JPEG bytes after 0xFF without a length, and fill bytes
_SOS = 0xDA


def excess_of(data: bytes) -> str | None:
    """Return what a PNG or JPEG file has too much of, or None. A truncated file may pass."""
    if data.startswith(_PNG):
        return None if _few_chunks(data) else f"more than {_MAX_SEGMENTS} chunks before its pixels"
    if data.startswith(b"\xff\xd8"):
        if not _few_segments(data):
            return f"more than {_MAX_SEGMENTS} segments before its pixels"
        # Compressed pixels never hold these two bytes; an embedded thumbnail may.
        if data.count(bytes((0xFF, _SOS))) > _MAX_SCANS:
            return f"more than {_MAX_SCANS} scans"
    return None


def inflates_beyond_its_pixels(data: bytes, width: int, height: int) -> bool:
    """Return whether a PNG's compressed data goes on long after its last row. A decoder inflates all of it.

    Small files are not checked: deflate expands by at most 1032, so that they cannot take a second.
    """
    if not data.startswith(_PNG):
        return False
    parts: list[bytes] = []
    at = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if not kind:
            break
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    else:
        return True
    if sum(len(part) for part in parts) <= _QUICKLY_INFLATED:
        return False
    depth, colour_type = data[24], data[25]
    row = 1 + width * _PNG_SAMPLES.get(colour_type, 4) * depth // 8
    left = 2 * row * height + 2**20  # interlaced rows take more, but less than twice as much
    inflate = zlib.decompressobj()
    try:
        for part in parts:
            while part and left >= 0:
                left -= len(inflate.decompress(part, 2**20))
                part = inflate.unconsumed_tail
    except zlib.error:
        return False  # the decoder reports the damage
    return left < 0


def _few_chunks(data: bytes) -> bool:
    at = len(_PNG)
    for _ in range(_MAX_SEGMENTS):
        if data[at + 4 : at + 8] in (b"IDAT", b""):
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _few_segments(data: bytes) -> bool:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        marker = data[at : at + 2]
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] == _SOS:
            return True  # the pixels, or bytes that are not a segment
        at += (1 if marker[1] == 0xFF else 2) if marker[1] in _STANDALONE else 2 + _length(data, at + 2)
    return False


def _length(data: bytes, at: int) -> int:
    return max(2, int.from_bytes(data[at : at + 2]))
