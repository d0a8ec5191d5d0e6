"""Image files that cost more than their pixels, found from their structure before a library decodes them.

A limit on the pixels of the header does not catch a JPEG whose scans visit the same pixels a hundred thousand times, or
a million empty segments that a parser visits one by one.
"""

import struct
import zlib

_MAX_SEGMENTS = 1000  # before the pixels; cameras write a few dozen
_MAX_SCANS = 100  # encoders write 1 scan, or about 10 progressive scans

_MAX_CHUNKS = 50_000  # in a PNG; encoders write one for every 8 KB or more
_QUICKLY_INFLATED = 2**19

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples a pixel, by colour type
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD9), 0xFF}  # JPEG bytes after 0xFF without a length, and fill bytes
_SOS = 0xDA
_MAX_TAGS = 1000  # of the first image of a TIFF; writers write a few dozen
_MAX_VALUES = 200_000  # of a tag; a tag of strips or tiles has one for each
_TIFF_BYTES = {1, 2, 6, 7}  # types of one byte a value, which a parser keeps as they are
_TIFF_FORMS = {
    b"II*\0": ("<", "I", "H", "HHI4s"),
    b"MM\0*": (">", "I", "H", "HHI4s"),
    b"II+\0": ("<", "Q", "Q", "HHQ8s"),
    b"MM\0+": (">", "Q", "Q", "HHQ8s"),
}
"""Byte order, and struct's formats of the offset of the first image, its number of tags, and a tag."""


def excess_of(data: bytes) -> str | None:
    """Return what a PNG, JPEG or TIFF file has too much of, or None. A truncated file may pass."""
    if data.startswith(_PNG):
        return None if _few_chunks(data) else f"more than {_MAX_SEGMENTS} chunks before its pixels"
    if data.startswith(b"\xff\xd8"):
        if not _few_segments(data):
            return f"more than {_MAX_SEGMENTS} segments before its pixels"
        # Compressed pixels never hold these two bytes; an embedded thumbnail may.
        if data.count(bytes((0xFF, _SOS))) > _MAX_SCANS:
            return f"more than {_MAX_SCANS} scans"
    form = _TIFF_FORMS.get(data[:4])
    return None if form is None else _tiff_excess(data, *form)


def has_whole_chunks(data: bytes) -> bool:
    """Return whether all chunks of a PNG, up to its end chunk, lie inside the file.

    OpenCV makes room for a chunk of 2 GB that a damaged length claims, before it finds that the file is shorter.
    """
    at = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        stop = at + 12 + int.from_bytes(data[at : at + 4])
        if stop > len(data):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = stop
    return True  # `inflates_beyond_its_pixels` refuses so many chunks


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


def _tiff_excess(data: bytes, order: str, first: str, n_tags: str, tag: str) -> str | None:
    """Return what the first image of a TIFF has too much of, given the forms of its offset, number of tags and tag."""
    try:
        (at,) = struct.unpack_from(order + first, data, 4 if first == "I" else 8)
        (n,) = struct.unpack_from(order + n_tags, data, at)
        if n > _MAX_TAGS:
            return f"more than {_MAX_TAGS} tags"
        at += struct.calcsize(order + n_tags)
        size = struct.calcsize(order + tag)
        for i in range(n):
            code, kind, count, _ = struct.unpack_from(order + tag, data, at + i * size)
            if kind not in _TIFF_BYTES and count > _MAX_VALUES:
                return f"{count} values of the TIFF tag {code}; at most {_MAX_VALUES} are served"
    except (struct.error, OverflowError):
        pass  # offsets outside the file: the parser reports them
    return None


def _length(data: bytes, at: int) -> int:
    return max(2, int.from_bytes(data[at : at + 2]))
