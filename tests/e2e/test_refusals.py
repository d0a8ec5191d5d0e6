"""Invalid input gives the right status, the envelope and a message that names the fault, and writes nothing."""

import json
import os
import re
import struct
import zlib

import cv2
import numpy as np
import pytest

from tests.bombs import deflated_zeros
from tests.e2e import raw_http
from tests.e2e.dotnet_multipart import exchange
from tests.e2e.synthetic_images import jpeg, png, steel

OK = steel(0)
PNG = png(OK)
JPEG = jpeg(OK)
FIT, INFER = ("/fit_ok", "images"), ("/infer", "image")


def refused(reply, status, code, *says):
    """Check an error answer (of httpx or of `exchange`) against the contract and return its message."""
    status_seen = getattr(reply, "status_code", None) or reply.status
    assert status_seen == status, reply.content
    assert reply.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f]{32}", reply.headers["x-request-id"])
    answer = reply.json()
    assert list(answer) == ["error"]
    error = answer["error"]
    assert list(error) == ["code", "message", "hint"]
    assert error["code"] == code
    assert error["hint"]
    for words in says:
        assert words in error["message"]
    assert len(error["message"]) < 500, "nobody reads that"
    return error["message"]


@pytest.fixture(autouse=True)
def nothing_is_written(gateway, small_roi):
    """Check that refused requests change no file in or beside the models folder."""
    before = _files(gateway.models_dir)
    yield
    assert _files(gateway.models_dir) == before


def _files(models_dir):
    return {path.name: None for path in models_dir.parent.iterdir()} | _below(models_dir)


def _below(folder):
    found = {}
    for entry in os.scandir(folder):
        if entry.is_dir():
            found |= {} if entry.name == ".locks" else {entry.path: None, **_below(entry.path)}
        else:
            found[entry.path] = entry.stat().st_size, entry.stat().st_mtime_ns
    return found


def post(gateway, route, roi="small", image=("roi.png", PNG), **changes):
    """Send a valid request with some fields changed. None removes a field."""
    path, field = route
    form = {"role_id": "steel", "roi_id": roi, "mm_per_px": "0.2", **changes}
    form = {name: value for name, value in form.items() if value is not None}
    if image is None:
        return post_text(gateway, path, form)
    return gateway.client.post(path, data=form, files=[(field, image)])


def post_text(gateway, path, values):
    """Send a form of text fields only."""
    body = raw_http.form(raw_http.fields(**values))
    return gateway.client.post(path, content=body, headers={"Content-Type": raw_http.FORM_TYPE})


@pytest.mark.parametrize("field", ["role_id", "roi_id"])
@pytest.mark.parametrize(
    "value",
    [
        "..",
        ".",
        "../outside",
        "/etc",
        "a/b",
        "a\\b",
        "..\\outside",
        "C:",
        ".hidden",
        "dot.",
        " space",
        "space ",
        "x" * 65,
        "x" * 100_000,
        "größe²",
        "部\u3000品",
        "\u0301a",
        "a\0b",
        "a\nb",
        "a\tb",
        "%2e%2e",
        "a?b",
        "*",
        "ok\u200b",
    ],
    ids=lambda value: repr(value[:12]),
)
def test_an_invalid_id_is_refused_everywhere(gateway, field, value):
    for route in (FIT, INFER):
        refused(post(gateway, route, **{field: value}), 422, "invalid_request", field, repr(value[:64])[1:-1])
    body = {"role_id": "steel", "roi_id": "small", "mm_per_px": 0.2, "ok_scores": [0.5], "ng_scores": [], field: value}
    refused(gateway.client.post("/calibrate_ng", json=body), 422, "invalid_request", field, repr(value[:64])[1:-1])


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/rois/steel/..", 422, "invalid_request"),
        ("/rois/../small", 422, "invalid_request"),
        ("/rois/%2e%2e/small", 422, "invalid_request"),
        ("/rois/steel/.locks", 422, "invalid_request"),
        ("/rois/.trash/small", 422, "invalid_request"),
        ("/rois/steel/small.", 422, "invalid_request"),
        ("/rois/steel/small%20", 422, "invalid_request"),
        ("/rois/steel/sm%00all", 422, "invalid_request"),
        ("/rois/steel/sm%0aall", 422, "invalid_request"),
        ("/rois/steel/%ff%fe", 422, "invalid_request"),
        ("/rois/steel/%5c%5c", 422, "invalid_request"),
        ("/rois/steel/" + "x" * 65, 422, "invalid_request"),
        ("/rois/steel/..%2f..%2foutside", 404, "not_found"),
        ("/rois/%2e%2e%2f%2e%2e/x", 404, "not_found"),
        ("/rois/steel/never", 404, "unknown_roi"),
        ("/rois/never/small", 404, "unknown_roi"),
        ("/rois/STEEL/small", 404, "unknown_roi"),
    ],
)
def test_a_path_never_leaves_the_models_folder(gateway, method, path, status, code):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    refused(exchange(gateway.port, head), status, code)


NUMBERS = ["0,2", "1.000,5", "NaN", "nan", "inf", "-Infinity", "1e999", "-1", "abc", "0x10", "1_0", "٢", "0.2mm", "--1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("mm_per_px", value) for value in [*NUMBERS, "0", "-0.0", "1e-999", "1001"]),
        *(("area_mm2_thr", value) for value in [*NUMBERS, "1e10"]),
        *(("blur_sigma", value) for value in [*NUMBERS, "1e6"]),
        *(("p_score", value) for value in [*NUMBERS, "94.9", "100.1", "0.99"]),
        *(("k", value) for value in ["1,0", "NaN", "abc", "0", "-1", "1.5", "101", "9" * 5000]),
        *(("heatmap", value) for value in ["jpeg", "BASE64", "../x"]),
    ],
)
def test_a_wrong_value_is_named_with_its_field(gateway, field, value):
    message = refused(post(gateway, INFER, **{field: value}), 422, "invalid_request", field, value[:60])
    if "," in value and field != "k":
        assert "point" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("mm_per_px", value) for value in ["0,2", "NaN", "0"]),
        *(("coreset_rate", value) for value in [*NUMBERS, "0", "1.01", "2"]),
        *(("seed", value) for value in ["-1", "1.5", "abc", "4294967296"]),
    ],
)
def test_a_wrong_value_for_a_fit_is_named_with_its_field(gateway, field, value):
    refused(post(gateway, FIT, roi="never", **{field: value}), 422, "invalid_request", field, value)


@pytest.mark.parametrize("route", [FIT, INFER], ids=["fit", "infer"])
@pytest.mark.parametrize("field", ["role_id", "roi_id", "mm_per_px"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_field_is_named(gateway, route, field, value):
    refused(post(gateway, route, **{field: value}), 422, "invalid_request", field, "missing")


def test_a_missing_image_is_named(gateway):
    refused(post(gateway, INFER, image=None), 422, "invalid_request", INFER[1], "missing")
    # A fit without files learns the stored images: here there are none.
    for roi in ("small", "never"):
        refused(post(gateway, FIT, roi=roi, image=None), 422, "invalid_request", "images: missing")


@pytest.mark.parametrize("route", [FIT, INFER], ids=["fit", "infer"])
def test_a_request_without_a_body_is_told_what_to_send(gateway, route):
    refused(gateway.client.post(route[0]), 422, "invalid_request", "no Content-Type", "multipart/form-data")


@pytest.mark.parametrize("route", [FIT, INFER], ids=["fit", "infer"])
def test_an_image_sent_as_text_is_refused_with_the_missing_file_name(gateway, route):
    path, field = route
    form = {"role_id": "steel", "roi_id": "small", "mm_per_px": "0.2", field: "C:\\images\\ok 1.png"}
    reply = post_text(gateway, path, form)
    message = refused(reply, 422, "invalid_request", field, "file")
    assert "UploadFile" not in message


def test_a_blank_optional_field_counts_as_absent(gateway):
    blank = dict.fromkeys(("shape", "k", "p_score", "blur_sigma", "area_mm2_thr", "heatmap"), "")
    assert post(gateway, INFER, **blank).status_code == 200


def _png_of(width, height, deflated):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", deflated) + chunk(b"IEND", b"")


def _encoded(extension, image=OK):
    return cv2.imencode(extension, image)[1].tobytes()


IMAGES = {
    "empty": (b"", 415, "unsupported_image"),
    "text": (b"this is no image, whatever its name says\n", 415, "unsupported_image"),
    "gif": (_encoded(".gif", np.dstack([OK] * 3)), 415, "unsupported_image"),
    "webp": (_encoded(".webp"), 415, "unsupported_image"),
    "pdf": (b"%PDF-1.7\n", 415, "unsupported_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image"),
    "float tiff": (_encoded(".tiff", OK.astype(np.float32)), 415, "unsupported_image"),
    **{f"png cut at {cut:.1%}": (PNG[: int(len(PNG) * cut)], 415, "unsupported_image") for cut in (0.0005, 0.3, 0.999)},
    **{
        f"jpeg cut at {c:.1%}": (JPEG[: int(len(JPEG) * c)], 415, "unsupported_image")
        for c in (0.0005, 0.01, 0.5, 0.99)
    },
    "png without its end": (PNG[:-12], 415, "unsupported_image"),
    "jpeg without its end": (JPEG[:-2], 415, "unsupported_image"),
    "png of damaged pixels": (PNG[: len(PNG) // 2] + bytes(64) + PNG[len(PNG) // 2 + 64 :], 415, "unsupported_image"),
    "png that is not deflated": (_png_of(384, 384, b"not deflated"), 415, "unsupported_image"),
    "png of 0 × 10": (_png_of(0, 10, zlib.compress(b"")), 415, "unsupported_image"),
    "png of 60000 × 60000": (_png_of(60_000, 60_000, deflated_zeros(60_001)), 413, "too_large"),
    "png bomb": (_png_of(60_000, 60_000, deflated_zeros(30_000_000)), 413, "too_large"),
    "png just over the limit": (_png_of(5001, 5000, deflated_zeros(5002 * 5000)), 413, "too_large"),
    "33 MiB": (b"\x89PNG\r\n\x1a\n" + bytes(33 * 2**20), 413, "too_large"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_file_that_is_not_an_image_is_refused_by_name(gateway, kind):
    data, status, code = IMAGES[kind]
    refused(post(gateway, INFER, image=("scan 7.png", data)), status, code, "scan 7.png")
    refused(post(gateway, FIT, roi="never", image=("scan 7.png", data)), status, code, "scan 7.png")


def test_one_bad_file_among_good_ones_is_named_and_nothing_is_learned(gateway):
    images = [("good.png", PNG), ("bad.png", PNG[:5000]), ("good too.png", png(steel(1)))]
    refused(gateway.post("/fit_ok", "never", images, "images"), 415, "unsupported_image", "bad.png")


@pytest.mark.parametrize(
    ("name", "shown"),
    [("ü 検査.png", "ü 検査.png"), ("../../etc/passwd", "etc/passwd"), ("x" * 1000, "xxx")],
    ids=["unicode", "path", "long"],
)
def test_a_file_may_have_any_name(gateway, name, shown):
    refused(post(gateway, INFER, image=(name, b"")), 415, "unsupported_image", shown)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ("circle", "JSON"),
        ("{", "JSON"),
        ("[]", "object"),
        ("1", "object"),
        ('"circle"', "object"),
        ("{}", "kind"),
        ('{"kind": "ellipse", "r": 3}', "ellipse"),
        ('{"kind": ["circle"], "r": 3}', "kind"),
        ('{"kind": null}', "kind"),
        ('{"kind": "circle"}', "shape.r"),
        ('{"kind": "circle", "r": "180"}', "180"),
        ('{"kind": "circle", "r": "18,5"}', "18,5"),
        ('{"kind": "circle", "r": true}', "true"),
        ('{"kind": "circle", "r": NaN}', "NaN"),
        ('{"kind": "circle", "r": -Infinity}', "Infinity"),
        ('{"kind": "circle", "r": 1e999}', "shape.r"),
        ('{"kind": "circle", "r": 0}', "shape.r"),
        ('{"kind": "circle", "r": -5}', "-5"),
        ('{"kind": "circle", "r": 5, "cx": "x"}', "shape.cx"),
        ('{"kind": "circle", "r": 5, "cx": -100, "cy": 10}', "no pixel"),
        ('{"kind": "circle", "r": 5, "cx": 390, "cy": 10}', "no pixel"),
        ('{"kind": "circle", "r": 0.1, "cx": 10, "cy": 10}', "no pixel"),
        ('{"kind": "annulus", "r": 5}', "r_inner"),
        ('{"kind": "annulus", "r": 5, "r_inner": 5}', "r_inner"),
        ('{"kind": "annulus", "r": 5, "r_inner": -1}', "r_inner"),
        ('{"kind": "annulus", "r": 9999, "r_inner": 9000}', "no pixel"),
        ('{"kind": "rect", "w": 5}', "shape.h"),
        ('{"kind": "rect", "w": 5, "h": 0}', "shape.h"),
        ('{"kind": "rect", "x": 0, "y": 0, "cx": 9, "cy": 9, "w": 5, "h": 5}', "both x or y"),
        ('{"kind": "rect", "w": 5, "h": 5, "angle": "45"}', "angle"),
        ('{"kind": "circle", "r": ' + "9" * 5000 + "}", "shape.r"),
        ('{"kind": "circle", "r": {"r": {"r": 5}}}', "object"),
        ('{"kind": "circle", "r": ' + "[" * 500 + "]" * 500 + "}", "shape"),
        ("[" * 200_000, "shape"),
        ('{"a":' * 100_000, "shape"),
        ('{"kind": "\\ud800"}', "kind"),
        ("\0", "JSON"),
        ("{\u201ckind\u201d: \u201ccircle\u201d}", "JSON"),
    ],
    ids=lambda text: text[:44],
)
def test_an_invalid_shape_is_refused_with_the_reason(gateway, shape, says):
    refused(post(gateway, INFER, shape=shape), 422, "invalid_request", "shape", says)
    refused(post(gateway, FIT, roi="never", shape=shape), 422, "invalid_request", "shape", says)


GOOD_BODY = {"role_id": "steel", "roi_id": "small", "mm_per_px": 0.2, "ok_scores": [0.5, 0.6], "ng_scores": [0.9]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mm_per_px": "0,2"}, ["mm_per_px", "0,2", "point"]),
        ({"mm_per_px": 0}, ["mm_per_px", "0"]),
        ({"mm_per_px": None}, ["mm_per_px"]),
        ({"mm_per_px": True}, ["mm_per_px", "true"]),
        ({"mm_per_px": float("nan")}, ["mm_per_px", "NaN"]),
        ({"mm_per_px": float("inf")}, ["mm_per_px", "Infinity"]),
        ({"mm_per_px": 10**400}, ["mm_per_px"]),
        ({"mm_per_px": [0.2]}, ["mm_per_px"]),
        ({"ok_scores": [0.5, float("nan")]}, ["ok_scores.1", "NaN"]),
        ({"ok_scores": [float("-inf")]}, ["ok_scores.0", "-Infinity"]),
        ({"ok_scores": [-0.1]}, ["ok_scores.0", "-0.1"]),
        ({"ok_scores": [10**400]}, ["ok_scores.0"]),
        ({"ok_scores": ["0,5"]}, ["ok_scores.0", "0,5"]),
        ({"ok_scores": [None]}, ["ok_scores.0"]),
        ({"ok_scores": [[0.5]]}, ["ok_scores.0"]),
        ({"ok_scores": 0.5}, ["ok_scores", "0.5"]),
        ({"ok_scores": {}}, ["ok_scores"]),
        ({"ok_scores": {"0": 0.5}}, ["ok_scores"]),
        ({"ok_scores": "0.5"}, ["ok_scores"]),
        ({"ng_scores": [0.7, 0.8, 0.9, 1.0]}, ["ng_scores", "3"]),
        ({"ng_scores": [float("nan")]}, ["ng_scores.0", "NaN"]),
        ({"area_mm2_thr": -1}, ["area_mm2_thr", "-1"]),
        ({"area_mm2_thr": "1,0"}, ["area_mm2_thr", "1,0"]),
        ({"score_percentile": 50}, ["score_percentile", "50"]),
        ({"score_percentile": 101}, ["score_percentile", "101"]),
        ({"role_id": 5}, ["role_id", "5"]),
        ({"role_id": None}, ["role_id"]),
        ({"role_id": ["steel"]}, ["role_id"]),
        ({"roi_id": "\ud800"}, ["roi_id"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_invalid_calibration_is_refused_with_the_reason(gateway, changes, says):
    body = json.dumps({**GOOD_BODY, **changes})
    reply = gateway.client.post("/calibrate_ng", content=body, headers={"Content-Type": "application/json"})
    refused(reply, 422, "invalid_request", *says)


@pytest.mark.parametrize("field", ["role_id", "roi_id", "mm_per_px"])
def test_a_missing_field_of_a_calibration_is_named(gateway, field):
    body = {name: value for name, value in GOOD_BODY.items() if name != field}
    refused(gateway.client.post("/calibrate_ng", json=body), 422, "invalid_request", field, "missing")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"{",
        b'{"role_id": "steel",}',
        b"[]",
        b"null",
        b"1",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"role_id":' * 100_000,
        b'{"role_id":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"role_id":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"mm_per_px": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_not_a_calibration_is_refused(gateway, body):
    reply = gateway.client.post("/calibrate_ng", content=body, headers={"Content-Type": "application/json"})
    refused(reply, 422, "invalid_request")


def test_a_calibration_of_another_content_type_is_refused(gateway):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        body = json.dumps(GOOD_BODY)
        reply = gateway.client.post("/calibrate_ng", content=body, headers={"Content-Type": content_type})
        message = refused(reply, 422, "invalid_request")
        assert "application/json" in message or "JSON" in reply.json()["error"]["hint"], message


def test_an_roi_that_was_never_fitted_is_unknown(gateway):
    refused(post(gateway, INFER, roi="never"), 404, "unknown_roi", "steel/never")
    body = {**GOOD_BODY, "roi_id": "never"}
    refused(gateway.client.post("/calibrate_ng", json=body), 404, "unknown_roi", "steel/never")


def test_heatmaps_as_paths_need_a_folder(gateway):
    refused(post(gateway, INFER, heatmap="path"), 422, "invalid_request", "heatmap", "path")


BOUNDARY = "multipart/form-data; boundary=x"
FIELD = b'--x\r\nContent-Disposition: form-data; name="role_id"\r\n\r\nsteel\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (None, b""),
        ("application/json", b"{}"),
        ("text/plain", b"role_id=steel"),
        ("application/x-www-form-urlencoded", b"role_id=steel&roi_id=small&mm_per_px=0.2&image=x&images=x"),
        ("application/octet-stream", PNG),
        ("image/png", PNG),
        ("multipart/form-data", FIELD),
        ("multipart/form-data; boundary=", FIELD),
        ("multipart/form-data; boundary=y", FIELD),
        ("multipart/mixed; boundary=x", FIELD),
        (BOUNDARY, b""),
        (BOUNDARY, b"--x--\r\n"),
        (BOUNDARY, b"no parts at all"),
        (BOUNDARY, FIELD),
        (BOUNDARY, FIELD[:-9]),
        (BOUNDARY, b"--x\r\n\r\nno headers\r\n--x--\r\n"),
        (BOUNDARY, b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--\r\n"),
        (BOUNDARY, b"--x\r\nno colon\r\n\r\nvalue\r\n--x--\r\n"),
        (BOUNDARY, b"--x\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\nvalue\r\n--x--\r\n"),
        (BOUNDARY, FIELD * 2000 + b"--x--\r\n"),
        (BOUNDARY, FIELD[:-7] + b"y" * 2_000_000 + b"\r\n--x--\r\n"),
        (BOUNDARY, b"--x\r\nX-Long: " + b"y" * 200_000 + b"\r\n\r\nvalue\r\n--x--\r\n"),
        (BOUNDARY + "; charset=rot13", FIELD + b"--x--\r\n"),
        (BOUNDARY + "; charset=nonsense", FIELD + b"--x--\r\n"),
        (BOUNDARY + "; charset=utf-16", FIELD + b"--x--\r\n"),
    ],
    ids=lambda value: repr(value)[:48],
)
@pytest.mark.parametrize("path", ["/fit_ok", "/infer"])
def test_a_body_that_is_not_a_form_is_refused(gateway, path, content_type, body):
    headers = {} if content_type is None else {"Content-Type": content_type}
    refused(gateway.client.post(path, content=body, headers=headers), 422, "invalid_request")


def test_an_undecodable_file_name_is_accepted(gateway):
    parts = [("role_id", b"steel"), ("roi_id", b"small"), ("mm_per_px", b"0.2")]
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (n.encode(), v) for n, v in parts
    )
    body += b'--x\r\nContent-Disposition: form-data; name="image"; filename="\\ud800.png"\r\n\r\nx\r\n--x--\r\n'
    headers = {"Content-Type": BOUNDARY + "; charset=unicode_escape"}
    refused(gateway.client.post("/infer", content=body, headers=headers), 415, "unsupported_image")


@pytest.mark.parametrize(("path", "status"), [("/rois/a/b/" + "x" * 10_000, 404), ("/rois//" + "x" * 10_000, 404)])
def test_the_refusal_of_a_long_path_is_short(gateway, path, status):
    refused(gateway.client.get(path), status, "not_found", "characters")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "not_found"),
        ("POST", "/inferx", 404, "not_found"),
        ("GET", "/infer", 405, "method_not_allowed"),
        ("PUT", "/fit_ok", 405, "method_not_allowed"),
        ("DELETE", "/calibrate_ng", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("DELETE", "/rois", 405, "method_not_allowed"),
        ("PATCH", "/rois/steel/small", 405, "method_not_allowed"),
        ("NONSENSE", "/infer", 405, "method_not_allowed"),
    ],
)
def test_a_wrong_path_or_method_has_the_same_envelope(gateway, method, path, status, code):
    message = refused(gateway.client.request(method, path), status, code, path)
    if status == 405:
        assert method in message
