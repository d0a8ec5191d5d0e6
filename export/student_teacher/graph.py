"""The graph of teacher and student: uint8 RGB image -> anomaly map."""

from collections.abc import Sequence

import torch
from torch import nn

from export.errors import ExportError
from export.student_teacher.resnet import STRIDE, WIDTH, ResNet18, pixel_statistics
from export.token_graph import resize_matrix

SMALLEST_SIZE, LARGEST_SIZE = 32, 512
# Share of the largest deviation of a channel in the same layer. Without this limit, a channel that hardly changes on OK
# images is divided by almost 0, and its noise outweighs the other channels.
_LEAST_DEVIATION = 0.01


def check_size(size: int) -> None:
    """Check that the strides of the network divide the size.

    Raises:
        ExportError: the size is out of range or not a multiple of 32.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE or size % 32:
        raise ExportError(f"size {size}: give a multiple of 32 from {SMALLEST_SIZE} to {LARGEST_SIZE} pixels")


class StudentTeacherGraph(nn.Module):
    """Image uint8 [B, S, S, 3] RGB -> anomaly map float32 [B, S, S], 0 or above.

    Both networks get the same normalised pixels. The teacher's maps are normalised to mean 0 and deviation 1 per
    channel on OK images, so that all channels count the same. The student predicts these maps. The map of a layer is
    the mean over its channels of the squared difference, in units of ``q_high - q_low``. These are two quantiles of
    that map on the OK validation images (Batzner et al., "EfficientAD: Accurate Visual Anomaly Detection at
    Millisecond-Level Latencies", 2023). The paper also subtracts ``q_low``. That is the same constant for all images,
    so it changes no comparison. Without the subtraction, maps stay at 0 or above, and a spatial weight below 1 always
    lowers a value. The upsampling is a product with fixed matrices, so that every runtime computes the same.
    """

    def __init__(self, teacher: ResNet18, student: ResNet18, size: int) -> None:
        """Combine the two networks. `set_channels` and `set_units` set the statistics afterwards.

        Raises:
            ExportError: the size is invalid.
        """
        super().__init__()
        check_size(size)
        self.size = size
        self.layers = teacher.layers
        self.teacher = teacher
        self.student = student
        mean, std = pixel_statistics()
        self.pixel_mean = nn.Buffer(torch.tensor(mean) * 255)
        self.pixel_std = nn.Buffer(torch.tensor(std) * 255)
        for layer in self.layers:
            self.register_buffer(f"{layer}_mean", torch.zeros(WIDTH[layer], 1, 1))
            self.register_buffer(f"{layer}_std", torch.ones(WIDTH[layer], 1, 1))
            self.register_buffer(f"{layer}_unit", torch.ones(()))
            self.register_buffer(f"{layer}_upsample", resize_matrix(size // STRIDE[layer], size))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Compute anomaly maps: uint8 [B, S, S, 3] RGB -> float32 [B, S, S]."""
        maps = self.layer_maps(self.pixels(image))
        units = [getattr(self, f"{layer}_unit") for layer in self.layers]
        return torch.stack([each / unit for each, unit in zip(maps, units, strict=True)]).mean(dim=0)

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Normalise pixels for the networks: uint8 or float [B, S, S, 3] RGB, 0 to 255 -> float32 [B, 3, S, S]."""
        return ((image.float() - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)

    def layer_maps(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return for each layer the mean squared difference over its channels, resized to float32 [B, S, S]."""
        maps = []
        for layer, squared in zip(self.layers, self.squared_differences(pixels), strict=True):
            upsample = getattr(self, f"{layer}_upsample")
            maps.append(upsample @ squared.mean(dim=1) @ upsample.T)
        return maps

    def squared_differences(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return for each layer the squared differences of teacher and student, float32 [B, C, h, w]."""
        with torch.no_grad():
            targets = self.normalised(self.teacher(pixels))
        predictions = self.student(pixels)
        return [(prediction - target) ** 2 for prediction, target in zip(predictions, targets, strict=True)]

    def normalised(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Normalise the teacher's maps [B, C, h, w] of each layer to mean 0, deviation 1 per channel on OK images."""
        return [
            (each - getattr(self, f"{layer}_mean")) / getattr(self, f"{layer}_std")
            for layer, each in zip(self.layers, maps, strict=True)
        ]

    def set_channels(self, means: Sequence[torch.Tensor], deviations: Sequence[torch.Tensor]) -> None:
        """Set the statistics [C] of the teacher's maps on OK images, for each layer."""
        for layer, mean, deviation in zip(self.layers, means, deviations, strict=True):
            least = _LEAST_DEVIATION * deviation.max().clamp(min=torch.finfo(torch.float32).tiny)
            getattr(self, f"{layer}_mean").copy_(mean[:, None, None])
            getattr(self, f"{layer}_std").copy_(deviation.clamp(min=least)[:, None, None])

    def set_units(self, units: Sequence[float]) -> None:
        """Set ``q_high - q_low`` of each layer's map on the OK validation images."""
        for layer, unit in zip(self.layers, units, strict=True):
            getattr(self, f"{layer}_unit").fill_(unit)

    def train(self, mode: bool = True) -> "StudentTeacherGraph":
        """Set the mode of the student. The teacher stays in evaluation mode: its batch statistics are fixed."""
        super().train(mode)
        self.teacher.eval()
        return self
