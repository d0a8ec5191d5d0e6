"""A training that was interrupted, on disk: one safetensors file an epoch, whole or not there. Nothing is unpickled."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from export.files import replace_file

FILE = "checkpoint.safetensors"

_logger = logging.getLogger(__name__)

StateDict = dict[str, torch.Tensor]


@dataclass
class Progress:
    """All that an epoch needs of those before it. Random numbers are drawn from seed and epoch: there is no state."""

    student: StateDict
    """On the CPU and contiguous, as all of these."""
    best: StateDict
    """The student of the best epoch."""
    moments: StateDict
    """The optimiser's, by parameter: ``NAME/exp_avg``, ``NAME/exp_avg_sq``, ``NAME/step``."""
    history: list[tuple[float, float]]
    """Loss on the training and the validation images, of each epoch."""
    seconds: float
    """Spent on the epochs, over all runs."""


def write_checkpoint(folder: Path, recipe: str, progress: Progress) -> None:
    """Put `progress` in the place of the checkpoint before it.

    Args:
        folder: made where it is not there.
        recipe: what the training is made of; only the same goes on from here.
        progress: after an epoch.

    Raises:
        ExportError: it cannot be written.
    """
    tensors = {
        # A copy: the best epoch's student may be the last one's, and safetensors takes no two names for one memory.
        f"{part}/{name}": tensor.clone()
        for part, state in _parts(progress).items()
        for name, tensor in state.items()
    }
    told = {"recipe": recipe, "history": progress.history, "seconds": progress.seconds}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / FILE, save(tensors, metadata={"progress": json.dumps(told)}))


def read_checkpoint(folder: Path, recipe: str) -> Progress | None:
    """The progress of a training of the same recipe; None where there is none, or its file is damaged."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})["progress"])
            if told["recipe"] != recipe:
                _logger.warning(
                    "%s is of other images or options, after epoch %d: starting over", FILE, len(told["history"])
                )
                return None
            parts: dict[str, StateDict] = {"student": {}, "best": {}, "moments": {}}
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key)
        return Progress(
            **parts,
            history=[(float(train), float(validation)) for train, validation in told["history"]],
            seconds=float(told["seconds"]),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _parts(progress: Progress) -> Mapping[str, StateDict]:
    return {"student": progress.student, "best": progress.best, "moments": progress.moments}
