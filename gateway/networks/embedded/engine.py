"""The token engine in this process, for a laptop, a single line, and tests. It needs no server."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.errors import EngineUnavailableError, ModelMismatchError
from gateway.networks.embedded.precision import AskedPrecision, Choice, choose_precision, this_processor
from gateway.networks.embedded.runtimes import Network, OnnxRuntimeNetwork, OpenVinoNetwork, Precision
from gateway.networks.embedded.tensorrt_rtx import TensorRtRtxNetwork
from gateway.networks.embedded.thread import RETRY_AFTER_S, NetworkThread
from gateway.networks.model_description import (
    DESCRIPTION_FILE,
    DescriptionError,
    ModelDescription,
    newest_version,
    read_description,
    version_folders,
)
from gateway.networks.protocol import EngineStatus, Priority
from gateway.settings import Settings

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 5.0


class EmbeddedEngine:
    """Runs a network with OpenVINO on CPU, or with ONNX Runtime or TensorRT-RTX on CUDA."""

    def __init__(
        self,
        settings: Settings,
        thread: NetworkThread | None = None,
        given: tuple[ModelDescription, bytes] | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            settings: device, precision, deadlines.
            thread: runs the network; None makes a thread that ends with the engine.
            given: a model and its graph (ONNX); None means the newest version in the repository.
        """
        self._settings = settings
        self._network: Network | None = None
        self._given = given
        self._model: ModelDescription | None = None if given is None else given[0]
        self._reason: str | None = "not started"
        self._runtime_reason: str | None = None
        self._watching: asyncio.Task[None] | None = None
        self._content: list[tuple[str, int]] = []
        """What the repository contained at the last start."""
        self._thread = thread or NetworkThread(settings)
        self._owns_thread = thread is None

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
        """Load the model and run it with one image and with a full batch, so that the first request does not wait."""
        try:
            self._content = await asyncio.to_thread(_content, self._settings.model_folder)
            model, network = await asyncio.to_thread(self._load)
        except Exception as error:  # noqa: BLE001 - runtimes raise their own exceptions; /ready shows them
            said = " ".join(str(error).split())
            is_missing = isinstance(error, DescriptionError)
            self._reason = f"{said}; export a model with `python -m export`" if is_missing else said
            log.error("embedded engine: %s", self._reason)
            if is_missing and self._watching is None:
                self._watching = asyncio.create_task(self._watch_for_a_model(), name="model repository")
            return
        self._model, self._network, self._reason = model, network, None
        self._given = None  # the network keeps its own copy of the weights
        log.info("embedded engine: %s, model %s", network.runtime, model.fingerprint[:16])

    async def _watch_for_a_model(self) -> None:
        """Start again when the repository has another content, such as a volume that is mounted late."""
        while self._network is None:
            await asyncio.sleep(_LOOK_AGAIN_S)
            if await asyncio.to_thread(_content, self._settings.model_folder) != self._content:
                await self.start()

    def _load(self) -> tuple[ModelDescription, Network]:
        graph: Path | bytes
        if self._given is not None:
            model, graph = self._given
            choice = cpu_precision(model, self._settings)
        else:
            graph = newest_version(self._settings.model_folder)
            model, choice = served_model(graph, self._settings)
        self._runtime_reason = None if choice is None else choice.reason
        if model.weights_warning is not None:
            log.warning("%s: %s", model.name, model.weights_warning)
        network = open_network(graph, model, self._settings)
        for batch in sorted({1, network.largest_batch}):
            network.run(np.zeros((batch, model.input_size, model.input_size, 3), np.uint8))
        return model, network

    @property
    def status(self) -> EngineStatus:
        """See `TokenEngine.status`."""
        runtime = self._network.runtime if self._network is not None else "none"
        reason = self._thread.stuck() or self._reason
        return EngineStatus(reason is None, self.device, runtime, reason, self._runtime_reason)

    async def tokens(
        self, images: NDArray[np.uint8], *, model: ModelDescription, priority: Priority = Priority.INSPECT
    ) -> NDArray[np.float32]:
        """See `TokenEngine.tokens`."""
        if self._network is None or self._model is None:
            raise self._unavailable()
        if not self._model.same_model_as(model):
            wanted, own = model.fingerprint[:16], self._model.fingerprint[:16]
            raise ModelMismatchError(f"the request is for tokens of model {wanted}, the engine has {own}")
        return await self._thread.run(self._network, images, priority)

    async def ready(self) -> EngineStatus:
        """See `TokenEngine.ready`."""
        return self.status

    async def close(self) -> None:
        """See `TokenEngine.close`."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._owns_thread:
            await self._thread.close()
        self._network = None
        self._reason = "closed"

    def _unavailable(self) -> EngineUnavailableError:
        return EngineUnavailableError(f"the embedded engine is not ready: {self._reason}", retry_after_s=RETRY_AFTER_S)


def _content(model_folder: Path) -> list[tuple[str, int]]:
    """Return the descriptions of the versions in a repository, with the time of their last change."""
    found = []
    for folder in version_folders(model_folder):
        with suppress(OSError):
            found.append((folder.name, (folder / DESCRIPTION_FILE).stat().st_mtime_ns))
    return found


def served_model(folder: Path, settings: Settings) -> tuple[ModelDescription, Choice | None]:
    """Return what this process serves of a version: its graph in f32, which also runs in bf16, or that in int8.

    Args:
        folder: of the version.
        settings: device and precision.

    Returns:
        The description of the graph, and the choice of its precision; None where a GPU computes.

    Raises:
        DescriptionError: the version has no description.
        RuntimeError: the precision of the settings is unavailable.
    """
    model = read_description(folder)
    choice = cpu_precision(model, settings)
    return (model.as_int8() if choice is not None and choice.precision == "int8" else model), choice


def cpu_precision(model: ModelDescription, settings: Settings) -> Choice | None:
    """Choose the precision on CPU; None where a GPU computes.

    Raises:
        RuntimeError: the precision of the settings is unavailable.
    """
    if settings.runtime == "tensorrt-rtx" or settings.device == "cuda" or (settings.device == "auto" and _has_cuda()):
        return None
    return choose_precision(model, _asked(model, settings), this_processor())


def open_network(graph: Path | bytes, model: ModelDescription, settings: Settings) -> Network:
    """Compile the graph for the device and precision that the settings and this machine allow.

    Args:
        graph: the folder of a version, or the bytes of an ONNX file.
        model: the description of the graph, from `served_model`.
        settings: runtime, device, precision, threads, and the folder of compiled graphs.

    Raises:
        RuntimeError: the device or precision of the settings is unavailable.
    """
    if settings.runtime == "tensorrt-rtx":
        return TensorRtRtxNetwork(graph, model, cache_dir=settings.cache_dir / "tensorrt-rtx")
    if settings.device == "cuda":
        return OnnxRuntimeNetwork(graph, model, device="cuda")
    if settings.device == "auto" and _has_cuda():
        try:
            return OnnxRuntimeNetwork(graph, model, device="cuda")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises its own exceptions
            log.warning("ONNX Runtime cannot use the GPU of this machine, the CPU computes instead: %s", error)
    precision: Precision = "int8"
    if model.precision != "int8":
        this_graph = model.model_copy(update={"int8": None})
        precision = choose_precision(this_graph, _asked(this_graph, settings), this_processor()).precision
    return OpenVinoNetwork(
        graph, model, precision=precision, threads=settings.threads, cache_dir=settings.cache_dir / "openvino"
    )


def _asked(model: ModelDescription, settings: Settings) -> AskedPrecision:
    """Return the precision to ask for. A student has no int8: it is served as by ``auto``."""
    is_student = not model.layers
    return "auto" if is_student and settings.precision == "int8" else settings.precision


def _has_cuda() -> bool:
    try:
        import onnxruntime
    except ImportError:
        return False
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()
