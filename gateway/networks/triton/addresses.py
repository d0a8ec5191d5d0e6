"""The addresses of Triton servers behind a name, such as a headless Service of Kubernetes."""

import asyncio
import socket

DNS = "dns:///"
_TIMEOUT_S = 5.0


async def resolve(target: str) -> dict[str, str]:
    """Return all addresses of a name now.

    Args:
        target: ``dns:///NAME:PORT``.

    Returns:
        The name, by address (``IP:PORT``), in the resolver's order.

    Raises:
        OSError: the name has no address, or the resolver does not answer.
    """
    name, _, port = target.removeprefix(DNS).rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            found = await loop.getaddrinfo(
                name.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
    except TimeoutError as error:
        raise OSError(f"the resolver did not answer within {_TIMEOUT_S:g} s") from error
    hosts = [str(each[4][0]) for each in found]
    return {f"[{host}]:{port}" if ":" in host else f"{host}:{port}": name for host in hosts}
