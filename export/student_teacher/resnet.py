"""The first stages of ResNet18 (He et al., "Deep Residual Learning for Image Recognition", 2016) from timm."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from export.errors import ExportError
from export.torchvision_ops import declare_missing_ops
from export.weights import Checkpoint, StateDict, Weights, read_weights, some

declare_missing_ops()

import timm  # noqa: E402 - after the operators that its import of torchvision needs

# torchvision's IMAGENET1K_V1.
TIMM_ID = "resnet18.tv_in1k"
WEIGHTS_VARIABLE = "RESNET18_WEIGHTS"
CHECKPOINT = Checkpoint(f"timm/{TIMM_ID}", "timm or torchvision", WEIGHTS_VARIABLE)

STAGES = ("layer1", "layer2", "layer3", "layer4")
WIDTH = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
STRIDE = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}


def check_layers(layers: Sequence[str]) -> None:
    """Check that `layers` are stages of the network, each once and in order.

    Raises:
        ExportError: they are not.
    """
    if not layers or list(layers) != [stage for stage in STAGES if stage in layers]:
        raise ExportError(
            f"layers {','.join(layers) or '(none)'}: give some of {', '.join(STAGES)}, each once, in this order"
        )


class ResNet18(nn.Module):
    """Pixels float32 [B, 3, S, S], ImageNet-normalised -> the maps [B, C, S/s, S/s] of some stages.

    The maps are those before the last ReLU of their stage. About half of the values of a normalised map are negative,
    and a student must be able to predict them. Maps after the ReLU are mostly zeros with rare large values.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        """Build the network with timm's initial weights, from torch's global generator, up to the last of `layers`.

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
        """Return one map per stage, in the order of `layers`."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(pixels))))
        maps = []
        for stage in self.stages:
            x = getattr(self, stage)(x)
            if stage in self.layers:
                maps.append(x)
            x = torch.relu(x)
        return maps


def load_teacher(weights: str, layers: Sequence[str]) -> tuple[ResNet18, Weights]:
    """Return the frozen teacher and its weights.

    Args:
        weights: ``hub`` for torchvision's ImageNet weights, ``seed:N`` for random ones, else a ``.safetensors`` or
            ``.pth`` file with timm's key names, which are those of torchvision. Other tensors in it are ignored.
        layers: the stages whose maps it returns.

    Raises:
        ExportError: the weights are unavailable, belong to another model, or end before the last of `layers`.
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
            f" Use layers that it has (--layers {','.join(there) or '…'} or some of them), or name complete weights"
        )
    _check_fit(found.state, expected)
    teacher.load_state_dict({key: found.state[key] for key in expected}, strict=True)
    teacher.eval().requires_grad_(False)
    return teacher, found


def new_student(layers: Sequence[str], seed: int) -> ResNet18:
    """Return a student with fresh weights. They depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet18(layers)


def pixel_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of the teacher's training, in RGB order on a scale of 0 to 1."""
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
    """Return random weights with which the maps of every stage depend on the image.

    Convolutions keep the variance of their input. NumPy's generator gives the same values on every machine.
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
        else:  # biases, running means, and the count of batches, which is unused
            values = 0.1 * values
        state[key] = torch.from_numpy(np.asarray(values, np.float32))
    return state
