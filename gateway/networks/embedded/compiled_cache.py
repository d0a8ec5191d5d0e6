"""The folder in which OpenVINO keeps a compiled graph, checked before OpenVINO reads it.

OpenVINO loads a damaged file without an error, and the network then computes wrong values or NaN. So each file has its
checksum beside it, and a file without the right checksum is deleted and compiled again.
"""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_SUFFIX = ".sha256"


def compile_graph(core: Any, graph: Any, options: Mapping[str, Any], folder: Path | None) -> Any:
    """Compile a graph for the CPU, or load it from `folder`.

    Args:
        core: ``openvino.Core``.
        graph: ``openvino.Model``.
        options: OpenVINO's properties.
        folder: of this graph with these options alone. A folder that cannot be used is logged, and the graph is
            compiled without it. None uses no folder.

    Returns:
        ``openvino.CompiledModel``.

    Raises:
        RuntimeError: OpenVINO cannot compile the graph.
    """
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _delete_unchecked(folder)
            compiled = core.compile_model(graph, "CPU", {**options, "CACHE_DIR": str(folder)})
        except (OSError, RuntimeError) as error:
            log.warning(
                "the cache of compiled networks in %s cannot be used, so each start compiles: %s", folder, error
            )
        else:
            _note_checksums(folder)
            return compiled
    return core.compile_model(graph, "CPU", dict(options))


def _delete_unchecked(folder: Path) -> None:
    for path in _compiled(folder):
        note = path.with_name(path.name + _SUFFIX)
        if not note.is_file() or note.read_bytes() != _checksum(path):
            log.warning("%s is damaged or incomplete: compiling the network again", path)
            path.unlink(missing_ok=True)
            note.unlink(missing_ok=True)


def _note_checksums(folder: Path) -> None:
    """Write the checksum of each new file. Without it, the next start compiles again."""
    for path in _compiled(folder):
        note = path.with_name(path.name + _SUFFIX)
        if not note.is_file():
            with suppress(OSError):
                note.write_bytes(_checksum(path))


def _compiled(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.suffix != _SUFFIX]


def _checksum(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()
