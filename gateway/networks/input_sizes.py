"""Token models of other input sizes beside the configured one. A number at the end of a name tells which is which."""

import re
from pathlib import Path

from gateway.networks.embedded.runtimes import network_bytes
from gateway.networks.model_description import GRAPH_FILE, newest_version, read_description, version_folders
from gateway.settings import Settings


def name_of_size(settings: Settings, input_size: int) -> str:
    """Return the name of the token model for an input size, such as ``dinov2_vits14_560``."""
    return f"{settings.model_name}_{input_size}"


def exported_sizes(settings: Settings) -> list[int]:
    """Return the other input sizes that this gateway's repository has a model for, ascending. Reads the folder."""
    named = re.compile(re.escape(settings.model_name) + r"_([1-9][0-9]{1,4})")
    found = (named.fullmatch(folder.name) for folder in _folders(settings.model_repository))
    return sorted(int(name[1]) for name in found if name and version_folders(settings.model_repository / name[0]))


def network_bytes_of_size(settings: Settings, input_size: int) -> int:
    """Estimate the memory of the network for an input size. Reads its description.

    Raises:
        DescriptionError: it is not exported.
        OSError: its graph is missing.
    """
    version = newest_version(settings.model_repository / name_of_size(settings, input_size))
    return network_bytes(read_description(version), (version / GRAPH_FILE).stat().st_size)


def _folders(repository: Path) -> list[Path]:
    return list(repository.iterdir()) if repository.is_dir() else []
