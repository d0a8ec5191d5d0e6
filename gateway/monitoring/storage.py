"""State of the models folder."""

from gateway.errors import GatewayError
from gateway.store.artifact_store import ArtifactStore


def write_problem(store: ArtifactStore) -> str | None:
    """Return why the models folder accepts no writes, or None. Writes and removes a small file."""
    try:
        store.check_writable()
    except (GatewayError, OSError) as error:
        return str(error)
    return None
