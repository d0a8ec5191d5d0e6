"""What the asynchronous client waits with."""

from anyio import sleep
from anyio.to_thread import run_sync as in_thread

__all__ = ["in_thread", "sleep"]
