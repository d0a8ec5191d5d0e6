"""Read a CSV with the connector and the label of images. This module opens no image and does not import torch."""

import csv
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DELIMITERS = ",;\t"


class CsvError(ValueError):
    """A CSV that cannot be read. The message names the file."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Accepted names of the columns, and the label of OK images. Upper and lower case are equal."""

    image: tuple[str, ...] = ("image path", "image_path", "path", "image")
    connector: tuple[str, ...] = ("connector", "roi", "roi_id")
    label: tuple[str, ...] = ("label",)
    ok: str = "OK"


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One line of a CSV."""

    line: int
    given: str
    """The path as written in the CSV. It may be empty."""
    path: Path
    connector: str
    label: str
    is_ok: bool


def read_labelled(file: Path, columns: Columns) -> list[LabelledRow]:
    """Read the lines of a CSV.

    Args:
        file: in UTF-8, with a header. Commas, semicolons or tabs separate the columns. Image paths are relative to its
            folder, or else to the current folder.
        columns: the names of its columns.

    Raises:
        CsvError: the file cannot be read, a column is missing, or a row has no connector.
    """
    rows = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            delimiter = _delimiter(stream.readline(), columns)
            stream.seek(0)
            lines = csv.DictReader(stream, delimiter=delimiter)
            image, connector, label = _found(file, lines.fieldnames or (), columns)
            for line in lines:
                given, whose, said = ((line[column] or "").strip() for column in (image, connector, label))
                if not (given or whose or said):
                    continue
                if not whose:
                    raise CsvError(f"{file}, line {lines.line_num}: {given or said!r} has no connector")
                is_ok = said.casefold() == columns.ok.casefold()
                rows.append(LabelledRow(lines.line_num, given, _located(file, given), whose, said, is_ok))
    except OSError as error:
        raise CsvError(f"{file}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CsvError(f"{file}: not a CSV in UTF-8 ({error})") from error
    return rows


def add_column_arguments(parser: ArgumentParser | _ArgumentGroup) -> None:
    """Add options for other column names."""
    default = Columns()
    for name in ("image", "connector", "label"):
        names = getattr(default, name)
        shown = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        parser.add_argument(f"--{name}-column", metavar="NAME", help=f"name of this column (default: {shown})")
    parser.add_argument(
        "--ok-label", default=default.ok, metavar="NAME", help="label of OK images (default: %(default)s)"
    )


def columns_from(parsed: Namespace) -> Columns:
    """Return the values of the options that `add_column_arguments` adds."""
    given = {name: getattr(parsed, f"{name}_column") for name in ("image", "connector", "label")}
    return Columns(**{name: (value,) for name, value in given.items() if value is not None}, ok=parsed.ok_label)


def _delimiter(header: str, columns: Columns) -> str:
    """Return the delimiter with which the columns are found, else the most frequent one. Spreadsheets use several."""
    for delimiter in _DELIMITERS:
        if None not in _matches(next(csv.reader([header], delimiter=delimiter), []), columns):
            return delimiter
    return max(_DELIMITERS, key=header.count)


def _found(file: Path, header: Sequence[str], columns: Columns) -> list[str]:
    found = _matches(header, columns)
    missing = [f"no column {names[0]!r}" for names, there in zip(_wanted(columns), found, strict=True) if there is None]
    if missing:
        raise CsvError(
            f"{file}: {' and '.join(missing)}; its columns are {', '.join(header) or 'none'}."
            " Give other names with --image-column, --connector-column, --label-column"
        )
    return [there for there in found if there is not None]


def _matches(header: Sequence[str], columns: Columns) -> list[str | None]:
    """Return the names in the header for image, connector and label, None for a missing one."""
    known = {column.strip().casefold(): column for column in reversed(header)}
    return [
        next((known[name] for name in (n.strip().casefold() for n in names) if name in known), None)
        for names in _wanted(columns)
    ]


def _wanted(columns: Columns) -> tuple[tuple[str, ...], ...]:
    return columns.image, columns.connector, columns.label


def _located(file: Path, given: str) -> Path:
    beside = file.parent / given
    return Path(given) if given and not beside.is_file() and Path(given).is_file() else beside
