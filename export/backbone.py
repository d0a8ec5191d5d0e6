"""DINOv2 ViT-S/14 (Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023) from timm."""

from collections.abc import Mapping

import numpy as np
import torch

from export.errors import ExportError
from export.stand_in import STAND_IN
from export.torchvision_ops import declare_missing_ops
from export.weights import Checkpoint, StateDict, Weights, read_weights, some

declare_missing_ops()

import timm  # noqa: E402 - after the operators that its import of torchvision needs
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # noqa: E402

TIMM_ID = "vit_small_patch14_dinov2.lvd142m"
PATCH = 14
DEPTH = 12
WIDTH = 384

CHECKPOINT = Checkpoint(f"timm/{TIMM_ID}", "original DINOv2", "DINOV2_WEIGHTS", STAND_IN)
# The training size of the model: the original state dict has the shapes of this size.
_ORIGINAL_SIZE = 518


def load_weights(weights: str) -> Weights:
    """Read weights.

    Args:
        weights: ``auto`` for timm's checkpoint, or for the stand-in weights where the hub does not answer; ``hub`` for
            the checkpoint only; ``seed:N`` for random weights; else a ``.safetensors`` or ``.pth`` file.

    Raises:
        ExportError: the weights are unavailable, or belong to another model than DINOv2 ViT-S/14.
    """
    return read_weights(weights, CHECKPOINT, _from_seed)


def build_backbone(weights: Weights, size: int) -> VisionTransformer:
    """Build the frozen backbone for `size` x `size` images. timm resamples its positions to that grid.

    Args:
        weights: from `load_weights`.
        size: side of the image in pixels, a multiple of the patch size.

    Raises:
        ExportError: a tensor of the weights has another name or shape than in the model.
    """
    model = timm.create_model(TIMM_ID, pretrained=False, img_size=size, weight_init="skip")
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
        raise ExportError(f"these weights are not of {TIMM_ID}: {some(wrong)}")
    model.load_state_dict(fitting, strict=True)
    model.eval().requires_grad_(False)
    return model


def pixel_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of the training, in RGB order on a scale of 0 to 1."""
    config = timm.get_pretrained_cfg(TIMM_ID)
    assert config is not None
    return config.mean, config.std


def _check_names(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    if missing or unexpected:
        raise ExportError(
            f"these weights are not of {TIMM_ID} under the original DINOv2 key names:"
            f" {len(missing)} missing{_listed(missing)}, {len(unexpected)} unexpected{_listed(unexpected)}"
        )


def _listed(names: list[str]) -> str:
    return f" ({some(names)})" if names else ""


def _from_seed(seed: int) -> StateDict:
    """Return random weights. Every block changes the tokens, and a token depends mostly on its own patch.

    With timm's initial LayerScale of 1e-5, the blocks would have no effect, and a parity check would check one
    convolution only. The matrices keep the variance of their input, so that attention is neither flat nor one-hot. With
    a LayerScale of 0.3, twelve blocks add about as much as the patch embedding. NumPy's generator gives the same values
    on every machine.
    """
    model = timm.create_model(TIMM_ID, img_size=_ORIGINAL_SIZE, weight_init="skip")
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
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
