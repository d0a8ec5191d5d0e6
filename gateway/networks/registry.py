"""Every network that this process asks: that of the tokens, and those that versions bring along."""

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
    """Of a network that a version brought along."""

    name: str
    """Of its model."""
    ready: bool
    reason: str | None
    """Why it is not."""


@dataclass(frozen=True, slots=True)
class _Network:
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


class Engines:
    """The engine of the tokens, and engines of other models, made when they are first asked for; a few are kept."""

    def __init__(self, tokens: TokenEngine, settings: Settings, thread: NetworkThread | None = None) -> None:
        """Start nothing.

        Args:
            tokens: the engine of the token model.
            settings: say where other models run too.
            thread: where networks in this process run; None makes one when it is needed.
        """
        self.tokens = tokens
        self._settings = settings
        self._thread = thread
        self._networks: OrderedDict[str, _Network] = OrderedDict()
        self._retiring: dict[asyncio.Task[None], asyncio.Task[TokenEngine]] = {}

    async def network(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        """The engine of a model that a version brings along. What cannot be started now says so when it is asked.

        Args:
            model: that is wanted. Triton may serve another one of this name: its `model` tells.
            graph: ONNX, verified; for a network in this process.
        """
        # In this process each model has a network of its own; at Triton a name has one, whatever version it serves.
        key = model.fingerprint if self._settings.engine == "embedded" else model.name
        network = self._networks.get(key)
        if network is None or (network.starting.done() and not network.has_loaded):
            engine = ObservedEngine(self._made(model, graph))
            starting = asyncio.create_task(_start(engine), name=f"start {model.name}")
            network = self._networks[key] = _Network(model.name, starting)
            self._retire_oldest()
        self._networks.move_to_end(key)
        return await asyncio.shield(network.starting)

    async def states(self) -> list[NetworkState]:
        """Of the networks that versions brought along and that are kept, by name."""
        found = await asyncio.gather(*(network.state() for network in self._networks.values()))
        return sorted(found, key=lambda state: (state.name, not state.ready))

    def _made(self, model: ModelDescription, graph: bytes) -> TokenEngine:
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
        """Close an engine once nobody can be waiting for it any more."""
        await asyncio.sleep(self._settings.engine_timeout_s + self._settings.triton_timeout_s)
        await (await started).close()

    async def close(self) -> None:
        """Close all of them."""
        left = [*(network.starting for network in self._networks.values()), *self._retiring.values()]
        for task in (*self._retiring, *left):
            task.cancel()  # one that has started already is not touched by it
        for engine in await asyncio.gather(*left, return_exceptions=True):
            if not isinstance(engine, BaseException):
                await engine.close()
        await self.tokens.close()
        if self._thread is not None:
            await self._thread.close()


async def _start(engine: TokenEngine) -> TokenEngine:
    await engine.start()
    return engine


def create_engines(settings: Settings) -> Engines:
    """What the settings ask for; nothing is started."""
    if settings.engine == "triton":
        return Engines(ObservedEngine(TritonEngine(settings)), settings)
    thread = NetworkThread(settings)
    return Engines(ObservedEngine(EmbeddedEngine(settings, thread)), settings, thread)
