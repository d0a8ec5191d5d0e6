"""The network in this process, for a laptop, a single line, and tests: no server needed."""

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.engines.base import EngineStatus, Priority
from gateway.engines.networks import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision, supports_bf16
from gateway.errors import EngineUnavailableError, ModelMismatchError
from gateway.model_description import ModelDescription, newest_version, read_description
from gateway.settings import Settings

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 5


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
        return EngineStatus(self._network is not None, self.device, runtime, self._reason)

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`. A larger batch is cut, so that an inspection waits for one small batch at most."""
        network = self._network
        if network is None or self._model is None:
            raise self._unavailable()
        if not self._model.same_model_as(model):
            raise ModelMismatchError(f"tokens of model {model.fingerprint} were wanted")
        loop = asyncio.get_running_loop()
        step = network.batch_sizes[0]
        parts = []
        for start in range(0, len(images), step):
            async with self._turn(priority):
                part = loop.run_in_executor(self._thread, network.run, images[start : start + step])
                # The batch ends in its thread whatever becomes of the caller; only then is it the next one's turn.
                try:
                    parts.append(await asyncio.shield(part))
                except asyncio.CancelledError:
                    await asyncio.wait([part])
                    raise
                except Exception as error:
                    log.exception("embedded engine")
                    raise EngineUnavailableError(
                        f"the network failed: {error}", retry_after_s=_RETRY_AFTER_S
                    ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`."""
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        self._thread.shutdown(wait=True, cancel_futures=True)
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
