"""ResNet18 (He et al., "Deep Residual Learning for Image Recognition", 2016) from timm, as far as it is needed."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from export.errors import ExportError
from export.torchvision_ops import declare_missing_ops
from export.weights import Checkpoint, StateDict, Weights, read_weights, some

declare_missing_ops()

import timm  # noqa: E402 - only after the operators that its import of torchvision asks for

# torchvision's IMAGENET1K_V1.
TIMM_ID = "resnet18.tv_in1k"
WEIGHTS_VARIABLE = "RESNET18_WEIGHTS"
CHECKPOINT = Checkpoint(f"timm/{TIMM_ID}", "timm or torchvision", WEIGHTS_VARIABLE)

STAGES = ("layer1", "layer2", "layer3", "layer4")
WIDTH = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
STRIDE = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}


def check_layers(layers: Sequence[str]) -> None:
    """Refuse what are not stages of the network, each once and rising.

    Raises:
        ExportError: they are not.
    """
    if not layers or list(layers) != [stage for stage in STAGES if stage in layers]:
        raise ExportError(f"layers {','.join(layers) or '(none)'}: give some of {', '.join(STAGES)}, each once, rising")


class ResNet18(nn.Module):
    """Pixels float32 [B, 3, S, S], ImageNet-normalised -> the maps [B, C, S/s, S/s] of some stages.

    They are taken before the last ReLU of their stage: a student must be able to give what a normalised map holds,
    which is negative every second time, and rectified maps are mostly zeros with rare large values.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        """Build it with timm's initial weights, of torch's global generator; stages above the last one are not built.

        Raises:
            ExportError: `layers` are not stages.
        """
        super().__init__()
        check_layers(layers)
        whole = timm.create_model(TIMM_ID, pretrained=False)
        assert isinstance(whole, timm.models.ResNet)
        self.layers = tuple(layers)
        self.conv1, self.bn1, self.act1, self.maxpool = whole.conv1, whole.bn1, whole.act1, whole.maxpool
        self.stages = STAGES[: STAGES.index(layers[-1]) + 1]
        for stage in self.stages:
            self.add_module(stage, getattr(whole, stage))
            getattr(self, stage)[-1].act2 = nn.Identity()

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """One map a stage, in the order of `layers`."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(pixels))))
        maps = []
        for stage in self.stages:
            x = getattr(self, stage)(x)
            if stage in self.layers:
                maps.append(x)
            x = torch.relu(x)
        return maps


def load_teacher(weights: str, layers: Sequence[str]) -> tuple[ResNet18, Weights]:
    """The frozen teacher, and the weights that it has.

    Args:
        weights: ``hub`` for torchvision's ImageNet weights, ``seed:N`` for random ones, else a ``.safetensors`` or
            ``.pth`` file under timm's key names, which are torchvision's. It may hold more than is needed.
        layers: whose maps it gives.

    Raises:
        ExportError: they cannot be had, are not of a ResNet18, or end below the last of `layers`.
    """
    check_layers(layers)
    found = read_weights(weights, CHECKPOINT, _from_seed)
    teacher = ResNet18(layers)
    expected = teacher.state_dict()
    absent = [stage for stage in teacher.stages if not any(key.startswith(f"{stage}.") for key in found.state)]
    if absent and any(key.startswith("conv1.") for key in found.state):
        there = [stage for stage in STAGES if any(key.startswith(f"{stage}.") for key in found.state)]
        raise ExportError(
            f"{found.source.detail} has no {absent[0]}: it ends with {there[-1] if there else 'conv1'}."
            f" Ask for layers that it has (--layers {','.join(there) or '…'} or some of them), or name whole weights"
        )
    _check_fit(found.state, expected)
    teacher.load_state_dict({key: found.state[key] for key in expected}, strict=True)
    teacher.eval().requires_grad_(False)
    return teacher, found


def new_student(layers: Sequence[str], seed: int) -> ResNet18:
    """The same network with fresh weights: the same ones for a seed, whatever else draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet18(layers)


def pixel_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, in RGB order on a scale of 0 to 1, that the teacher was trained with."""
    config = timm.get_pretrained_cfg(TIMM_ID)
    assert config is not None
    return config.mean, config.std


def _check_fit(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    wrong = [
        f"{key} {'missing' if key not in state else tuple(state[key].shape)}, not {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key not in state or state[key].shape != tensor.shape
    ]
    if wrong:
        raise ExportError(f"these weights are not of a ResNet18 under timm's key names: {some(wrong)}")


def _from_seed(seed: int) -> StateDict:
    """Random weights of the whole network under which every stage still speaks of the image.

    Convolutions keep the variance of what goes in; NumPy's generator gives the same values everywhere.
    """
    generator = np.random.default_rng(seed)
    state = {}
    for key, tensor in sorted(timm.create_model(TIMM_ID, pretrained=False).state_dict().items()):
        if key.startswith("fc."):
            continue
        values = generator.standard_normal(tensor.shape, dtype=np.float32)
        name = key.rsplit(".", 1)[-1]
        if values.ndim == 4:
            values = values * np.sqrt(2 / np.prod(values.shape[1:]), dtype=np.float32)
        elif name == "running_var":
            values = np.ones_like(values)
        elif name == "weight":
            values = 1 + 0.1 * values
        else:  # biases, running means; the count of batches is of no use
            values = 0.1 * values
        state[key] = torch.from_numpy(np.asarray(values, np.float32))
    return state
