"""Read weights from the hub, a file, a seed or the stand-in package, and identify them."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from export.errors import ExportError
from gateway.networks.model_description import WeightsSource

AUTO = "auto"
HUB = "hub"
SEED_PREFIX = "seed:"

_HUB_FILE = "model.safetensors"
_HUB_TIMEOUT_S = 5.0

_logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """A state dict in float32 under the original key names of its network."""

    state: StateDict
    source: WeightsSource
    layers: tuple[int, ...] | None = None
    """Blocks that suit these weights best; None for the exporter's default."""


@dataclass(frozen=True)
class StandIn:
    """Weights that replace a checkpoint where the hub does not answer."""

    name: str
    """Package and version."""
    layers: tuple[int, ...]
    """Blocks whose tokens an export concatenates by default, counted from 0."""
    read: Callable[[], StateDict]


@dataclass(frozen=True)
class Checkpoint:
    """The pretrained weights of one network: where they are, and how messages name them."""

    repository: str
    """Repository on the hub."""
    key_names: str
    """Origin of the key names that a file must have, such as ``original DINOv2``."""
    variable: str
    """Environment variable that may name a file."""
    stand_in: StandIn | None = None
    """Used by ``auto`` where the hub does not answer."""


def read_weights(weights: str, checkpoint: Checkpoint, from_seed: Callable[[int], StateDict]) -> Weights:
    """Read the weights that `weights` names.

    Args:
        weights: ``auto`` for the hub, or for the stand-in weights where the hub does not answer; ``hub`` for the hub
            only; ``seed:N`` for random weights; else a ``.safetensors`` or ``.pth`` file.
        checkpoint: the pretrained weights of the network.
        from_seed: makes random weights.

    Raises:
        ExportError: the weights are unavailable. Whether they fit the network is not checked here.
    """
    if weights == AUTO:
        silence = _hub_silence(checkpoint)
        if silence is not None and checkpoint.stand_in is not None:
            return _stand_in(checkpoint, checkpoint.stand_in, silence)
        weights = HUB
    if weights == HUB:
        return _named(_from_hub(checkpoint), "hub", checkpoint.repository)
    if weights.startswith(SEED_PREFIX):
        number = weights.removeprefix(SEED_PREFIX)
        if not (number.isascii() and number.isdecimal()):
            raise ExportError(f"{weights!r} is not a seed: write {SEED_PREFIX}N with N a whole number, such as seed:0")
        _logger.info("loading weights: random, from seed %s (a test model: its scores mean nothing)", number)
        return _named(from_seed(int(number)), "seed", number)
    path = Path(weights)
    return _named(_from_file(path, checkpoint), "file", path.name)


def sha256_of(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hex) over names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def some(names: list[str], limit: int = 6) -> str:
    """Return the first of `names` and the number of the others."""
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _named(state: StateDict, kind: str, detail: str) -> Weights:
    # The mask token of DINOv2 is only used in its training.
    state = {key: tensor.float() for key, tensor in state.items() if key != "mask_token"}
    source = WeightsSource.model_validate({"kind": kind, "detail": detail, "sha256": sha256_of(state)})
    _logger.info("  sha256 of the weights: %s", source.sha256[:16])
    return Weights(state, source)


def _hub_silence(checkpoint: Checkpoint) -> str | None:
    """Return why the hub does not give a checkpoint, or None if it does or if the checkpoint is cached."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(checkpoint.repository, _HUB_FILE), str):
        return None
    try:
        # Ask once before the download: the download itself retries for over a minute.
        get_hf_file_metadata(hf_hub_url(checkpoint.repository, _HUB_FILE), timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 - the hub's client passes on all exceptions of its HTTP library
        return _reason(error)
    return None


def _stand_in(checkpoint: Checkpoint, stand_in: StandIn, silence: str) -> Weights:
    _logger.warning(
        "the hub did not give the weights of %s (%s)\n"
        "  using STAND-IN weights instead: a DINOv2 ViT-S/14 that %s fine-tuned for another task\n"
        "  they are not stock DINOv2; accuracy measured with them says nothing about stock DINOv2\n"
        "  to use other weights: %s=FILE; to forbid stand-in weights: %s=hub",
        checkpoint.repository,
        silence,
        stand_in.name,
        checkpoint.variable,
        checkpoint.variable,
    )
    try:
        state = stand_in.read()
    except ExportError as error:
        raise ExportError(f"{_without_hub(checkpoint, silence)}. The stand-in weights failed too: {error}") from error
    return replace(_named(state, "stand-in", stand_in.name), layers=stand_in.layers)


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _from_hub(checkpoint: Checkpoint) -> StateDict:
    from timm.models import load_state_dict_from_hf

    _logger.info("loading weights: %s from the hub", checkpoint.repository)
    silence = _hub_silence(checkpoint)
    if silence is not None:
        raise ExportError(_without_hub(checkpoint, silence))
    try:
        state: StateDict = load_state_dict_from_hf(checkpoint.repository, filename=_HUB_FILE)
    except Exception as error:  # the hub's client passes on all exceptions of its HTTP library
        raise ExportError(_without_hub(checkpoint, _reason(error))) from error
    return state


def _without_hub(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"the hub did not give the weights of {checkpoint.repository} ({reason}). Without it, name a file with"
        f" the {checkpoint.key_names} key names (.safetensors or .pth): --weights FILE, or"
        f" {checkpoint.variable}=FILE in the environment. For a test model with random weights: --weights seed:0"
    )


def _from_file(path: Path, checkpoint: Checkpoint) -> StateDict:
    _logger.info("loading weights: %s", path.name)
    if not path.is_file():
        raise ExportError(f"no weights file {path}: give a .safetensors or .pth file, 'auto', 'hub', or seed:N")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if path.suffix == ".pth":
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise ExportError(f"{path}: only .safetensors and .pth files are read")
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ExportError(f"{path}: cannot be read as weights ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ExportError(f"{path}: not a plain state dict of tensors under the {checkpoint.key_names} key names")
    return state
