"""State dicts from the hub, a file or a seed, and what they are known by."""

import hashlib
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from export.errors import ExportError
from gateway.networks.model_description import WeightsSource

HUB = "hub"
SEED_PREFIX = "seed:"

_HUB_FILE = "model.safetensors"

_logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """A state dict in float32 under the original key names of its network."""

    state: StateDict
    source: WeightsSource


@dataclass(frozen=True)
class Checkpoint:
    """The pretrained weights of one network: where they are, and how to name them to the user."""

    repository: str
    """On the hub."""
    key_names: str
    """Whose key names a file must have, such as ``original DINOv2``."""
    variable: str
    """Of the environment, that may name a file."""


def read_weights(weights: str, checkpoint: Checkpoint, from_seed: Callable[[int], StateDict]) -> Weights:
    """Read the weights that `weights` names.

    Args:
        weights: ``hub`` for `checkpoint`, ``seed:N`` for random ones, else a ``.safetensors`` or ``.pth`` file.
        checkpoint: of the network.
        from_seed: makes random weights.

    Raises:
        ExportError: they cannot be had. Whether they fit the network is not looked at.
    """
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
    """SHA-256 (hex) over names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def some(names: list[str], limit: int = 6) -> str:
    """The first of `names`, and how many more there are."""
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _named(state: StateDict, kind: str, detail: str) -> Weights:
    # DINOv2's mask token served its training alone.
    state = {key: tensor.float() for key, tensor in state.items() if key != "mask_token"}
    source = WeightsSource.model_validate({"kind": kind, "detail": detail, "sha256": sha256_of(state)})
    _logger.info("  sha256 of the weights: %s", source.sha256[:16])
    return Weights(state, source)


def _from_hub(checkpoint: Checkpoint) -> StateDict:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from timm.models import load_state_dict_from_hf

    _logger.info("loading weights: %s from the hub", checkpoint.repository)
    try:
        if not isinstance(try_to_load_from_cache(checkpoint.repository, _HUB_FILE), str):
            # One question first: the download itself repeats for over a minute where nothing answers.
            get_hf_file_metadata(hf_hub_url(checkpoint.repository, _HUB_FILE))
        state: StateDict = load_state_dict_from_hf(checkpoint.repository, filename=_HUB_FILE)
    except Exception as error:  # the hub's client lets through whatever its HTTP library raises
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ExportError(
            f"the hub did not give the weights of {checkpoint.repository} ({reason}). Without it, name a file with"
            f" the {checkpoint.key_names} key names (.safetensors or .pth): --weights FILE, or"
            f" {checkpoint.variable}=FILE in the environment. For a test model with random weights: --weights seed:0"
        ) from error
    return state


def _from_file(path: Path, checkpoint: Checkpoint) -> StateDict:
    _logger.info("loading weights: %s", path.name)
    if not path.is_file():
        raise ExportError(f"no weights file {path}: give a .safetensors or .pth file, 'hub', or seed:N")
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
