"""A server that speaks Azure's protocol: Azurite, Microsoft's own emulator, from npm."""

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import httpx

from tests.e2e.gateway_process import free_port, wait_until
from tests.npm import npm_program

CONTAINER = "plant"
_ACCOUNT = "inspection"


class Azurite:
    """The server, which keeps everything in memory."""

    def __init__(self) -> None:
        self.port = free_port()
        self.key = base64.b64encode(os.urandom(64)).decode()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a gateway finds the server."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": self._url,
        }

    def make_container(self) -> None:
        """Make the container, as an administrator does: with a signed request (Shared Key)."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        stated = "".join(f"{name}:{value}\n" for name, value in headers.items())
        no_headers = "\n" * 12
        to_sign = f"PUT{no_headers}{stated}/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.key), to_sign.encode(), hashlib.sha256)).decode()
        headers["Authorization"] = f"SharedKey {_ACCOUNT}:{signature}"
        reply = httpx.put(f"{self._url}/{CONTAINER}?restype=container", headers=headers, trust_env=False)
        assert reply.status_code == 201, reply.text

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{_ACCOUNT}"

    def answers(self) -> bool:
        """Whether it listens."""
        try:
            httpx.get(self._url, trust_env=False)
        except httpx.TransportError:
            return False
        return True


@contextmanager
def azurite(log: Path) -> Iterator[Azurite]:
    """Start the server with an empty container. Skips the test where it cannot be installed."""
    program = npm_program("azurite", "3.37.0", unused=("applicationinsights", "mysql2", "tedious"))
    node = shutil.which("node")
    assert node is not None, "npm is there, and node is not"
    server = Azurite()
    command = [node, program / "dist" / "src" / "blob" / "main.js", "--silent", "--inMemoryPersistence"]
    command += [
        "--skipApiVersionCheck",
        "--disableTelemetry",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(server.port),
    ]
    with log.open("ab") as said:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            cwd=log.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent), "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{server.key}"},
        )
    try:
        wait_until(lambda: process.poll() is not None or server.answers())
        assert process.poll() is None, log.read_text()
        server.make_container()
        yield server
    finally:
        process.kill()
        process.wait()
