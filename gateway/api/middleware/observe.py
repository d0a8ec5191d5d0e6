"""Counters, duration, trace span and log line of every request."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import structlog
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from gateway.monitoring import metrics, tracing
from gateway.monitoring.request_context import facts

log = structlog.stdlib.get_logger("gateway.request")

_QUIET = {"/health", "/ready", "/metrics"}
"""Machines request these every few seconds. They are logged at level debug."""


class ObserveMiddleware:
    """Count, time and log every request. It wraps all other middlewares, so refused requests are counted as well."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        """Wrap an application.

        Args:
            app: the next application.
            routes: the application's routes, to find the path template of a request that was refused before routing.
        """
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        told: dict[str, Any] = {}
        facts.set(told)
        clear_contextvars()
        bind_contextvars(client=scope["client"][0] if scope.get("client") else "", actor="anonymous")
        status = 0
        start = time.perf_counter()

        async def send_and_see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with tracing.request(scope) as span:
            try:
                await self._app(scope, receive, send_and_see)
            finally:
                seconds = time.perf_counter() - start
                endpoint = self._endpoint(scope)
                code = told.pop("code", None) or ("ok" if 0 < status < 400 else f"http_{status}")
                metrics.REQUESTS.labels(endpoint, code).inc()
                metrics.REQUEST_SECONDS.labels(endpoint).observe(seconds)
                tracing.describe(
                    span,
                    f"{scope['method']} {endpoint}",
                    {
                        "http.response.status_code": status,
                        "code": code,
                        "request_id": get_contextvars().get("request_id", ""),
                    },
                )
                _log_request(scope, told, status, code, seconds)

    def _endpoint(self, scope: Scope) -> str:
        """Return the path template of a request, also of one that was refused before routing."""
        route = scope.get("route") or next((r for r in self._routes if r.matches(scope)[0] != Match.NONE), None)
        return getattr(route, "path", "unmatched")


def _log_request(scope: Scope, told: dict[str, Any], status: int, code: str, seconds: float) -> None:
    inspections = told.pop("inspections", [])
    if len(inspections) == 1:
        told |= inspections[0]
    elif inspections:
        told = {"inspections": inspections}
    level = logging.DEBUG if scope["path"] in _QUIET and status < 500 else logging.INFO
    log.log(
        level,
        "request",
        method=scope["method"],
        path=scope["path"][:200],
        status=status,
        code=code,
        ms=round(seconds * 1e3, 2),
        **told,
    )
