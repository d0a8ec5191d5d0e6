"""The result of one image, as CSV, as JSON, as a line, and as an overlay."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from patchcore_client import GatewayError, Inspection, PatchcoreError

from command_line.exits import UsageError
from command_line.output import cell

COLUMNS = (
    "file",
    "modified",
    "time",
    "verdict",
    "score",
    "threshold",
    "peak",
    "peak_threshold",
    "regions",
    "area_mm2",
    "version",
    "error",
    "warnings",
)


@dataclass(frozen=True, slots=True)
class Result:
    """An inspected image, or the error that it was not inspected for."""

    name: str
    """Path below the folder, with slashes."""
    modified: str
    """When the file changed last, as `modified_text` writes it."""
    outcome: Inspection | PatchcoreError
    time: datetime

    @property
    def verdict(self) -> str:
        """The verdict, or `error`."""
        return self.outcome.verdict if isinstance(self.outcome, Inspection) else "error"

    def inspection(self) -> Inspection:
        """Return the answer.

        Raises:
            PatchcoreError: the image was not inspected.
        """
        if isinstance(self.outcome, PatchcoreError):
            raise self.outcome
        return self.outcome

    def row(self) -> list[Any]:
        """Return the values of the columns of the CSV file."""
        head = [self.name, self.modified, self.time.isoformat(timespec="milliseconds")]
        found = self.outcome
        if not isinstance(found, Inspection):
            return [*head, *[""] * (len(COLUMNS) - 5), str(found), ""]
        return [
            *head,
            found.verdict,
            found.score,
            found.threshold,
            found.peak,
            found.peak_threshold,
            len(found.regions),
            area_mm2(found),
            found.version,
            "",
            "; ".join(found.warnings),
        ]

    def record(self) -> dict[str, Any]:
        """Return what a line of JSON says: the answer without its heatmap, or the error."""
        head = {"file": self.name, "modified": self.modified, "time": self.time.isoformat(timespec="milliseconds")}
        found = self.outcome
        if isinstance(found, Inspection):
            return {**head, **found.model_dump(mode="json", exclude={"heatmap_png_base64"})}
        if isinstance(found, GatewayError):
            return {**head, "error": {"code": found.code, "message": found.message, "hint": found.hint}}
        return {**head, "error": {"code": type(found).__name__, "message": str(found), "hint": ""}}

    def line(self) -> str:
        """Return a line for people."""
        found = self.outcome
        if not isinstance(found, Inspection):
            return f"{'error':<12} {self.name}: {found}"
        n = len(found.regions)
        regions = f"{n} region{'s' * (n != 1)}, {area_mm2(found):.1f} mm²" if n else ""
        numbers = f"score {cell(found.score):<7} peak {cell(found.peak):<7}"
        return f"{found.verdict:<12} {numbers} {self.name}  {regions}".rstrip()


def counted(verdicts: Counter[str]) -> str:
    """Return how many images have which verdict.

    >>> counted(Counter({"ok": 3, "ng": 1}))
    '4 images: 3 ok, 1 ng'
    """
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    n = verdicts.total()
    return f"{n} image{'s' * (n != 1)}{': ' * bool(counts)}{counts}"


def area_mm2(found: Inspection) -> float:
    """Return the area of all regions together."""
    return round(sum(region.area_mm2 for region in found.regions), 3)


def modified_text(mtime_ns: int) -> str:
    """Return the time of a file's last change, UTC, to the microsecond: the same text for the same file every time.

    >>> modified_text(1_700_000_000_123_456_789)
    '2023-11-14T22:13:20.123456+00:00'
    """
    seconds, rest = divmod(mtime_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000).isoformat(timespec="microseconds")


class CsvFile:
    """Results in a CSV file, one row each, written at once: what is done stays when the command ends."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._writer = csv.writer(file)

    def write(self, values: list[Any]) -> None:
        """Write a row."""
        self._writer.writerow(values)
        self._file.flush()


@contextmanager
def csv_file(path: Path, *, append: bool = False) -> Iterator[CsvFile]:
    """Open a CSV file of results, with the columns as its first row.

    Args:
        path: the file; a new one replaces an existing file unless `append`.
        append: keep its rows. A last row that is incomplete, because a process was killed, is ended.

    Raises:
        UsageError: the file cannot be written, or has other columns.
    """
    try:
        existing = path.read_text("utf-8", "replace") if append and path.is_file() else ""
        if existing and next(csv.reader(io.StringIO(existing)), None) != list(COLUMNS):
            raise UsageError(f"{path}: has other columns than {', '.join(COLUMNS)}", "Name another file.")
        file = path.open("a" if append else "w", encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    with file:
        if existing and not existing.endswith("\n"):
            file.write("\n")
        written = CsvFile(file)
        if not existing:
            written.write(list(COLUMNS))
        yield written


def inspected_before(path: Path) -> set[tuple[str, str]]:
    """Return name and time of change of each file that a CSV file has a result for."""
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return {(row["file"], row["modified"]) for row in csv.DictReader(file) if row.get("warnings") is not None}
