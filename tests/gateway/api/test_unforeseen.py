"""Unexpected exceptions are answered with the error envelope."""

import anyio
import httpx
import pytest

from gateway.app import create_app
from gateway.settings import Settings


@pytest.fixture
def app(tmp_path):
    app = create_app(Settings(models_dir=tmp_path, model_repository=tmp_path, state_dir=tmp_path))

    @app.get("/crash")
    async def crash():
        raise RuntimeError("secret")

    return app


def test_an_unexpected_exception_has_the_envelope_and_the_request_id_and_is_logged(app, caplog):
    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return await client.get("/crash", headers={"X-Request-ID": "line-3"})

    reply = anyio.run(ask)
    assert reply.status_code == 500
    assert reply.headers["x-request-id"] == "line-3"
    assert list(reply.json()["error"]) == ["code", "message", "hint"]
    assert reply.json()["error"]["code"] == "internal"
    assert "secret" not in reply.text
    assert "RuntimeError: secret" in caplog.text
