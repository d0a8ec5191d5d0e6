"""Turn every failure into the error envelope: domain errors, validation errors and HTTP errors.

Unexpected exceptions are answered by `RequestIdMiddleware`.
"""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gateway.api.responses import JsonResponse, error_response
from gateway.api.validation_messages import field_name, message_of
from gateway.errors import GatewayError, InvalidRequestError, TooLargeError, envelope
from gateway.monitoring.request_context import tell

log = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every failure of an application with the error envelope."""
    app.add_exception_handler(GatewayError, _domain_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_gone)


async def _domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error.message)
    return error_response(error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first, *more = error.errors()
    message = message_of(first)
    if more:
        message += f" (and {len(more)} more: {', '.join(field_name(e['loc']) for e in more[:5])})"
    return error_response(InvalidRequestError(message))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, GatewayError):  # raised while FastAPI read the body
        return error_response(error.__cause__)
    if error.status_code == 404:
        body = envelope("not_found", f"{_path(request)}: no such path", "GET /docs lists the endpoints.")
    elif error.status_code == 405:
        body = envelope("method_not_allowed", f"{request.method[:20]} {_path(request)}", "GET /docs lists the methods.")
    elif error.status_code < 500:
        # Starlette counts the parts of a form before a route sees it.
        too_large = ("Too many files", "Part exceeded", "Field exceeded")
        kind = TooLargeError if str(error.detail).startswith(too_large) else InvalidRequestError
        form_hint = "Send a valid multipart/form-data body, as HTTP libraries write it."
        hint = TooLargeError.default_hint if kind is TooLargeError else form_hint
        return error_response(kind(f"the body cannot be read: {error.detail}", hint))
    else:
        body = envelope("internal", str(error.detail), GatewayError.default_hint)
    tell(code=body["error"]["code"])
    return JsonResponse(body, status_code=error.status_code, headers=error.headers)


def _path(request: Request) -> str:
    path = request.url.path
    return path if len(path) <= 200 else f"{path[:200]}… ({len(path)} characters)"


async def _client_gone(request: Request, error: Exception) -> Response:
    tell(code="client_gone")
    return Response(status_code=499)  # only for the access log: the client does not read it
