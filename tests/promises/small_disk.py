"""A disk of a few megabytes for one gateway, to fill and to make read-only: a tmpfs in its mount namespace.

The gateway becomes its own root in a new user namespace, which works with and without root's rights. The disk
disappears with the process. This process sees it through /proc.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.gateway_process import Gateway

_ON_ITS_OWN_DISK = """
import os, sys
disk, options, read_only, *command = sys.argv[1:]
mount = 'mount -t tmpfs -o "$1" tmpfs "$0" || exit 1; [ -z "$2" ] || mount -o remount,ro "$0"; shift 2; exec "$@"'
arguments = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, disk, options, read_only]
os.environ["TMPDIR"] = disk
os.execvp("unshare", [*arguments, sys.executable, "-m", "gateway"])
"""


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A gateway on its own disk, and that disk as this process sees it."""

    gateway: Gateway
    folder: Path
    """Seen from this process."""
    _mounted_at: Path

    @property
    def models_dir(self) -> Path:
        return self.folder / "models"

    @property
    def n_bytes_free(self) -> int:
        return shutil.disk_usage(self.folder).free

    @contextmanager
    def full(self, *, but_for_bytes: int = 0) -> Iterator[None]:
        """Fill the disk up to this number of free bytes."""
        filler = self.folder / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.n_bytes_free - but_for_bytes)
        try:
            yield
        finally:
            filler.unlink()

    @contextmanager
    def without_file_names(self, *, but_for: int = 0) -> Iterator[None]:
        """Use up the inodes up to this number of new files."""
        folder = self.folder / "fillers"
        folder.mkdir()
        try:
            for i in range(os.statvfs(self.folder).f_favail - but_for):
                (folder / str(i)).touch()
            yield
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, mode: str) -> None:
        inside = ["nsenter", "--target", str(self.gateway.process.pid), "--user", "--mount", "--preserve-credentials"]
        subprocess.run([*inside, "mount", "-o", f"remount,{mode}", self._mounted_at], check=True)


@contextmanager
def on_small_disk(
    launch: Callable[..., AbstractContextManager[Gateway]],
    name: str,
    disk: Path,
    *,
    options: str = "size=8m,nr_inodes=400",
    read_only: bool = False,
    **settings: object,
) -> Iterator[SmallDisk]:
    """Start a gateway whose models, heatmaps and temporary files are on a tmpfs mounted at `disk`, an empty folder."""
    disk.mkdir()
    command = ("-c", _ON_ITS_OWN_DISK, str(disk), options, "1" if read_only else "")
    folders = {"models_dir": disk / "models", "heatmap_dir": disk / "heatmaps"}
    with launch(name, command=command, **folders, **settings) as gateway:
        yield SmallDisk(gateway, Path(f"/proc/{gateway.process.pid}/root") / disk.relative_to("/"), disk)


def skip_where_none_can_be_mounted(folder: Path) -> None:
    probe = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(folder)]
    run = None
    with contextlib.suppress(FileNotFoundError):
        run = subprocess.run(probe, capture_output=True, text=True)
    if run is None or run.returncode != 0:
        pytest.skip(f"no disk of its own: {'no unshare here' if run is None else run.stderr.strip()}")
