"""The gateway at an address: whether it answers, is ready, and knows the key."""

from collections.abc import Iterator

from patchcore_client import ConnectError, GatewayError, PatchcoreClient, PatchcoreError, Retries

from command_line.doctor.check import Check, note, ok, problem
from command_line.doctor.machine import version_of

_ABOUT = "gateway"


def address_checks(url: str | None, key: str | None) -> Iterator[Check]:
    """Ask a gateway. One at the default address may be absent.

    Args:
        url: its address; None is the default address.
        key: API key, if any.
    """
    try:
        client = PatchcoreClient(url, key, timeout_s=10, connect_timeout_s=3, retries=Retries(attempts=1))
    except ValueError as error:
        yield problem(_ABOUT, str(error), "Correct --url or PATCHCORE_URL.")
        return
    with client:
        try:
            health, ready = client.health(), client.ready()
        except ConnectError as error:
            remedy = "Start one with scripts/run or `patchcore serve`, or name its address with --url."
            yield (note if url is None else problem)(_ABOUT, str(error), remedy)
            return
        except PatchcoreError as error:
            yield problem(_ABOUT, str(error), "Is this the address of a gateway?")
            return
        said = f"version {health.version}, {health.runtime} on {health.device}, search {health.search}"
        own = version_of("patchcore-gateway")
        if own is not None and own != health.version:
            yield note(_ABOUT, f"{said}; this command line is {own}", "Install the same version on both sides.")
        else:
            yield ok(_ABOUT, said)
        if ready.error is not None:
            yield problem("readiness", ready.error.message, ready.error.hint)
        else:
            yield ok("readiness", f"engine {ready.engine}, storage {ready.storage}")
        for damage in ready.degraded:
            yield problem("damage", damage, "Fit this ROI again, or restore its folder from a backup.")
        try:
            yield ok("key", f"allows {len(client.list_rois().rois)} ROIs")
        except GatewayError as error:
            yield problem("key", error.message, error.hint)
