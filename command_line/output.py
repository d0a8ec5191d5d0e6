"""What commands print: results on stdout, as tables or JSON; messages and progress on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_PIPE_WIDTH = 10_000

messages = Console(stderr=True, markup=False, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print a message on stderr."""
    messages.print("\n".join(map(printable, text.splitlines())), soft_wrap=True)


def line(text: str) -> None:
    """Print a line of a result on stdout."""
    sys.stdout.write(printable(text) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout: with rules on a terminal, as plain columns into a pipe."""
    console = Console(markup=False, highlight=False, emoji=False)
    is_terminal = console.is_terminal
    if not is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=_PIPE_WIDTH)
    drawn = Table(box=box.SIMPLE_HEAD if is_terminal else None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(cell(value) for value in row))
    console.print(drawn)


def cell(value: Any) -> str:
    """Return a value as a table shows it: numbers with four significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    return printable(str(value))


def printable(text: str) -> str:
    """Return a text without control characters, which a name from elsewhere could steer the terminal with.

    >>> printable("part\\x1b[2J.png")
    'part\\\\x1b[2J.png'
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_json(answer: BaseModel | dict[str, Any]) -> None:
    """Print an answer as indented JSON on stdout."""
    text = answer.model_dump_json(indent=2) if isinstance(answer, BaseModel) else json.dumps(answer, indent=2)
    sys.stdout.write(text + "\n")


def json_line(record: dict[str, Any]) -> None:
    """Print a record as one line of JSON on stdout, at once."""
    sys.stdout.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def progress(*, counts: bool = True) -> Progress:
    """Return a progress bar on stderr, which shows nothing where that is no terminal.

    Args:
        counts: whether the number of steps is known; else a spinner shows that something goes on.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) if counts else (SpinnerColumn(),)
    return Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        TimeElapsedColumn(),
        console=messages,
        transient=True,
        disable=not messages.is_terminal,
        redirect_stdout=sys.stdout.isatty(),
    )
