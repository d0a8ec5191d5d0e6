"""Clients of a gateway in a separate process: a given rate of inspections, or one after another.

    python -m tests.promises.load_generator PORT BODY --seconds 8 --rate 300     # whatever is answered
    python -m tests.promises.load_generator PORT BODY --seconds 4 --clients 4    # each waits for its answer

BODY is a file with a whole HTTP request. Prints a JSON list of [due, latency, status, Retry-After] in seconds.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

_CONNECT_S = 30
_ANSWER_S = 120


class Clients:
    """Kept connections and their answers."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[tuple[float, float, int, int]] = []

    async def ask(self, due: float) -> None:
        """Send the request and read its answer; status 0 stands for no answer."""
        try:
            status, retry_after = await asyncio.wait_for(self._exchange(), _ANSWER_S)
        except (OSError, EOFError, TimeoutError):
            status, retry_after = 0, 0
        self.answers.append((due, time.monotonic() - due, status, retry_after))

    async def _exchange(self) -> tuple[int, int]:
        if self._free:
            reader, writer = self._free.pop()
        else:
            connection = asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
            reader, writer = await asyncio.wait_for(connection, _CONNECT_S)
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            writer.close()
        else:
            self._free.append((reader, writer))
        return int(status.split()[1]), int(headers.get("retry-after", 0))


async def at_a_rate(clients: Clients, rate: float, seconds: float, seed: int) -> None:
    """Send requests at random moments (Poisson), without waiting for answers."""
    random_gaps = random.Random(seed)
    due = start = time.monotonic()
    asked = []
    while due < start + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        asked.append(asyncio.create_task(clients.ask(due)))
        due += random_gaps.expovariate(rate)
    await asyncio.gather(*asked)


async def one_after_another(clients: Clients, number: int, seconds: float) -> None:
    """Run several clients. Each waits for its answer before its next request."""
    ends = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < ends:
            await clients.ask(time.monotonic())

    await asyncio.gather(*(client() for _ in range(number)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("body", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    clients = Clients(given.port, given.body.read_bytes())
    if given.rate is not None:
        asyncio.run(at_a_rate(clients, given.rate, given.seconds, given.seed))
    else:
        asyncio.run(one_after_another(clients, given.clients, given.seconds))
    json.dump(clients.answers, sys.stdout)


if __name__ == "__main__":
    main()
