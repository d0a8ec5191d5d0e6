"""The objects of a bucket, through obstore, with the errors of the store."""

import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotModifiedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from gateway.errors import GatewayError, StorageFullError, StorageUnavailableError

if TYPE_CHECKING:  # obstore has these names for type checkers alone
    from obstore.store import ClientConfig, ObjectStore

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 5
_SHORT = timedelta(seconds=4)
"""For pointers and other small objects: an inspection may wait for one."""
_LONG = timedelta(seconds=120)
_CONNECT = timedelta(seconds=2)
_PAUSE_S = 2.0
"""While the bucket does not answer, one reader at a time asks, this long after the one before."""
_NO_BUCKET = "there is no such bucket"
_TEMPORARY = ("408", "409", "429")
_REFUSED = re.compile(r"status(?: code)?:? (4\d\d|507)")
_OF_A_ROLE = re.compile(r"/latest/(?:api/token|meta-data)|/computeMetadata/|/metadata/identity")
"""Where obstore asks for the credentials of the machine, if the environment has none."""
_SILENT = "does not answer"
_NO_CREDENTIALS = "is not asked: there are no credentials, neither in the environment nor by a role of this machine"


_CHECK_CREDENTIALS = "Check that the bucket exists, and the credentials in the gateway's environment."


class LostRaceError(Exception):
    """The object is not what the condition of a write says."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What the condition of a write names an object by: S3 and Azure take the ETag, Google the version."""

    e_tag: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The content of an object, and what a later condition names it by."""

    data: bytes
    tag: Tag


@dataclass(frozen=True, slots=True)
class Listed:
    """An object in a list."""

    path: str
    size: int
    e_tag: str
    modified: datetime


class Objects:
    """The objects below a URL. Every method blocks and is thread-safe.

    Credentials, region and endpoint come from the usual variables of the environment, or from the role of the machine.
    Messages and logs have the URL without its query, and never what the server said: that may hold a signature.
    """

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

        Raises:
            ValueError: the URL or a variable of the environment cannot be used.
        """
        self.url = url.partition("?")[0]
        try:
            self._short = _store(url, _SHORT, retries=1)
            self._long = _store(url, _LONG, retries=3)
            self._reading = _store(url, _LONG, retries=1, read_timeout=_SHORT)  # a stalled download is given up
        except BaseError as error:
            raise ValueError(f"{self.url}: {type(error).__name__}: {_first_line(error)}") from None
        self._is_silent = False
        self._why = _SILENT
        self._next_at = 0.0
        self._lock = threading.Lock()

    @property
    def is_silent(self) -> bool:
        """Whether the last request had no answer."""
        return self._is_silent

    def gets_turn(self) -> bool:
        """Return whether to ask now. While the bucket does not answer, one caller at a time is told so.

        The others must not wait: a network that loses packets costs each request its whole timeout.
        """
        with self._lock:
            if self._is_silent:
                now = time.monotonic()
                if now < self._next_at:
                    return False
                self._next_at = now + 2 * _SHORT.total_seconds()  # unless its answer comes earlier
            return True

    def require_answers(self) -> None:
        """Raise at once while the bucket does not answer, unless it is time to ask again.

        Raises:
            StorageUnavailableError: the bucket does not answer.
        """
        if not self.gets_turn():
            raise self.unavailable()

    def unavailable(self) -> StorageUnavailableError:
        """Return the error of a bucket that does not answer."""
        hint = _CHECK_CREDENTIALS if self._why == _NO_CREDENTIALS else None
        return StorageUnavailableError(f"{self.url} {self._why}", hint, retry_after_s=_RETRY_AFTER_S)

    def get(self, path: str) -> Body:
        """Return a small object.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("read"):
            result = obstore.get(self._short, path)
            return Body(bytes(result.bytes()), _tag(result.meta))

    def get_changed(self, path: str, tag: Tag) -> Body | None:
        """Return a small object if it is another than the one known by its tag, else None.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("read"):
            try:
                result = obstore.get(self._short, path, options={"if_none_match": tag.e_tag})
                return Body(bytes(result.bytes()), _tag(result.meta))
            except NotModifiedError:
                return None

    def get_large(self, path: str) -> bytes:
        """Return an object of any size.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("read"):
            return bytes(obstore.get(self._reading, path).bytes())

    def put(self, path: str, data: bytes) -> None:
        """Write an object of any size. Nobody else writes this name.

        Raises:
            StorageFullError: the bucket accepts no writes.
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("write"):
            obstore.put(self._long, path, data)

    def create(self, path: str, data: bytes) -> Tag:
        """Write a small object that does not exist yet. Return its tag.

        Raises:
            LostRaceError: it exists.
            StorageFullError: the bucket accepts no writes.
            StorageUnavailableError: the bucket does not answer. The object may exist or not.
        """
        with self._asking("write"):
            try:
                return _tag(obstore.put(self._short, path, data, mode="create", use_multipart=False))
            except BaseError as error:
                raise _lost(path, error) from None

    def exchange(self, path: str, data: bytes, tag: Tag) -> Tag:
        """Write a small object in the place of the one with a tag. Return its tag.

        Raises:
            LostRaceError: it is another one.
            StorageFullError: the bucket accepts no writes.
            StorageUnavailableError: the bucket does not answer. The object may be the old or the new one.
        """
        with self._asking("write"):
            try:
                mode: obstore.UpdateVersion = {"e_tag": tag.e_tag}
                if tag.version is not None:
                    mode["version"] = tag.version
                return _tag(obstore.put(self._short, path, data, mode=mode, use_multipart=False))
            except FileNotFoundError:
                raise LostRaceError(path) from None
            except BaseError as error:
                raise _lost(path, error) from None

    def below(self, prefix: str) -> list[Listed]:
        """Return all objects below a prefix that ends with a slash, sorted by path.

        Raises:
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("list"):
            found = [meta for chunk in obstore.list(self._short, prefix) for meta in chunk]
        return sorted(
            (Listed(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"]) for meta in found),
            key=lambda each: each.path,
        )

    def modified(self, path: str) -> datetime:
        """Return when an object was written, by the clock of the bucket.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailableError: the bucket does not answer.
        """
        with self._asking("read"):
            return obstore.head(self._short, path)["last_modified"]

    def now(self) -> datetime:
        """Return the time by the clock of the bucket, which stamps its objects.

        Raises:
            StorageFullError: the bucket accepts no writes.
            StorageUnavailableError: the bucket does not answer.
        """
        path = f"probe/{uuid.uuid4().hex}"
        self.put(path, b"now")
        modified = self.modified(path)
        self.delete([path])
        return modified

    def delete(self, paths: list[str]) -> None:
        """Remove objects. One that is missing is no error.

        Raises:
            StorageFullError: the bucket accepts no writes.
            StorageUnavailableError: the bucket does not answer.
        """
        if not paths:
            return
        with self._asking("write"):
            try:
                obstore.delete(self._long, paths)
            except FileNotFoundError:  # S3 does not tell; Azure does, and then leaves the others
                for path in paths:
                    with suppress(FileNotFoundError):
                        obstore.delete(self._long, path)

    @contextmanager
    def _asking(self, how: str) -> Iterator[None]:
        try:
            yield
        except LostRaceError:
            self._answered()
            raise
        except FileNotFoundError:
            self._answered()
            if how == "read":
                raise
            raise self._refusal(how, _NO_BUCKET) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            self._answered()
            raise self._refusal(how, type(error).__name__) from None
        except BaseError as error:
            if _OF_A_ROLE.search(str(error)):
                self._missed(_NO_CREDENTIALS, error)
                raise self.unavailable() from None
            refused = _REFUSED.search(str(error))
            if refused is not None and refused[1] not in _TEMPORARY:
                self._answered()
                raise self._refusal(how, _NO_BUCKET if refused[1] == "404" else f"status {refused[1]}") from None
            self._missed(_SILENT, error)
            raise self.unavailable() from None
        else:
            self._answered()

    def _refusal(self, how: str, why: str) -> GatewayError:
        if how == "write":
            return StorageFullError(
                f"{self.url} accepts no writes ({why})",
                "Check that the bucket exists, its quota, and that the gateway's credentials may write.",
            )
        return StorageUnavailableError(
            f"{self.url} refuses to {how} ({why})",
            _CHECK_CREDENTIALS,
            retry_after_s=_RETRY_AFTER_S,
        )

    def _missed(self, why: str, error: BaseError) -> None:
        with self._lock:
            was_silent, self._is_silent, self._why = self._is_silent, True, why
            self._next_at = time.monotonic() + _PAUSE_S
        if not was_silent:
            log.warning("%s %s (%s)", self.url, why, type(error).__name__)

    def _answered(self) -> None:
        with self._lock:
            was_silent, self._is_silent = self._is_silent, False
        if was_silent:
            log.info("%s answers again", self.url)


def _store(url: str, timeout: timedelta, *, retries: int, read_timeout: timedelta | None = None) -> "ObjectStore":
    options: ClientConfig = {"timeout": timeout, "connect_timeout": _CONNECT, "allow_http": True}
    if read_timeout is not None:
        options["read_timeout"] = read_timeout
    return from_url(url, client_options=options, retry_config={"max_retries": retries, "retry_timeout": timeout})


def _tag(meta: "obstore.PutResult | obstore.ObjectMeta") -> Tag:
    return Tag(meta["e_tag"] or "", meta["version"])


def _lost(path: str, error: BaseError) -> Exception:
    """Return the error of a conditional write. S3 answers 409 to writers that come at the same moment."""
    if isinstance(error, (AlreadyExistsError, PreconditionError)):
        return LostRaceError(path)
    refused = _REFUSED.search(str(error))
    return LostRaceError(path) if refused is not None and refused[1] == "409" else error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
