"""DINOv2 ViT-S/14 (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023) from timm."""

import hashlib
import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.errors import ExportError
from export.torchvision_ops import declare_missing_ops
from gateway.model_description import WeightsSource

declare_missing_ops()

import timm  # noqa: E402 - only after the operators that its import of torchvision asks for
from safetensors import SafetensorError  # noqa: E402
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402

TIMM_ID = "vit_small_patch14_dinov2.lvd142m"
PATCH = 14
DEPTH = 12
WIDTH = 384

HUB = "hub"
SEED_PREFIX = "seed:"

_HUB_REPOSITORY = f"timm/{TIMM_ID}"
_HUB_FILE = "model.safetensors"
# The model's own training size: the shapes of the original state dict, before the positions are resampled.
_ORIGINAL_SIZE = 518

_logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Weights:
    """A DINOv2 ViT-S/14 state dict under the original key names, float32, without ``mask_token``."""

    state: StateDict
    source: WeightsSource


def load_weights(weights: str) -> Weights:
    """Read the weights that `weights` names.

    Args:
        weights: ``hub`` for timm's checkpoint, ``seed:N`` for random ones, else a ``.safetensors`` or ``.pth`` file.

    Raises:
        ExportError: they cannot be had, or are not those of a DINOv2 ViT-S/14.
    """
    if weights == HUB:
        return _named(_from_hub(), "hub", _HUB_REPOSITORY)
    if weights.startswith(SEED_PREFIX):
        number = weights.removeprefix(SEED_PREFIX)
        if not (number.isascii() and number.isdecimal()):
            raise ExportError(f"{weights!r} is not a seed: write {SEED_PREFIX}N with N a whole number, such as seed:0")
        return _named(_from_seed(int(number)), "seed", number)
    path = Path(weights)
    return _named(_from_file(path), "file", path.name)


def build_backbone(weights: Weights, size: int) -> VisionTransformer:
    """The frozen backbone for `size` x `size` images, its positions resampled to that grid by timm.

    Args:
        weights: as `load_weights` gives them.
        size: side of the image in pixels, a multiple of the patch size.

    Raises:
        ExportError: a tensor of the weights has another shape than the model's.
    """
    model = timm.create_model(TIMM_ID, pretrained=False, img_size=size)
    assert isinstance(model, VisionTransformer)
    expected = model.state_dict()
    _check_names(weights.state, expected)
    fitting: StateDict = checkpoint_filter_fn(dict(weights.state), model)
    wrong = [
        f"{key} {tuple(tensor.shape)}, not {tuple(expected[key].shape)}"
        for key, tensor in fitting.items()
        if tensor.shape != expected[key].shape
    ]
    if wrong:
        raise ExportError(f"these weights are not of {TIMM_ID}: {_some(wrong)}")
    model.load_state_dict(fitting, strict=True)
    model.eval().requires_grad_(False)
    return model


def pixel_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in RGB order on a scale of 0 to 1, that the model was trained with."""
    config = timm.get_pretrained_cfg(TIMM_ID)
    assert config is not None
    return config.mean, config.std


def _named(state: StateDict, kind: str, detail: str) -> Weights:
    state = {key: tensor.float() for key, tensor in state.items() if key != "mask_token"}
    source = WeightsSource.model_validate({"kind": kind, "detail": detail, "sha256": _sha256(state)})
    _logger.info("  sha256 of the weights: %s", source.sha256[:16])
    return Weights(state, source)


def _sha256(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        tensor = state[key]
        digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def _from_hub() -> StateDict:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from timm.models import load_state_dict_from_hf

    _logger.info("loading weights: %s from the hub", _HUB_REPOSITORY)
    try:
        if not isinstance(try_to_load_from_cache(_HUB_REPOSITORY, _HUB_FILE), str):
            # One question first: the download itself repeats for over a minute where nothing answers.
            get_hf_file_metadata(hf_hub_url(_HUB_REPOSITORY, _HUB_FILE))
        state: StateDict = load_state_dict_from_hf(_HUB_REPOSITORY, filename=_HUB_FILE)
    except Exception as error:  # the hub's client lets through whatever its HTTP library raises
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ExportError(
            f"the hub did not give the weights of {_HUB_REPOSITORY} ({reason}). Without it, name a file with the"
            " original DINOv2 key names (.safetensors or .pth): --weights FILE, or DINOV2_WEIGHTS=FILE in the"
            " environment. For a test model with random weights: --weights seed:0"
        ) from error
    return state


def _from_file(path: Path) -> StateDict:
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
        raise ExportError(f"{path}: not a plain state dict of tensors under the original DINOv2 key names")
    return state


def _check_names(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ExportError(
            f"these weights are not of {TIMM_ID} under the original DINOv2 key names:"
            f" {len(missing)} missing{_listed(missing)}, {len(unexpected)} unexpected{_listed(unexpected)}"
        )


def _listed(names: list[str]) -> str:
    return f" ({_some(names)})" if names else ""


def _some(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f", and {len(names) - limit} more" if len(names) > limit else "")


def _from_seed(seed: int) -> StateDict:
    """Random weights under which every block changes the tokens, and a token still speaks of its own patch first.

    timm's initial LayerScale of 1e-5 would leave the blocks out: a parity check would then check one convolution.
    Matrices keep the variance of what goes in, so that attention is neither flat nor one-hot; the LayerScale of 0.3
    lets twelve blocks add about as much as the patch embedding. NumPy's generator gives the same values everywhere.
    """
    _logger.info("loading weights: random, from seed %d (a test model: its scores mean nothing)", seed)
    shapes = {k: v.shape for k, v in timm.create_model(TIMM_ID, img_size=_ORIGINAL_SIZE).state_dict().items()}
    generator = np.random.default_rng(seed)
    state = {}
    for key in sorted(shapes):
        values = generator.standard_normal(shapes[key], dtype=np.float32)
        name = key.rsplit(".", 2)[-2:]
        if name[-1] == "gamma":
            values = 0.3 + 0.03 * values
        elif name[0].startswith("norm") and name[-1] == "weight":
            values = 1 + 0.1 * values
        elif values.ndim > 1 and name[-1] == "weight":
            values = values / np.sqrt(np.prod(values.shape[1:]), dtype=np.float32)
        else:  # biases, positions, class token
            values = 0.1 * values
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state
