"""``GET /``: the page, and its files under ``/page/<digest>/``."""

import hashlib
import html
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from mimetypes import guess_type

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_INDEX = "index.html"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_FOREVER = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}


@lru_cache(maxsize=1)
def _parts() -> dict[str, bytes]:
    """Return the files of the page by their paths, read once."""
    found: dict[str, bytes] = {}

    def read(folder: Traversable, prefix: str) -> None:
        for each in folder.iterdir():
            if each.is_dir():
                read(each, f"{prefix}{each.name}/")
            else:
                found[prefix + each.name] = each.read_bytes()

    read(files("gateway.page").joinpath("static"), "")
    return found


@lru_cache(maxsize=1)
def page_digest() -> str:
    """Return the name of this set of files. Another release has other addresses, so a browser may keep them."""
    digest = hashlib.sha256()
    for name, content in sorted(_parts().items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


@router.get("/")
async def page(request: Request) -> Response:
    """Return the page. It loads its files from this gateway only."""
    root = request.scope.get("root_path", "")
    etag = f'"{page_digest()}-{hashlib.sha256(root.encode()).hexdigest()[:8]}"'
    headers = {"Cache-Control": "no-cache", "ETag": etag, "Content-Security-Policy": _POLICY}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    text = _parts()[_INDEX].decode()
    text = text.replace("{root}", html.escape(root)).replace("{digest}", page_digest())
    return HTMLResponse(text, headers=headers)


@router.get("/page/{digest}/{name:path}")
async def part(digest: str, name: str) -> Response:
    """Return a file of the page."""
    content = _parts().get(name)
    if content is None or name == _INDEX or digest != page_digest():
        return Response("no such file of the page; load it again\n", status_code=404, media_type="text/plain")
    suffix = "." + name.rpartition(".")[2]
    media_type = _TYPES.get(suffix) or guess_type(name)[0]
    return Response(content, media_type=media_type, headers={"Cache-Control": _FOREVER})
