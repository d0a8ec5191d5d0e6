"""The network on a Triton Inference Server, by gRPC: several gateways share one GPU."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from structlog.contextvars import get_contextvars

from gateway.errors import (
    EngineTimeoutError,
    EngineUnavailableError,
    GatewayError,
    ModelMismatchError,
    OverloadedError,
)
from gateway.monitoring import tracing
from gateway.networks.model_description import DESCRIPTION_FILE, DescriptionError, ModelDescription, read_description
from gateway.networks.protocol import EngineStatus, Priority
from gateway.networks.student_description import model_from_json
from gateway.networks.triton.shared_memory import SharedMemoryPool, Slot
from gateway.settings import Settings

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 2
_RETRY_BACKOFF_S = 0.1
_ASK_TIMEOUT_S = 2.0
"""For questions that cost the server nothing: its configuration, whether it is ready."""
_WATCH_READY_S = 5.0
_WATCH_DOWN_S = 0.5
_SHARED_MEMORY_SLOTS = 32
_MESSAGE_BYTES = 2**31 - 1
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}
_DTYPES: dict[str, np.dtype[Any]] = {"TYPE_FP16": np.dtype(np.float16), "TYPE_FP32": np.dtype(np.float32)}


@dataclass(frozen=True, slots=True)
class _Served:
    """What the server said it serves, as long as the connection over which it said so lasts."""

    connection: int
    version: str
    model: ModelDescription
    backend: str
    device: str
    max_batch: int
    dtype: np.dtype[Any]


class TritonEngine:
    """Calls Triton; finds it again when it comes back; never mixes the tokens of two models."""

    def __init__(self, settings: Settings, name: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            settings: where Triton is, deadlines.
            name: of the model there, any of whose versions is taken; None takes the token model of the settings, which
                has to be one of this gateway's own repository where that holds any.
        """
        self._settings = settings
        self._name = settings.model_name if name is None else name
        self._has_own = name is None
        self._client: Any = None
        self._connection = 0
        """Counts connections: what a server said over an earlier one is not believed of the next."""
        self._served: _Served | None = None
        self._last: _Served | None = None
        self._reason: str | None = "not started"
        self._mismatch: ModelMismatchError | None = None
        self._asking: asyncio.Task[_Served] | None = None
        self._down = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._fits_in_flight = asyncio.Semaphore(settings.triton_fit_in_flight)
        self._memory: SharedMemoryPool | None = None
        self._old_memory: list[SharedMemoryPool] = []
        """Pools of earlier connections, of which Triton may still have something mapped."""
        self._memory_refused = settings.triton_shared_memory == "off" or (
            settings.triton_shared_memory == "auto" and not _is_local(settings.triton_url)
        )

    # --- the protocol --------------------------------------------------------------------------------------------

    @property
    def model(self) -> ModelDescription:
        """See `TokenEngine.model`: the one served now or, while the server is away, the one served last."""
        if self._mismatch is not None:
            raise self._mismatch
        known = self._served or self._last
        if known is None:
            raise self._unavailable()
        return known.model

    @property
    def device(self) -> str:
        """See `TokenEngine.device`."""
        known = self._served or self._last
        return known.device if known else "cpu"

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        known = self._served or self._last
        runtime = f"triton-{known.backend}" if known else "triton"
        return EngineStatus(self._served is not None, self.device, runtime, self._reason)

    async def start(self) -> None:
        """Open the channel and ask once; whether or not the server is there, keep watching for it."""
        try:
            self._client = self._connect()
        except (ImportError, OSError, ValueError) as error:
            self._reason = f"{error}; install the triton extra, and see docs/triton.md"
            log.error("triton engine: %s", self._reason)
            return
        with suppress(GatewayError):
            await self._ask()
        self._tasks = [
            asyncio.create_task(self._watch_connection(), name="triton connection"),
            asyncio.create_task(self._watch_model(), name="triton model"),
        ]

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`: asks the server."""
        with suppress(GatewayError):
            await self._ask()
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        tasks: list[asyncio.Task[Any]] = [*self._tasks]
        if self._asking is not None:
            tasks.append(self._asking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        pools = [*self._old_memory, *([] if self._memory is None else [self._memory])]
        await asyncio.gather(*(pool.close() for pool in pools))
        if self._client is not None:
            await self._client.close()
        self._served, self._reason = None, "closed"

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`. Cut to the server's batch size; cancelled on the server when the caller is."""
        ends = time.monotonic() + self._timeout_s(priority)
        if priority is Priority.INSPECT:
            async with self._deadline(priority):
                return await self._in_batches(images, model, priority, ends)
        return await self._in_batches(images, model, priority, ends)

    # --- one request ---------------------------------------------------------------------------------------------

    def _timeout_s(self, priority: Priority) -> float:
        settings = self._settings
        return settings.triton_timeout_s if priority is Priority.INSPECT else settings.triton_fit_timeout_s

    @asynccontextmanager
    async def _deadline(self, priority: Priority) -> AsyncIterator[None]:
        """Cut off what is in it, whatever it waits for, at the deadline of an inspection or of one batch of a fit."""
        try:
            async with asyncio.timeout(self._timeout_s(priority)):
                yield
        except TimeoutError as error:
            raise self._timed_out(priority) from error

    def _timed_out(self, priority: Priority) -> EngineTimeoutError:
        return EngineTimeoutError(
            f"Triton did not answer within {self._timeout_s(priority):g} s", retry_after_s=_RETRY_AFTER_S
        )

    async def _in_batches(
        self, images: NDArray[np.uint8], model: ModelDescription, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        served = self._served
        if served is None or not self._is_current(served):
            async with self._deadline(priority):
                served = await self._ask()
        if not served.model.same_model_as(model):
            raise _changed(model, served.model)
        parts = [images[start : start + served.max_batch] for start in range(0, len(images), served.max_batch)]
        if len(parts) == 1:
            return await self._one_batch(parts[0], served, priority, ends)
        return np.concatenate(await _all_or_none([self._one_batch(part, served, priority, ends) for part in parts]))

    async def _one_batch(
        self, images: NDArray[np.uint8], served: _Served, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        if priority is Priority.INSPECT:
            return await self._call(images, served, priority, ends)
        async with self._fits_in_flight, self._deadline(priority):
            return await self._call(images, served, priority, time.monotonic() + self._timeout_s(priority))

    async def _call(
        self, images: NDArray[np.uint8], served: _Served, priority: Priority, ends: float
    ) -> NDArray[np.float32]:
        """One request, tried once more where the server could not be reached."""
        from tritonclient.utils import InferenceServerException

        for attempt in (1, 2):
            try:
                tokens, version = await self._attempt(images, served, priority, ends)
            except InferenceServerException as error:
                failure = self._failure(error, priority)
                left = ends - time.monotonic()
                if attempt == 2 or not _worth_retrying(error) or left < 2 * _RETRY_BACKOFF_S:
                    raise failure from error
                await asyncio.sleep(_RETRY_BACKOFF_S)
                now = await self._ask()
                if not now.model.same_model_as(served.model):
                    raise _changed(served.model, now.model) from error
                served = now
            else:
                if version != served.version or not self._is_current(served):
                    now = await self._ask()
                    if now.version != version or not now.model.same_model_as(served.model):
                        raise _changed(served.model, now.model)
                return tokens
        raise AssertionError("unreachable")

    async def _attempt(
        self, images: NDArray[np.uint8], served: _Served, priority: Priority, ends: float
    ) -> tuple[NDArray[np.float32], str]:
        """Tokens, and the version that computed them."""
        from tritonclient.grpc import InferInput, InferRequestedOutput

        model = served.model
        shape = (len(images), model.n_tokens, model.dim)
        image = InferInput(model.input_name, list(images.shape), "UINT8")
        output = InferRequestedOutput(model.output_name)
        slot = await self._slot(len(images), served)
        answered = False
        try:
            if slot is None:
                image.set_data_from_numpy(images)
            else:
                slot.write(images)
                image.set_shared_memory(slot.name, images.nbytes)
                output.set_shared_memory(slot.name, int(np.prod(shape)) * served.dtype.itemsize, slot.offset)
            timeout_s = max(ends - time.monotonic(), 1e-3)
            result = await self._client.infer(
                model_name=self._name,
                model_version=served.version,
                inputs=[image],
                outputs=[output],
                request_id=get_contextvars().get("request_id", ""),
                priority=int(priority),
                timeout=int(timeout_s * 1e6),
                client_timeout=timeout_s,
                headers={**tracing.headers(), **(self._headers() or {})},
            )
            answered = True
            if slot is None:
                tokens = np.asarray(result.as_numpy(model.output_name)).astype(np.float32)
            else:
                tokens = slot.read(shape, served.dtype)
        finally:
            # To its own pool: the engine may have another by now.
            if slot is not None and answered:
                slot.pool.release(slot)
            elif slot is not None:
                slot.pool.discard(slot)
        return tokens, str(result.get_response().model_version)

    def _failure(self, error: Any, priority: Priority) -> GatewayError:
        """What a failed call means to the client of the gateway."""
        status, message = error.status() or "", error.message() or ""
        if "Exceeds maximum queue size" in message:
            return OverloadedError(f"Triton's queue is full: {message}", retry_after_s=_RETRY_AFTER_S)
        if "DEADLINE_EXCEEDED" in status or "timeout expired" in message:
            return self._timed_out(priority)
        said = f"{status.removeprefix('StatusCode.')}: {message}"
        if "UNAVAILABLE" in status or "NOT_FOUND" in status:
            self._lost(said)
            return self._unavailable()
        log.error("triton at %s: %s", self._settings.triton_url, said)
        return EngineUnavailableError(f"Triton could not answer: {said}", retry_after_s=_RETRY_AFTER_S)

    def _headers(self) -> dict[str, str] | None:
        token = self._settings.triton_token
        return None if token is None else {"authorization": f"Bearer {token.get_secret_value()}"}

    # --- shared memory -------------------------------------------------------------------------------------------

    async def _slot(self, batch: int, served: _Served) -> Slot | None:
        from tritonclient.utils import InferenceServerException

        if self._memory_refused or served != self._served or not self._is_current(served):
            return None
        try:
            memory = self._memory
            if memory is None:
                model = served.model
                memory = SharedMemoryPool(
                    self._client,
                    model.input_size**2 * 3,
                    model.n_tokens * model.dim * served.dtype.itemsize,
                    limit=_SHARED_MEMORY_SLOTS,
                    headers=self._headers(),
                )
                self._memory = memory
                await memory.unregister_leftovers(_ASK_TIMEOUT_S)
            return await memory.acquire(batch, served.max_batch, _ASK_TIMEOUT_S)
        except (OSError, InferenceServerException) as error:
            if _unreachable(error) or _out_of_time(error):
                return None  # not a refusal: the call itself will tell
            self._memory_refused = True
            log.warning("no shared memory with Triton at %s, images go by gRPC: %s", self._settings.triton_url, error)
            return None

    def _retire_memory(self) -> None:
        """Start a new pool at the next request, and have Triton unmap the old one where it is still there."""
        self._old_memory = [pool for pool in self._old_memory if not pool.is_empty]
        if self._memory is not None:
            self._memory.retire()
            self._old_memory.append(self._memory)
            self._memory = None

    # --- what is served ------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        from tritonclient.grpc.aio import InferenceServerClient

        settings = self._settings
        keepalive_ms = int(settings.triton_keepalive_s * 1000)
        ca_file = settings.triton_ca_file
        if ca_file is not None and not ca_file.is_file():
            raise ValueError(f"GATEWAY_TRITON_CA_FILE: {ca_file} is not there")
        return InferenceServerClient(
            settings.triton_url,
            ssl=settings.triton_tls,
            root_certificates=None if ca_file is None else str(ca_file),
            channel_args=[
                ("grpc.max_send_message_length", _MESSAGE_BYTES),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", keepalive_ms),
                ("grpc.keepalive_timeout_ms", keepalive_ms),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                # gRPC would wait up to two minutes before it tries a server again that was away.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )

    async def _ask(self) -> _Served:
        """Ask the server what it serves; all who want to know at a time wait for one answer.

        Raises:
            EngineUnavailableError: it cannot be asked, or its model is not ready.
            ModelMismatchError: it serves a model that is not one of this gateway's.
        """
        if self._client is None:
            raise self._unavailable()
        task = self._asking
        if task is None or task.done():
            task = self._asking = asyncio.create_task(self._ask_server(), name="triton ask")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits any more
        await asyncio.wait({task})  # unlike `await task`, leaves it to the others when this caller is cancelled
        if task.cancelled():
            raise self._unavailable()
        return task.result()

    async def _ask_server(self) -> _Served:
        """See `_ask`. Asks again where the connection changed meanwhile: the answer may be of another server."""
        from tritonclient.utils import InferenceServerException

        for attempt in (1, 2):
            connection = self._connection
            reason = ""
            try:
                async with asyncio.timeout(_ASK_TIMEOUT_S):
                    served = await self._ask_questions(connection)
            except InferenceServerException as error:
                reason = f"{(error.status() or '').removeprefix('StatusCode.')}: {error.message()}"
            except TimeoutError:
                reason = f"no answer within {_ASK_TIMEOUT_S:g} s"
            except DescriptionError as error:
                reason = str(error)
            if connection != self._connection and attempt == 1:
                continue
            if reason:
                self._lost(reason)
                break
            self._accept(served)
            return served
        raise self._unavailable()

    async def _ask_questions(self, connection: int) -> _Served:
        client, name, headers = self._client, self._name, self._headers()
        metadata = await client.get_model_metadata(name, headers=headers, client_timeout=_ASK_TIMEOUT_S)
        answer = await client.get_model_config(name, headers=headers, client_timeout=_ASK_TIMEOUT_S)
        served = _parse(metadata, answer.config, connection)
        if not await client.is_model_ready(name, served.version, headers=headers, client_timeout=_ASK_TIMEOUT_S):
            raise DescriptionError(f"version {served.version} of {name} is not ready")
        return served

    def _accept(self, served: _Served) -> None:
        own = _own_fingerprints(self._settings) if self._has_own else {}
        if own and served.model.fingerprint not in own:
            newest = next(iter(own))
            self._lost(f"model_mismatch: Triton serves {served.model.fingerprint}, this gateway's model is {newest}")
            self._mismatch = ModelMismatchError(
                f"Triton serves model {served.model.fingerprint[:16]}, this gateway's model is {newest[:16]}",
                f"Serve the same export: {self._settings.model_folder} and Triton's repository must hold one model.",
            )
            raise self._mismatch
        if self._served is None or self._served.model != served.model:
            log.info(
                "triton engine: %s on %s at %s, version %s, model %s",
                self._name,
                served.backend,
                self._settings.triton_url,
                served.version,
                served.model.fingerprint[:16],
            )
            if served.model.has_random_weights:
                log.warning("model has RANDOM weights (%s): scores mean nothing", served.model.weights.detail)
        if self._last != served:  # perhaps another server, or a model of another size
            self._retire_memory()
        self._served = self._last = served
        self._reason = self._mismatch = None

    def _is_current(self, served: _Served | None) -> bool:
        return served is not None and served.connection == self._connection

    def _lost(self, reason: str) -> None:
        reason = f"Triton at {self._settings.triton_url}: {reason}"
        if self._served is not None or self._reason != reason:
            log.error("%s", reason)
        self._served, self._reason, self._mismatch = None, reason, None
        self._down.set()

    def _unavailable(self) -> EngineUnavailableError:
        return EngineUnavailableError(f"the engine is not ready: {self._reason}", retry_after_s=_RETRY_AFTER_S)

    async def _watch_connection(self) -> None:
        """Notice every lost connection: the server behind the next one may be another."""
        import grpc

        channel = self._client._channel
        while True:
            state = channel.get_state(try_to_connect=True)
            await channel.wait_for_state_change(state)
            if state is grpc.ChannelConnectivity.READY:
                self._connection += 1
                self._lost("the connection was lost")

    async def _watch_model(self) -> None:
        """Keep asking: soon while the server is away, now and then while it is there."""
        while True:
            self._down.clear()
            with suppress(GatewayError):
                await self._ask()
            with suppress(TimeoutError):
                if self._served is not None:
                    await asyncio.wait_for(self._down.wait(), _WATCH_READY_S)
                else:
                    await asyncio.sleep(_WATCH_DOWN_S)


def _parse(metadata: Any, config: Any, connection: int) -> _Served:
    """Read what ``export.triton_config`` wrote into the configuration.

    Raises:
        DescriptionError: it is not one of ours, or does not describe the version that is served.
    """
    from tritonclient.grpc import model_config_pb2

    versions = [v for v in metadata.versions if v.isdecimal()]
    if not versions:
        raise DescriptionError(f"{config.name} has no version ready")
    version = max(versions, key=int)
    text = config.parameters[f"{DESCRIPTION_FILE}/{version}"].string_value
    if not text:
        raise DescriptionError(
            f"the configuration of {config.name} does not describe version {version}: "
            "write it with `python -m export --backend …`"
        )
    try:
        model = model_from_json(text)
    except ValueError as error:
        raise DescriptionError(f"version {version} of {config.name} is described in another format") from error
    dtype = model_config_pb2.DataType.Name(config.output[0].data_type)
    if dtype not in _DTYPES:
        raise DescriptionError(f"{config.name} gives tokens as {dtype}; TYPE_FP16 and TYPE_FP32 are understood")
    on_gpu = any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    return _Served(
        connection=connection,
        version=version,
        model=model,
        backend=config.backend or config.platform,
        device="cuda" if on_gpu else "cpu",
        max_batch=max(1, config.max_batch_size),
        dtype=_DTYPES[dtype],
    )


def _own_fingerprints(settings: Settings) -> dict[str, None]:
    """Fingerprints of the versions in this gateway's own repository, newest first; none where it has no repository."""
    folders = [p for p in settings.model_folder.glob("[0-9]*") if p.name.isdecimal()]
    own: dict[str, None] = {}
    for folder in sorted(folders, key=lambda p: -int(p.name)):
        with suppress(DescriptionError):
            own[read_description(folder).fingerprint] = None
    return own


def _changed(wanted: ModelDescription, served: ModelDescription) -> ModelMismatchError:
    return ModelMismatchError(
        f"tokens of model {wanted.fingerprint[:16]} were wanted, Triton now serves {served.fingerprint[:16]}"
    )


def _worth_retrying(error: Any) -> bool:
    """Whether the server was not reached or not ready, rather than unwilling."""
    message = error.message() or ""
    return _unreachable(error) and "Exceeds maximum queue size" not in message and "timeout expired" not in message


def _unreachable(error: Any) -> bool:
    status = getattr(error, "status", None)
    return status is not None and "UNAVAILABLE" in (status() or "")


def _out_of_time(error: Any) -> bool:
    status = getattr(error, "status", None)
    return status is not None and "DEADLINE_EXCEEDED" in (status() or "")


def _is_local(url: str) -> bool:
    return url.startswith("unix:") or url.rpartition(":")[0] in _LOCAL_HOSTS


async def _all_or_none(calls: list[Coroutine[Any, Any, NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    """Run together; when one fails or the caller is cancelled, cancel the rest."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
