"""The network in this process, for a laptop, a single line, and tests: no server needed."""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway import metrics
from gateway.engines.base import EngineStatus, Priority
from gateway.engines.networks import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision, supports_bf16
from gateway.errors import EngineTimeoutError, EngineUnavailableError, ModelMismatchError
from gateway.model_description import ModelDescription, newest_version, read_description
from gateway.settings import Settings

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 5
_CLOSE_S = 1.0


class _PriorityLock:
    """An asyncio lock that goes to the waiter of the best priority, and among those to the first."""

    def __init__(self) -> None:
        self._held = False
        self._order = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def __call__(self, priority: int) -> AsyncIterator[None]:
        if self._held:
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiters, (priority, next(self._order), turn))
            try:
                with metrics.QUEUED.track_inprogress():
                    await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        self._held = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        # The lock stays held while it is handed over, so that nobody slips in between.
        while self._waiters:
            _, _, turn = heapq.heappop(self._waiters)
            if not turn.done():
                turn.set_result(None)
                return
        self._held = False


class EmbeddedEngine:
    """OpenVINO on CPU, ONNX Runtime on CUDA. One batch at a time, on all cores; inspections before fits."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._network: Network | None = None
        self._model: ModelDescription | None = None
        self._reason: str | None = "not started"
        self._turn = _PriorityLock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._calls: set[asyncio.Task[NDArray[np.float32]]] = set()
        self._run: asyncio.Future[NDArray[np.float32]] | None = None
        self._running_since = 0.0

    @property
    def model(self) -> ModelDescription:
        """See `TokenEngine.model`."""
        if self._model is None:
            raise self._unavailable()
        return self._model

    @property
    def device(self) -> str:
        """See `TokenEngine.device`."""
        if self._network is not None:
            return self._network.device
        return "cuda" if self._settings.device == "cuda" else "cpu"

    async def start(self) -> None:
        """Load the newest exported version and run it once, so that the first request does not pay for it."""
        try:
            model, network = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        except Exception as error:  # noqa: BLE001 - runtimes raise kinds of their own; /ready tells whatever it is
            self._reason = f"{error}; export a model with `python -m export`, or see the README on GATEWAY_DEVICE"
            log.error("embedded engine: %s", self._reason)
            return
        self._model, self._network, self._reason = model, network, None
        log.info("embedded engine: %s, model %s", network.runtime, model.fingerprint[:16])

    def _load(self) -> tuple[ModelDescription, Network]:
        folder = newest_version(self._settings.model_folder)
        model = read_description(folder)
        if model.has_random_weights:
            log.warning("model %s has RANDOM weights (%s): scores mean nothing", folder, model.weights.detail)
        network = open_network(folder, model, self._settings)
        network.run(np.zeros((1, model.input_size, model.input_size, 3), np.uint8))
        return model, network

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        runtime = self._network.runtime if self._network is not None else "none"
        reason = self._stuck() or self._reason
        return EngineStatus(reason is None, self.device, runtime, reason)

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`. A larger batch is cut, so that an inspection waits for one small batch at most."""
        network = self._network
        if network is None or self._model is None:
            raise self._unavailable()
        if not self._model.same_model_as(model):
            raise ModelMismatchError(f"tokens of model {model.fingerprint} were wanted")
        step = network.batch_sizes[0]
        ends = time.monotonic() + self._timeout_s(priority)
        parts = []
        for start in range(0, len(images), step):
            if priority is Priority.FIT:
                ends = time.monotonic() + self._timeout_s(priority)  # of each batch
            parts.append(await self._by(ends, self._in_turn(network, images[start : start + step], priority), priority))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _timeout_s(self, priority: Priority) -> float:
        settings = self._settings
        return settings.engine_timeout_s if priority is Priority.INSPECT else settings.engine_fit_timeout_s

    async def _by(
        self, ends: float, call: Coroutine[Any, Any, NDArray[np.float32]], priority: Priority
    ) -> NDArray[np.float32]:
        """Await a call until a deadline. One at work then goes on by itself, and keeps its turn until it ends."""
        stuck = self._stuck()
        if stuck is not None:
            call.close()
            raise EngineTimeoutError(stuck, retry_after_s=_RETRY_AFTER_S)
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task}, timeout=ends - time.monotonic())
            if task.done():
                return task.result()
        finally:
            task.cancel()
        raise EngineTimeoutError(
            self._stuck() or f"the network did not answer within {self._timeout_s(priority):g} s",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _forget(self, call: asyncio.Task[NDArray[np.float32]]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # retrieved: its caller may be gone

    async def _in_turn(self, network: Network, images: NDArray[np.uint8], priority: Priority) -> NDArray[np.float32]:
        called = time.monotonic()
        async with self._turn(priority):
            self._running_since = time.monotonic()
            if priority is Priority.INSPECT:
                metrics.STAGE_SECONDS.labels("queue").observe(self._running_since - called)
            self._run = run = asyncio.get_running_loop().run_in_executor(self._thread, network.run, images)
            try:
                # The batch ends in its thread whatever becomes of the caller; only then is it the next one's turn.
                return await asyncio.shield(run)
            except asyncio.CancelledError:
                await asyncio.wait([run])
                raise
            except Exception as error:
                log.exception("embedded engine")
                raise EngineUnavailableError(f"the network failed: {error}", retry_after_s=_RETRY_AFTER_S) from error
            finally:
                if run.done():
                    self._run = None

    def _stuck(self) -> str | None:
        """What to say of a run that takes longer than any may; nobody can stop it, and nothing else can run."""
        if self._run is None:
            return None
        running_s = time.monotonic() - self._running_since
        if running_s <= self._settings.engine_timeout_s:
            return None
        return f"the network has not answered for {running_s:.0f} s; restart the gateway if it does not recover"

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`."""
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`. A run that is stuck is left behind: nothing can stop it."""
        if self._run is not None:
            await asyncio.wait([self._run], timeout=_CLOSE_S)
        self._thread.shutdown(wait=self._run is None or self._run.done(), cancel_futures=True)
        self._network = None
        self._reason = "closed"

    def _unavailable(self) -> EngineUnavailableError:
        return EngineUnavailableError(f"the embedded engine is not ready: {self._reason}", retry_after_s=_RETRY_AFTER_S)


def open_network(folder: Path, model: ModelDescription, settings: Settings) -> Network:
    """Compile the graph for the device and precision that the settings and this machine allow.

    Raises:
        RuntimeError: the device or precision that was asked for is not to be had.
    """
    if settings.device == "cuda":
        return OnnxRuntimeNetwork(folder, model, device="cuda")
    if settings.device == "auto" and _has_cuda():
        try:
            return OnnxRuntimeNetwork(folder, model, device="cuda")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises kinds of its own
            log.warning("there is a GPU, but ONNX Runtime cannot use it, so the CPU computes: %s", error)
    return OpenVinoNetwork(
        folder,
        model,
        precision=_cpu_precision(model, settings),
        threads=settings.threads,
        cache_dir=settings.cache_dir / "openvino",
    )


def _cpu_precision(model: ModelDescription, settings: Settings) -> Precision:
    checked = model.parity.get("openvino-bf16")
    passed = checked is not None and checked.passed
    if settings.precision == "bf16" and not (supports_bf16() and passed):
        raise RuntimeError("GATEWAY_PRECISION=bf16, but this processor has no bf16 or the export did not pass in it")
    return "bf16" if settings.precision != "f32" and passed and supports_bf16() else "f32"


def _has_cuda() -> bool:
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()
