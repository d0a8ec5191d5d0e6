"""Lists that one setting holds as text, separated by commas."""

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network


def client_keys(text: str) -> Iterator[tuple[IPv4Network | IPv6Network, str]]:
    """Yield the parts of ``GATEWAY_GUI_CLIENTS``.

    Raises:
        ValueError: a part is not ``CIDR=NAME``.
    """
    for part in filter(None, map(str.strip, text.split(","))):
        cidr, _, name = map(str.strip, part.partition("="))
        try:
            network = ip_network(cidr)
        except ValueError as error:
            raise ValueError(f"{part!r}: {error}; expected CIDR=NAME, such as 10.0.3.0/24=desktop") from None
        if not name:
            raise ValueError(f"{part!r}: no name of an API key; expected CIDR=NAME, such as 10.0.3.0/24=desktop")
        yield network, name


def triton_targets(url: str) -> tuple[str, ...]:
    """Return the parts of ``GATEWAY_TRITON_URL``."""
    return tuple(part.strip() for part in url.split(","))
