"""Exit statuses, and errors that end a command."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command says to a script. Ctrl-C ends with 130."""

    DONE = 0
    NG = 1
    """A part is ng and `--fail-on-ng` was given, a check of `doctor` failed, or a deletion was declined."""
    USAGE = 2
    """The command was called in a wrong way."""
    FAILED = 3
    """The gateway refused or did not answer, or an image was not inspected."""


class CommandError(Exception):
    """Ends a command with a message.

    Attributes:
        status: exit status.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str = "", *, status: ExitStatus = ExitStatus.FAILED) -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint


class UsageError(CommandError):
    """The command was called in a wrong way."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, status=ExitStatus.USAGE)
