"""A check, and what it found."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found."""

    about: str
    """What was looked at, in a word or two."""
    state: State
    """`note` is something to know that stops nothing."""
    found: str
    remedy: str = ""
    """What to do, for a note or a problem."""

    def record(self) -> dict[str, Any]:
        """Return what JSON says of it."""
        return asdict(self)


def ok(about: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(about, "ok", found)


def note(about: str, found: str, remedy: str = "") -> Check:
    """Return a check that found something to know."""
    return Check(about, "note", found, remedy)


def problem(about: str, found: str, remedy: str) -> Check:
    """Return a check that found what must be mended."""
    return Check(about, "problem", found, remedy)
