"""Requests that a gateway must not guess about: incomplete, repeated, unknown, null, or of another type."""

import gzip
import json
from contextlib import suppress

import pytest

from tests.e2e.dotnet_multipart import exchange
from tests.e2e.raw_http import BOUNDARY, FORM_TYPE, fields, form, part
from tests.e2e.synthetic_images import png, steel
from tests.e2e.test_refusals import refused

IMAGES = [png(steel(i)) for i in range(4)]
OK_FORM = {"role_id": "steel", "roi_id": "strict", "mm_per_px": "0.2"}
ITEM = {**OK_FORM, "mm_per_px": 0.2}


def post(gateway, path, body, content_type=FORM_TYPE, **headers):
    return gateway.client.post(path, content=body, headers={"Content-Type": content_type, **headers})


def fit_parts(roi="strict"):
    return [
        *fields(**{**OK_FORM, "roi_id": roi}),
        *(part("images", image, f"{i}.png") for i, image in enumerate(IMAGES)),
    ]


def infer_parts(**changes):
    return [*fields(**{**OK_FORM, "roi_id": "small", **changes}), part("image", IMAGES[0], "roi.png")]


def is_fitted(gateway, roi):
    return gateway.client.get(f"/rois/steel/{roi}").status_code == 200


class TestIncompleteForms:
    CLOSING = len(f"--{BOUNDARY}--\r\n")

    @pytest.mark.parametrize("lost", [3, CLOSING, CLOSING + 2, CLOSING + 500, 40_000])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_a_fit_without_its_closing_boundary_is_refused_and_nothing_is_learned(self, gateway, lost, chunked):
        body = form(fit_parts("cut"))[:-lost]
        sent = iter([body[:1000], body[1000:]]) if chunked else body
        refused(post(gateway, "/fit_ok", sent), 422, "invalid_request", f"--{BOUNDARY}--")
        assert not is_fitted(gateway, "cut")

    def test_inspections_without_their_closing_boundary_are_refused(self, gateway, small_roi):
        refused(
            post(gateway, "/infer", form(infer_parts())[: -self.CLOSING]), 422, "invalid_request", "closing boundary"
        )
        batch = form([part("items", json.dumps([{**ITEM, "roi_id": "small"}])), part("images", IMAGES[0], "a.png")])
        refused(post(gateway, "/infer_batch", batch[: -self.CLOSING]), 422, "invalid_request", "closing boundary")

    def test_text_before_the_first_boundary_and_after_the_last_is_allowed(self, gateway, small_roi):
        body = b"This is a multi-part message in MIME format.\r\n" + form(infer_parts()) + b"bye\r\n"
        assert post(gateway, "/infer", body).status_code == 200
        assert post(gateway, "/infer", iter([body[:20], body[20:60], body[60:]])).status_code == 200


class TestRepeatedFields:
    @pytest.mark.parametrize("name", [*OK_FORM, "shape", "k", "heatmap"])
    def test_a_single_valued_field_sent_twice_is_refused(self, gateway, small_roi, name):
        values = {**OK_FORM, "shape": "", "k": "1", "heatmap": "none"}
        parts = [*infer_parts(**{n: values[n] for n in ("shape", "k", "heatmap")}), part(name, values[name])]
        refused(post(gateway, "/infer", form(parts)), 422, "invalid_request", name, "2 times")

    def test_two_images_of_one_inspection_are_refused_with_the_way_out(self, gateway, small_roi):
        reply = post(gateway, "/infer", form([*infer_parts(), part("image", IMAGES[1], "b.png")]))
        refused(reply, 422, "invalid_request", "image", "2 times")
        assert "/infer_batch" in reply.json()["error"]["hint"]

    def test_a_repeated_field_of_a_fit_is_refused_and_nothing_is_learned(self, gateway):
        refused(
            post(gateway, "/fit_ok", form([*fit_parts("cut"), *fields(roi_id="cut")])), 422, "invalid_request", "roi_id"
        )
        assert not is_fitted(gateway, "cut")

    def test_a_repeated_key_of_json_is_refused(self, gateway, small_roi):
        twice = '{"role_id": "steel", "roi_id": "small", "mm_per_px": 0.2, "ok_scores": [0.5], "ok_scores": [0.9]}'
        refused(post(gateway, "/calibrate_ng", twice, "application/json"), 422, "invalid_request", "ok_scores", "twice")
        shape = '{"kind": "circle", "r": 5, "r": 50}'
        refused(post(gateway, "/infer", form(infer_parts(shape=shape))), 422, "invalid_request", "'r'", "twice")

    def test_a_repeated_query_parameter_is_refused(self, gateway, small_roi):
        refused(
            gateway.client.get("/rois/steel/small/audit?limit=1&limit=2"), 422, "invalid_request", "limit", "2 times"
        )


UNKNOWN = {
    "form of /infer": ("POST", "/infer", {"content": form(infer_parts(mmPerPx=1))}, ["mmPerPx", "mm_per_px"]),
    "form of /fit_ok": (
        "POST",
        "/fit_ok",
        {"content": form([*fit_parts("cut"), *fields(coreset=0.1)])},
        ["coreset_rate"],
    ),
    "file of a form": ("POST", "/infer", {"content": form([*infer_parts(), part("mask", b"x", "m.png")])}, ["'mask'"]),
    "form of /infer_batch": (
        "POST",
        "/infer_batch",
        {"content": form([part("items", "[]"), part("images", b"x", "a.png"), part("item", "")])},
        ["items"],
    ),
    "item": (
        "POST",
        "/infer_batch",
        {"content": form([part("items", json.dumps([{**ITEM, "blur": 1}])), part("images", IMAGES[0], "a.png")])},
        ["items.0", "blur_sigma"],
    ),
    "shape": ("POST", "/infer", {"content": form(infer_parts(shape='{"kind": "circle", "radius": 5}'))}, ["radius"]),
    "json": (
        "POST",
        "/calibrate_ng",
        {"json": {**ITEM, "ok_score": [1], "false_alarm": 1}},
        ["ok_scores", "false_alarm_rate"],
    ),
    "rollback": ("POST", "/rois/steel/small/rollback", {"json": {"verison": 1}}, ["verison", "version"]),
    "query of a form": ("POST", "/infer?heatmap=none", {"content": form(infer_parts())}, ["query", "heatmap"]),
    "query": ("GET", "/rois/steel/small/audit?limits=5", {}, ["limits", "limit"]),
    "query of a report": ("GET", "/rois/steel/small/report?fromat=json", {}, ["fromat", "format"]),
    "query without any": ("GET", "/rois?role_id=steel", {}, ["role_id"]),
}


class TestUnknownFields:
    @pytest.mark.parametrize("kind", UNKNOWN)
    def test_an_unknown_field_is_refused_with_the_nearest_known_one(self, gateway, small_roi, kind):
        method, path, request, says = UNKNOWN[kind]
        if "content" in request:
            request = {**request, "headers": {"Content-Type": FORM_TYPE}}
        refused(gateway.client.request(method, path, **request), 422, "invalid_request", "unknown", *says)
        assert not is_fitted(gateway, "cut")

    def test_a_field_of_known_clients_without_meaning_is_ignored_everywhere(self, gateway, small_roi):
        assert post(gateway, "/infer", form(infer_parts(model_key="small"))).status_code == 200
        item = {**ITEM, "roi_id": "small", "model_key": "small"}
        batch = form([part("items", json.dumps([item])), part("images", IMAGES[0], "a.png"), part("model_key", "x")])
        assert "score" in post(gateway, "/infer_batch", batch).json()["results"][0]
        reply = gateway.client.post("/calibrate_ng", json={**ITEM, "roi_id": "never", "model_key": "x"})
        assert reply.status_code == 404
        assert gateway.client.get("/rois?model_key=small").status_code == 200

    def test_probes_may_have_any_query(self, gateway):
        for path in ("/health", "/ready", "/metrics", "/docs", "/openapi.json"):
            assert gateway.client.get(f"{path}?_=1700000000").status_code == 200


def optional_properties(document, path):
    body = document["paths"][path]["post"]["requestBody"]["content"]
    (content,) = body.values()
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    return sorted(set(schema["properties"]) - set(schema["required"]))


class TestNull:
    def test_every_optional_field_of_a_form_may_be_null_or_empty(self, gateway, small_roi):
        document = gateway.client.get("/openapi.json").json()
        names = optional_properties(document, "/infer")
        assert {"shape", "k", "heatmap"} <= set(names)
        for null in ("null", "", " null "):
            assert post(gateway, "/infer", form(infer_parts(**dict.fromkeys(names, null)))).status_code == 200
        names = set(optional_properties(document, "/fit_ok")) - {"images"}
        assert {"shape", "seed", "exclude_suspects"} <= names
        for null in ("null", ""):
            body = form([*fit_parts("null"), *fields(**dict.fromkeys(names, null))])
            assert post(gateway, "/fit_ok", body).status_code == 200

    def test_every_optional_field_of_json_may_be_null(self, gateway):
        gateway.fit("nulls", IMAGES)
        names = optional_properties(gateway.client.get("/openapi.json").json(), "/calibrate_ng")
        assert {"ok_scores", "pixel_threshold", "false_alarm_rate"} <= set(names)
        plain = gateway.client.post("/calibrate_ng", json={**ITEM, "roi_id": "nulls"})
        null = gateway.client.post("/calibrate_ng", json={**ITEM, "roi_id": "nulls", **dict.fromkeys(names)})
        assert null.status_code == 200
        assert null.json() == plain.json()

    def test_every_optional_key_of_an_item_and_of_a_shape_may_be_null(self, gateway, small_roi):
        null = dict.fromkeys(("shape", "k", "p_score", "blur_sigma", "area_mm2_thr", "heatmap"))
        shape = {
            "kind": "circle",
            "r": 90,
            "cx": None,
            "cy": None,
            "w": None,
            "h": None,
            "r_inner": None,
            "angle": None,
        }
        items = [{**ITEM, "roi_id": "small", **null, "shape": each} for each in (None, shape, json.dumps(shape))]
        body = form([part("items", json.dumps(items)), *(part("images", IMAGES[0], "a.png") for _ in items)])
        whole, circle, text = post(gateway, "/infer_batch", body).json()["results"]
        assert circle == text
        assert "score" in whole
        assert "score" in circle

    def test_a_query_parameter_may_be_null_or_empty(self, gateway, small_roi):
        for null in ("null", ""):
            assert gateway.client.get(f"/rois/steel/small/audit?limit={null}").status_code == 200
            assert gateway.client.get(f"/rois/steel/small/report?format={null}").status_code == 200


PYTHON = ["function", "functools", "partial", "dict", "NoneType", "None", "UploadFile", "_decimal", "object at", "__"]
PYTHON += ["Input should", "True", "False", "pydantic", "Traceback", "'str'", "tuple", "float", "validation"]
WRONG = [None, True, "x", {}, {"a": None}, [], [None], [[]], -1, 1.5, 1e300, 10**30, "null", ""]


class TestMessages:
    @pytest.mark.parametrize("value", WRONG, ids=repr)
    def test_no_message_shows_the_python_inside(self, gateway, small_roi, value):
        document = gateway.client.get("/openapi.json").json()
        replies = []
        schema = document["components"]["schemas"]["CalibrateRequest"]
        for name in schema["properties"]:
            body = {**ITEM, "roi_id": "never", name: value}
            replies.append(gateway.client.post("/calibrate_ng", json=body))
        replies.append(gateway.client.post("/calibrate_ng", json=value))
        replies.append(gateway.client.post("/rois/steel/small/rollback", json={"version": value}))
        replies.append(gateway.client.post("/rois/steel/small/rollback", json=value))
        for name in ("role_id", "mm_per_px", "shape", "k", "p_score", "blur_sigma", "area_mm2_thr", "heatmap"):
            items = form([part("items", json.dumps([{**ITEM, name: value}])), part("images", IMAGES[0], "a.png")])
            replies.append(post(gateway, "/infer_batch", items))
            replies.append(post(gateway, "/infer", form(infer_parts(**{name: json.dumps(value)}))))
        replies.append(
            post(gateway, "/infer_batch", form([part("items", json.dumps(value)), part("images", b"", "a")]))
        )
        assert any(reply.status_code == 422 for reply in replies)
        for reply in replies:
            assert reply.status_code in (200, 404, 415, 422), reply.text
            if reply.status_code == 422:
                error = reply.json()["error"]
                for word in PYTHON:
                    assert word not in error["message"] + error["hint"], error


def asked(gateway, target, method="GET", host="localhost", *lines):
    head = "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *lines])
    return exchange(gateway.port, f"{head}\r\n\r\n".encode())


class TestTargets:
    @pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/docs", "/openapi.json", "/rois/steel/small"])
    def test_head_is_answered_like_get_without_a_body(self, gateway, small_roi, path):
        head, get = gateway.client.head(path), gateway.client.get(path)
        assert head.status_code == get.status_code == 200
        assert head.content == b""
        assert head.headers["content-type"] == get.headers["content-type"]
        assert gateway.client.head("/rois/steel/never").status_code == 404

    def test_an_absolute_target_is_answered_like_its_path(self, gateway, small_roi):
        for target in (f"http://localhost:{gateway.port}/rois/steel/small?model_key=x", "HTTP://localhost/health/"):
            assert asked(gateway, target).status == 200
        refused(asked(gateway, "http://localhost/rois/steel/%2e%2e"), 422, "invalid_request", "..")
        assert asked(gateway, "http://localhost").status == 200  # the page

    def test_the_host_of_an_absolute_target_counts_instead_of_the_header(self, gateway):
        reply = asked(gateway, "http://elsewhere.example/rois", "GET", "localhost")
        refused(reply, 403, "forbidden", "elsewhere.example")

    @pytest.mark.parametrize("path", ["/health/", "/rois/", "/rois/steel/small/", "/rois/steel/small/audit/"])
    def test_a_slash_at_the_end_changes_nothing(self, gateway, small_roi, path):
        reply = gateway.client.get(path, follow_redirects=False)
        assert reply.status_code == 200, reply.text


class TestTypes:
    @pytest.mark.parametrize("path", ["/infer", "/fit_ok", "/infer_batch"])
    @pytest.mark.parametrize(
        ("content_type", "body"),
        [
            ("application/json", b'{"role_id": "steel"}'),
            ("image/png", IMAGES[0]),
            ("application/octet-stream", IMAGES[0]),
            ("application/x-www-form-urlencoded", b"role_id=steel"),
            ("text/plain", b"role_id=steel"),
            ("multipart/mixed; boundary=x", b"--x--"),
            ("", b"x"),
        ],
    )
    def test_a_body_of_another_type_is_refused_with_the_type_to_send(self, gateway, path, content_type, body):
        reply = post(gateway, path, body, content_type)
        refused(reply, 422, "invalid_request", content_type, "multipart/form-data")
        assert "curl" in reply.json()["error"]["hint"]

    @pytest.mark.parametrize("content_type", ["text/json", "application/x-www-form-urlencoded", FORM_TYPE, ""])
    def test_a_calibration_of_another_type_is_refused_with_the_type_to_send(self, gateway, content_type):
        reply = post(gateway, "/calibrate_ng", json.dumps(ITEM).encode(), content_type)
        refused(reply, 422, "invalid_request", content_type, "application/json")

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/problem+json"]
    )
    def test_every_spelling_of_json_is_read(self, gateway, content_type):
        body = json.dumps({**ITEM, "roi_id": "never"}).encode()
        refused(post(gateway, "/calibrate_ng", body, content_type), 404, "unknown_roi")

    @pytest.mark.parametrize("name", ["role_id", "mm_per_px", "shape", "heatmap"])
    def test_a_file_where_text_is_expected_is_refused_with_the_way_out(self, gateway, small_roi, name):
        values = {**OK_FORM, "roi_id": "small", "shape": "", "heatmap": "none"}
        parts = [part(n, value, "value.txt" if n == name else None) for n, value in values.items()]
        reply = post(gateway, "/infer", form([*parts, part("image", IMAGES[0], "roi.png")]))
        refused(reply, 422, "invalid_request", name, "value.txt", "text")
        assert "file name" in reply.json()["error"]["hint"]

    @pytest.mark.parametrize("path", ["/infer", "/fit_ok", "/calibrate_ng"])
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "gzip, gzip"])
    def test_a_compressed_body_is_refused_with_the_way_out(self, gateway, path, encoding):
        kind = "application/json" if path == "/calibrate_ng" else FORM_TYPE
        reply = post(gateway, path, gzip.compress(b"x"), kind, **{"Content-Encoding": encoding})
        refused(reply, 422, "invalid_request", encoding)
        assert "without compression" in reply.json()["error"]["hint"]

    def test_the_encoding_identity_is_no_compression(self, gateway, small_roi):
        body = form(infer_parts())
        assert post(gateway, "/infer", body, **{"Content-Encoding": "identity"}).status_code == 200

    @pytest.mark.parametrize("header", ["Content-Transfer-Encoding: base64", "Content-Encoding: gzip"])
    def test_an_image_that_is_encoded_for_transport_is_refused_with_the_way_out(self, gateway, small_roi, header):
        parts = [*fields(**{**OK_FORM, "roi_id": "small"}), part("image", b"iVBO", "roi.png", header)]
        refused(post(gateway, "/infer", form(parts)), 422, "invalid_request", "roi.png", header)

    def test_an_image_marked_as_binary_is_read(self, gateway, small_roi):
        parts = fields(**{**OK_FORM, "roi_id": "small"})
        image = part("image", IMAGES[0], "roi.png", "Content-Transfer-Encoding: binary")
        assert post(gateway, "/infer", form([*parts, image])).status_code == 200

    def test_texts_may_begin_with_a_byte_order_mark(self, gateway, small_roi):
        shape = '\ufeff{"kind": "circle", "r": 90}'
        assert post(gateway, "/infer", form(infer_parts(shape=shape))).status_code == 200
        items = "\ufeff" + json.dumps([{**ITEM, "roi_id": "small"}])
        batch = form([part("items", items), part("images", IMAGES[0], "a.png")])
        assert "score" in post(gateway, "/infer_batch", batch).json()["results"][0]
        body = ("\ufeff" + json.dumps({**ITEM, "roi_id": "never"})).encode()
        refused(post(gateway, "/calibrate_ng", body, "application/json"), 404, "unknown_roi")

    def test_a_fit_keeps_a_shape_without_its_byte_order_mark(self, gateway):
        shape = '\ufeff{"kind": "circle", "r": 90}'
        body = form([*fit_parts("marked"), *fields(shape=shape)])
        assert post(gateway, "/fit_ok", body).status_code == 200
        assert post(gateway, "/infer", form(infer_parts(roi_id="marked"))).status_code == 200
        with suppress(Exception):
            gateway.client.delete("/rois/steel/marked")
