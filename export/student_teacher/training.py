"""Train a student on OK images. On one machine, the same seed and images give the same weights, bit for bit."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from export.errors import ExportError
from export.student_teacher.augment import Augmentation, augmented
from export.student_teacher.checkpoint import Progress, StateDict, read_checkpoint, write_checkpoint
from export.student_teacher.dataset import TrainingImages
from export.student_teacher.graph import StudentTeacherGraph

Device = Literal["auto", "cpu", "cuda"]

_BATCH_WITHOUT_GRADIENT = 16
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOptions:
    """How a student is trained. All options except device and threads are part of the recipe."""

    seed: int = 0
    """Seed of the student's first weights, the split, the order of images and their changes."""
    epochs: int = 120
    """Most epochs. The learning rate falls over this number of epochs."""
    patience: int = 20
    """Epochs without a lower validation loss before the training ends."""
    batch_size: int = 8
    learning_rate: float = 1e-3
    """Learning rate of Adam at the start. It falls to 0 along a cosine."""
    weight_decay: float = 1e-5
    hard_quantile: float = 0.999
    """The student learns only squared differences above this quantile of each image, as in EfficientAD."""
    hardening: float = 0.5
    """Share of the epochs over which the quantile rises from 0. The paper uses 0.999 for all of its 70 000 steps. A
    training here has some hundred steps, in which so few differences teach a new student almost nothing."""
    validation_share: float = 0.2
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: Device = "auto"
    threads: int = 0
    """Threads on a CPU. 0 means one per core. Another number may change the rounding."""

    def check(self) -> None:
        """Check the options.

        Raises:
            ExportError: an option is out of range.
        """
        limits = {
            "seed": (self.seed, 0, 2**31 - 1),
            "epochs": (self.epochs, 1, 10_000),
            "patience": (self.patience, 1, 10_000),
            "batch size": (self.batch_size, 2, 1024),
            "learning rate": (self.learning_rate, 1e-8, 1.0),
            "hard quantile": (self.hard_quantile, 0.0, 0.99999),
            "hardening": (self.hardening, 0.0, 1.0),
            "validation share": (self.validation_share, 0.05, 0.5),
            "threads": (self.threads, 0, 1024),
        }
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise ExportError(f"{name} {value}: must be between {least} and {most}")

    def quantile_at(self, epoch: int) -> float:
        """Return the quantile of an epoch, counted from 0. The learned share falls by a constant factor each epoch."""
        done = min(1.0, epoch / (self.hardening * self.epochs)) if self.hardening else 1.0
        return float(1 - (1 - self.hard_quantile) ** done)

    def resolved_device(self) -> Literal["cpu", "cuda"]:
        """Return the actual device.

        Raises:
            ExportError: the option is ``cuda`` and CUDA is unavailable.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ExportError("this machine has no CUDA device, or this torch has no CUDA: use --train-on cpu")
        return "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"

    def resolved_threads(self) -> int:
        """Return the actual number of threads on a CPU."""
        return self.threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Trained:
    """The result of a training."""

    history: list[tuple[float, float]]
    best_epoch: int
    """Counted from 1."""
    seconds: float
    """Time of the epochs, over all runs of an interrupted training."""


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Make torch deterministic inside the block. torch raises where an operator cannot be."""
    before = (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.backends.cudnn.benchmark)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])
        torch.backends.cudnn.benchmark = before[2]


def train(
    graph: StudentTeacherGraph,
    images: TrainingImages,
    options: TrainingOptions,
    *,
    recipe: str,
    folder: Path,
    name: str,
) -> Trained:
    """Train the student of `graph` in place. Continue from the checkpoint in `folder` if it has the same recipe.

    Args:
        graph: with a fresh student. Its channel statistics are set from the training images. It is on the CPU
            afterwards.
        images: for training and validation.
        options: of the training.
        recipe: checksum of everything that the result depends on.
        folder: of the checkpoint.
        name: shown with the progress.

    Raises:
        ExportError: an option is out of range, CUDA is unavailable, or the loss is not a number.
    """
    options.check()
    device = options.resolved_device()
    with deterministic(options.resolved_threads()):
        graph.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        graph.train()
        graph.set_channels(*channel_statistics(graph, images.train))
        optimiser = torch.optim.Adam(
            graph.student.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        progress = read_checkpoint(folder, recipe)
        if progress is None:
            progress = Progress(_copy(graph.student.state_dict()), {}, {}, [], 0.0)
        else:
            _logger.info("%s: continuing after epoch %d", name, len(progress.history))
            graph.student.load_state_dict(progress.student)
            _restore(optimiser, graph, progress.moments)
        _run_epochs(graph, images, options, optimiser, progress, recipe, folder, name)
        graph.student.load_state_dict(progress.best)
        graph.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        graph.eval()
    return Trained(progress.history, _best_epoch(progress.history), progress.seconds)


def _run_epochs(
    graph: StudentTeacherGraph,
    images: TrainingImages,
    options: TrainingOptions,
    optimiser: torch.optim.Adam,
    progress: Progress,
    recipe: str,
    folder: Path,
    name: str,
) -> None:
    history = progress.history
    batches = -(-len(images.train) // options.batch_size)
    bar = tqdm(total=options.epochs * batches, initial=len(history) * batches, desc=name, unit="batch")
    with bar:
        while len(history) < options.epochs and len(history) - _best_epoch(history) < options.patience:
            started = time.monotonic()
            epoch = len(history)
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * (1 + np.cos(np.pi * epoch / options.epochs)) / 2
            losses = []
            quantile = options.quantile_at(epoch)
            for batch in _augmented_batches(images.train, options, epoch):
                loss = hard_feature_loss(graph, batch, quantile)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                losses.append(float(loss.detach()))
                bar.update()
            history.append((float(np.mean(losses)), _validation_loss(graph, images.validation, options.hard_quantile)))
            if not np.isfinite(history[-1]).all():
                raise ExportError(f"the loss of epoch {epoch + 1} is not a number: try a lower --learning-rate")
            progress.student = _copy(graph.student.state_dict())
            if _best_epoch(history) == len(history):
                progress.best = progress.student
            progress.moments = _moments(optimiser, graph)
            progress.seconds += time.monotonic() - started
            write_checkpoint(folder, recipe, progress)
            bar.set_postfix(
                epoch=f"{len(history)}/{options.epochs}",
                train=f"{history[-1][0]:.4g}",
                validation=f"{history[-1][1]:.4g}",
                best=f"{history[_best_epoch(history) - 1][1]:.4g}",
            )


def hard_feature_loss(graph: StudentTeacherGraph, images: torch.Tensor, quantile: float) -> torch.Tensor:
    """Return the mean, over layers and images, of the squared differences above a quantile (EfficientAD, section 3.2).

    Args:
        graph: contains the student.
        images: float32 [B, S, S, 3] RGB, 0 to 255.
        quantile: of the differences of one image and layer, 0 to 1. The paper uses 0.999.

    Returns:
        A scalar.
    """
    pixels = graph.pixels(images).contiguous(memory_format=torch.channels_last)
    losses = []
    for squared in graph.squared_differences(pixels):
        flat = squared.flatten(1)
        hardest = max(1, round((1 - quantile) * flat.shape[1]))
        # A mask, since the gradient of a selection by index is not deterministic on every device.
        threshold = flat.detach().topk(hardest, dim=1).values[:, -1:]
        is_hard = (flat >= threshold).float()
        losses.append(((flat * is_hard).sum(dim=1) / is_hard.sum(dim=1)).mean())
    return torch.stack(losses).mean()


def channel_statistics(
    graph: StudentTeacherGraph, images: NDArray[np.uint8]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the mean and the standard deviation [C] of each channel of the teacher's maps, over all images."""
    count = [0] * len(graph.layers)
    sums = [torch.zeros((), dtype=torch.float64)] * len(graph.layers)
    squares = list(sums)
    with torch.inference_mode():
        for batch in _batches(graph, images):
            for i, each in enumerate(graph.teacher(graph.pixels(batch))):
                values = each.double().cpu()
                count[i] += values.shape[0] * values.shape[2] * values.shape[3]
                sums[i] = sums[i] + values.sum(dim=(0, 2, 3))
                squares[i] = squares[i] + (values**2).sum(dim=(0, 2, 3))
    means = [total / n for total, n in zip(sums, count, strict=True)]
    variances = [total / n - mean**2 for total, n, mean in zip(squares, count, means, strict=True)]
    return [mean.float() for mean in means], [variance.clamp(min=0).sqrt().float() for variance in variances]


def layer_maps(graph: StudentTeacherGraph, images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return the map of each layer, float32 [I, S, S], before the division by its unit."""
    with torch.inference_mode():
        found = [graph.layer_maps(graph.pixels(batch)) for batch in _batches(graph, images)]
    return [np.concatenate([maps[i].cpu().numpy() for maps in found]) for i in range(len(graph.layers))]


def _validation_loss(graph: StudentTeacherGraph, images: NDArray[np.uint8], quantile: float) -> float:
    graph.eval()
    with torch.inference_mode():
        losses = [(float(hard_feature_loss(graph, b, quantile)), len(b)) for b in _batches(graph, images)]
    graph.train()
    return sum(loss * n for loss, n in losses) / len(images)


def _augmented_batches(images: NDArray[np.uint8], options: TrainingOptions, epoch: int) -> Iterator[torch.Tensor]:
    """Yield batches of almost equal size, since a single image at the end has no useful batch statistics."""
    order = np.random.default_rng([options.seed, epoch]).permutation(len(images))
    for part in np.array_split(order, -(-len(images) // options.batch_size)):
        changed = [
            augmented(images[i], np.random.default_rng([options.seed, epoch, int(i)]), options.augmentation)
            for i in part
        ]
        yield torch.from_numpy(np.stack(changed)).to(options.resolved_device())


def _batches(graph: StudentTeacherGraph, images: NDArray[np.uint8]) -> Iterator[torch.Tensor]:
    for start in range(0, len(images), _BATCH_WITHOUT_GRADIENT):
        yield torch.from_numpy(images[start : start + _BATCH_WITHOUT_GRADIENT]).to(graph.pixel_mean.device)


def _best_epoch(history: list[tuple[float, float]]) -> int:
    """Return the best epoch, counted from 1, or 0 before the first."""
    return min(range(len(history)), key=lambda i: history[i][1]) + 1 if history else 0


def _copy(state: StateDict) -> StateDict:
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def _moments(optimiser: torch.optim.Adam, graph: StudentTeacherGraph) -> StateDict:
    return {
        f"{name}/{moment}": value.detach().cpu().clone().contiguous()
        for name, parameter in graph.student.named_parameters()
        for moment, value in optimiser.state[parameter].items()
    }


def _restore(optimiser: torch.optim.Adam, graph: StudentTeacherGraph, moments: StateDict) -> None:
    for name, parameter in graph.student.named_parameters():
        optimiser.state[parameter] = {
            moment: moments[f"{name}/{moment}"]
            if moment == "step"
            else moments[f"{name}/{moment}"]
            .to(parameter.device, memory_format=torch.preserve_format)
            .contiguous(memory_format=torch.channels_last if parameter.ndim == 4 else torch.contiguous_format)
            for moment in ("step", "exp_avg", "exp_avg_sq")
        }
