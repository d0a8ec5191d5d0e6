"""What the synchronous client waits with."""

from collections.abc import Callable
from time import sleep
from typing import TypeVar

__all__ = ["in_thread", "sleep"]

T = TypeVar("T")


def in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Call a function in this thread."""
    return function(*arguments)
