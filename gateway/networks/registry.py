"""The engines of this process: one for the token model, and one for each network that a version contains."""

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass

from gateway.networks.embedded.engine import EmbeddedEngine
from gateway.networks.embedded.thread import NetworkThread
from gateway.networks.model_description import ModelDescription
from gateway.networks.observed import ObservedEngine
from gateway.networks.protocol import TokenEngine
from gateway.networks.triton.engine import TritonEngine
from gateway.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkState:
    """Whether the network of a version can be used."""

    name: str
    """The name of its model."""
    ready: bool
    reason: str | None
    """Why it cannot be used; None when it can."""


@dataclass(frozen=True, slots=True)
class _VersionNetwork:
    name: str
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
    """Holds the token engine, and makes the engines of other models when they are first needed. It keeps a few."""

    def __init__(self, token_engine: TokenEngine, settings: Settings, thread: NetworkThread | None = None) -> None:
        """Start nothing.

        Args:
            token_engine: the engine of the token model.
            settings: where other models run, and how many are kept.
            thread: runs the networks of this process; None makes one when it is needed.
        """
        self.token_engine = token_engine
        self._settings = settings
        self._thread = thread
        self._networks: OrderedDict[str, _VersionNetwork] = OrderedDict()
        self._retiring: dict[asyncio.Task[None], asyncio.Task[TokenEngine]] = {}

    async def engine_for(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        """Return the engine of a model that a version contains. An engine that could not start raises when it is asked.

        Args:
            model: the model needed. Triton may serve another model of this name: compare the engine's `model`.
            graph: verified ONNX, for a network in this process.
        """
        # In this process, each fingerprint has its own network. On Triton, a name has one network, of any version.
        key = model.fingerprint if self._settings.engine == "embedded" else model.name
        network = self._networks.get(key)
        if network is None or (network.starting.done() and not network.has_loaded):
            engine = ObservedEngine(self._make(model, graph))
            starting = asyncio.create_task(_start(engine), name=f"start {model.name}")
            network = self._networks[key] = _VersionNetwork(model.name, starting)
            self._retire_oldest()
        self._networks.move_to_end(key)
        return await asyncio.shield(network.starting)

    async def states(self) -> list[NetworkState]:
        """Return the states of the kept networks of versions, sorted by name."""
        found = await asyncio.gather(*(network.state() for network in self._networks.values()))
        return sorted(found, key=lambda state: (state.name, not state.ready))

    def _make(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        if self._settings.engine == "triton":
            return TritonEngine(self._settings, model.name)
        if self._thread is None:
            self._thread = NetworkThread(self._settings)
        return EmbeddedEngine(self._settings, self._thread, (model, graph))

    def _retire_oldest(self) -> None:
        while len(self._networks) > self._settings.networks_kept:
            _, oldest = self._networks.popitem(last=False)
            task = asyncio.create_task(self._retire(oldest.starting), name="retire engine")
            self._retiring[task] = oldest.starting
            task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _retire(self, started: "asyncio.Task[TokenEngine]") -> None:
        """Close an engine after every request that may use it has reached its deadline."""
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
