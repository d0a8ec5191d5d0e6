"""``GET /docs``: Swagger UI, which loads its parts from this gateway only; the OpenAPI documents."""

import base64
import hashlib
import re
from importlib.resources import files
from mimetypes import guess_type
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

from gateway.api.responses import JsonResponse

router = APIRouter(include_in_schema=False)

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
PartName = Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]


@router.get("/openapi.json")
def openapi(request: Request) -> Response:
    """Return the OpenAPI 3.1 document."""
    return _served(request, request.app.openapi())


@router.get("/openapi-3.0.json")
def openapi_3_0(request: Request) -> Response:
    """Return the OpenAPI 3.0.3 document, for client generators."""
    return _served(request, request.app.openapi_3_0)


def _served(request: Request, document: dict[str, Any]) -> Response:
    """Return a document with the address of this gateway, relative to its host."""
    return JsonResponse({**document, "servers": [{"url": request.scope.get("root_path") or "/"}]})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return Swagger UI, with a policy that allows only the scripts and styles named in the page."""
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=request.app.title,
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
    )
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(bytes(page.body))
    )
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return page


@router.get("/docs/{name}")
def part(name: PartName) -> Response:
    """Return a file of Swagger UI, as its project released it."""
    content = files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(content, media_type=guess_type(name)[0], headers={"Cache-Control": "max-age=3600"})
