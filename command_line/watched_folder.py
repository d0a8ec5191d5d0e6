"""A folder that a camera writes to: which of its files are complete, and new."""

from dataclasses import dataclass
from pathlib import Path

from command_line.files import images_in, name_below
from command_line.results import modified_text


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells one content of a file from another, without reading it."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(slots=True)
class _Seen:
    state: FileState
    since_s: float
    """When the file was first seen in this state, on a monotonic clock."""
    is_done: bool = False
    is_postponed: bool = False


class WatchedFolder:
    """Says which files of a folder are ready to be inspected, each content once.

    A file is ready when its size and its time of change have stayed the same for `settle_s`. A file that changes later
    becomes ready again. A file that is renamed after it was inspected does not.
    """

    def __init__(self, folder: Path, *, settle_s: float, patience_s: float, leave_out: Path | None = None) -> None:
        """Look at nothing yet.

        Args:
            folder: absolute; looked through at any depth.
            settle_s: how long a file must stay as it is, in seconds.
            patience_s: how long a postponed file must stay as it is, in seconds.
            leave_out: a folder below it to leave out, absolute.
        """
        self._folder = folder
        self._settle_s = settle_s
        self._patience_s = patience_s
        self._leave_out = leave_out
        self._seen: dict[Path, _Seen] = {}

    def skip_existing(self, only: set[tuple[str, str]] | None = None) -> None:
        """Count files that exist now as inspected.

        Args:
            only: names (`name_below`) and times of change (`modified_text`) of the files to count; None counts all.
        """
        for path, state in self._states().items():
            if only is None or (name_below(self._folder, path), modified_text(state.mtime_ns)) in only:
                self._seen[path] = _Seen(state, 0, is_done=True)

    def ready(self, now_s: float) -> list[Path]:
        """Look at the folder, and return the files that are ready and not inspected, the oldest change first.

        Args:
            now_s: the time on a monotonic clock.
        """
        states = self._states()
        gone = [path for path in self._seen if path not in states]
        renamed = {seen.state for seen in map(self._seen.pop, gone) if seen.is_done}
        found = []
        for path, state in states.items():
            seen = self._seen.get(path)
            if seen is None or seen.state != state:
                self._seen[path] = _Seen(state, now_s, is_done=seen is None and state in renamed)
            elif not seen.is_done and now_s - seen.since_s >= self._wait_s(seen):
                found.append(path)
        return sorted(found, key=lambda path: (states[path].mtime_ns, path))

    def done(self, path: Path) -> None:
        """Count a file as inspected, until it changes."""
        self._seen[path].is_done = True

    def postpone(self, path: Path) -> bool:
        """Wait longer for a file that looks incomplete. Return False if it was postponed before and has not changed."""
        seen = self._seen[path]
        was_postponed, seen.is_postponed = seen.is_postponed, True
        return not was_postponed

    def _wait_s(self, seen: _Seen) -> float:
        return max(self._patience_s, self._settle_s) if seen.is_postponed else self._settle_s

    def _states(self) -> dict[Path, FileState]:
        states = {}
        for entry in images_in(self._folder, self._leave_out):
            try:
                stat = entry.stat()
            except OSError:  # gone since the folder was listed
                continue
            states[Path(entry.path)] = FileState(stat.st_size, stat.st_mtime_ns, entry.inode())
        return states
