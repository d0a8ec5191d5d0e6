"""How the asynchronous client sends: connections, timeouts, retries."""

import copy
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from patchcore_client._async.waiting import in_thread, sleep
from patchcore_client.calls import Call, answer_of, auth_headers, connection_error, error_of, gateway_url, texts
from patchcore_client.images import Image, load
from patchcore_client.retries import Retries, may_repeat

T = TypeVar("T")


class AsyncSender:
    """Connections to one gateway."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60,
        fit_timeout_s: float = 1800,
        connect_timeout_s: float = 5,
        retries: Retries | None = None,
        recipe_id: str | None = None,
        **http: Any,
    ) -> None:
        """Make a client. It connects with the first request.

        Args:
            url: address of the gateway; else `PATCHCORE_URL`, else http://127.0.0.1:8080.
            key: API key; else `PATCHCORE_KEY`, else none.
            timeout_s: longest wait for an answer, or for the next piece of it.
            fit_timeout_s: the same for what learns or stores images.
            connect_timeout_s: longest wait for a connection.
            retries: how often a request is sent again.
            recipe_id: the recipe, a variant of the product, that every request is about; else the default recipe.
            http: options of `httpx.AsyncClient`, such as `verify`, `cert`, `proxy` and `limits`.

        Raises:
            ValueError: the address is invalid.
        """
        self._url = gateway_url(url)
        self._timeout = httpx.Timeout(timeout_s, connect=connect_timeout_s, pool=None)
        self._fit_timeout_s = fit_timeout_s
        self._retries = retries or Retries()
        self._recipe = texts({"recipe_id": recipe_id})
        headers = {**auth_headers(key), **http.pop("headers", {})}
        self._http = httpx.AsyncClient(base_url=self._url, timeout=self._timeout, headers=headers, **http)

    def recipe(self, recipe_id: str) -> Self:
        """Return a client for another recipe, with the same connections. Closing one closes both."""
        other = copy.copy(self)
        other._recipe = texts({"recipe_id": recipe_id})
        return other

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _loaded(self, image: Image) -> tuple[str, bytes]:
        # Bytes need no thread. Everything else is read or encoded.
        return load(image) if isinstance(image, bytes) else await in_thread(load, image)

    async def _send(self, call: Call[T]) -> T:
        """Send a request, and send it again where that is allowed and of use."""
        attempt = 0
        while True:
            attempt += 1
            wait_s = None
            try:
                response = await self._response(call)
            except httpx.TransportError as error:
                if may_repeat(call.repeat, error):
                    wait_s = self._retries.wait_s(attempt, None)
                if wait_s is None:
                    raise connection_error(call, self._url, error) from error
            else:
                if response.is_success or response.status_code in call.accepts:
                    return answer_of(call, response)
                failure = error_of(response)
                if may_repeat(call.repeat, response.status_code):
                    wait_s = self._retries.wait_s(attempt, getattr(failure, "retry_after_s", None))
                if wait_s is None:
                    raise failure
            await sleep(wait_s)

    async def _send_once(self, call: Call[T]) -> T:
        return answer_of(call, await self._response(call))

    async def _response(self, call: Call[Any]) -> httpx.Response:
        timeout = self._timeout
        if call.timeout_s is not None:
            timeout = httpx.Timeout(call.timeout_s, connect=timeout.connect, pool=None)
        return await self._http.request(
            call.method,
            call.path,
            params={**self._recipe, **call.params} or None,
            headers=call.headers,
            files=call.parts,
            json=call.json,
            timeout=timeout,
        )
