"""Whether the conditional writes of a bucket hold, with writers at the same moment.

Some stores that speak S3 ignore the conditions, or check them before they write and not at once. Over these, two
gateways would overwrite each other without noticing.
"""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Barrier

from gateway.errors import GatewayError
from gateway.store.bucket.objects import LostRaceError, Objects, Tag
from gateway.store.place import UnsuitableStorageError

_WRITERS = 4


def require_conditional_writes(objects: Objects) -> None:
    """Let writers race for one object, to create it and to replace it. Of each race, exactly one may win.

    Raises:
        UnsuitableStorageError: a write went through that should not.
        StorageFullError: the bucket accepts no writes.
        StorageUnavailableError: the bucket does not answer.
    """
    path = f"probe/{uuid.uuid4().hex}"
    with ThreadPoolExecutor(_WRITERS) as pool:
        try:
            tag = _winner(pool, objects, path, "If-None-Match", partial(objects.create, path))
            tag = _winner(pool, objects, path, "If-Match", partial(objects.exchange, path, tag=tag))
            if objects.get(path).tag.e_tag != tag.e_tag:
                raise UnsuitableStorageError(_cannot_be_used(objects, "the winner of a race was overwritten"))
        finally:
            with suppress(GatewayError):  # of the first one, which is raised
                objects.delete([path])


def _winner(
    pool: ThreadPoolExecutor, objects: Objects, path: str, condition: str, write: Callable[[bytes], Tag]
) -> Tag:
    barrier = Barrier(_WRITERS)
    bodies = [uuid.uuid4().bytes for _ in range(_WRITERS)]

    def attempt(body: bytes) -> Tag | None:
        barrier.wait()
        try:
            return write(body)
        except LostRaceError:
            return None

    tags = [tag for tag in pool.map(attempt, bodies) if tag is not None]
    if not tags:  # perhaps the winner's answer was lost: obstore then repeats its PUT, which loses against itself
        with suppress(FileNotFoundError):
            found = objects.get(path)
            if found.data in bodies:
                return found.tag
    if len(tags) != 1:
        said = f"{len(tags)} of {_WRITERS} writers at the same moment went through on one condition {condition}"
        raise UnsuitableStorageError(_cannot_be_used(objects, said))
    return tags[0]


def _cannot_be_used(objects: Objects, why: str) -> str:
    return (
        f"GATEWAY_MODELS_DIR: {objects.url} cannot be used: {why}, and exactly one may. Use a store whose conditional "
        "PUT holds, such as S3, Google Cloud Storage, Azure or MinIO, or a folder"
    )
