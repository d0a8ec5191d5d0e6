"""Requests and answers as values, without sending: what both clients share."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
import pydantic
from pydantic_core import from_json

from patchcore_client.answer import Answer
from patchcore_client.errors import (
    BY_CODE,
    AnswerError,
    ConnectError,
    GatewayError,
    PatchcoreError,
    TimeoutError,  # noqa: A004
)
from patchcore_client.images import Encoded, Image
from patchcore_client.inspection import Inspection
from patchcore_client.models import HeatmapMode
from patchcore_client.retries import Repeat, retry_after_s

DEFAULT_URL = "http://127.0.0.1:8080"
URL_VARIABLE = "PATCHCORE_URL"
KEY_VARIABLE = "PATCHCORE_KEY"

T = TypeVar("T")

Shape = Mapping[str, Any] | str
"""Where the part is, in pixels of the image: `{"kind": "circle", "cx": 192, "cy": 192, "r": 180}`, or its JSON.

A rect has its centre `cx`, `cy` or its top left corner `x`, `y`.
"""
Part = tuple[str, tuple[str | None, bytes] | tuple[str | None, bytes, str]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request that is ready to be sent."""

    method: str
    path: str
    answer: type[T]
    """A model, `str` for text, `bytes` for a file, or `object` for any JSON."""
    repeat: Repeat
    params: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[Part] | None = None
    """Parts of a form."""
    json: dict[str, Any] | None = None
    timeout_s: float | None = None
    accepts: frozenset[int] = frozenset()
    """Statuses of errors whose answers are read as `answer` all the same."""


class BatchAnswer(Answer):
    """Results of a batch, each an inspection or an error."""

    results: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One image of `infer_batch`, with the parameters of `infer`."""

    role_id: str
    roi_id: str
    image: Image
    mm_per_px: float
    shape: Shape | None = None
    bit_depth: int | None = None
    k: int | None = None
    p_score: float | None = None
    blur_sigma: float | None = None
    area_mm2_thr: float | None = None
    recipe_id: str | None = None
    heatmap: HeatmapMode | None = None
    explain: bool | None = None

    def fields(self) -> dict[str, Any]:
        """Return what the JSON of the item says."""
        found = {each.name: getattr(self, each.name) for each in dataclass_fields(self) if each.name != "image"}
        return without_none(found)


def gateway_url(given: str | None) -> str:
    """Return the address of the gateway: the given one, `PATCHCORE_URL`, or port 8080 of this host.

    Raises:
        ValueError: it is no http or https address.
    """
    url = (given or os.environ.get(URL_VARIABLE) or DEFAULT_URL).strip().rstrip("/")
    if not url.startswith(("http://", "https://")) or not httpx.URL(url).host:
        raise ValueError(f"{url!r}: expected the address of a gateway, such as {DEFAULT_URL}")
    return url


def auth_headers(key: str | None) -> dict[str, str]:
    """Return the header of an API key: the given one, or `PATCHCORE_KEY`. Without a key there is none."""
    key = (key or os.environ.get(KEY_VARIABLE) or "").strip()
    return {"Authorization": f"Bearer {key}"} if key else {}


def roi_path(role_id: str, roi_id: str, *more: str) -> str:
    """Return the path of an ROI, `/rois/{role_id}/{roi_id}/…`.

    Raises:
        ValueError: a part is empty or only dots, which would lead to another path.
    """
    for part in (role_id, roi_id, *more):
        if not part.strip("."):
            raise ValueError(f"{part!r}: expected an id of letters, digits, spaces, '.', '_' and '-'")
    return "/rois/" + "/".join(quote(part, safe="") for part in (role_id, roi_id, *more))


def texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of fields. A field that is None is left out."""
    return {name: _text(value) for name, value in fields.items() if value is not None}


def form(fields: Mapping[str, Any], images: Iterable[tuple[str, Encoded]] = ()) -> list[Part]:
    """Return the parts of a form: texts, and files as pairs of the field and the file."""
    parts: list[Part] = [(name, (None, text.encode())) for name, text in texts(fields).items()]
    parts += [(name, image) for name, image in images]
    return parts


def json_text(value: Any) -> str:
    """Return JSON."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """Return a mapping or a number of NumPy as JSON can hold it."""
    return dict(value) if isinstance(value, Mapping) else value.item()


def shape_text(shape: Shape | None) -> str | None:
    """Return the JSON of a shape."""
    return shape if shape is None or isinstance(shape, str) else json_text(shape)


def scores(given: Sequence[float] | None) -> list[float] | None:
    """Return scores as a list of Python numbers."""
    return None if given is None else [float(score) for score in given]


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are given."""
    return {name: value for name, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value))  # NumPy's numbers have another repr
    return str(value)


def answer_of(call: Call[T], response: httpx.Response) -> T:
    """Return the answer to a request.

    Raises:
        GatewayError: the answer is an error.
        AnswerError: the answer is not one of a PatchCore gateway.
    """
    if not response.is_success and response.status_code not in call.accepts:
        raise error_of(response)
    if call.answer is bytes:
        return response.content  # type: ignore[return-value]
    if call.answer is str:
        return response.text  # type: ignore[return-value]
    try:
        if issubclass(call.answer, pydantic.BaseModel):
            return call.answer.model_validate_json(response.content)
        return from_json(response.content)  # type: ignore[no-any-return]
    except ValueError as error:
        where = f"{call.method} {call.path}: {response.status_code}"
        raise AnswerError(f"{where}: {error}; the answer begins with {response.content[:200]!r}") from error


def error_of(response: httpx.Response) -> PatchcoreError:
    """Return the exception of an error answer."""
    try:
        body = response.json()["error"]
        code, message, hint = (str(body[name]) for name in ("code", "message", "hint"))
    except (ValueError, KeyError, TypeError):
        # Of a proxy, for example.
        request = response.request
        return AnswerError(f"{request.method} {request.url}: {response.status_code} {response.text[:200]!r}")
    return BY_CODE.get(code, GatewayError)(
        code,
        message,
        hint,
        status=response.status_code,
        request_id=response.headers.get("x-request-id"),
        retry_after_s=retry_after_s(response.headers),
    )


def connection_error(call: Call[Any], url: str, error: httpx.TransportError) -> ConnectError:
    """Return the exception of a failed connection."""
    kind = TimeoutError if isinstance(error, httpx.TimeoutException) else ConnectError
    return kind(f"{call.method} {url}{call.path}: {error or type(error).__name__}")


def batch_results(results: list[Any]) -> list[Inspection | GatewayError]:
    """Return the results of a batch: an inspection, or the error of its image, which is not raised.

    Raises:
        AnswerError: a result is neither.
    """
    found: list[Inspection | GatewayError] = []
    try:
        for each in results:
            if "error" in each:
                body = each["error"]
                kind = BY_CODE.get(body["code"], GatewayError)
                found.append(kind(body["code"], body["message"], body["hint"]))
            else:
                found.append(Inspection.model_validate(each))
    except (ValueError, KeyError, TypeError) as error:
        raise AnswerError(f"POST /infer_batch: {error}") from error
    return found
