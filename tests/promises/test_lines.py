"""A line that sends seldom is served beside a line that floods. Counts who is answered first; measures no time."""

import os
import signal
import socket
from contextlib import ExitStack
from http.client import HTTPResponse

import httpx

from tests.e2e.gateway_process import wait_until
from tests.e2e.held_request import in_flight
from tests.e2e.synthetic_images import png, steel

OK = [png(steel(seed)) for seed in range(3)]
FLOOD = 24


def test_a_quiet_line_is_answered_before_most_of_a_flood(launch):
    with launch("lines") as gateway:
        gateway.fit("lines", OK)
        require_quiet_line_in_turn(gateway)


def require_quiet_line_in_turn(gateway):
    form = {"role_id": "steel", "roi_id": "lines", "mm_per_px": "0.2"}
    url = f"http://127.0.0.1:{gateway.port}/infer"
    request = httpx.Request("POST", url, data=form, files={"image": ("roi.png", OK[0])})
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    whole = f"POST /infer HTTP/1.1\r\n{head}\r\n".encode() + request.read()
    seen = len(gateway.log.read_bytes())
    with ExitStack() as stack:
        # Without keys, a line is an address; all of 127.0.0.0/8 is this host.
        flood = [stack.enter_context(connected(gateway, "127.0.0.1")) for _ in range(FLOOD)]
        quiet = stack.enter_context(connected(gateway, "127.0.0.2"))
        for connection in (*flood, quiet):
            connection.sendall(whole[:-1])
        wait_until(lambda: in_flight(gateway, "inspect") == FLOOD + 1)
        # The gateway finds all last bytes at once, that of the quiet line last.
        os.kill(gateway.process.pid, signal.SIGSTOP)
        try:
            for connection in (*flood, quiet):
                connection.sendall(whole[-1:])
        finally:
            os.kill(gateway.process.pid, signal.SIGCONT)
        assert {status(connection) for connection in (*flood, quiet)} == {200}
    wait_until(lambda: len(answered(gateway, seen)) == FLOOD + 1)
    place = answered(gateway, seen).index("127.0.0.2")
    assert place < FLOOD // 2, f"{place} of the flood were answered before"


def connected(gateway, address):
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=600, source_address=(address, 0))


def status(connection):
    with HTTPResponse(connection) as response:
        response.begin()
        response.read()
        return response.status


def answered(gateway, since):
    """Return the clients of the inspections in the log, in the order of their answers."""
    lines = gateway.log.read_bytes()[since:].decode().splitlines()
    return [client for line in lines if "/infer" in line for client in ("127.0.0.1", "127.0.0.2") if client in line]
