"""The desktop GUI, as far as the wire shows it: each request byte for byte as .NET writes it."""

import json
import uuid
from typing import Any
from urllib.parse import urlencode

from tests.e2e.dotnet_multipart import Part, Reply, exchange, request
from tests.e2e.synthetic_images import png, steel, with_blob

SIZE = (96, 80)
MM = 0.5
SHAPE = json.dumps({"kind": "rect", "x": 0, "y": 0, "w": SIZE[0], "h": SIZE[1]})


def part(seed: int) -> bytes:
    """An OK part."""
    return png(steel(seed, SIZE))


def spoiled(seed: int) -> bytes:
    """An NG part."""
    return png(with_blob(steel(seed, SIZE), (40, 40), 14, 1.0)[0])


class Gui:
    """One GUI with one recipe open."""

    def __init__(self, port: int, recipe: str | None = None, *, base: str = "/gui", roi: str = "inspection-1") -> None:
        self.port = port
        self.recipe = recipe
        self._base = base
        self.roi = roi
        self.names = {"role_id": "Inspection", "roi_id": roi}

    def _headers(self) -> dict[str, str]:
        recipe = {} if self.recipe is None else {"X-Recipe-Id": self.recipe}
        return {**recipe, "X-Request-Id": str(uuid.uuid4())}

    def _exchange(self, head: bytes, content: bytes, headers: dict[str, str]) -> Reply:
        reply = exchange(self.port, head, content)
        assert reply.headers["x-request-id"] == headers["X-Request-Id"]
        if reply.headers["content-type"] == "application/json":
            assert reply.json()["request_id"] == headers["X-Request-Id"]
            assert reply.json()["recipe_id"] == reply.headers["x-recipe-id"]
        return reply

    def ask(self, method: str, path: str, **query: str) -> Reply:
        """GET, DELETE and OPTIONS."""
        headers = self._headers()
        target = f"{self._base}/{path}" + (f"?{urlencode(query)}" if query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return self._exchange(("\r\n".join(lines) + "\r\n\r\n").encode(), b"", headers)

    def post_json(self, path: str, **body: Any) -> Reply:
        """JsonContent: its length is not known before it is written, so it is sent in chunks."""
        headers = self._headers()
        content = json.dumps({**self.names, "model_key": self.roi, **body}, separators=(",", ":")).encode()
        lines = [f"POST {self._base}/{path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Transfer-Encoding: chunked", "Content-Type: application/json; charset=utf-8"]
        chunked = f"{len(content):X}\r\n".encode() + content + b"\r\n0\r\n\r\n"
        return self._exchange(("\r\n".join(lines) + "\r\n\r\n").encode(), chunked, headers)

    def post_form(self, path: str, *parts: Part) -> Reply:
        headers = self._headers()
        named = [Part.text(name, value) for name, value in self.names.items()]
        head, content = request(f"{self._base}/{path}", self.port, [*named, *parts], headers=headers)
        return self._exchange(head, content, headers)

    def upload(self, label: str, images: list[bytes], *metas: dict[str, Any]) -> Reply:
        files = [Part.file("images", f"sample {i}.png", data, "image/png") for i, data in enumerate(images)]
        told = metas or tuple({"mm_per_px": MM, "shape_json": SHAPE, "angle": i} for i, _ in enumerate(images))
        texts = [Part("metas", json.dumps(meta).encode(), None, "application/json; charset=utf-8") for meta in told]
        return self.post_form(f"datasets/{label}/upload", *files, *texts)

    def fit(self, *images: bytes, memory_fit: bool = False, mm_per_px: float = MM) -> Reply:
        """Fit from these images or, without any, from the data set."""
        fields = [
            Part.text("mm_per_px", mm_per_px),
            Part.text("memory_fit", "true" if memory_fit else "false"),
            Part.text("model_key", self.roi),
        ]
        files = [Part.file("images", f"ok {i}.png", data, "image/png") for i, data in enumerate(images)]
        return self.post_form("fit_ok", *fields, *(files or [Part.text("use_dataset", "true")]))

    def infer(self, image: bytes, *more: Part, mm_per_px: float = MM, shape: str | None = SHAPE) -> Reply:
        fields = [Part.text("mm_per_px", mm_per_px), Part.text("model_key", self.roi)]
        shapes = [] if shape is None else [Part.text("shape", shape)]
        return self.post_form("infer", *fields, Part.file("image", "roi.png", image, "image/png"), *shapes, *more)

    def files(self, label: str) -> list[str]:
        return answered(self.ask("GET", "datasets/list", **self.names))["classes"][label]["files"]


def answered(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.content
    return reply.json()


def text_of(reply: Reply) -> str:
    """What the GUI takes as the text of an error."""
    body = reply.json()
    error, detail = body.get("error"), body.get("detail")
    for found in (error, detail):
        if isinstance(found, str):
            return found
        if isinstance(found, dict):
            return found.get("message") or found.get("detail")
    return reply.content.decode()
