"""Every network that this process asks: that of the tokens, and those that versions bring along."""

import asyncio
import logging
from collections import OrderedDict

from gateway.engines.base import TokenEngine
from gateway.engines.embedded import EmbeddedEngine
from gateway.engines.network_thread import NetworkThread
from gateway.engines.observed import ObservedEngine
from gateway.engines.triton import TritonEngine
from gateway.model_description import ModelDescription
from gateway.settings import Settings

log = logging.getLogger(__name__)


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
        self._started: OrderedDict[str, asyncio.Task[TokenEngine]] = OrderedDict()
        self._retiring: dict[asyncio.Task[None], asyncio.Task[TokenEngine]] = {}

    async def network(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        """The engine of a model that a version brings along. What cannot be started now says so when it is asked.

        Args:
            model: that is wanted. Triton may serve another one of this name: its `model` tells.
            graph: ONNX, verified; for a network in this process.
        """
        # In this process each model has a network of its own; at Triton a name has one, whatever version it serves.
        name = model.fingerprint if self._settings.engine == "embedded" else model.name
        task = self._started.get(name)
        if task is None or (task.done() and not _has_loaded(task)):
            engine = ObservedEngine(self._made(model, graph))
            task = self._started[name] = asyncio.create_task(_start(engine), name=f"start {model.name}")
            self._retire_oldest()
        self._started.move_to_end(name)
        return await asyncio.shield(task)

    def _made(self, model: ModelDescription, graph: bytes) -> TokenEngine:
        if self._settings.engine == "triton":
            return TritonEngine(self._settings, model.name)
        if self._thread is None:
            self._thread = NetworkThread(self._settings)
        return EmbeddedEngine(self._settings, self._thread, (model, graph))

    def _retire_oldest(self) -> None:
        while len(self._started) > self._settings.networks_kept:
            _, started = self._started.popitem(last=False)
            task = asyncio.create_task(self._retire(started), name="retire engine")
            self._retiring[task] = started
            task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _retire(self, started: "asyncio.Task[TokenEngine]") -> None:
        """Close an engine once nobody can be waiting for it any more."""
        await asyncio.sleep(self._settings.engine_timeout_s + self._settings.triton_timeout_s)
        await (await started).close()

    async def close(self) -> None:
        """Close all of them."""
        left = [*self._started.values(), *self._retiring.values()]
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


def _has_loaded(task: "asyncio.Task[TokenEngine]") -> bool:
    return not task.cancelled() and task.exception() is None and task.result().status.runtime != "none"


def create_engines(settings: Settings) -> Engines:
    """What the settings ask for; nothing is started."""
    if settings.engine == "triton":
        return Engines(ObservedEngine(TritonEngine(settings)), settings)
    thread = NetworkThread(settings)
    return Engines(ObservedEngine(EmbeddedEngine(settings, thread)), settings, thread)
