"""Which requests are the GUI's: those under ``/gui`` and, where the dialect is served at ``/`` too, some others."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.responses import error_response
from gateway.api.upload_pace import paced
from gateway.errors import SlowBodyError

PREFIX = "/gui"
_OWN = {"/state", "/manifest", "/calibrate_dataset", "/infer_dataset"}
_DATA_SETS = "/datasets/"
_SHARED = {"/health", "/fit_ok", "/calibrate_ng", "/infer"}
"""Paths that the API has too."""
_PEEKED = 65_536
"""Bytes of a body that are looked at. The GUI sends its fields before its files."""
_FIELDS = b"model_key|memory_fit|use_dataset|include_heatmap"
_IN_FORM = re.compile(rb'\r\nContent-Disposition: form-data; name="?(?:' + _FIELDS + rb')"?[;\r]', re.IGNORECASE)
_IN_JSON = re.compile(rb'"model_key"\s*:')
_FILE = re.compile(rb"\r\nContent-Disposition: form-data;[^\r]*\bfilename", re.IGNORECASE)


class GuiDispatchMiddleware:
    """Hand the requests of the GUI to its own application, and all others on."""

    def __init__(self, app: ASGIApp, gui: ASGIApp, *, at_root: bool, min_upload_bytes_s: int) -> None:
        """Wrap the API.

        Args:
            app: the API.
            gui: the application of the dialect.
            at_root: whether the dialect is served at ``/`` too. A path that the API has as well is the GUI's if the
                request has the header ``X-Recipe-Id``, or a field that only the GUI sends.
            min_upload_bytes_s: lowest mean rate at which the start of a body may arrive.
        """
        self._app = app
        self._gui = gui
        self._at_root = at_root
        self._min_upload_bytes_s = min_upload_bytes_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if path == PREFIX or path.startswith(f"{PREFIX}/"):
            return await self._gui({**scope, "root_path": root + PREFIX}, receive, send)
        if self._at_root and (path in _OWN or path.startswith(_DATA_SETS)):
            return await self._gui(dict(scope), receive, send)
        if self._at_root and path in _SHARED:
            if "x-recipe-id" in Headers(scope=scope):
                return await self._gui(dict(scope), receive, send)
            if scope["method"] == "POST":
                try:
                    is_gui, receive = await _peeked(scope, paced(receive, self._min_upload_bytes_s), receive)
                except SlowBodyError as error:
                    return await error_response(error)(scope, receive, send)
                if is_gui:
                    return await self._gui(dict(scope), receive, send)
        return await self._app(scope, receive, send)


async def _peeked(scope: Scope, receive: Receive, later: Receive) -> tuple[bool, Receive]:
    """Return whether the start of a body has a field of the GUI, and a `receive` that replays it.

    Args:
        scope: the request.
        receive: gives the start of the body.
        later: gives the rest.
    """
    is_json = "json" in Headers(scope=scope).get("content-type", "")
    seen = bytearray(b"\r\n")
    messages: list[Message] = []
    is_gui = False
    while not is_gui and len(seen) < _PEEKED:
        message = await receive()
        messages.append(message)
        seen += message.get("body", b"")
        file = None if is_json else _FILE.search(seen)
        start = bytes(seen if file is None else seen[: file.start() + 2])
        is_gui = (_IN_JSON if is_json else _IN_FORM).search(start) is not None
        if file is not None or not message.get("more_body", False):
            break
    messages.reverse()

    async def replayed() -> Message:
        return messages.pop() if messages else await later()

    return is_gui, replayed
