"""Requests as real clients, proxies and platforms write them: each is served, or refused in words."""

import re
import socket
from collections.abc import Iterable

import pytest

from tests.e2e.raw_http import BOUNDARY, FORM_TYPE, fields, form, part
from tests.e2e.synthetic_images import png, steel

IMAGE = png(steel(1))
TEXTS = fields(role_id="steel", roi_id="small", mm_per_px="0.2", heatmap="none")
FORM = form([*TEXTS, part("image", IMAGE, "roi.png", "Content-Type: image/png")])


def head(target, *lines, method="GET", version="1.1", host="localhost", close=True) -> bytes:
    first = [f"{method} {target} HTTP/{version}", *([] if host is None else [f"Host: {host}"])]
    end = ["Connection: close"] if close and version == "1.1" else []
    return ("\r\n".join([*first, *lines, *end]) + "\r\n\r\n").encode("latin-1")


def post(body, content_type=FORM_TYPE, *lines, path="/infer", declared=True, **options) -> bytes:
    length = [f"Content-Length: {len(body)}"] if declared else []
    return head(path, f"Content-Type: {content_type}", *length, *lines, method="POST", **options) + body


def chunked(body, size, extension=b"", trailer=b"") -> bytes:
    chunks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x%s\r\n%s\r\n" % (len(c), extension, c) for c in chunks) + b"0\r\n" + trailer + b"\r\n"


def with_boundary(boundary, parts: Iterable[bytes] | None = None) -> bytes:
    body = FORM if parts is None else form(parts)
    return body.replace(f"--{BOUNDARY}".encode(), f"--{boundary}".encode())


def named(disposition) -> bytes:
    """A form whose first part has another Content-Disposition."""
    return FORM.replace(b'Content-Disposition: form-data; name="role_id"', disposition.encode("latin-1"), 1)


def answers(port: int, sent: bytes, *, wait_s: float = 60) -> tuple[list[int], str]:
    """Send bytes; return the status of every answer, and all that came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        connection.sendall(sent)
        received = bytearray()
        while more := connection.recv(65536):
            received += more
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    return statuses, received.decode("utf-8", "replace")


CHUNKED = "Transfer-Encoding: chunked"
H2C = (
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Connection: Upgrade, HTTP2-Settings, close",
)
WEBKIT = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
SPECIAL = "a'()+_,-./:=?b"
LATIN = [*TEXTS[1:], part("image", IMAGE, "roi.png")]

SERVED = {
    "HTTP/1.0 without a host": head("/health", version="1.0", host=None),
    "a form in HTTP/1.0": post(FORM, version="1.0", host=None),
    "the host in capitals": head("/rois", host="LOCALHOST"),
    "the host with a dot at its end": head("/rois", host="localhost."),
    "an IPv6 host": head("/rois", host="[::1]:8080"),
    "an IPv6 host with a zone": head("/rois", host="[fe80::1%25eth0]"),
    "a header of 60 KB": head("/health", "X-Padding: " + "x" * 60_000),
    "500 headers": head("/health", *(f"X-{i}: 1" for i in range(500))),
    "a header in Latin-1": head("/health", "X-User: Jürgen"),
    "a folded header": head("/health", "X-Folded: a\r\n b"),
    "lines that end in LF": head("/health").replace(b"\r\n", b"\n"),
    "a percent-encoded path": head("/%68ealth"),
    "a percent-encoded id": head("/rois/st%65el/sm%61ll"),
    "an empty query": head("/rois/steel/small?"),
    "a query with separators only": head("/rois/steel/small/audit?&&"),
    "a query parameter without a value": head("/rois/steel/small/audit?limit"),
    "a percent-encoded query": head("/rois/steel/small/audit?%6cimit=5"),
    "a body with GET": head("/rois/steel/small", "Content-Length: 5") + b"hello",
    "chunks of 7 bytes": post(chunked(FORM, 7), FORM_TYPE, CHUNKED, declared=False),
    "chunks with extensions and a trailer": post(
        chunked(FORM, 5000, b";name=value", b"X-Checksum: 1\r\n"), FORM_TYPE, CHUNKED, declared=False
    ),
    "the same length twice": post(FORM, FORM_TYPE, f"Content-Length: {len(FORM)}"),
    "bytes after the declared length": post(FORM) + b"extra",
    "an unknown expectation": post(FORM, FORM_TYPE, "Expect: 200-maybe"),
    "Java's upgrade to HTTP/2": post(FORM, FORM_TYPE, *H2C, close=False),
    "a forwarded request": head("/health", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "Forwarded: for=x"),
    "a boundary in quotes": post(FORM, f'multipart/form-data; boundary="{BOUNDARY}"'),
    "a boundary of a browser": post(with_boundary(WEBKIT), f"multipart/form-data; boundary={WEBKIT}"),
    "a boundary of Node": post(with_boundary("-" * 27 + "1"), f"multipart/form-data; boundary={'-' * 27}1"),
    "a boundary of special characters": post(with_boundary(SPECIAL), f'multipart/form-data; boundary="{SPECIAL}"'),
    "a boundary with a space": post(with_boundary("a b"), 'multipart/form-data; boundary="a b"'),
    "a content type in capitals": post(FORM, f"Multipart/Form-Data; Boundary={BOUNDARY}"),
    "a content type with a charset": post(FORM, f"multipart/form-data; charset=utf-8; boundary={BOUNDARY};"),
    "a form without a line break at its end": post(FORM[:-2]),
    "a line break before the first boundary": post(b"\r\n" + FORM),
    "part headers in lower case": post(named('content-disposition: form-data; name="role_id"')),
    "part parameters without quotes": post(named("Content-Disposition: form-data; name=role_id")),
    "part parameters with spaces": post(named('Content-Disposition: form-data ; name = "role_id" ;')),
    "text parts of Apache HttpClient": post(
        form(
            [
                part(
                    "role_id",
                    "steel",
                    None,
                    "Content-Type: text/plain; charset=ISO-8859-1",
                    "Content-Transfer-Encoding: 8bit",
                ),
                *LATIN,
            ]
        )
    ),
    "JSON text of a type of its own": post(
        form([*TEXTS, part("shape", '{"kind": "circle", "r": 90}', None, "Content-Type: application/json"), LATIN[-1]])
    ),
    "an image with the boundary inside": post(
        form([*TEXTS, part("image", IMAGE + f"\r\n--{BOUNDARY}y".encode(), "a.png")])
    ),
    "an image named blob": post(form([*TEXTS, part("image", IMAGE, "blob", "Content-Type: application/octet-stream")])),
    "an image with a path as its name": post(form([*TEXTS, part("image", IMAGE, "C:\\images\\roi 1.png")])),
}

REFUSED = {
    "no host in HTTP/1.1": (head("/health", host=None), 400, ""),
    "two hosts": (head("/health", "Host: other"), 400, ""),
    "two lengths": (post(FORM, FORM_TYPE, "Content-Length: 5"), 400, ""),
    "a negative length": (post(b"", FORM_TYPE, "Content-Length: -1", declared=False), 400, ""),
    "a NUL in a header": (head("/health", "X-A: \0"), 400, ""),
    "a space in a path": (head("/rois/steel/a b"), 400, ""),
    "gzip as a transfer encoding": (post(FORM, FORM_TYPE, "Transfer-Encoding: gzip, chunked", declared=False), 400, ""),
    "TLS at a plain port": (bytes.fromhex("16030100a5010000a10303") + bytes(60) + b"\r\n\r\n", 400, ""),
    "a method in lower case": (head("/infer", method="get"), 405, "get /infer"),
    "OPTIONS of an endpoint": (head("/infer", method="OPTIONS"), 405, "OPTIONS /infer"),
    "OPTIONS of an unknown path": (head("/datasets/list", method="OPTIONS"), 404, "no such path"),
    "OPTIONS of the server": (head("*", method="OPTIONS"), 404, "no such path"),
    "a web socket": (
        head("/infer", "Upgrade: websocket", "Connection: Upgrade, close", close=False),
        405,
        "GET /infer",
    ),
    "another method in a header": (
        post(b"", "application/json", "X-HTTP-Method-Override: DELETE", path="/rois/steel/small"),
        405,
        "",
    ),
    "two slashes": (head("//health"), 404, "no such path"),
    "a path parameter": (head("/health;v=1"), 404, "no such path"),
    "a path in capitals": (head("/HEALTH"), 404, "no such path"),
    "a NUL in a path": (head("/health%00"), 404, "no such path"),
    "an id that is not UTF-8": (head("/rois/steel/sm%E4ll%ff"), 422, "roi_id"),
    "a path of 60 KB": (head("/rois/steel/" + "x" * 60_000), 422, "60000 characters"),
    "a nameless query parameter": (head("/rois/steel/small/audit?=1"), 422, "unknown query parameter"),
    "a semicolon in a query": (head("/rois/steel/small/audit?limit=5;a=b"), 422, "limit"),
    "a format in capitals": (head("/rois/steel/small/report?format=JSON"), 422, "'html' or 'json'"),
    "an opaque origin": (head("/rois", "Origin: null"), 403, "another site"),
    "no length and no chunks": (post(b"", declared=False), 422, "does not contain its boundary"),
    "a multipart body with lines that end in LF": (post(FORM.replace(b"\r\n", b"\n")), 422, "boundary"),
    "spaces after a boundary": (post(FORM.replace(b"xBOUNDx\r\n", b"xBOUNDx  \r\n")), 422, "cannot be read"),
    "a boundary in single quotes": (post(FORM, f"multipart/form-data; boundary='{BOUNDARY}'"), 422, "boundary"),
    "a content type without a boundary": (post(FORM, "multipart/form-data"), 422, "has no boundary"),
    "multipart/related": (post(FORM, f"multipart/related; boundary={BOUNDARY}"), 422, "multipart/form-data"),
    "a part without a name": (post(named("Content-Disposition: form-data")), 422, "name"),
    "a part without a header": (post(form([*TEXTS, f"--{BOUNDARY}\r\n\r\nvalue\r\n".encode()])), 422, "cannot be read"),
    "a name in single quotes": (
        post(named("Content-Disposition: form-data; name='role_id'")),
        422,
        "did you mean 'role_id'",
    ),
    "a name in brackets": (post(form([*TEXTS[:3], part("images[]", IMAGE, "a.png")]), path="/fit_ok"), 422, "'images'"),
    "a value with a line break": (post(form([*fields(role_id="steel\n"), *LATIN])), 422, "role_id"),
    "a value in UTF-16": (post(form([part("role_id", "steel".encode("utf-16-le")), *LATIN])), 422, "role_id"),
    "a number of another locale": (
        post(form([*fields(role_id="steel", roi_id="small", mm_per_px="0,2"), LATIN[-1]])),
        422,
        "point",
    ),
    "undefined of JavaScript": (post(form([*TEXTS, *fields(k="undefined"), LATIN[-1]])), 422, "undefined"),
    "an image as text": (post(form([*TEXTS, part("image", IMAGE)])), 422, "no file name"),
    "an image as a data URI": (
        post(form([*TEXTS, part("image", "data:image/png;base64,iVBO")])),
        422,
        "expected a file",
    ),
    "an image with a name of 5000 characters": (
        post(form([*TEXTS, part("image", IMAGE, "x" * 5000)])),
        422,
        "cannot be read",
    ),
    "two forms in one body": (post(FORM + FORM), 422, "after its closing boundary"),
    "a shape as a file of a browser": (
        post(form([*TEXTS, part("shape", "{}", "blob", "Content-Type: application/json"), LATIN[-1]])),
        422,
        "expected text",
    ),
    "several files nested in one part": (
        post(
            form(
                [*TEXTS[:3], part("images", b"--in\r\n\r\n--in--", None, "Content-Type: multipart/mixed; boundary=in")]
            ),
            path="/fit_ok",
        ),
        422,
        "no file name",
    ),
}


@pytest.mark.parametrize("kind", SERVED)
def test_a_legal_request_is_served_however_it_is_written(gateway, small_roi, kind):
    statuses, received = answers(gateway.port, SERVED[kind])
    assert statuses == [200], received[-2000:]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_request_that_cannot_be_served_is_refused_in_words(gateway, small_roi, kind):
    sent, status, says = REFUSED[kind]
    statuses, received = answers(gateway.port, sent)
    assert statuses[:1] == [status], received[-2000:]
    if status != 400:  # refused by the HTTP parser, before the application
        assert '"error":{"code"' in received
        assert says in received.partition("\r\n\r\n")[2].replace('\\"', '"')


def test_pipelined_requests_are_answered_in_order(gateway, small_roi):
    sent = post(FORM, close=False) + head("/rois/steel/never", close=False) + head("/health")
    assert answers(gateway.port, sent)[0] == [200, 404, 200]


def test_a_client_that_waits_for_100_continue_is_refused_before_it_sends_its_body(gateway):
    sent = head("/infer", "Content-Type: image/png", "Content-Length: 30000000", "Expect: 100-continue", method="POST")
    statuses, received = answers(gateway.port, sent)
    assert statuses == [422]
    assert "multipart/form-data" in received


def test_a_large_body_of_another_type_gets_the_answer_and_not_a_reset(gateway):
    reply = gateway.client.post("/infer", content=bytes(20 * 2**20), headers={"Content-Type": "image/png"})
    assert reply.status_code == 422
    assert "image/png" in reply.json()["error"]["message"]
