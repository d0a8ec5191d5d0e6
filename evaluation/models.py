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
        "a FINE-TUNED DINOv2 ViT-S/14, a stand-in for the stock checkpoint"
    ),
    "5fb862721186a0c6c3c184a9fc7cf3bd3e367c3e7f2a2dec7170ec99610b8230": (
        "ImageNet's (torchvision, IMAGENET1K_V1), conv1 to layer3"
    ),
}


class ExportFailedError(RuntimeError):
    """A model of the sweep could not be made."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An export to evaluate; None takes the value of the served model."""

    layers: tuple[int, ...] | None = None
    input_size: int | None = None


def repository_of(variant: Variant, settings: Settings, weights: str | None, cache: Path) -> Path:
    """Return the model repository of a variant; export it if it does not exist yet.

    Args:
        variant: the export.
        settings: of the service, which name the served model.
        weights: as for `python -m export --weights`; only for an export.
        cache: folder for exports.

    Raises:
        ExportFailedError: no weights are named, the export failed, or its weights differ from the served model's.
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
            raise ExportFailedError("other layers or input sizes need another export; name its weights, --weights FILE")
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
        raise ExportFailedError(f"--weights {Path(weights).name}: these are not the weights of the served model")
    return repository


def weights_in_words(model: ModelDescription | dict[str, str | None]) -> str:
    """Describe the origin of weights. Stand-in weights are never called the stock checkpoint.

    Args:
        model: a description, or its `weights` as a dict.
    """
    source = model.weights.model_dump() if isinstance(model, ModelDescription) else model
    kind, detail, sha256 = source["kind"], Path(source["detail"] or "").name, source["sha256"] or ""
    if kind == "hub":
        return f"from the hub, {source['detail']}"
    if kind == "seed":
        return f"RANDOM ({detail}): the figures have no meaning"
    if kind == "stand-in":
        return f"stand-in weights ({source['detail']}): {_KNOWN.get(sha256, 'not the stock checkpoint')}"
    if kind == "file":
        known = _KNOWN.get(sha256, "not the stock checkpoint as far as this report knows, so a stand-in")
        return f"from a file ({detail}{f', values {sha256[:16]}' if sha256 else ''}): {known}"
    return "unknown"
