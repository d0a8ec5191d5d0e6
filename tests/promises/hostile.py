"""Hypothesis strategies for hostile requests: ids, bodies, images, shapes."""

import io
import json
import struct
import zlib
from urllib.parse import quote_from_bytes

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests import bombs
from tests.e2e.synthetic_images import steel

ROLE, ROI = "steel", "pad"
SIDE = 64

# --- ids -------------------------------------------------------------------------------------------------------------

FRAGMENTS = [
    *(
        "..",
        ".",
        "/",
        "\\",
        "\0",
        "\n",
        "\r",
        " ",
        "~",
        "%",
        "%2e",
        "%2f",
        "%5c",
        "%00",
        "%252e",
        "%c0%ae",
        ":",
        "*",
        "?",
    ),
    *(
        "．",
        "‥",
        "…",
        "／",
        "＼",
        "∕",
        "⁄",
        "．．／",
        "ﬁ",
        "\u202e",
        "\u200b",
        "\ufeff",
        "\u0301",
        "İ",
        "ß",
        "\ud7ff",
        "𝐬𝐭𝐞𝐞𝐥",
    ),
    *(
        "CON",
        "con.txt",
        "NUL",
        "AUX",
        "COM1",
        "LPT9",
        "PRN",
        "C:",
        "\\\\?\\C:\\",
        "//server/share",
        "file://",
        "::$DATA",
    ),
    *("passwd", "etc", "current", "calib.json", "versions", ".locks", ".trash", ".probe", "site", "models", "modelsx"),
    *(
        ROLE,
        ROI,
        "steel.lock",
        "a",
        "-rf",
        "--help",
        "$(id)",
        "`id`",
        "${HOME}",
        "; ls",
        "x" * 65,
        "x" * 10_000,
        "..../",
    ),
]
IDS = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=5).map("".join),
    st.sampled_from([ROLE, ROI, "other", "CON", "nul.png", "a b", "x" * 64]),
    st.text(max_size=80),
)


def percent_encoded(text: str, bare: str) -> bytes:
    """For a path of a URL: UTF-8, all bytes encoded except the characters in `bare`."""
    return quote_from_bytes(text.encode(errors="surrogatepass"), safe=bare).encode()


# --- images ----------------------------------------------------------------------------------------------------------


def _seeds() -> list[bytes]:
    grey = Image.fromarray(steel(0, (SIDE, SIDE)))
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [
        ("PNG", grey, {}),
        ("PNG", grey.convert("RGB"), {}),
        ("PNG", grey.convert("RGBA"), {}),
        ("PNG", grey.convert("P"), {}),
        ("PNG", grey.convert("1"), {}),
        ("PNG", grey.convert("LA"), {}),
        ("PNG", Image.fromarray(steel(0, (SIDE, SIDE)).astype(np.uint16) * 257), {}),
        ("PNG", grey, {"exif": exif}),
        ("JPEG", grey, {}),
        ("JPEG", grey.convert("RGB"), {"progressive": True}),
        ("JPEG", grey.convert("CMYK"), {}),
        ("JPEG", grey.convert("RGB"), {"exif": exif}),
        ("BMP", grey, {}),
        ("BMP", grey.convert("RGB"), {}),
        ("BMP", grey.convert("1"), {}),
        *(("TIFF", grey, {"compression": kind}) for kind in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("TIFF", grey.convert("RGB"), {"compression": "jpeg"}),
        ("TIFF", grey, {"save_all": True, "append_images": [grey] * 3}),
    ]
    encoded = []
    for kind, image, options in made:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        encoded.append(buffer.getvalue())
    return [
        *encoded,
        bombs.tiff_in_tiles(SIDE, SIDE),
        bombs.bmp(SIDE, SIDE, 1, b"\xff\0" * 20 + b"\0\1"),
        bombs.png([(b"acTL", bytes(8)), (b"zTXt", b"x\0\0" + zlib.compress(bytes(100)))], (SIDE, SIDE)),
    ]


SEEDS = _seeds()
_NUMBERS = [0, 1, 2, 7, 8, 127, 128, 255, 256, 4096, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1]


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """A file with a few bytes changed, moved, removed or added."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        # Headers are short, and damage there matters most.
        at = at % 64 if draw(st.booleans()) else at
        kind = draw(st.sampled_from(["flip", "byte", "cut", "drop", "double", "insert", "number", "chunk"]))
        if kind == "flip" and out:
            out[at % len(out)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and out:
            out[at % len(out)] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
        elif kind == "cut":
            del out[at:]
        elif kind == "drop":
            del out[at : at + draw(st.integers(1, 300))]
        elif kind == "double":
            out[at:at] = out[at : at + draw(st.integers(1, 300))]
        elif kind == "insert":
            out[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "number":
            order = draw(st.sampled_from("<>"))
            out[at : at + 4] = struct.pack(f"{order}I", draw(st.sampled_from(_NUMBERS)))
        elif kind == "chunk":
            out = bytearray(_with_a_changed_chunk(draw, bytes(out)))
    return bytes(out)


def _with_a_changed_chunk(draw: st.DrawFn, data: bytes) -> bytes:
    """A PNG with a changed chunk and a valid checksum. Any other file is unchanged."""
    chunks, at = [], 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    i = draw(st.integers(0, len(chunks) - 1))
    name, body = chunks[i]
    kind = draw(st.sampled_from(["size", "drop", "double", "swap", "body", "name"]))
    if kind == "size" and name == b"IHDR" and len(body) == 13:
        size = struct.pack(">II", draw(st.sampled_from(_NUMBERS)), draw(st.sampled_from(_NUMBERS)))
        tail = bytes(draw(st.sampled_from([v, 0, 1, 3, 4, 6, 16])) for v in body[8:])
        chunks[i] = (name, draw(st.sampled_from([size + body[8:], body[:8] + tail, size + tail])))
    elif kind == "drop":
        del chunks[i]
    elif kind == "double":
        chunks.insert(i, chunks[i])
    elif kind == "swap":
        chunks[0], chunks[i] = chunks[i], chunks[0]
    elif kind == "body":
        chunks[i] = (name, draw(st.binary(max_size=40)))
    else:
        chunks[i] = (draw(st.sampled_from([b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"fdAT", b"sBIT", b"pHYs"])), body)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


IMAGES = st.one_of(
    st.sampled_from(SEEDS).flatmap(mutated),
    st.sampled_from(SEEDS).flatmap(mutated),
    st.sampled_from(SEEDS),
    st.tuples(st.sampled_from(SEEDS), st.sampled_from(SEEDS), st.integers(0, 4000)).map(
        lambda drawn: drawn[0][: drawn[2]] + drawn[1][drawn[2] :]
    ),
    st.binary(max_size=200),
)

# --- JSON ------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([*_NUMBERS, 10**400, -1, -0.0, 1e-320, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["0,2", "0.2", "1e5", "٢", "", "\ud800", "\0"]),
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _near(good: dict[str, st.SearchStrategy]) -> st.SearchStrategy:
    """Objects with the expected keys: all valid, or some invalid, missing or unknown."""
    keys = {key: st.one_of(value, value, value, ANY_JSON) for key, value in good.items()}
    return st.fixed_dictionaries(good) | st.fixed_dictionaries({}, optional={**keys, "other": ANY_JSON})


LENGTHS = st.one_of(st.floats(-10, 2 * SIDE), st.sampled_from([0, 1e-9, 1e6, 1e300, SIDE / 2]))
SHAPES = _near(
    {
        "kind": st.sampled_from(["circle", "annulus", "rect"]),
        **dict.fromkeys(("x", "y", "cx", "cy", "r", "r_inner", "w", "h", "angle"), LENGTHS),
    }
)
SCORE = st.floats(0, 2)
CALIBRATIONS = _near(
    {
        "role_id": st.just(ROLE),
        "roi_id": st.just(ROI),
        "mm_per_px": st.sampled_from([0.2, 1e-9, 1000, "0.2"]),
        "ok_scores": st.lists(SCORE, max_size=20),
        "ng_scores": st.lists(SCORE, max_size=4),
        "area_mm2_thr": st.floats(0, 100),
        "score_percentile": st.floats(95, 100),
        "false_alarm_rate": st.floats(1e-6, 0.5),
        "pixel_threshold": st.sampled_from(["score", "ok_pixels", 0.5]),
    }
)
ITEMS = st.lists(
    _near(
        {
            "role_id": st.just(ROLE),
            "roi_id": st.just(ROI),
            "mm_per_px": st.just(0.2),
            "shape": SHAPES,
            "k": st.integers(1, 100),
            "p_score": st.floats(95, 100),
            "heatmap": st.sampled_from(["base64", "none", "path"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def json_text(draw: st.DrawFn, values: st.SearchStrategy) -> bytes:
    """A value as JSON, sometimes damaged."""
    text = json.dumps(draw(values)).encode()
    return draw(mutated(text)) if draw(st.integers(0, 4)) == 0 else text


# --- multipart -------------------------------------------------------------------------------------------------------

FIELDS = {
    "role_id": [b"steel", b"..", b"\xff", b""],
    "roi_id": [b"pad", b"../pad", b"x" * 10_000],
    "mm_per_px": [b"0.2", b"0,2", b"nan", b"1e999", b"-1"],
    "shape": [b"", b"{}", b'{"kind": "circle", "r": 20}', b"[" * 1000],
    "k": [b"1", b"0", b"9" * 400],
    "p_score": [b"99", b"94"],
    "blur_sigma": [b"1", b"20", b"1e9"],
    "area_mm2_thr": [b"0", b"-1"],
    "heatmap": [b"none", b"path", b"base64", b"x"],
    "items": [b'[{"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2}]', b"[]", b"{", b"[" * 1000],
    "coreset_rate": [b"0.1", b"0"],
    "seed": [b"1", b"-1", b"4294967296"],
    "exclude_suspects": [b"true", b"maybe"],
    "recipe_id": [b"", b"default", b"../x", b"\xff"],
}
_FILE_NAMES = [b"roi.png", b"../../x.png", b"C:\\x.png", b"\xff.png", b"x" * 3000, b"", b"=?utf-8?B?Li4v?=", b"a\0b"]
_TYPES = [
    b"image/png",
    b"text/plain; charset=utf-16",
    b"application/json",
    b"",
    b"multipart/mixed; boundary=x",
    b"\xff",
]


_BOUNDARIES = [b"x", b"x", b"x", b"13e67239-c940-464c-88c2-bc334acf6583", b"x" * 300, b"'()+_,-./:=?"]
_CHARSETS = [*[b""] * 12, b"; charset=utf-16", b"; charset=idna", b"; charset=\xff", b'; charset="']


_INSPECTION = ("role_id", "roi_id", "mm_per_px", "image")
REQUIRED = {"/infer": _INSPECTION, "/fit_ok": (*_INSPECTION[:3], "images"), "/infer_batch": ("items", "images")}
"""Fields that a form must have, by path."""
_OPTIONAL = [
    "shape",
    "k",
    "p_score",
    "blur_sigma",
    "area_mm2_thr",
    "heatmap",
    "coreset_rate",
    "seed",
    "exclude_suspects",
    "recipe_id",
]


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    """One part of a form, possibly invalid."""
    strange = [*FIELDS, "image", "images", "", "x" * 3000, '"', "role_id[]"]
    name = draw(st.sampled_from(_OPTIONAL) | st.sampled_from(strange))
    if name in ("image", "images"):
        content = draw(st.one_of(st.sampled_from(SEEDS), IMAGES))
        disposition = b'form-data; name="%s"; filename="%s"' % (name.encode(), draw(st.sampled_from(_FILE_NAMES)))
    else:
        content = draw(st.one_of(st.sampled_from(FIELDS.get(name, [b""])), st.binary(max_size=60)))
        disposition = b'form-data; name="%s"' % name.encode()
        if draw(st.integers(0, 9)) == 0:
            disposition += b"; filename*=utf-8''" + draw(st.sampled_from([b"a.png", b"%2e%2e%2fa", b"%ff", b""]))
    headers = [b"Content-Disposition: " + disposition]
    if draw(st.booleans()):
        headers.append(b"Content-Type: " + draw(st.sampled_from(_TYPES)))
    if draw(st.integers(0, 9)) == 0:
        headers.append(
            draw(st.sampled_from([b"X: y", b"no colon", b": empty", b"X-Long: " + b"y" * 20_000, headers[0]]))
        )
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
    return end.join(headers) + end * 2 + content


@st.composite
def forms(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """Path, content type and body of a form: valid fields, then random parts; sometimes damaged."""
    path = draw(st.sampled_from(["/infer", "/infer", "/infer_batch", "/fit_ok"]))
    body = []
    for name in REQUIRED[path]:
        if not draw(st.integers(0, 19)):
            continue
        if name in FIELDS:
            body.append(b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), FIELDS[name][0]))
        else:
            disposition = b'Content-Disposition: form-data; name="%s"; filename="a.png"' % name.encode()
            body.append(disposition + b"\r\n\r\n" + draw(st.sampled_from(SEEDS)))
    body += draw(st.lists(parts(), max_size=2))
    body = draw(st.permutations(body))
    boundary = draw(st.sampled_from(_BOUNDARIES))
    whole = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in body) + b"--" + boundary + b"--\r\n"
    if draw(st.integers(0, 3)) == 0:
        whole = draw(mutated(whole))
    charset = draw(st.sampled_from(_CHARSETS))
    said = draw(st.sampled_from([*[boundary] * 20, b'"' + boundary + b'"', b"", b"other", b"\xff"]))
    return path, b"multipart/form-data; boundary=" + said + charset, whole
