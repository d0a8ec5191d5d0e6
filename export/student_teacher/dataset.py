"""Find and read the OK images of a connector, by the labels of a CSV or from a folder. This module imports no torch.

The file of an image with another label is never opened.
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
from gateway.images.content import why_nothing_shows
from gateway.images.decoding import Limits, decode_picture, read_header, to_model_input

SMALLEST_OK = 10
"""With fewer images, the validation is too small for a threshold."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_LIMITS = Limits(max_bytes=2**28, max_pixels=10**8)


@dataclass(frozen=True)
class OkImages:
    """The files of one connector."""

    connector: str
    paths: Sequence[Path]
    unused: Mapping[str, int]
    """Number of rows with another label than OK, by label."""
    where: str
    """The source of the files, for messages."""
    problem: str | None = None
    """Why the files cannot be used, or None."""


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Decoded images for a training, without duplicates, in the order of their checksums."""

    train: NDArray[np.uint8]
    """[T, S, S, 3] RGB."""
    validation: NDArray[np.uint8]
    """[V, S, S, 3] RGB."""
    files: Mapping[str, Path]
    """Paths by SHA-256 of the file. Of several files with the same content, the first."""
    train_sha256: Sequence[str]
    validation_sha256: Sequence[str]
    n_duplicates: int
    """Number of files with the content of another file."""

    def validation_files(self) -> list[Path]:
        """Return the paths of the validation images, in the order of `validation`."""
        return [self.files[sha256] for sha256 in self.validation_sha256]


def is_image_name(name: str) -> bool:
    """Tell whether a file in a folder of images is one of them. macOS adds files such as ``._1.png``, which are not."""
    return Path(name).suffix.lower() in _SUFFIXES and not name.startswith(".")


def read_folder(folder: Path, connector: str) -> OkImages:
    """Return all images of a folder as OK images.

    Raises:
        ExportError: the path is not a folder.
    """
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder of OK images")
    paths = [path for path in sorted(folder.iterdir()) if is_image_name(path.name)]
    return OkImages(connector, paths, {}, str(folder))


def read_csv(file: Path, columns: Columns) -> dict[str, OkImages]:
    """Return the OK images of each connector of a CSV, by connector.

    Args:
        file: see `read_labelled`.
        columns: the names of its columns.

    Raises:
        ExportError: the file cannot be read, a column is missing, or a row has no connector. An error of one connector,
            such as an image with two labels, is its `problem`.
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
    """Read, decode and split the images, in the form in which the gateway passes them to the network.

    Duplicates count once, so that no content is on both sides of the split, also when one picture is in files of
    different formats. The split goes by the sorted checksums, so
    that neither names nor the order of rows change the training.

    Args:
        images: of one connector.
        size: S.
        seed: of the split.
        validation_share: share of the distinct images for validation. Each side gets at least one.

    Raises:
        ExportError: an image cannot be read or shows nothing, there are too few images, or they have a `problem`.
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
                picture = decode_picture(data, path.name, read_header(data, path.name, _LIMITS))
                nothing = why_nothing_shows(picture)
                if nothing is not None:
                    raise ExportError(f"{images.where}: {path} shows nothing ({nothing}): remove it")
                pixels[sha256] = to_model_input(picture.pixels, size)
        except OSError as error:
            raise ExportError(f"{images.where}: {path} cannot be read: {error.strerror or error}") from error
        except GatewayError as error:
            raise ExportError(f"{images.where}: {error.message}") from error
    pixels = _distinct(pixels)
    if len(pixels) < SMALLEST_OK:
        raise ExportError(
            f"{images.where}: {len(pixels)} different OK images; at least {SMALLEST_OK} are needed"
            " (some of them set quantiles and thresholds)"
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


def _distinct(pixels: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.uint8]]:
    """Keep one file of each picture: that with the smallest checksum."""
    kept: dict[bytes, str] = {}
    for sha256 in sorted(pixels):
        kept.setdefault(hashlib.sha256(pixels[sha256].tobytes()).digest(), sha256)
    return {sha256: pixels[sha256] for sha256 in kept.values()}
