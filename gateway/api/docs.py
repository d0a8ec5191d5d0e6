"""``GET /docs``: the API as a page to try it on. Its script and style come from where FastAPI has them."""

import base64
import hashlib
import re

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_SOURCES = re.compile(rb'(?:src|href)="(https://[^/"]+)/')


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Swagger UI, allowed to load and run what the page names and nothing else."""
    page = get_swagger_ui_html(
        openapi_url=f"{request.scope.get('root_path', '')}/openapi.json", title=request.app.title
    )
    content = bytes(page.body)
    sources = " ".join(sorted({source.decode() for source in _SOURCES.findall(content)}))
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(content)
    )
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {sources} {hashes}; style-src {sources} 'unsafe-inline'; "
        f"img-src {sources} data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return page
