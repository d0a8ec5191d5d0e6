"""A program that is killed during a write: ``python -m tests.promises.dying STEP whole|torn MODULE …``.

A step is a system call that changes the disk. Just before the n-th step, the process sends SIGKILL to itself.
``torn`` is the negative control: files are replaced in place, half by half, and the steps are the moments between the
halves of ``current``.
"""

import functools
import itertools
import os
import runpy
import signal
import sys
from pathlib import Path

from gateway.store.manifest import CURRENT

_STEPS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")


def _dying(step: int):
    steps = itertools.count(1)

    def die_in_time() -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return die_in_time


def _before(die_in_time, call):
    @functools.wraps(call)
    def wrapped(*args, **kwargs):
        die_in_time()
        return call(*args, **kwargs)

    return wrapped


def _torn_replace(die_in_time):
    def replace(source, target):
        data = Path(source).read_bytes()
        with Path(target).open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            if Path(target).name == CURRENT:
                die_in_time()
            file.write(data[len(data) // 2 :])
        Path(source).unlink()

    return replace


if __name__ == "__main__":
    step, how, module, *arguments = sys.argv[1:]
    die = _dying(int(step))
    if how == "torn":
        os.replace = _torn_replace(die)
    else:
        for name in _STEPS:
            setattr(os, name, _before(die, getattr(os, name)))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
