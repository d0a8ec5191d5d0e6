"""Answers of the dialect. Each has `request_id` and `recipe_id`, also one that refuses."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import get_contextvars

from gateway.api.recipe import header_recipe
from gateway.api.responses import JsonResponse
from gateway.errors import GatewayError
from gateway.gui.deciding import Deciding
from gateway.inspection.answer import Inspection
from gateway.store.ids import valid_id
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey


def answer(key: RoiKey, body: dict[str, Any]) -> JsonResponse:
    """Return an answer about an ROI.

    Args:
        key: the ROI that answered.
        body: the keys of the answer.
    """
    return JsonResponse({**body, **ids(key.recipe_id)})


def ids(recipe_id: str) -> dict[str, str]:
    """Return the ids that every answer carries."""
    return {"request_id": str(get_contextvars().get("request_id", "")), "recipe_id": recipe_id}


def decision_body(result: Inspection, found: Deciding, include_heatmap: bool | None) -> dict[str, Any]:
    """Return a decision as the GUI reads it.

    Args:
        result: the inspection.
        found: its decision.
        include_heatmap: None includes the heatmap of an image that is NG.
    """
    wanted = found.decision == "ng" if include_heatmap is None else include_heatmap
    png = result.heatmap_png if wanted else None
    return {
        "score": found.score,
        "threshold": found.threshold,
        "decision": found.decision,
        "regions": [
            {
                **dict(zip(("x", "y", "w", "h"), region.bbox, strict=True)),
                "bbox": region.bbox,
                "area_px": region.area_px,
                "area_mm2": region.area_mm2,
                "contour": region.contour,
            }
            for region in result.regions
        ],
        "heatmap_png_base64": None if png is None else base64.b64encode(png).decode(),
    }


class IdsMiddleware:
    """Add the ids to every refusal, and the recipe as a header to every answer.

    Refusals come from the route and from the middlewares around it, in the envelope of the API.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one HTTP request."""
        state = scope.setdefault("state", {})
        state["recipe_id"] = _named(scope)
        start: Message | None = None
        body = bytearray()

        async def send_with_ids(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Recipe-Id"] = quote(state["recipe_id"], safe=" ")
                if message["status"] >= 400 and headers.get("content-type") == "application/json":
                    start = message
                    return
            elif start is not None:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                data = json.dumps({**json.loads(body), **ids(state["recipe_id"])}, ensure_ascii=False).encode()
                MutableHeaders(scope=start)["content-length"] = str(len(data))
                await send(start)
                message = {**message, "body": data}
            await send(message)

        await self._app(scope, receive, send_with_ids)


def _named(scope: Scope) -> str:
    """Return the recipe in the query or in the header of a request, for a refusal before its body is read."""
    queried = parse_qs(scope["query_string"].decode("latin-1")).get("recipe_id", [])
    try:
        named = queried[0] if queried else header_recipe(Headers(scope=scope).getlist("x-recipe-id"))
    except GatewayError:  # refused with its reason by the route
        named = None
    return valid_id(named or "") or DEFAULT_RECIPE
