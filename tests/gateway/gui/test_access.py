"""Who may call the dialect: by key, by address, or on loopback; and which requests at / are the GUI's."""

import asyncio
import json

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from gateway.api.security.keys import KeyListError, entry_text, new_key
from gateway.app import create_app
from gateway.gui.application import gui_routes
from gateway.gui.dispatch import GuiDispatchMiddleware
from gateway.settings import Settings
from tests.e2e.dotnet_multipart import BOUNDARY, Part, body

NAMES = {"role_id": "Inspection", "roi_id": "inspection-1"}
KEYS = {
    "desktop": new_key("desktop", "teach", ["*"]),
    "viewer": new_key("viewer", "inspect", ["*/Inspection/*"]),
    "other": new_key("other", "teach", ["*/Master1/*"]),
}
CLIENTS = "10.0.3.0/24=desktop, 10.0.3.9=viewer, 10.0.4.0/24=other, fd00::/8=viewer"


@pytest.fixture
def runner():
    """One event loop for all requests of a test: the services belong to it."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def serve(tmp_path, runner):
    def serve(**settings):
        folders = {name: tmp_path / name for name in ("models_dir", "state_dir", "cache_dir")}
        app = create_app(Settings(_env_file=None, **folders, **settings))

        def call(method, path, address="127.0.0.1", host="127.0.0.1", port=8080, **more):
            async def send():
                transport = httpx.ASGITransport(app, client=(address, 50000))
                async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}:{port}") as client:
                    return await client.request(method, path, **more)

            return runner.run(send())

        return call

    return serve


@pytest.fixture
def site(serve):
    entries = json.dumps([json.loads(entry_text(entry)) for _, entry in KEYS.values()])
    return serve(api_keys=SecretStr(entries), gui_clients=CLIENTS)


def state(call, **more):
    return call("GET", "/gui/state", params=NAMES, **more)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("10.0.3.7", 200),
        ("::ffff:10.0.3.7", 200),
        ("10.0.3.9", 200),
        ("fd00::7", 200),
        ("10.0.4.7", 403),
        ("10.0.5.7", 401),
        ("127.0.0.1", 401),
        ("testclient", 401),
    ],
)
def test_an_address_has_the_rights_of_its_key(site, address, status):
    reply = state(site, address=address, host="10.0.3.1")
    assert reply.status_code == status, reply.text
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    assert reply.json()["recipe_id"] == "default"


def test_the_narrowest_network_of_an_address_counts_and_a_key_that_is_sent_before_it(site):
    clear = {"params": {**NAMES, "label": "ok"}}
    assert site("DELETE", "/gui/datasets/clear", "10.0.3.7", **clear).status_code == 200
    refused = site("DELETE", "/gui/datasets/clear", "10.0.3.9", **clear)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert "viewer" in refused.json()["error"]["message"]
    desktop = {"headers": {"Authorization": f"Bearer {KEYS['desktop'][0]}"}}
    for address in ("10.0.3.9", "10.9.9.9"):
        assert site("DELETE", "/gui/datasets/clear", address, **clear, **desktop).status_code == 200
    assert state(site, address="10.0.3.7", headers={"Authorization": "Bearer pcg_wrong"}).status_code == 401


SCOPES = {
    ("GET", "/gui/health"): None,
    ("GET", "/gui/state"): "inspect",
    ("GET", "/gui/manifest"): "inspect",
    ("POST", "/gui/infer"): "inspect",
    ("POST", "/gui/fit_ok"): "teach",
    ("POST", "/gui/calibrate_ng"): "teach",
    ("POST", "/gui/calibrate_dataset"): "teach",
    ("POST", "/gui/infer_dataset"): "teach",
    ("POST", "/gui/datasets/{label}/upload"): "teach",
    ("GET", "/gui/datasets/list"): "teach",
    ("GET", "/gui/datasets/file"): "teach",
    ("GET", "/gui/datasets/meta"): "teach",
    ("DELETE", "/gui/datasets/file"): "teach",
    ("DELETE", "/gui/datasets/clear"): "teach",
}


def test_every_endpoint_needs_its_scope_and_none_is_forgotten(site):
    served = {(method, route.path) for route in gui_routes(at_root=False) for method in route.methods - {"HEAD"}}
    assert served == SCOPES.keys()
    for (method, template), scope in SCOPES.items():
        path = template.format(label="ok")
        unknown, viewer = (site(method, path, address).status_code for address in ("10.0.5.7", "10.0.3.9"))
        assert (unknown == 401) == (scope is not None), template
        assert (viewer == 403) == (scope == "teach"), template


def test_an_address_opens_the_dialect_alone(site):
    for path in ("/rois", "/rois/Inspection/inspection-1"):
        assert site("GET", path, "10.0.3.7").status_code == 401
    assert site("POST", "/infer", "10.0.3.7").status_code == 401


def test_a_page_on_the_web_cannot_use_the_address_of_its_reader(site):
    for host in ("gateway", "localhost", "10.0.3.1", "[fd00::1]"):
        assert state(site, address="10.0.3.7", host=host).status_code == 200
    rebound = state(site, address="10.0.3.7", host="evil.example")
    assert (rebound.status_code, "evil.example" in rebound.json()["error"]["message"]) == (403, True)
    foreign = {"headers": {"Origin": "https://evil.example"}}
    assert state(site, address="10.0.3.7", **foreign).status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_an_address_that_a_proxy_reports_has_no_rights(site, header):
    assert state(site, address="10.0.3.7", headers={header: "10.0.3.7"}).status_code == 401
    key = {"Authorization": f"Bearer {KEYS['desktop'][0]}"}
    assert state(site, address="10.0.3.7", headers={header: "10.0.3.7", **key}).status_code == 200


def test_health_and_the_question_whether_an_endpoint_exists_need_no_key(site):
    for method, path, status in (
        ("GET", "/gui/health", 200),
        ("OPTIONS", "/gui/infer", 405),
        ("OPTIONS", "/gui/x", 404),
    ):
        assert site(method, path, "10.0.5.7").status_code == status


def test_without_keys_loopback_alone_is_answered(serve):
    assert state(serve()).status_code == 200
    assert state(serve(), address="10.0.3.7", host="10.0.3.1").status_code == 403
    assert state(serve(allow_anonymous=True), address="10.0.3.7", host="10.0.3.1").status_code == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.0.3.0/24", "no name of an API key"),
        ("desktop=10.0.3.0/24", "'desktop'"),
        ("10.0.3.7/24=desktop", "host bits"),
        ("10.0.3.0/24=a, 10.0.3.0/24=b", "there twice"),
    ],
)
def test_wrong_clients_are_refused_at_the_start(text, said):
    with pytest.raises(ValidationError, match=said):
        Settings(_env_file=None, gui_clients=text)


def test_a_client_with_the_name_of_no_key_is_refused_at_the_start(serve):
    with pytest.raises(KeyListError, match="no API key has the name 'desktop'"):
        serve(gui_clients="10.0.3.0/24=desktop")


# --- which requests are the GUI's ------------------------------------------------------------------------------------


def test_the_dialect_can_be_taken_away(serve):
    call = serve(gui_dialect=False)
    assert call("GET", "/gui/health").json()["error"]["code"] == "not_found"
    assert call("GET", "/health").status_code == 200
    with pytest.raises(ValidationError, match="GATEWAY_GUI_DIALECT is false"):
        Settings(_env_file=None, gui_dialect=False, gui_root=True)


def test_at_the_root_the_paths_of_the_gui_are_its_own(serve):
    call = serve(gui_root=True)
    for path in ("/state", "/manifest", "/datasets/list", "/gui/state"):
        assert call("GET", path, params=NAMES).json()["recipe_id"] == "default", path
    assert call("OPTIONS", "/datasets/file").status_code == 405
    assert call("OPTIONS", "/infer").status_code == 405
    for path in ("/", "/docs", "/rois", "/health"):
        assert "x-recipe-id" not in call("GET", path).headers, path
    assert call("GET", "/health", headers={"X-Recipe-Id": "A"}).json()["recipe_id"] == "A"


def form(*parts: Part, **more):
    headers = {"Content-Type": f'multipart/form-data; boundary="{BOUNDARY}"', **more.pop("headers", {})}
    return {
        "content": body([Part.text(name, value) for name, value in NAMES.items()] + list(parts)),
        "headers": headers,
    }


IMAGE = Part.file("image", "model_key.png", b"\r\nContent-Disposition: form-data; name=model_key\r\n" + bytes(80_000))
KEY = Part.text("model_key", "inspection-1")


@pytest.mark.parametrize(
    ("path", "request_", "is_gui"),
    [
        ("/infer", form(IMAGE), False),
        ("/infer", form(KEY, IMAGE), True),
        ("/infer", form(IMAGE, headers={"X-Recipe-Id": "A"}), True),
        ("/infer", form(IMAGE, KEY), False),
        ("/fit_ok", form(Part.text("use_dataset", "true")), True),
        ("/fit_ok", form(Part.text("memory_fit", "false"), IMAGE), True),
        ("/fit_ok", form(Part.text("mm_per_px", "0.2")), False),
        ("/calibrate_ng", {"json": {**NAMES, "model_key": "inspection-1"}}, True),
        ("/calibrate_ng", {"json": {**NAMES, "ok_scores": [0.1] * 30_000}}, False),
        ("/calibrate_ng", {"content": b""}, False),
    ],
)
def test_at_the_root_a_path_of_both_is_told_apart_and_no_byte_of_the_body_is_lost(path, request_, is_gui, runner):
    received = {}

    def app_named(name):
        async def app(scope, receive, send):
            received[name] = b""
            while True:
                message = await receive()
                received[name] += message["body"]
                if not message.get("more_body"):
                    break
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        return app

    dispatch = GuiDispatchMiddleware(app_named("api"), app_named("gui"), at_root=True, min_upload_bytes_s=65536)
    sent = httpx.Request("POST", f"http://127.0.0.1{path}", **request_)
    sent.read()

    async def pieces():
        for start in range(0, len(sent.content), 37):
            yield sent.content[start : start + 37]

    async def send():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(dispatch)) as client:
            await client.post(sent.url, content=pieces(), headers=dict(sent.headers))

    runner.run(send())
    assert received == {"gui" if is_gui else "api": sent.content}
