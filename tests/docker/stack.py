"""The services of docker/compose.yaml in an engine of the tests, and their clients."""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.docker.engine import SITE, Engine
from tests.docker.images import TRITON
from tests.e2e.synthetic_images import png, steel

PROXY = "127.0.0.1:8080"
_ANSWER_S = 300
_WAIT_S = 180
_LOAD_CLIENTS = 4
_PAUSE_S = 0.05
_KEYS = {"office": ("teach", "*"), "line": ("inspect", "*"), "prometheus": ("inspect", "none/none")}
_SMALL_MODEL = ("--backend", "python", "--weights", "seed:0", "--input-size", "112", "--layers", "0,1")


@dataclass
class Stack:
    engine: Engine
    keys: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Do what docs/deployment.md asks for before the first start: the settings, the keys, and the export."""
        folder = self.engine.site / "docker"
        (folder / ".env").write_text(f"TRITON_IMAGE={TRITON}\nEXPORT_USER=10001:10001\n")
        entries = []
        for name, (scope, allow) in _KEYS.items():
            command = f"python -m gateway key --name {name} --scope {scope} --allow '{allow}' 2>/dev/null"
            run = ["run", "--rm", "--network=none", "patchcore-gateway:0.1.0", "sh", "-c", command]
            self.keys[name], entry = self.engine.docker(*run).splitlines()
            entries.append(entry)
        (folder / "api_keys.json").write_text(f"[{','.join(entries)}]")
        (folder / "metrics_key").write_text(self.keys["prometheus"])
        self.keys["administrator"] = "the-key-of-the-administrator"
        (folder / "triton_admin_key").write_text(self.keys["administrator"])
        repository = self.engine.site / "model_repository"
        repository.mkdir()
        repository.chmod(0o777)  # of another user than the export
        self.compose("--profile", "export", "run", "--rm", "export", *_SMALL_MODEL)

    def compose(self, *arguments: str, **options: Any) -> str:
        return self.engine.docker("compose", "--file", f"{SITE}/docker/compose.yaml", *arguments, **options)

    def up(self, *services: str, scale_b: int = 1) -> None:
        """Start services, by default those of the CPU profile, and wait until they are healthy."""
        profiles = ["--profile", "cpu", *(["--profile", "monitoring"] if "prometheus" in services else [])]
        scale = ["--scale", f"gateway-b={scale_b}"] if not services or "gateway-b" in services else []
        dependencies = ["--no-deps"] if services else []
        self.compose(*profiles, "up", "--detach", "--wait", *dependencies, *scale, *services)

    def inspected(self, service: str, number: int = 1) -> dict[str, Any]:
        """Return what `docker inspect` says about a container."""
        (found,) = json.loads(self.engine.docker("inspect", f"docker-{service}-{number}"))
        return found

    def address(self, service: str, number: int = 1) -> str:
        """Return the address of a container in the network of the proxy."""
        return self.inspected(service, number)["NetworkSettings"]["Networks"]["docker_front"]["IPAddress"]

    def logs(self, service: str) -> str:
        return self.engine.docker("logs", f"docker-{service}-1")

    def client(self, key: str | None, host: str = PROXY) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys[key]}"}
        return httpx.Client(base_url=f"http://{host}", headers=headers, timeout=_ANSWER_S, trust_env=False)

    def infer(self, client: httpx.Client, image: bytes, roi: str = "disc") -> httpx.Response:
        return client.post("/infer", data=form(roi), files={"image": ("part.png", image)})

    def fit(self, client: httpx.Client, images: int, roi: str = "disc") -> httpx.Response:
        files = [("images", (f"{seed}.png", png(steel(seed)))) for seed in range(images)]
        return client.post("/fit_ok", data=form(roi), files=files)

    def ready(self, host: str = PROXY) -> bool:
        with self.client(None, host) as client:
            try:
                return client.get("/ready").status_code == 200
            except httpx.TransportError:
                return False

    def tries_only_what_lives(self) -> bool:
        """Whether the proxy, which asks for addresses every 2 s, tries none that is gone."""
        with self.client(None) as client:
            for _ in range(8):
                client.get("/health")
        tried = re.findall(r'"GET /health .*tried="([^"]+)" 200$', self.logs("proxy"), re.MULTILINE)[-8:]
        return set(tried) == {f"{self.address(service)}:8080" for service in ("gateway-a", "gateway-b")}

    @contextmanager
    def line(self) -> Iterator["Load"]:
        """Inspect without pause by several clients that repeat nothing."""
        load = Load()
        threads = [threading.Thread(target=load.run, args=(self,)) for _ in range(_LOAD_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            load.more(20)
            yield load
            load.more(20)
        finally:
            load.ended.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def held(self, service: str) -> Iterator[socket.socket]:
        """An inspection that a gateway has admitted, and whose last byte is missing: b"\\n"."""
        host = self.address(service)
        request = httpx.Request(
            "POST", f"http://{host}:8080/infer", data=form("disc"), files={"image": ("part.png", png(steel(50)))}
        )
        body = request.read()
        head = {**request.headers, "Authorization": f"Bearer {self.keys['line']}", "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        with socket.create_connection((host, 8080), timeout=_ANSWER_S) as connection:
            connection.sendall(f"POST /infer HTTP/1.1\r\n{lines}\r\n".encode() + body[:-1])
            with self.client("line", f"{host}:8080") as client:
                wait_until(lambda: 'gateway_in_flight{work="inspect"} 1.0' in client.get("/metrics").text)
            yield connection


class Load:
    """The answers of inspections: by status, or by the error of the connection."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.ended = threading.Event()

    def run(self, stack: Stack) -> None:
        image = png(steel(99))
        with stack.client("line") as client:
            while not self.ended.wait(_PAUSE_S):
                try:
                    answer = stack.infer(client, image)
                    code = "" if answer.is_success else f" {answer.json()['error']['code']}"
                    self.answers[f"{answer.status_code}{code}"] += 1
                except (httpx.TransportError, ValueError) as error:
                    self.answers[repr(error)] += 1

    def more(self, count: int) -> None:
        """Wait until so many more were answered as they should."""
        now = self.answers["200"]
        wait_until(lambda: self.answers["200"] >= now + count)


def form(roi: str) -> dict[str, str]:
    return {"role_id": "steel", "roi_id": roi, "mm_per_px": "0.2"}


def wait_until(condition: Any, seconds: float = _WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)
