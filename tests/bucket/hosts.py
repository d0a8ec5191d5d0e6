"""Hosts with addresses of their own: network namespaces of Linux, made with `ip` of Debian's iproute2, as root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_PLANT = f"198.18.{os.getpid() % 256}"
"""Network of the clients: RFC 2544 keeps the addresses for tests of networks. Each test run has its own."""
_STORE = f"198.19.{os.getpid() % 256}"
"""Network of the bucket."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host with a link to the network of the clients, and one to that of the bucket."""

    name: str
    number: int
    switches: str

    @property
    def address(self) -> str:
        """As clients see it."""
        return f"{_PLANT}.{self.number}"

    @property
    def store_address(self) -> str:
        """As hosts see it over the network of the bucket."""
        return f"{_STORE}.{self.number}"

    @property
    def command(self) -> list[str]:
        """What a command begins with that runs on this host, as the same process."""
        return ["ip", "netns", "exec", self.name]

    def unplug(self) -> None:
        """Take the cable to the bucket off. No packet is refused; it gets no answer."""
        _ip("-n", self.switches, "link", "set", f"store{self.number}", "down")

    def plug_in(self) -> None:
        """Put it back."""
        _ip("-n", self.switches, "link", "set", f"store{self.number}", "up")


@contextmanager
def hosts(n: int) -> Iterator[list[Host]]:
    """Make hosts, and connect this one to both networks. Skips the test where that is not possible."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root, and ip of iproute2")
    prefix = f"pc{os.getpid()}"
    switches = f"{prefix}-lan"
    made = [Host(f"{prefix}-{number}", number, switches) for number in range(1, n + 1)]
    try:
        try:
            _make(switches, made, prefix)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
        yield made
    finally:
        for name in (switches, *(host.name for host in made)):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _make(switches: str, made: list[Host], prefix: str) -> None:
    """Two switches in a namespace; a link from each host, and from this one, to each of them."""
    _ip("netns", "add", switches)
    for network in ("plant", "store"):
        _ip("-n", switches, "link", "add", network, "type", "bridge")
        _ip("-n", switches, "link", "set", network, "up")
    for host in made:
        _ip("netns", "add", host.name)
        _ip("-n", host.name, "link", "set", "lo", "up")
    for network, addresses in (("plant", _PLANT), ("store", _STORE)):
        for host in made:
            _link(switches, network, host.number, f"{addresses}.{host.number}", ["netns", host.name], network)
        _link(switches, network, 254, f"{addresses}.254", [], f"{prefix}{network[0]}")


def _link(switches: str, network: str, number: int, address: str, where: list[str], name: str) -> None:
    port = f"{network}{number}"
    _ip(
        "-n",
        switches,
        "link",
        "add",
        port,
        "type",
        "veth",
        "peer",
        "name",
        name,
        *(where or ["netns", str(os.getpid())]),
    )
    _ip("-n", switches, "link", "set", port, "master", network, "up")
    on = ["-n", where[1]] if where else []
    _ip(*on, "address", "add", f"{address}/24", "dev", name)
    _ip(*on, "link", "set", name, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, cwd=Path("/"))
