"""State of the models folder or bucket."""

from gateway.errors import GatewayError
from gateway.store.artifact_store import ArtifactStore


def write_problem(store: ArtifactStore) -> str | None:
    """Return why the models folder or bucket accepts no writes, or None. Writes and removes a small file."""
    try:
        store.storage.check_writable()
    except (GatewayError, OSError) as error:
        return str(error)
    return None
