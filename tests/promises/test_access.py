"""Access control: every endpoint with every kind of key, through a real socket."""

import json
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from tests.e2e.dotnet_multipart import exchange
from tests.e2e.gateway_process import PROJECT, environment, free_port, wait_until
from tests.e2e.synthetic_images import png, steel
from tests.promises.keys import bearer, make_key

OK = [png(steel(i, (112, 112))) for i in range(3)]
KEPT = png(steel(9, (112, 112)))
ROI = {"role_id": "steel", "roi_id": "pad-1", "mm_per_px": "0.2"}
BODY = {**ROI, "mm_per_px": 0.2, "ok_scores": [0.4, 0.5]}
ITEM = {**ROI, "mm_per_px": 0.2, "heatmap": "none"}


def _path(client, key, template):
    """The path of an endpoint for pad-1 and its first image."""
    sha256 = client.get("/rois/steel/pad-1", headers=bearer(key)).json()["images"][0]["sha256"]
    image_id = client.get("/rois/steel/pad-1/images", headers=bearer(key)).json()["images"][0]["id"]
    inspection_id = _kept(client, key) if "{inspection_id}" in template else 0
    ids = {"sha256": sha256, "image_id": image_id, "inspection_id": inspection_id}
    return template.format(role_id="steel", roi_id="pad-1", **ids)


def _kept(client, key):
    """The number of a kept inspection of pad-1. No other request sends its picture, which would renew the number."""

    def found():
        kept = client.get("/rois/steel/pad-1/inspections", headers=bearer(key)).json()["inspections"]
        return [each["id"] for each in kept if each["file_name"] == "kept.png"]

    if not found():
        client.post("/infer", data=ROI, files=[("image", ("kept.png", KEPT))], headers=bearer(key))
    wait_until(found)
    return found()[0]


# Each endpoint: the scope it needs, whether it is about an ROI, and a request that is whole.
ENDPOINTS = {
    ("GET", "/health"): (None, False, {}),
    ("GET", "/ready"): (None, False, {}),
    ("GET", "/openapi.json"): (None, False, {}),
    ("GET", "/openapi-3.0.json"): (None, False, {}),
    ("GET", "/docs"): (None, False, {}),
    ("GET", "/"): (None, False, {}),
    ("GET", "/docs/swagger-ui.css"): (None, False, {}),
    ("GET", "/metrics"): ("loopback", False, {}),
    ("GET", "/rois"): ("inspect", False, {}),
    ("GET", "/rois/{role_id}/{roi_id}"): ("inspect", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/drift"): ("inspect", True, {}),
    ("POST", "/infer"): ("inspect", True, {"data": ROI, "files": [("image", OK[0])]}),
    ("POST", "/infer_batch"): ("inspect", True, {"data": {"items": json.dumps([ITEM])}, "files": [("images", OK[0])]}),
    ("POST", "/fit_ok"): ("teach", True, {"data": ROI, "files": [("images", image) for image in OK]}),
    ("POST", "/calibrate_ng"): ("teach", True, {"json": BODY}),
    ("POST", "/rois/{role_id}/{roi_id}/rollback"): ("teach", True, {"json": {"version": 1}}),
    ("GET", "/rois/{role_id}/{roi_id}/audit"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/report"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/fit"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/peaks"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/comparison"): ("teach", True, {"params": {"before": 1, "after": 1}}),
    ("GET", "/rois/{role_id}/{roi_id}/inspections"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/inspections/{inspection_id}/image"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/inspections/{inspection_id}/thumbnail"): ("teach", True, {}),
    ("DELETE", "/rois/{role_id}/{roi_id}/ok/{sha256}"): ("teach", True, {}),
    ("POST", "/rois/{role_id}/{roi_id}/images"): (
        "teach",
        True,
        {"data": {"label": "ok"}, "files": [("images", OK[0])]},
    ),
    ("GET", "/rois/{role_id}/{roi_id}/images"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/images/{image_id}"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/images/{image_id}/thumbnail"): ("teach", True, {}),
    ("GET", "/rois/{role_id}/{roi_id}/images/{image_id}/metadata"): ("teach", True, {}),
    ("PATCH", "/rois/{role_id}/{roi_id}/images/{image_id}"): ("teach", True, {"json": {"label": "ng"}}),
    ("DELETE", "/rois/{role_id}/{roi_id}/images/{image_id}"): ("teach", True, {}),
    ("DELETE", "/rois/{role_id}/{roi_id}/images"): ("teach", True, {"params": {"label": "ng"}}),
    ("DELETE", "/rois/{role_id}/{roi_id}"): ("teach", True, {}),
}
CALLERS = ["no key", "wrong key", "inspect", "teach", "another role"]


@pytest.fixture(scope="module")
def keys():
    made = {
        "inspect": make_key("line1", "inspect", "steel/*"),
        "teach": make_key("engineer", "teach", "steel/pad-1", "steel/pad-2"),
        "another role": make_key("line2", "teach", "brass/*"),
        "all": make_key("all", "teach"),
        "wrong key": make_key("gone", "teach"),
    }
    entries = [entry for name, (_, entry) in made.items() if name != "wrong key"]
    return {"no key": None, **{name: key for name, (key, _) in made.items()}}, entries


@pytest.fixture(scope="module")
def closed(launch, keys, small_model_repository, tmp_path_factory):
    """A gateway with keys and one ROI in each of two roles."""
    keys_file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys_file.write_text(json.dumps(keys[1][1:]))
    inline = json.dumps(keys[1][:1])
    given = {"api_keys": inline, "api_keys_file": keys_file, "keep_inspections": True}
    with launch("closed", model_repository=small_model_repository, **given) as gateway:
        for role in ("steel", "brass"):
            fit(gateway.client, keys[0]["all"], role)
        yield gateway
        said = gateway.log.read_text()
    assert "Traceback" not in said
    for name, key in keys[0].items():
        assert key is None or key not in said, name


def fit(client, key, role="steel"):
    form = {**ROI, "role_id": role}
    return client.post("/fit_ok", data=form, files=[("images", image) for image in OK], headers=bearer(key))


def is_as_fitted(client, key) -> bool:
    """Whether pad-1 has the images of `fit`, and no others."""
    detail, stored = (client.get(f"/rois/steel/pad-1{part}", headers=bearer(key)) for part in ("", "/images?label=ok"))
    return detail.status_code == 200 and detail.json()["n_ok_total"] == stored.json()["total"] == len(OK)


def state(gateway, key):
    return gateway.client.get("/rois", headers=bearer(key)).json()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_every_endpoint_with_every_kind_of_key(closed, keys, endpoint, caller):
    method, path = endpoint
    needed, about_roi, request = ENDPOINTS[endpoint]
    keys = keys[0]
    if not is_as_fitted(closed.client, keys["all"]):  # another row changed it
        closed.client.delete("/rois/steel/pad-1/images?label=ng", headers=bearer(keys["all"]))
        fit(closed.client, keys["all"])
    path = _path(closed.client, keys["all"], path)
    before = state(closed, keys["all"])
    reply = closed.client.request(method, path, headers=bearer(keys[caller]), **request)
    if needed in (None, "loopback"):
        expected = 200
    elif caller in ("no key", "wrong key"):
        expected = 401
    elif caller == "inspect":
        expected = 200 if needed == "inspect" else 403
    elif caller == "teach":
        expected = 200
    else:
        expected = 403 if about_roi else 200
    if path == "/infer_batch" and caller == "another role":
        assert reply.status_code == 200  # what is wrong with an item is told in its place
        assert [each["error"]["code"] for each in reply.json()["results"]] == ["forbidden"]
        return
    assert reply.status_code == expected, reply.text
    if expected in (401, 403):
        assert reply.json()["error"]["code"] == {401: "unauthorized", 403: "forbidden"}[expected]
        assert state(closed, keys["all"]) == before
    if expected == 401:
        asked_for = [value.partition(" ")[0] for value in reply.headers.get_list("www-authenticate")]
        assert asked_for == (["Bearer", "Basic"] if path.endswith("/report") else ["Bearer"])
    if path == "/rois" and expected == 200:
        roles = {"inspect": ["steel"], "teach": ["steel"], "another role": ["brass"]}[caller]
        assert [roi["role_id"] for roi in reply.json()["rois"]] == roles


def test_an_explanation_needs_no_more_than_the_right_to_inspect(closed, keys):
    request = {"data": {**ROI, "explain": "true"}, "files": [("image", OK[0])]}
    shown = closed.client.post("/infer", **request, headers=bearer(keys[0]["inspect"])).json()
    assert shown["explanation"]["ok_patch"]["crop"]["png_base64"]
    refused = closed.client.post("/infer", **request, headers=bearer(keys[0]["another role"]))
    assert refused.status_code == 403
    assert "explanation" not in refused.text


def test_every_endpoint_is_tested_and_the_document_states_its_scope(closed):
    document = closed.client.get("/openapi.json").json()
    served = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    pages = ("/", "/docs", "/docs/swagger-ui.css", "/openapi.json", "/openapi-3.0.json")
    assert served == set(ENDPOINTS) - {("GET", page) for page in pages}
    for method, path in served:
        operation = document["paths"][path][method.lower()]
        needed = ENDPOINTS[method, path][0]
        assert ("security" in operation) == (needed is not None)
        assert needed is None or {"401", "403"} <= operation["responses"].keys()
        said = {None: "", "loopback": "open on loopback"}.get(needed, f"Scope: `{needed}`")
        assert said in operation["description"]


def test_a_refusal_does_not_reveal_whether_an_roi_exists(closed, keys):
    key = keys[0]["another role"]

    def asked(roi_id):
        form = {**ROI, "roi_id": roi_id}
        replies = [
            closed.client.get(f"/rois/steel/{roi_id}", headers=bearer(key)),
            closed.client.delete(f"/rois/steel/{roi_id}", headers=bearer(key)),
            closed.client.delete(f"/rois/steel/{roi_id}/ok/{'0' * 64}", headers=bearer(key)),
            closed.client.get(f"/rois/steel/{roi_id}/images", headers=bearer(key)),
            closed.client.get(f"/rois/steel/{roi_id}/images/{'0' * 64}/thumbnail", headers=bearer(key)),
            closed.client.post("/infer", data=form, files=[("image", OK[0])], headers=bearer(key)),
            closed.client.post("/calibrate_ng", json={**BODY, "roi_id": roi_id}, headers=bearer(key)),
        ]
        return [(r.status_code, r.text.replace(roi_id, "ROI"), sorted(r.headers)) for r in replies]

    assert asked("pad-1") == asked("never")


def test_a_list_of_rois_has_those_that_the_key_may_see(closed, keys):
    path, form = "/rois/steel/only-images/images", {"data": {"label": "ng"}, "files": [("images", OK[0])]}
    assert closed.client.post(path, headers=bearer(keys[0]["all"]), **form).status_code == 200
    told = {name: closed.client.get("/rois", headers=bearer(keys[0][name])).json() for name in ("all", "another role")}
    closed.client.delete("/rois/steel/only-images", headers=bearer(keys[0]["all"]))
    assert [roi["roi_id"] for roi in told["all"]["unfitted"]] == ["only-images"]
    assert told["another role"]["unfitted"] == []
    assert {roi["role_id"] for roi in told["another role"]["rois"]} == {"brass"}


@pytest.mark.parametrize(
    "path", ["/fit_ok", "/infer", "/infer_batch", "/calibrate_ng", "/rois/steel/pad-1/images", "/nothing"]
)
def test_a_request_without_permission_is_refused_before_its_body_is_read(closed, keys, path):
    for key, status in ((None, 401), (keys[0]["wrong key"], 401), (keys[0]["inspect"], 403)):
        if status == 403 and ENDPOINTS.get(("POST", path), ("teach",))[0] != "teach":
            continue
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", "Connection: close", "Content-Length: 500000000"]
        lines += [f"{name}: {value}" for name, value in bearer(key).items()]
        lines += ["Content-Type: multipart/form-data; boundary=x", "", "--x"]
        assert exchange(closed.port, "\r\n".join(lines).encode()).status == status


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic {key}",
        "{key}",
        "Bearer {key}x",
        "Bearer {shorter}",
        "Bearer {key} x",
        "Bearer ü",
    ],
)
def test_only_a_whole_key_in_a_bearer_header_is_accepted(closed, keys, header):
    key = keys[0]["all"]
    value = header.format(key=key, shorter=key[:-1]).encode("latin-1")
    assert closed.client.get("/rois", headers=[(b"Authorization", value)]).status_code == 401
    assert closed.client.get(f"/rois?key={key}").status_code == 401
    assert closed.client.get("/rois", headers=[("Authorization", f"Bearer {key}")] * 2).status_code == 401
    assert closed.client.get("/rois", headers={"authorization": f"bearer {key}"}).status_code == 200


def test_a_browser_may_send_the_key_as_a_password_for_the_report_only(closed, keys):
    by_name, page = keys[0], "/rois/steel/pad-1/report"
    fit(closed.client, by_name["all"])

    def status(method, path, key, user="anybody"):
        return closed.client.request(method, path, auth=httpx.BasicAuth(user, key)).status_code

    assert status("GET", page, by_name["teach"]) == status("GET", page, by_name["teach"], user="") == 200
    assert status("GET", page, by_name["wrong key"]) == 401
    assert status("GET", page, by_name["inspect"]) == status("GET", page, by_name["another role"]) == 403
    assert closed.client.get(page, auth=httpx.BasicAuth(by_name["teach"], "")).status_code == 401
    for nonsense in ("Basic", "Basic x", "Basic ¿", "Basic " + "A" * 4000):
        assert closed.client.get(page, headers=[(b"Authorization", nonsense.encode("latin-1"))]).status_code == 401
    before = state(closed, by_name["all"])
    for method, path in ENDPOINTS:
        if ENDPOINTS[method, path][0] not in (None, "loopback") and not path.endswith("/report"):
            ids = {"sha256": "0" * 64, "image_id": "0" * 64, "inspection_id": 0}
            path = path.format(role_id="steel", roi_id="pad-1", **ids)
            assert status(method, path, by_name["all"]) == 401, (method, path)
    assert state(closed, by_name["all"]) == before


def outside_address() -> str:
    """An address of this host that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]


UVICORN = ("-m", "uvicorn", "gateway.app:app", "--host", "0.0.0.0", "--port", "{port}")


def test_metrics_need_a_key_from_another_host(launch, keys, small_model_repository):
    settings = {"model_repository": small_model_repository, "host": "0.0.0.0", "api_keys": json.dumps(keys[1])}
    url = f"http://{outside_address()}"
    with launch("scraped", **settings) as gateway:
        assert gateway.client.get("/metrics").status_code == 200
        for caller, status in {"no key": 401, "wrong key": 401, "inspect": 200, "another role": 200}.items():
            reply = httpx.get(f"{url}:{gateway.port}/metrics", headers=bearer(keys[0][caller]), trust_env=False)
            assert reply.status_code == status, caller


def test_without_keys_only_loopback_is_answered_for_every_way_to_start(launch, small_model_repository):
    address = outside_address()
    with launch("open", command=UVICORN, model_repository=small_model_repository) as gateway:
        assert gateway.client.get("/rois").status_code == 200
        beyond = f"http://{address}:{gateway.port}"
        reply = httpx.get(f"{beyond}/rois", trust_env=False)
        assert reply.status_code == 403
        assert "GATEWAY_ALLOW_ANONYMOUS" in reply.json()["error"]["hint"]
        assert httpx.get(f"{beyond}/health", trust_env=False).status_code == 200
    anyone = {"model_repository": small_model_repository, "allow_anonymous": "true", "host": "0.0.0.0"}
    with launch("anyone", **anyone) as gateway:
        assert httpx.get(f"http://{address}:{gateway.port}/rois", trust_env=False).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway.plant.example"])
def test_listening_beyond_loopback_without_keys_needs_an_explicit_setting(host, tmp_path):
    settings = {"host": host, "port": free_port(), "models_dir": tmp_path / "models"}
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        cwd=PROJECT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert host in done.stderr
    assert "GATEWAY_ALLOW_ANONYMOUS" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_of_another_site_cannot_send_requests_through_its_reader(launch, small_model_repository):
    settings = {"model_repository": small_model_repository, "cors_origins": "https://mes.plant.example"}
    form = {"data": ROI, "files": [("images", OK[0])]}
    with launch("cors", **settings) as gateway:
        for origin in ("https://elsewhere.example", "null", "https://mes.plant.example.elsewhere.example"):
            reply = gateway.client.post("/fit_ok", headers={"Origin": origin}, **form)
            assert reply.status_code == 403, origin
            assert "access-control-allow-origin" not in reply.headers
        for own in (f"127.0.0.1:{gateway.port}", f"localhost:{gateway.port}", "[::1]"):
            assert gateway.client.get("/rois", headers={"Origin": f"http://{own}", "Host": own}).status_code == 200
        # DNS rebinding: to the browser the gateway is its page's own site.
        for rebound in (
            f"elsewhere.example:{gateway.port}",
            "localhost.elsewhere.example",
            "127.0.0.1.elsewhere.example",
        ):
            for headers in ({"Host": rebound}, {"Host": rebound, "Origin": f"http://{rebound}"}):
                assert gateway.client.get("/rois", headers=headers).status_code == 403, headers
                assert gateway.client.post("/fit_ok", headers=headers, **form).status_code == 403, headers
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        named = gateway.client.options("/fit_ok", headers={"Origin": "https://mes.plant.example", **asked})
        assert named.headers["access-control-allow-origin"] == "https://mes.plant.example"
        other = gateway.client.options("/fit_ok", headers={"Origin": "https://elsewhere.example", **asked})
        assert other.status_code == 400
        assert "access-control-allow-origin" not in other.headers
        assert gateway.client.get("/rois", headers={"Origin": "https://mes.plant.example"}).status_code == 200


def test_every_answer_has_the_security_headers(closed, keys):
    for path in ("/health", "/rois", "/nothing", "/openapi.json", "/docs"):
        for key in (None, keys[0]["all"]):
            headers = closed.client.get(path, headers=bearer(key)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe-eval" not in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers
            assert "server" not in headers


def test_the_gateway_serves_https_with_the_configured_certificate(launch, small_model_repository, tmp_path):
    certificate, key = tmp_path / "gateway.crt", tmp_path / "gateway.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1"]
    try:
        subprocess.run([*made, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl on this machine to make a certificate")
    trusted = ssl.create_default_context(cafile=certificate)
    settings = {"model_repository": small_model_repository, "tls_cert": certificate, "tls_key": key}
    with launch("tls", tls=trusted, **settings) as gateway:
        assert str(gateway.client.base_url).startswith("https://")
        assert gateway.client.get("/rois").status_code == 200
        with httpx.Client(trust_env=False) as plain, pytest.raises(httpx.TransportError):
            plain.get(f"http://127.0.0.1:{gateway.port}/health")
        with httpx.Client(trust_env=False) as distrustful, pytest.raises(httpx.ConnectError, match="CERTIFICATE"):
            distrustful.get(f"https://127.0.0.1:{gateway.port}/health")


def test_a_heatmap_is_never_written_outside_its_folder(launch, small_model_repository, tmp_path):
    heatmaps, elsewhere = tmp_path / "heatmaps", tmp_path / "elsewhere"
    heatmaps.mkdir()
    elsewhere.mkdir()
    with launch("heatmaps", model_repository=small_model_repository, heatmap_dir=heatmaps) as gateway:
        fit(gateway.client, None)
        form = {**ROI, "heatmap": "path"}
        written = gateway.client.post("/infer", data=form, files=[("image", OK[0])]).json()["heatmap_path"]
        assert (heatmaps / written).is_file()
        (heatmaps / "steel").rename(heatmaps / "steel before")
        (heatmaps / "steel").symlink_to(elsewhere)
        reply = gateway.client.post("/infer", data=form, files=[("image", OK[0])])
        assert reply.status_code == 507, reply.text
        assert "GATEWAY_HEATMAP_DIR" in reply.json()["error"]["message"]
    assert not list(elsewhere.iterdir())
