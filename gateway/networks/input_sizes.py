"""Token models of other input sizes beside the configured one. A number at the end of a name tells which is which."""

import re
from pathlib import Path

from gateway.networks.embedded.runtimes import network_bytes
from gateway.networks.model_description import (
    GRAPH_FILE,
    DescriptionError,
    ModelDescription,
    newest_version,
    read_description,
)
from gateway.settings import Settings


def name_of_size(settings: Settings, input_size: int) -> str:
    """Return the name of the token model for an input size, such as ``dinov2_vits14_560``."""
    return f"{settings.model_name}_{input_size}"


def sizes_of(model: ModelDescription) -> set[int]:
    """Return the numbers that name the input size of a model: as it is, and as it was asked for at the export."""
    return {model.input_size, *model.scales[-1:]}


def exported_sizes(settings: Settings) -> list[int]:
    """Return the other input sizes that this gateway's repository has a model for, ascending. Reads its descriptions.

    A model whose name has the number of another size is left out.
    """
    named = re.compile(re.escape(settings.model_name) + r"_([1-9][0-9]{1,4})")
    found = (named.fullmatch(folder.name) for folder in _folders(settings.model_repository))
    return sorted(int(name[1]) for name in found if name and _has(settings.model_repository / name[0], int(name[1])))


def network_bytes_of_size(settings: Settings, input_size: int) -> int:
    """Estimate the memory of the network for an input size. Reads its description.

    Raises:
        DescriptionError: it is not exported.
        OSError: its graph is missing.
    """
    version = newest_version(settings.model_repository / name_of_size(settings, input_size))
    return network_bytes(read_description(version), (version / GRAPH_FILE).stat().st_size)


def _has(model_folder: Path, input_size: int) -> bool:
    try:
        return input_size in sizes_of(read_description(newest_version(model_folder)))
    except DescriptionError:
        return False


def _folders(repository: Path) -> list[Path]:
    return list(repository.iterdir()) if repository.is_dir() else []
