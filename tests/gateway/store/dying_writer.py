"""Write two files together, killed at each step: ``python -m tests.gateway.store.dying_writer FOLDER``.

A step is a system call that changes the disk. For each, a child process writes in a folder of its own and ends just
before the call. The writer before it has left one of the files.
"""

import functools
import itertools
import os
import sys
from pathlib import Path

from gateway.store.together import write_together

NAMES = [f"{letter * 64}.json" for letter in "ab"]
STEPS = ("fsync", "rename", "replace", "unlink")


def counted(at, call):
    """Wrap the calls in STEPS; before call number `at`, `call` is called."""
    numbers = itertools.count(1)

    def before(wrapped):
        @functools.wraps(wrapped)
        def step(*args, **kwargs):
            if next(numbers) == at:
                call()
            return wrapped(*args, **kwargs)

        return step

    return {name: before(getattr(os, name)) for name in STEPS}


def write(folder: Path) -> None:
    """Replace one file and add one."""
    write_together(folder, [(name, f"new {name[0]}".encode) for name in NAMES])


def main() -> None:
    for at in itertools.count(1):
        folder = Path(sys.argv[1]) / str(at)
        folder.mkdir()
        (folder / NAMES[0]).write_bytes(b"old a")
        child = os.fork()
        if child == 0:
            for name, step in counted(at, lambda: os._exit(9)).items():
                setattr(os, name, step)
            write(folder)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            break


if __name__ == "__main__":
    main()
