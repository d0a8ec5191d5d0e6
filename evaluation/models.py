"""Models of a sweep: the served one, or another export of the same weights under `.cache`."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gateway.networks.model_description import DescriptionError, ModelDescription, newest_version, read_description
from gateway.settings import HOME, Settings

_KNOWN = {
    "892c56ac04dd17fee7b313a73adbf72e9ab0ae7b67a5050aab5c50f5907ab76b": (
        "a FINE-TUNED DINOv2 ViT-S/14 that stands in for the stock checkpoint and is not it"
    ),
    "5fb862721186a0c6c3c184a9fc7cf3bd3e367c3e7f2a2dec7170ec99610b8230": (
        "ImageNet's (torchvision, IMAGENET1K_V1), conv1 to layer3"
    ),
}


class ExportFailedError(RuntimeError):
    """A model of the sweep could not be made."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Which export to evaluate; what is None is as the served model has it."""

    layers: tuple[int, ...] | None = None
    input_size: int | None = None


def repository_of(variant: Variant, settings: Settings, weights: str | None, cache: Path) -> Path:
    """The model repository that holds a variant; exports it where there is none yet.

    Args:
        variant: which.
        settings: name the served model.
        weights: as `python -m export --weights` takes them; for an export only.
        cache: folder for exports.

    Raises:
        ExportFailedError: no weights are named, the export failed, or its weights are not those of the served model.
    """
    try:
        served = read_description(newest_version(settings.model_folder))
    except DescriptionError as error:
        raise ExportFailedError(f"{error}; export a model first, `python -m export`") from error
    layers = variant.layers or served.layers
    scales = (variant.input_size,) if variant.input_size is not None else served.scales
    if layers == served.layers and scales == served.scales:
        return settings.model_repository
    if weights is None:
        if served.weights.kind == "file":
            raise ExportFailedError("layers and input size need another export: name the weights, --weights FILE")
        weights = served.weights.detail if served.weights.kind == "seed" else "hub"
        weights = f"seed:{weights.removeprefix('seed:')}" if served.weights.kind == "seed" else weights
    layers_text, scales_text = ",".join(map(str, layers)), ",".join(map(str, scales))
    key = hashlib.sha256(f"{served.weights.sha256} {layers_text} {scales_text}".encode()).hexdigest()[:12]
    repository = cache / "export" / key
    model = repository / settings.model_name
    try:
        description = read_description(newest_version(model))
    except DescriptionError:
        command = [sys.executable, "-m", "export", "--weights", weights, "--layers", layers_text]
        command += ["--scales", scales_text, "--repository", str(repository), "--name", settings.model_name]
        done = subprocess.run(command, cwd=HOME, stdout=sys.stderr)
        if done.returncode != 0:
            raise ExportFailedError(f"layers {layers_text}, input size {scales_text}: the export failed") from None
        description = read_description(newest_version(model))
    if description.weights.sha256 != served.weights.sha256:
        raise ExportFailedError(f"--weights {Path(weights).name}: not the weights of the model served")
    return repository


def weights_in_words(model: ModelDescription | dict[str, str | None]) -> str:
    """Where weights came from, never calling a stand-in the stock checkpoint.

    Args:
        model: a description, or its `weights` as a dict.
    """
    source = model.weights.model_dump() if isinstance(model, ModelDescription) else model
    kind, detail, sha256 = source["kind"], Path(source["detail"] or "").name, source["sha256"] or ""
    if kind == "hub":
        return f"from the hub, {source['detail']}"
    if kind == "seed":
        return f"RANDOM ({detail}): the figures mean nothing"
    if kind == "file":
        known = _KNOWN.get(sha256, "as far as this report knows not the stock checkpoint but a stand-in")
        return f"from a file ({detail}{f', values {sha256[:16]}' if sha256 else ''}): {known}"
    return "unknown"
