"""A Docker engine of the tests' own, from Debian's packages, in namespaces of its own.

Its first process owns its mounts, bridges, firewall rules and containers: all end with it. The host keeps nothing.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.debian import program

SITE = "/site"
"""Where the engine sees `Engine.site`."""
_SUITE = "trixie"  # with compose as a plugin of docker
_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables", "iproute2", "ca-certificates")
_CGROUPS = "patchcore-docker-tests"
_BUILD_S = 1800
_START_S = 120
_STOP_S = 120
_MIN_FREE_BYTES = 8 << 30
_CLONE_NEWNET = 0x40000000
# Containers reach each other and nothing else: the network namespace has no way out. Only for a build, which needs
# the package registries, the engine runs in the network of the host. It then makes no bridge and no rule.
_NETWORKS = {"own": ["--net"], "host": []}
_OPTIONS = {"own": [], "host": ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]}
_CLEAN_ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
_FIRST_PROCESS = """
mount --bind root root
mount -t proc proc root/proc
mount --rbind /sys root/sys
mount --rbind /dev root/dev
mount -t tmpfs tmpfs root/run
mount --bind state root/var/lib/docker
mount --bind site root/site
cd root
pivot_root . old
umount -l old
ip link set lo up
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root dockerd "$@"
"""


class Engine:
    """The engine in a folder. Its images stay there from one start to the next."""

    def __init__(self, folder: Path) -> None:
        """Make the root file system. Skip the test if no engine can run here."""
        reason = _missing(folder)
        if reason is not None:
            pytest.skip(f"no Docker engine: {reason}")
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.site = folder / "site"
        bootstrap(_SUITE, folder / "root", _PACKAGES)
        for name in ("state", "site", "root/site", "root/old", "root/var/lib/docker"):
            (folder / name).mkdir(exist_ok=True)

    @contextmanager
    def running(self, network: str) -> Iterator[None]:
        """Run it in a network of its own ("own"), or in that of the host ("host"), where images can be built."""
        for name in ("resolv.conf", "hosts"):
            shutil.copy(Path("/etc") / name, self._folder / "root" / "etc" / name)
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", *_NETWORKS[network]]
        options = ["--data-root=/var/lib/docker", f"--cgroup-parent=/{_CGROUPS}", *_OPTIONS[network]]
        with (self._folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-ec", _FIRST_PROCESS, "dockerd", *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
            yield
        finally:
            self._stop()

    def docker(self, *arguments: str, stdin: Path | None = None, ok: bool = True, timeout: float = _BUILD_S) -> str:
        """Run the client beside the engine. Return what it printed; fail with it unless the status is 0."""
        inside = ["nsenter", f"--target={self._first_process()}", "--all", *_CLEAN_ENVIRONMENT]
        with (stdin or Path(os.devnull)).open("rb") as given:
            done = subprocess.run(
                [*inside, "docker", *arguments],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
            )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0 or not ok, f"docker {' '.join(arguments)}:\n{said[-6000:]}"
        return said

    def kill(self, pid: int) -> None:
        """End a process of a container from outside, as the kernel does where memory runs out."""
        space = f"--target={self._first_process()}"
        subprocess.run(["nsenter", space, "--pid", "--mount", "sh", "-c", f"kill -KILL {pid}"], check=True)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Put this thread, and the threads and processes that it starts, into the network of the containers."""
        with Path("/proc/self/ns/net").open() as before, Path(f"/proc/{self._first_process()}/ns/net").open() as own:
            _enter(own.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def _first_process(self) -> int:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        assert children, f"dockerd has ended:\n{self._said()}"
        return int(children[0])

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while "API listen on" not in self._said():
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.2)

    def _said(self) -> str:
        return (self._folder / "dockerd.log").read_text(errors="replace")[-4000:]

    def _stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._first_process(), signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it, its first process and all others
            self._process.wait()
        (self._folder / "dockerd.log").write_bytes(b"")
        groups = [Path("/sys/fs/cgroup") / _CGROUPS, *Path("/sys/fs/cgroup").glob(f"*/{_CGROUPS}")]
        for group in groups:
            for folder, _, _ in os.walk(group, topdown=False):
                Path(folder).rmdir()


def bootstrap(suite: str, target: Path, packages: Sequence[str], *options: str) -> None:
    """Make a Debian file system with packages: a folder, or a tar file. The machine's apt settings apply."""
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    own = [line for line in settings if line.startswith(("Acquire::http::", "Acquire::https::"))]
    # The lists of unstable expire within days, and a mirror may be older.
    own += ['APT::Install-Recommends "false";', 'Acquire::Check-Valid-Until "false";']
    done = subprocess.run(
        [program("mmdebstrap", "mmdebstrap"), "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
        + [f"--aptopt={line}" for line in own]
        + [*options, suite, str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
    )
    if done.returncode != 0:
        pytest.skip(f"no Docker engine: {suite} with {packages[0]} cannot be made: {done.stderr.strip()[-300:]}")


def _missing(folder: Path) -> str | None:
    """Return why no engine can run here, or None."""
    if os.geteuid() != 0:
        return "it needs root"
    tools = ("unshare", "nsenter", "pivot_root", "apt-config")
    if absent := [name for name in tools if shutil.which(name) is None]:
        return f"this machine has no {', '.join(absent)}"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        return tried.stderr.strip()
    free = shutil.disk_usage(folder).free
    return None if free > _MIN_FREE_BYTES else f"{folder} has {free >> 30} GB free, and images take 6 GB"


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
