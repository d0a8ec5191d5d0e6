"""Which images a student learns: the OK ones of a connector, by the labels of a CSV or by their folder. No torch here.

Of an image that is not OK, nothing but its label is read: its file is never opened.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.labelled_csv import Columns, CsvError, read_labelled
from gateway.errors import GatewayError
from gateway.images.decoding import Limits, decode, read_header, to_model_input

SMALLEST_OK = 10
"""Fewer images give no validation that a threshold could rest on."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_LIMITS = Limits(max_bytes=2**28, max_pixels=10**8)


@dataclass(frozen=True)
class OkImages:
    """Files of one connector."""

    connector: str
    paths: Sequence[Path]
    unused: Mapping[str, int]
    """Rows that are not OK, by label."""
    where: str
    """They were named in, for messages."""
    problem: str | None = None
    """Why they cannot be used."""


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Images ready to learn, each content once, in the order of their checksums."""

    train: NDArray[np.uint8]
    """[T, S, S, 3] RGB."""
    validation: NDArray[np.uint8]
    """[V, S, S, 3] RGB."""
    files: Mapping[str, Path]
    """By SHA-256; the first of several with the same content."""
    train_sha256: Sequence[str]
    validation_sha256: Sequence[str]
    n_duplicates: int
    """Files whose content was there already."""

    def validation_files(self) -> list[Path]:
        """In the order of `validation`."""
        return [self.files[sha256] for sha256 in self.validation_sha256]


def read_folder(folder: Path, connector: str) -> OkImages:
    """All images of a folder, which are taken for OK.

    Raises:
        ExportError: it is no folder.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder of OK images")
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]
    return OkImages(connector, paths, {}, str(folder))


def read_csv(file: Path, columns: Columns) -> dict[str, OkImages]:
    """The OK images of each connector of a CSV, by connector.

    Args:
        file: see `read_labelled`.
        columns: what its columns are called.

    Raises:
        ExportError: unreadable, a column is missing, or a row has no connector. What is wrong with one connector, such
            as an image that is OK in one row and not in another, is its `problem`.
    """
    try:
        rows = read_labelled(file, columns)
    except CsvError as error:
        raise ExportError(str(error)) from error
    found = {}
    for name in sorted({row.connector for row in rows}):
        own = [row for row in rows if row.connector == name]
        nameless = next((row for row in own if row.is_ok and not row.given), None)
        paths = list(dict.fromkeys(row.path for row in own if row.is_ok))
        others = {row.path: row.label for row in own if not row.is_ok}
        both = [path for path in paths if path in others]
        problem = None
        if nameless is not None:
            problem = f"{file}, line {nameless.line}: an OK row without an image path"
        elif both:
            problem = f"{file}: {both[0].name} of connector {name} is both OK and {others[both[0]]}"
        unused = Counter(row.label for row in own if not row.is_ok)
        found[name] = OkImages(name, paths, dict(unused), f"{file}, connector {name}", problem)
    return found


def load(images: OkImages, size: int, seed: int, validation_share: float) -> TrainingImages:
    """Read, decode and split the images, as the gateway would hand them to the network.

    The same content counts once, so that none is on both sides of the split; and it is the checksums in their order
    that are split, so that neither names nor the order of rows change what is learned.

    Args:
        images: whose.
        size: S.
        seed: of the split.
        validation_share: of the distinct images; at least one goes to each side.

    Raises:
        ExportError: an image cannot be read, there are too few, or they have a `problem`.
    """
    if images.problem is not None:
        raise ExportError(images.problem)
    pixels: dict[str, NDArray[np.uint8]] = {}
    files: dict[str, Path] = {}
    for path in images.paths:
        try:
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 not in files:
                files[sha256] = path
                pixels[sha256] = to_model_input(decode(data, path.name, read_header(data, path.name, _LIMITS)), size)
        except OSError as error:
            raise ExportError(f"{images.where}: {path} cannot be read: {error.strerror or error}") from error
        except GatewayError as error:
            raise ExportError(f"{images.where}: {error.message}") from error
    if len(pixels) < SMALLEST_OK:
        raise ExportError(
            f"{images.where}: {len(pixels)} different OK images; at least {SMALLEST_OK} are needed"
            " (some are held back to set quantiles and thresholds)"
        )
    ordered = sorted(pixels)
    held_back = min(max(1, round(validation_share * len(ordered))), len(ordered) - 1)
    chosen = {ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))[:held_back]}
    train = [sha256 for sha256 in ordered if sha256 not in chosen]
    validation = [sha256 for sha256 in ordered if sha256 in chosen]
    return TrainingImages(
        train=np.stack([pixels[sha256] for sha256 in train]),
        validation=np.stack([pixels[sha256] for sha256 in validation]),
        files=files,
        train_sha256=train,
        validation_sha256=validation,
        n_duplicates=len(images.paths) - len(pixels),
    )
