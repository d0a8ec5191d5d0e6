"""Routes that refuse what they do not understand: unknown or repeated fields, wrong body types, incomplete forms."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, get_origin

from fastapi import Request, Response, UploadFile, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.datastructures import UploadFile as Uploaded

from gateway.api.json_text import parse_json
from gateway.api.known_fields import known_hint, repeated_field, unknown_fields
from gateway.api.multipart_body import framed
from gateway.errors import InvalidRequestError, StorageFullError
from gateway.process.services import Services
from gateway.settings import Settings

log = logging.getLogger(__name__)

_MAX_FIELDS = 32
"""Limit of the text fields in a form. The largest form has 11, besides one for each image."""
_MAX_TEXT_BYTES = 65_536
"""Limit of a text field in a form with one for each image."""
_FORM = "multipart/form-data"


class StrictRoute(APIRoute):
    """A route that checks the names in a request before FastAPI reads their values."""

    ignores_unknown: ClassVar[bool] = False
    """Whether unknown names are left out instead of refused, for clients that cannot be changed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of FastAPI, with the checks before it."""
        handle = super().get_route_handler()
        query = _query_names(self.dependant)
        forms = _form_fields(self.dependant)
        has_json = bool(self.dependant.body_params) and not forms
        strict = not self.ignores_unknown

        async def check_and_handle(request: Request) -> Response:
            names = [name for name, _ in request.query_params.multi_items()]
            _require_names(names, query, "query parameter", strict=strict)
            _require_uncompressed(request)
            if forms:
                checked = _Request(request.scope, framed(request.receive, _boundary(request)))
                services: Services = request.app.state.services
                form = await _read_form(checked, services.settings, _has_texts(forms))
                try:
                    _require_form(form, forms, strict=strict)
                except BaseException:
                    await form.close()
                    raise
                return await handle(checked)  # FastAPI reads the same form again, from the request
            if has_json:
                _require_json_type(request)
            return await handle(_Request(request.scope, request.receive))

        return check_and_handle


def _query_names(dependant: Dependant) -> set[str]:
    """Return the names of the query parameters of a route and of its dependencies."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(_query_names(each) for each in dependant.dependencies))


def _form_fields(dependant: Dependant) -> dict[str, Any]:
    """Return the type of each field of a form. A route has a parameter for each, or one model of all, read faster."""
    found: dict[str, Any] = {}
    for field in dependant.body_params:
        if not isinstance(field.field_info, params.Form):
            continue
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {name: each.annotation for name, each in kind.model_fields.items()}
        else:
            found[field.alias] = kind
    return found


def _is_file(kind: Any) -> bool:
    return kind in (UploadFile, list[UploadFile])


def _has_texts(fields: dict[str, Any]) -> bool:
    """Return whether a form has a text field for each of its images."""
    return any(get_origin(kind) is list and not _is_file(kind) for kind in fields.values())


async def _read_form(request: Request, settings: Settings, has_texts: bool) -> FormData:
    max_files = max(settings.max_fit_images, settings.max_batch_images)
    try:
        return await request.form(
            max_files=max_files,
            max_fields=_MAX_FIELDS + (max_files if has_texts else 0),
            # Text fields are held in memory.
            max_part_size=min(settings.max_json_bytes, _MAX_TEXT_BYTES) if has_texts else settings.max_json_bytes,
        )
    except OSError as error:  # Starlette writes large files of a form to a temporary folder
        reason = error.strerror or error
        log.error("a body cannot be stored: %s", reason)
        hint = "Free space in the folder for temporary files (TMPDIR) on the gateway's host, then send it again."
        raise StorageFullError(f"the body cannot be stored while it arrives: {reason}", hint) from error


class _Request(Request):
    async def json(self) -> Any:
        """Return the body, parsed with the same rules as every other JSON text."""
        return parse_json(await self.body(), "the body")


def _require_names(
    names: list[str], known: set[str], kind: str, lists: set[str] | None = None, *, strict: bool
) -> None:
    message = unknown_fields(names, known, kind) if strict else None
    if message is not None:
        raise InvalidRequestError(message, known_hint(known))
    repeated = repeated_field(names, lists or ())
    if repeated is not None and repeated in known:
        hint = "Send it once."
        if repeated == "image":
            hint = "Send one image to /infer. /infer_batch inspects several."
        raise InvalidRequestError(f"{repeated}: the request has this {kind} {names.count(repeated)} times", hint)


def _require_uncompressed(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise InvalidRequestError(
            f"the body has the Content-Encoding {encoding[:40]!r}; this gateway reads only uncompressed bodies",
            "Send the body without compression and without Content-Encoding.",
        )


def _boundary(request: Request) -> bytes:
    """Return the boundary of a form.

    Raises:
        InvalidRequestError: the body is not a multipart form.
    """
    header = request.headers.get("content-type", "")
    kind, options = parse_options_header(header)
    if kind != _FORM.encode():
        sent = f"has the Content-Type {header[:80]!r}" if header else "has no Content-Type"
        raise InvalidRequestError(
            f"the body {sent}; expected {_FORM}",
            f"Send the fields and images as {_FORM}, for example with: curl -F role_id=… -F roi_id=… -F image=@roi.png",
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequestError(
            f"the Content-Type {header[:80]!r} has no boundary",
            "Let the HTTP library write the Content-Type header of the form.",
        )
    return boundary


def _require_json_type(request: Request) -> None:
    header = request.headers.get("content-type", "")
    kind = parse_options_header(header)[0].decode("latin-1")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        sent = f"has the Content-Type {header[:80]!r}" if header else "has no Content-Type"
        raise InvalidRequestError(
            f"the body {sent}; expected application/json",
            "Send one JSON object with the header 'Content-Type: application/json'.",
        )


def _require_form(form: FormData, fields: dict[str, Any], *, strict: bool) -> None:
    lists = {name for name, kind in fields.items() if get_origin(kind) is list}
    _require_names([name for name, _ in form.multi_items()], set(fields), "field", lists, strict=strict)
    for name, value in form.multi_items():
        if not isinstance(value, Uploaded):
            continue
        if name in fields and not _is_file(fields[name]):
            raise InvalidRequestError(
                f"{name}: expected text, but the part has the file name {str(value.filename)[:80]!r}",
                "Send it as a plain form field, without a file name (with curl: -F 'name=value', without @).",
            )
        _require_plain(name, value)


def _require_plain(name: str, upload: UploadFile | Uploaded) -> None:
    """Refuse a file whose bytes are encoded for transport."""
    for header in ("content-transfer-encoding", "content-encoding"):
        encoding = upload.headers.get(header, "").strip()
        if encoding.lower() not in ("", "binary", "8bit", "7bit", "identity"):
            raise InvalidRequestError(
                f"{name}: the part {str(upload.filename)[:80]!r} has {header.title()}: {encoding[:40]}",
                "Send the bytes of the file as they are, without this header.",
            )
