"""The checkpoint of a training: one safetensors file, replaced atomically after each epoch. Nothing is unpickled."""

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
    """Everything that the next epoch needs. Random numbers depend only on seed and epoch, so they need no state."""

    student: StateDict
    """On the CPU and contiguous, as all tensors here."""
    best: StateDict
    """The student of the best epoch."""
    moments: StateDict
    """State of the optimiser by parameter: ``NAME/exp_avg``, ``NAME/exp_avg_sq``, ``NAME/step``."""
    history: list[tuple[float, float]]
    """Loss on the training and on the validation images, for each epoch."""
    seconds: float
    """Time of the epochs, over all runs."""


def write_checkpoint(folder: Path, recipe: str, progress: Progress) -> None:
    """Replace the checkpoint.

    Args:
        folder: created if it does not exist.
        recipe: checksum of the training. Only a training with the same recipe continues from the checkpoint.
        progress: after an epoch.

    Raises:
        ExportError: the file cannot be written.
    """
    tensors = {
        # A copy: the best student may be the last one, and safetensors refuses two names for the same memory.
        f"{part}/{name}": tensor.clone()
        for part, state in _parts(progress).items()
        for name, tensor in state.items()
    }
    told = {"recipe": recipe, "history": progress.history, "seconds": progress.seconds}
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / FILE, save(tensors, metadata={"progress": json.dumps(told)}))


def read_checkpoint(folder: Path, recipe: str) -> Progress | None:
    """Return the progress of a training with the same recipe, or None if there is none or its file is damaged."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})["progress"])
            if told["recipe"] != recipe:
                _logger.warning(
                    "%s belongs to other images or options, after epoch %d: starting again", FILE, len(told["history"])
                )
                return None
            parts: dict[str, StateDict] = {"student": {}, "best": {}, "moments": {}}
            for key in file.keys():  # noqa: SIM118 - not a mapping
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
