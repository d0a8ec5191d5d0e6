"""Clients that inspect one image all the time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from tests.e2e.gateway_process import Gateway


@contextmanager
def asking(gateway: Gateway, image: bytes, clients: int = 4) -> Iterator[list[httpx.Response]]:
    """Inspect an image in the ``with`` block, and collect the answers."""
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def keep_asking(_: int) -> None:
        while not stop.is_set():
            answers.append(gateway.post("/infer", "pad", [image], "image", fields={"heatmap": "none"}))

    with ThreadPoolExecutor(clients) as pool:
        done = pool.map(keep_asking, range(clients))
        try:
            yield answers
        finally:
            stop.set()
        list(done)
