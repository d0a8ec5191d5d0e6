"""Read a data set: a folder in MVTec layout, or a CSV of images, connectors and labels."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from export.labelled_csv import Columns, CsvError, read_labelled
from export.student_teacher.dataset import is_image_name

GOOD = "good"
KO_LABELS = ("KO", "NG")
_COLUMNS = Columns()


class DataError(ValueError):
    """A data set is unusable. The message names the file."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to inspect, with its label and mask."""

    path: Path
    kind: str
    """`good`, or the type of defect."""
    mask: Path | None = None
    """Mask of the defect, if there is one."""

    @property
    def is_ng(self) -> bool:
        """Whether the image should be rejected."""
        return self.kind != GOOD

    @property
    def name(self) -> str:
        """Folder and file name, for a table."""
        return f"{self.path.parent.name}/{self.path.name}"

    def truth(self, size_wh: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the mask of the defect, bool [H, W]: empty for a good image, None if no defect is drawn.

        Raises:
            DataError: the mask cannot be read, or is of another size than the image.
        """
        if not self.is_ng:
            return np.zeros(size_wh[::-1], np.bool_)
        if self.mask is None:
            return None
        drawn = cv2.imread(str(self.mask), cv2.IMREAD_GRAYSCALE)
        if drawn is None:
            raise DataError(f"{self.mask} cannot be read")
        height, width = drawn.shape
        if (width, height) != size_wh:
            raise DataError(f"{self.mask} is {width} × {height}, its image {size_wh[0]} × {size_wh[1]}")
        return np.asarray(drawn > 0, np.bool_) if drawn.any() else None


@dataclass(frozen=True, slots=True)
class DataSet:
    """OK images to learn and images to inspect, for one ROI."""

    name: str
    train: Sequence[Path]
    test: Sequence[Sample]
    ignored: dict[str, int] = field(default_factory=dict)
    """Number of ignored rows, by label."""
    n_seen: int = 0
    """Images to inspect that equal learned ones. They are only counted: a folder is used as it is."""

    @property
    def has_masks(self) -> bool:
        """Whether pixel metrics are possible: at least one defect is drawn."""
        return any(sample.mask is not None for sample in self.test)

    def counts(self) -> dict[str, int]:
        """Number of images to inspect by kind, good ones first."""
        found = Counter(sample.kind for sample in self.test)
        return {kind: found[kind] for kind in sorted(found, key=lambda kind: (kind != GOOD, kind))}

    def checksum(self) -> str:
        """SHA-256 over all images and masks in order. It identifies the data of a figure."""
        digest = hashlib.sha256()
        for path in (*self.train, *(p for s in self.test for p in (s.path, s.mask) if p is not None)):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def read_folder(folder: Path) -> DataSet:
    """Read the MVTec layout: `train/good`, `test/<type>`, and optional `ground_truth/<type>/<name>_mask.png`.

    Raises:
        DataError: no good image to learn, or none to inspect.
    """
    train = _images(folder / "train" / GOOD)
    test = [
        Sample(path, kind.name, _mask(folder, kind.name, path))
        for kind in sorted(folder.glob("test/*/"))
        for path in _images(kind)
    ]
    learned = set(map(_sha256, train))
    n_seen = sum(_sha256(sample.path) in learned for sample in test)
    return _checked(DataSet(folder.resolve().name, train, test, n_seen=n_seen), str(folder))


def read_csv(
    file: Path,
    ko_labels: Iterable[str] = KO_LABELS,
    *,
    connector: str | None = None,
    test_share: float = 0.3,
    seed: int = 0,
    columns: Columns = _COLUMNS,
) -> list[DataSet]:
    """Read a CSV with the columns image path, connector, label: one data set per connector.

    OK images are split by chance, each content once; all NG images are inspected. Labels that are neither OK nor NG are
    left out and counted, and those of occlusions are left out whatever `ko_labels` says.

    Args:
        file: see `read_labelled`.
        ko_labels: labels of NG images.
        connector: only this one.
        test_share: of the OK images that are inspected instead of learned.
        seed: of the split.
        columns: what its columns are called.

    Raises:
        DataError: a column or an image is missing, a connector has too few images, or one is both OK and NG.
    """
    rows = read_rows(file, ko_labels, columns)
    connectors = sorted({row.connector for row in rows} if connector is None else {connector})
    if not connectors:
        raise DataError(f"{file}: no row")
    found = []
    for name in connectors:
        own = _distinct(file, [row for row in rows if row.connector == name])
        ok = [row.path for row in own if row.is_ok]
        ignored = Counter(row.label for row in own if row.is_ok is None)
        held_back = max(1, round(test_share * len(ok)))
        order = np.random.default_rng(seed).permutation(len(ok))
        unseen = {int(i) for i in order[:held_back]}
        train = [path for i, path in enumerate(ok) if i not in unseen]
        test = [Sample(path, GOOD) for i, path in enumerate(ok) if i in unseen]
        test += [Sample(row.path, row.label) for row in own if row.is_ok is False]
        found.append(_checked(DataSet(name, train, test, dict(ignored)), f"{file}, connector {name}"))
    return found


def _distinct(file: Path, rows: Sequence["Row"]) -> list["Row"]:
    """Keep each OK content once, so that no learned image is inspected as unseen.

    Raises:
        DataError: the same image is OK in one row and NG in another.
    """
    first: dict[str, Row] = {}
    distinct = []
    for row in rows:
        if row.is_ok is None:
            distinct.append(row)
            continue
        before = first.setdefault(_sha256(row.path), row)
        if before.is_ok is not row.is_ok:
            one, other = (f"{each.path.name} ({each.label})" for each in (before, row))
            raise DataError(f"{file}, connector {row.connector}: {one} and {other} are the same image")
        if before is row or not row.is_ok:
            distinct.append(row)
    return distinct


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a CSV."""

    path: Path
    connector: str
    label: str
    is_ok: bool | None
    """None for a label that is neither OK nor NG."""


def read_rows(
    file: Path, ko_labels: Iterable[str] = KO_LABELS, columns: Columns = _COLUMNS, *, need_images: bool = True
) -> list[Row]:
    """Read the lines of a CSV and tell OK, NG (`ko_labels`) and the others apart; case does not matter.

    Args:
        file: see `read_labelled`.
        ko_labels: labels of NG images; those of occlusions are neither, whatever this says.
        columns: what its columns are called.
        need_images: refuse an OK or NG image that is not there.

    Raises:
        DataError: unreadable, a column or an image is missing.
    """
    ko = {label.strip().casefold() for label in ko_labels}
    try:
        lines = read_labelled(file, columns)
    except CsvError as error:
        raise DataError(str(error)) from error
    rows = []
    for line in lines:
        label = line.label.casefold()
        is_ng = label in ko and "occlu" not in label
        is_ok = line.is_ok if line.is_ok or is_ng else None
        if need_images and is_ok is not None and not line.path.is_file():
            raise DataError(f"{file}, line {line.line}: {line.given or 'no image path'} does not exist")
        rows.append(Row(line.path, line.connector, line.label, is_ok))
    return rows


def _checked(data: DataSet, where: str) -> DataSet:
    if not data.train:
        raise DataError(f"{where}: no good image to learn from")
    if not any(sample.is_ng for sample in data.test) or all(sample.is_ng for sample in data.test):
        raise DataError(f"{where}: both good and bad images are needed to inspect")
    return data


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if is_image_name(path.name)]


def _mask(folder: Path, kind: str, image: Path) -> Path | None:
    path = folder / "ground_truth" / kind / f"{image.stem}_mask.png"
    return path if kind != GOOD and path.is_file() else None
