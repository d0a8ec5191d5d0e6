"""The archive of one version of an ROI: a tar or a folder with a list of its files' checksums.

What comes from elsewhere is not trusted: a name is one of those that an export writes, or the archive is refused; only
plain files are taken, of bounded size and number; nothing is unpacked by its name, nothing is unpickled.
"""

import os
import re
import shutil
import stat
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.store.atomic import sync_folder, write_file
from gateway.store.checksummed import FORMAT, DamagedError, sealed, sha256_of, unsealed
from gateway.store.roi_key import DEFAULT_RECIPE

CONTENTS = "contents.json"
AUDIT_COPY = "audit.jsonl"
_NAME = re.compile(
    r"contents\.json|manifest\.json|calib\.json|audit\.jsonl|memory\.npz|index\.faiss|leave_one_out\.npz"
    r"|spatial_mask\.npy|model\.onnx|model\.json|(ok|images)/[0-9a-f]{64}\.[a-z]{1,8}"
)
_FOLDERS = ("ok", "images")
_LONGEST_NAME = 120


class ArchiveError(Exception):
    """An archive that an export did not write, or that exceeds a limit."""


class Contents(BaseModel):
    """``contents.json``: what the archive holds, and the SHA-256 of every other file in it."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    role_id: str
    roi_id: str
    recipe_id: str = DEFAULT_RECIPE
    version: int
    model_fingerprint: str
    exported_at: str
    files: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return the bytes of the file, with a checksum of its own."""
        return sealed(self.model_dump_json(indent=1))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Contents":
        """Read the file.

        Raises:
            ArchiveError: it is not what an export wrote.
            NewerFormatError: a newer gateway wrote it.
        """
        try:
            return cls.model_validate(unsealed(data, CONTENTS))
        except DamagedError as error:
            raise ArchiveError(str(error)) from error
        except ValidationError as error:
            raise ArchiveError(f"{CONTENTS} has the wrong content") from error


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an archive that is read."""

    files: int
    image_bytes: int
    """Bytes of an image, or of the record of a stored one."""
    file_bytes: int
    """Bytes of any other file."""


class Archive:
    """An open archive. It has exactly the files that its list names."""

    def __init__(self, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> None:
        """Read the list.

        Raises:
            ArchiveError: the list is missing or damaged, or names other files than the archive has.
        """
        self._read = read
        if CONTENTS not in sizes:
            raise ArchiveError(f"the archive has no {CONTENTS}: it is not an export of an ROI")
        self.contents = Contents.from_bytes(read(CONTENTS))
        if odd := sorted(self.contents.files.keys() ^ (sizes.keys() - {CONTENTS})):
            raise ArchiveError(f"{odd[0]}: either in {CONTENTS} or in the archive, but not in both")

    def read(self, name: str) -> bytes:
        """Return one file of the list after its checksum was verified.

        Raises:
            ArchiveError: the file fails its checksum.
        """
        try:
            data = self._read(name)
        except OSError as error:
            raise ArchiveError(f"{name}: {error.strerror or error}") from error
        if sha256_of(data) != self.contents.files[name]:
            raise ArchiveError(f"{name} fails its checksum")
        return data


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open a tar or a folder.

    Raises:
        ArchiveError: it cannot be read, or holds anything that no export writes.
    """
    if path.is_dir():
        yield _opened_folder(path, limits)
        return
    try:
        tar = tarfile.open(path, "r:")  # uncompressed only: compressed data may have any size  # noqa: SIM115
    except (tarfile.TarError, OSError) as error:
        raise ArchiveError(f"{path} cannot be read as a tar or a folder: {error}") from error
    with tar:
        yield _opened_tar(tar, limits)


def _opened_tar(tar: tarfile.TarFile, limits: Limits) -> Archive:
    members: dict[str, tarfile.TarInfo] = {}
    try:
        for member in tar:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise ArchiveError(f"{_shown(member.name)}: not a plain file")
            _admit(member.name, member.size, members, limits)
            members[member.name] = member
    except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
        raise ArchiveError(f"the tar is damaged: {error}") from error

    def read(name: str) -> bytes:
        file = tar.extractfile(members[name])
        assert file is not None, "a plain file"
        try:
            return file.read()
        except tarfile.TarError as error:
            raise ArchiveError(f"{name}: {error}") from error

    return Archive({name: member.size for name, member in members.items()}, read)


def _opened_folder(folder: Path, limits: Limits) -> Archive:
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and name in _FOLDERS:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError(f"{_shown(name)}: not a plain file")
        _admit(name, status.st_size, sizes, limits)
        sizes[name] = status.st_size

    def read(name: str) -> bytes:
        with os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(sizes[name] + 1)

    return Archive(sizes, read)


def _admit(name: str, size: int, before: Mapping[str, object], limits: Limits) -> None:
    if _NAME.fullmatch(name) is None:
        raise ArchiveError(f"{_shown(name)}: an export writes no file of this name")
    if name in before:
        raise ArchiveError(f"{name} is in the archive twice")
    if len(before) >= limits.files:
        raise ArchiveError(f"more than {limits.files} files")
    is_image = "/" in name and not name.endswith(".npz")
    at_most = limits.image_bytes if is_image else limits.file_bytes
    if size > at_most:
        raise ArchiveError(f"{name}: {size} bytes; at most {at_most} are accepted")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def write_archive(target: Path, contents: Contents, files: Iterator[tuple[str, bytes]]) -> Contents:
    """Write a tar if the name of the target ends in ``.tar``, else a folder. It appears complete or not at all.

    Args:
        target: path that does not exist yet.
        contents: without its `files`.
        files: names and bytes.

    Returns:
        The contents as written.

    Raises:
        FileExistsError: the target exists.
        OSError: the target cannot be written.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    put = _tar_writer if target.suffix == ".tar" else _folder_writer
    sums: dict[str, str] = {}
    try:
        with put(aside) as add:
            for name, data in files:
                sums[name] = sha256_of(data)
                add(name, data)
            contents = contents.model_copy(update={"files": sums})
            add(CONTENTS, contents.to_bytes())
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            aside.unlink()
        raise
    sync_folder(target.parent)
    return contents


@contextmanager
def _tar_writer(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    with path.open("xb") as file:
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:

            def add(name: str, data: bytes) -> None:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, BytesIO(data))

            yield add
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _folder_writer(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    for name in _FOLDERS:
        (path / name).mkdir(parents=True)
    yield lambda name, data: write_file(path / name, data)
    for name in _FOLDERS:
        sync_folder(path / name)
    sync_folder(path)
