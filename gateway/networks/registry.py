"""The engines of this process: for the token models, and one for each network that a version contains."""

import asyncio
import logging
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.errors import EngineUnavailableError, GatewayError, ModelMismatchError
from gateway.networks.embedded.engine import EmbeddedEngine
from gateway.networks.embedded.runtimes import network_bytes
from gateway.networks.embedded.thread import NetworkThread
from gateway.networks.input_sizes import exported_sizes, name_of_size, network_bytes_of_size, sizes_of
from gateway.networks.model_description import DescriptionError, ModelDescription
from gateway.networks.observed import ObservedEngine
from gateway.networks.protocol import Priority, TokenEngine
from gateway.networks.triton.engine import ENGINE_BYTES, TritonEngine
from gateway.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Whether a network that single ROIs need can be used."""

    name: str
    """The name of its model."""
    ready: bool
    reason: str | None
    """Why it cannot be used; None when it can."""


@dataclass(frozen=True, slots=True)
class _Network:
    name: str
    n_bytes: int
    """Estimated memory."""
    starting: asyncio.Task[TokenEngine]

    @property
    def has_loaded(self) -> bool:
        task = self.starting
        return not task.cancelled() and task.exception() is None and task.result().status.runtime != "none"

    async def state(self) -> NetworkState:
        task = self.starting
        if not task.done():
            return NetworkState(self.name, ready=False, reason="it is being loaded")
        if task.cancelled() or task.exception() is not None:
            return NetworkState(self.name, ready=False, reason="it could not be loaded")
        status = await task.result().ready()
        return NetworkState(self.name, status.ready, status.reason)


class EngineRegistry:
    """Holds the engine of the configured token model and those of others, which it makes when they are first needed.

    It keeps as many of the others as fit into `Settings.network_cache_bytes`, and drops the least recently used first.
    """

    def __init__(self, token_engine: TokenEngine, settings: Settings, thread: NetworkThread | None = None) -> None:
        """Start nothing.

        Args:
            token_engine: the engine of the configured token model.
            settings: where other models run, and how much memory they may take.
            thread: runs the networks of this process; None makes one when it is needed.
        """
        self.token_engine = token_engine
        self._settings = settings
        self._thread = thread
        self._networks: OrderedDict[str, _Network] = OrderedDict()
        self._sizes: dict[str, int | None] = {}
        """The input size that ROIs name a token model by, by its fingerprint."""
        self._retiring: dict[asyncio.Task[None], asyncio.Task[TokenEngine]] = {}
        self._said_full = False

    @property
    def n_bytes(self) -> int:
        """Estimated memory of the kept networks."""
        return sum(network.n_bytes for network in self._networks.values())

    async def engine_for(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        """Return the engine of a model that a version contains. An engine that could not start raises when it is asked.

        Args:
            model: the model needed. Triton may serve another model of this name: compare the engine's `model`.
            graph: verified ONNX, for a network in this process.
        """
        # In this process, each fingerprint has its own network. On Triton, a name has one network, of any version.
        if self._settings.engine == "triton":
            key, n_bytes = model.name, ENGINE_BYTES
        else:
            key, n_bytes = model.fingerprint, network_bytes(model, len(graph))
        network = self._usable(key) or self._add(key, model.name, n_bytes, self._make(model, graph))
        return await asyncio.shield(network.starting)

    async def token_engine_of(self, input_size: int | None) -> TokenEngine:
        """Return the engine of the token model for an input size, which is loaded when it is first needed.

        Args:
            input_size: that of the configured model, or the number at the end of the name of another. None means the
                configured model.

        Raises:
            ModelMismatchError: no model of this size is served. The message lists those that are.
            EngineUnavailableError: the model cannot be used now, or it is not known which models are served.
        """
        if input_size is None or input_size in sizes_of(self.token_engine.model):
            return self.token_engine
        name = name_of_size(self._settings, input_size)
        network = self._usable(name) or await self._add_size(name, input_size)
        engine = await asyncio.shield(network.starting)
        try:
            model = engine.model
        except EngineUnavailableError as error:
            if self._settings.engine == "embedded":
                raise
            # It has never been ready. It would go on asking Triton for a model that may not exist.
            if self._networks.get(name) is network:
                del self._networks[name]
                await engine.close()
            if self.token_engine.status.ready:
                raise await self._unserved(input_size, error.message) from error
            raise
        if input_size not in sizes_of(model):
            raise await self._unserved(input_size, f"{name} has {model.input_size}")
        self._sizes[model.fingerprint] = input_size
        return engine

    async def _add_size(self, name: str, input_size: int) -> _Network:
        if self._settings.engine == "triton":
            return self._add(name, name, ENGINE_BYTES, TritonEngine(self._settings, name, must_be_own=True))
        try:
            n_bytes = await asyncio.to_thread(network_bytes_of_size, self._settings, input_size)
        except (DescriptionError, OSError) as error:
            raise await self._unserved(input_size, str(error)) from error
        own = self._settings.model_copy(update={"model_name": name})
        return self._usable(name) or self._add(name, name, n_bytes, EmbeddedEngine(own, self._network_thread()))

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """Compute tokens by the token model `model`, whose engine `token_engine_of` has returned before.

        See `TokenEngine.tokens` for the arguments and the errors raised.
        """
        engine = await self.token_engine_of(self._sizes.get(model.fingerprint))
        return await engine.tokens(images, model=model, priority=priority)

    def input_sizes(self) -> list[int]:
        """Return the input sizes of the token models, ascending, as far as this gateway knows them. Reads a folder."""
        sizes = {size for size in self._sizes.values() if size is not None}
        with suppress(GatewayError):
            sizes.add(self.token_engine.model.input_size)
        with suppress(OSError):
            sizes.update(exported_sizes(self._settings))
        return sorted(sizes)

    async def _unserved(self, input_size: int, reason: str) -> ModelMismatchError:
        sizes = await asyncio.to_thread(self.input_sizes)
        name = name_of_size(self._settings, input_size)
        load = " and load it on Triton" if self._settings.engine == "triton" else ""
        return ModelMismatchError(
            f"no token model of input size {input_size} is served; there are {', '.join(map(str, sizes))} ({reason})",
            f"Fit with one of these as input_size, or export another{load}: "
            f"python -m export --input-size {input_size} --name {name}",
        )

    async def states(self) -> list[NetworkState]:
        """Return the states of the kept networks beside the configured token model, sorted by name."""
        found = await asyncio.gather(*(network.state() for network in self._networks.values()))
        return sorted(found, key=lambda state: (state.name, not state.ready))

    def _usable(self, key: str) -> _Network | None:
        """Return the network that is kept under `key`; None where none is, or it could not be loaded."""
        network = self._networks.get(key)
        if network is None or (network.starting.done() and not network.has_loaded):
            return None
        self._networks.move_to_end(key)
        return network

    def _add(self, key: str, name: str, n_bytes: int, engine: TokenEngine) -> _Network:
        starting = asyncio.create_task(_start(ObservedEngine(engine)), name=f"start {name}")
        network = self._networks[key] = _Network(name, n_bytes, starting)
        self._networks.move_to_end(key)
        self._retire_oldest()
        return network

    def _make(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        if self._settings.engine == "triton":
            return TritonEngine(self._settings, model.name)
        return EmbeddedEngine(self._settings, self._network_thread(), (model, graph))

    def _network_thread(self) -> NetworkThread:
        if self._thread is None:
            self._thread = NetworkThread(self._settings)
        return self._thread

    def _retire_oldest(self) -> None:
        limit = self._settings.network_cache_bytes
        while self.n_bytes > limit and len(self._networks) > 1:
            _, oldest = self._networks.popitem(last=False)
            if not self._said_full:
                log.warning(
                    "networks of single ROIs take more than GATEWAY_NETWORK_CACHE_BYTES=%d: the least recently used"
                    " (%s) is dropped, and compiled again when it is needed; %d are kept",
                    limit,
                    oldest.name,
                    len(self._networks),
                )
            self._said_full = True
            # The last request that uses an embedded engine frees it. An engine of Triton has a channel to close.
            if self._settings.engine == "triton":
                task = asyncio.create_task(self._retire(oldest.starting), name="retire engine")
                self._retiring[task] = oldest.starting
                task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _retire(self, started: "asyncio.Task[TokenEngine]") -> None:
        """Close an engine of Triton after every request that may use it has reached its deadline."""
        await asyncio.sleep(self._settings.engine_timeout_s + self._settings.triton_timeout_s)
        await (await started).close()

    async def close(self) -> None:
        """Close all engines."""
        left = [*(network.starting for network in self._networks.values()), *self._retiring.values()]
        for task in (*self._retiring, *left):
            task.cancel()  # no effect on an engine that has started already
        for engine in await asyncio.gather(*left, return_exceptions=True):
            if not isinstance(engine, BaseException):
                await engine.close()
        await self.token_engine.close()
        if self._thread is not None:
            await self._thread.close()


async def _start(engine: TokenEngine) -> TokenEngine:
    await engine.start()
    return engine


def create_engine_registry(settings: Settings) -> EngineRegistry:
    """Make the registry that the settings describe. Nothing is started."""
    if settings.engine == "triton":
        return EngineRegistry(ObservedEngine(TritonEngine(settings)), settings)
    thread = NetworkThread(settings)
    return EngineRegistry(ObservedEngine(EmbeddedEngine(settings, thread)), settings, thread)
