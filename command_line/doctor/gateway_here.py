"""What a gateway on this machine would do: settings, model, engine, search, models folder."""

import os
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from command_line.doctor.check import Check, note, ok, problem
from command_line.doctor.machine import gpu_names, version_of
from gateway.detectors.memory_bank.search.backend import search_name
from gateway.detectors.memory_bank.search.faiss_search import gpu_available
from gateway.errors import GatewayError
from gateway.monitoring.storage import write_problem
from gateway.networks.embedded.runtimes import supports_bf16
from gateway.networks.model_description import DescriptionError, ModelDescription, newest_version, read_description
from gateway.networks.protocol import TokenEngine
from gateway.networks.registry import create_engine_registry
from gateway.setting_names import SettingsError, environment_warnings
from gateway.settings import Settings, setting_problems
from gateway.store.artifact_store import ArtifactStore
from gateway.store.opening import open_storage
from gateway.store.place import UnsuitableStorageError

_GPU_EXTRA = "GATEWAY_EXTRAS=gpu scripts/run installs the builds for a GPU."
_TRITON = "Start Triton, or correct GATEWAY_TRITON_URL; docs/triton.md says how."
_EMBEDDED = "Export a model, or correct GATEWAY_DEVICE and GATEWAY_PRECISION."
_TIMED = 5


async def gateway_checks() -> AsyncIterator[Check]:
    """Start the engine of the settings, compute with it, and compare what it uses with what the machine has."""
    try:
        settings = Settings()
    except ValueError as error:
        said = "; ".join(setting_problems(error)) if isinstance(error, ValidationError) else str(error)
        yield problem("settings", said, "Correct the environment or .env; docs/settings.md lists the settings.")
        return
    warnings = environment_warnings(os.environ, Settings.names())
    yield note("settings", "; ".join(warnings), "Correct the names.") if warnings else ok("settings", "valid")
    yield _models_folder(settings)
    if settings.engine == "embedded":
        yield _model(settings)
    elif len(settings.triton_targets) > 1:
        for target in settings.triton_targets:
            yield await _triton(settings.model_copy(update={"triton_url": target}))
    engines = create_engine_registry(settings)
    engine = engines.token_engine
    try:
        await engine.start()
        yield await _engine(engine, settings)
        status = await engine.ready()
        if status.ready:
            yield _precision(status.runtime, engine.model, settings)
    finally:
        await engines.close()
    yield _search(settings)


def _models_folder(settings: Settings) -> Check:
    if not isinstance(settings.models_dir, Path):
        return _bucket(settings)
    store = ArtifactStore(settings.models_dir, keep_versions=settings.keep_versions)
    reason = write_problem(store)
    if reason is not None:
        return problem("models folder", reason, "Make GATEWAY_MODELS_DIR writable for this user.")
    return ok("models folder", f"{settings.models_dir}")


def _bucket(settings: Settings) -> Check:
    """Let writers race for an object of it, as a gateway does at its start."""
    try:
        storage = open_storage(settings)
        storage.prepare()
    except (SettingsError, UnsuitableStorageError) as error:
        return problem("bucket", str(error), "Correct GATEWAY_MODELS_DIR.")
    except GatewayError as error:
        said_more = error.hint != error.default_hint
        return problem(
            "bucket", error.message, error.hint if said_more else "Check the network, and the store's address."
        )
    return ok("bucket", f"{storage.what}: its conditional writes hold")


def _model(settings: Settings) -> Check:
    try:
        folder = newest_version(settings.model_folder)
        model = read_description(folder)
    except DescriptionError as error:
        return problem("model", str(error), "`patchcore export` exports one; scripts/run does so at its first start.")
    said = f"{model.extractor}, {model.input_size} pixels, weights: {model.weights.kind}, {folder}"
    if model.weights_warning is not None:
        return note("model", said, model.weights_warning)
    return ok("model", said)


async def _triton(settings: Settings) -> Check:
    """Ask one of several servers. Batches go around a server that is away, and nothing else says so."""
    about = f"Triton {settings.triton_url}"
    engines = create_engine_registry(settings)
    try:
        await engines.token_engine.start()
        status = await engines.token_engine.ready()
    finally:
        await engines.close()
    if not status.ready:
        return problem(about, status.reason or "not ready", _TRITON)
    return ok(about, f"{status.runtime} on {status.device}")


async def _engine(engine: TokenEngine, settings: Settings) -> Check:
    where = f"Triton at {settings.triton_url}" if settings.engine == "triton" else "embedded"
    status = await engine.ready()
    if not status.ready:
        remedy = _TRITON if settings.engine == "triton" else _EMBEDDED
        return problem("engine", f"{where}: {status.reason}", remedy)
    try:
        model = engine.model
        image = np.zeros((1, model.input_size, model.input_size, 3), np.uint8)
        seconds = []
        for _ in range(_TIMED):
            start = time.perf_counter()
            await engine.tokens(image, model=model)
            seconds.append(time.perf_counter() - start)
    except GatewayError as error:
        return problem("engine", f"{where}: {error.message}", error.hint)
    why = "" if status.runtime_reason is None else f" ({status.runtime_reason})"
    return ok("engine", f"{where}: {status.runtime}{why}, {statistics.median(seconds) * 1e3:.0f} ms an image")


def _precision(runtime: str, model: ModelDescription, settings: Settings) -> Check:
    """Compare the runtime in use with what the machine could do. Nothing else says that a provider was left out."""
    gpus = gpu_names()
    if settings.engine == "triton" or "cuda" in runtime or settings.device == "cpu":
        return ok("device", f"{runtime}, as set" if settings.device == "cpu" else runtime)
    if gpus:
        why = (
            "its provider for CUDA does not start"
            if version_of("onnxruntime-gpu")
            else "onnxruntime-gpu is not installed"
        )
        return problem("device", f"{runtime}, although there is a GPU: {why}", _GPU_EXTRA)
    if runtime.endswith("f32") and supports_bf16() and settings.precision != "f32":
        checked = model.parity.get("openvino-bf16")
        why = (
            "was not checked at the export" if checked is None else f"failed its check: cosine {checked.min_cosine:.4f}"
        )
        return note(
            "precision", f"f32, although the processor has bf16: bf16 {why}", "Export the model on this machine."
        )
    return ok("precision", runtime)


def _search(settings: Settings) -> Check:
    try:
        name = search_name(settings.search)
    except RuntimeError as error:
        return problem("search", str(error), _GPU_EXTRA)
    if gpu_names() and not gpu_available() and settings.search == "auto":
        return note("search", f"{name}, although there is a GPU: this FAISS finds none", _GPU_EXTRA)
    return ok("search", name)
