"""Which model a Triton server serves, and whether that is still true."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import EngineUnavailableError, GatewayError, ModelMismatchError
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    DescriptionError,
    ModelDescription,
    read_description,
    version_folders,
)
from gateway.networks.student_description import model_from_json
from gateway.networks.triton.channel import authorization
from gateway.settings import Settings

log = logging.getLogger(__name__)

RETRY_AFTER_S = 2
ASK_TIMEOUT_S = 2.0
"""For questions that cost the server nothing, such as its configuration."""
_WATCH_READY_S = 5.0
_WATCH_DOWN_S = 0.5
_DTYPES: dict[str, np.dtype[Any]] = {"TYPE_FP16": np.dtype(np.float16), "TYPE_FP32": np.dtype(np.float32)}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the server said about its model. It is valid as long as the connection over which the server said it."""

    connection: int
    version: str
    model: ModelDescription
    backend: str
    device: str
    """``cuda`` or ``cpu``."""
    max_batch: int
    dtype: np.dtype[Any]
    """Of the tokens as the server sends them: float16 or float32."""


class ServerModel:
    """Asks the server for its model, and asks again after each lost connection and every few seconds."""

    def __init__(
        self,
        settings: Settings,
        address: str,
        name: str,
        *,
        must_be_own: bool,
        on_another: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        """Ask nothing yet.

        Args:
            settings: the token for Triton, and this gateway's repository.
            address: of the server, for messages.
            name: of the model there.
            must_be_own: refuse a model that is not in this gateway's repository, where that holds any.
            on_another: called when the server behind the connection, or its model, may have changed.
            on_change: called when `served` or `mismatch` has changed.
        """
        self.client: Any = None
        """Set by the owner once the channel is open."""
        self.connection = 0
        """Number of the current connection. What a server said over an earlier one may be wrong for this one."""
        self.served: ServedModel | None = None
        """None while the server is unreachable or its model is not ready."""
        self.last: ServedModel | None = None
        """The last known value of `served`."""
        self.reason: str | None = "not started"
        """Why `served` is None."""
        self.mismatch: ModelMismatchError | None = None
        """Set while the server's model is not in this gateway's repository."""
        self._settings = settings
        self.address = address
        self._name = name
        self._must_be_own = must_be_own
        self._on_another = on_another
        self._on_change = on_change
        self._asking: asyncio.Task[ServedModel] | None = None
        self._down = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []

    @property
    def current(self) -> ServedModel | None:
        """`served`, if the server said so over the connection that is open now."""
        return self.served if self.is_current(self.served) else None

    def is_current(self, served: ServedModel | None) -> bool:
        """Tell whether the server said `served` over the connection that is open now."""
        return served is not None and served.connection == self.connection

    def unavailable(self) -> EngineUnavailableError:
        """Return the error for a request that cannot be served now."""
        return EngineUnavailableError(f"the engine is not ready: {self.reason}", retry_after_s=RETRY_AFTER_S)

    def lose(self, reason: str) -> None:
        """Forget what is served, and ask again soon."""
        reason = f"Triton at {self.address}: {reason}"
        if self.served is not None or self.reason != reason:
            log.error("%s", reason)
        self.served, self.reason, self.mismatch = None, reason, None
        self._down.set()
        self._on_change()

    def check_soon(self) -> None:
        """Ask again soon, since an answer was late."""
        self._down.set()

    def watch(self) -> None:
        """Start to watch the connection and the model."""
        self._watching = [
            asyncio.create_task(self._watch_connection(), name="triton connection"),
            asyncio.create_task(self._watch_model(), name="triton model"),
        ]

    async def close(self) -> None:
        """Stop watching and asking."""
        tasks: list[asyncio.Task[Any]] = [*self._watching]
        if self._asking is not None:
            tasks.append(self._asking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.served, self.reason = None, "closed"

    async def ask(self) -> ServedModel:
        """Ask the server which model it serves. Concurrent callers share one question.

        Raises:
            EngineUnavailableError: the server cannot be asked, or its model is not ready.
            ModelMismatchError: the server's model is not in this gateway's repository.
        """
        if self.client is None:
            raise self.unavailable()
        task = self._asking
        if task is None or task.done():
            task = self._asking = asyncio.create_task(self._ask_server(), name="triton ask")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody waits any more
        await asyncio.wait({task})  # unlike `await task`, this does not cancel the task with the caller
        if task.cancelled():
            raise self.unavailable()
        return task.result()

    async def _ask_server(self) -> ServedModel:
        """Ask, and ask again if the connection changed meanwhile, since another server may have answered."""
        from tritonclient.utils import InferenceServerException

        for attempt in (1, 2):
            connection = self.connection
            reason = ""
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    served = await self._ask_questions(connection)
            except InferenceServerException as error:
                reason = f"{(error.status() or '').removeprefix('StatusCode.')}: {error.message()}"
            except TimeoutError:
                reason = f"no answer within {ASK_TIMEOUT_S:g} s"
            except DescriptionError as error:
                reason = str(error)
            if connection != self.connection and attempt == 1:
                continue
            if reason:
                self.lose(reason)
                break
            self._accept(served)
            return served
        raise self.unavailable()

    async def _ask_questions(self, connection: int) -> ServedModel:
        client, name, headers = self.client, self._name, authorization(self._settings)
        metadata = await client.get_model_metadata(name, headers=headers, client_timeout=ASK_TIMEOUT_S)
        answer = await client.get_model_config(name, headers=headers, client_timeout=ASK_TIMEOUT_S)
        served = _parse(metadata, answer.config, connection)
        if not await client.is_model_ready(name, served.version, headers=headers, client_timeout=ASK_TIMEOUT_S):
            raise DescriptionError(f"version {served.version} of {name} is not ready")
        return served

    def _accept(self, served: ServedModel) -> None:
        folder = self._settings.model_repository / self._name
        own = _own_fingerprints(folder) if self._must_be_own else {}
        if own and served.model.fingerprint not in own:
            newest = next(iter(own))
            self.lose(f"model_mismatch: Triton serves {served.model.fingerprint}, this gateway's model is {newest}")
            self.mismatch = ModelMismatchError(
                f"Triton serves model {served.model.fingerprint[:16]}, this gateway's model is {newest[:16]}",
                f"Serve the same export: {folder} and Triton's repository must hold one model.",
            )
            self._on_change()
            raise self.mismatch
        if self.served is None or self.served.model != served.model:
            log.info(
                "triton engine: %s on %s at %s, version %s, model %s",
                self._name,
                served.backend,
                self.address,
                served.version,
                served.model.fingerprint[:16],
            )
            if served.model.weights_warning is not None:
                log.warning("%s: %s", self._name, served.model.weights_warning)
        if self.last != served:
            self._on_another()
        self.served = self.last = served
        self.reason = self.mismatch = None
        self._on_change()

    async def _watch_connection(self) -> None:
        """Notice every lost connection: another server may answer the next one."""
        import grpc

        channel = self.client._channel
        while True:
            state = channel.get_state(try_to_connect=True)
            await channel.wait_for_state_change(state)
            if state is grpc.ChannelConnectivity.READY:
                self.connection += 1
                self.lose("the connection was lost")

    async def _watch_model(self) -> None:
        """Keep asking: twice a second while the server is away, every few seconds while it answers."""
        while True:
            self._down.clear()
            with suppress(GatewayError):
                await self.ask()
            with suppress(TimeoutError):
                if self.served is not None:
                    await asyncio.wait_for(self._down.wait(), _WATCH_READY_S)
                else:
                    await asyncio.sleep(_WATCH_DOWN_S)


def changed(wanted: ModelDescription, served: ModelDescription) -> ModelMismatchError:
    """Return the error for a request whose model is no longer served."""
    return ModelMismatchError(
        f"the request is for tokens of model {wanted.fingerprint[:16]}, Triton now serves {served.fingerprint[:16]}"
    )


def _parse(metadata: Any, config: Any, connection: int) -> ServedModel:
    """Read what ``export.triton_config`` wrote into the configuration.

    Raises:
        DescriptionError: another program wrote the configuration, or it does not describe the version that is served.
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
        raise DescriptionError(f"{config.name} returns tokens as {dtype}; supported are TYPE_FP16 and TYPE_FP32")
    on_gpu = any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in config.instance_group)
    return ServedModel(
        connection=connection,
        version=version,
        model=model,
        backend=config.backend or config.platform,
        device="cuda" if on_gpu else "cpu",
        max_batch=max(1, config.max_batch_size),
        dtype=_DTYPES[dtype],
    )


def _own_fingerprints(model_folder: Path) -> dict[str, None]:
    """Return the fingerprints of a model's versions in this gateway's repository, newest first; empty without any."""
    own: dict[str, None] = {}
    for folder in version_folders(model_folder):
        with suppress(DescriptionError):
            own[read_description(folder).fingerprint] = None
    return own
