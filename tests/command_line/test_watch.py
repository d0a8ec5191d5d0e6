"""`patchcore watch` as a process of its own, while files are written, renamed and damaged."""

import asyncio
import csv
import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from patchcore_client import AsyncPatchcoreClient, Retries

from command_line.arguments import InspectOptions, RoiName
from command_line.connection import Session
from command_line.inspecting import Inspector
from command_line.watch import patient
from tests.clients.scripted_server import refusal, scripted
from tests.e2e.gateway_process import PROJECT, environment, wait_until


class Watch:
    """A running `patchcore watch`."""

    def __init__(self, url: str, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "command_line", "watch", *map(str, arguments)],
            cwd=PROJECT,
            env={**environment({}), "PATCHCORE_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict] = []
        self.messages: list[str] = []
        takers = ((self.process.stdout, self._line), (self.process.stderr, self.messages.append))
        self.readers = [threading.Thread(target=self._read, args=each) for each in takers]
        for reader in self.readers:
            reader.start()
        wait_until(lambda: self.messages)

    def _read(self, stream, take) -> None:
        with stream:
            for text in stream:
                take(text)

    def _line(self, text: str) -> None:
        self.lines.append(json.loads(text))

    def found(self) -> list[tuple[str, str]]:
        return [(line["file"], line.get("verdict", "error")) for line in self.lines]

    def wait_for(self, name: str) -> None:
        wait_until(lambda: name in [line["file"] for line in self.lines])

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 130


@contextmanager
def watching(url, *arguments):
    watch = Watch(url, *arguments)
    try:
        yield watch
        watch.end()
    finally:
        watch.process.kill()
        for reader in watch.readers:
            reader.join()


def test_each_new_file_is_inspected_once_when_it_is_complete(url, taught, parts, tmp_path):
    camera, table = tmp_path / "camera", tmp_path / "out.csv"
    camera.mkdir()
    ok, ng = (parts / "test/ok.png").read_bytes(), (parts / "test/ng/hole.png").read_bytes()
    (camera / "before.png").write_bytes(ok)
    options = (camera, "--roi", taught, "--csv", table, "--overlays", camera / "overlays", "--settle", 0.1)
    with watching(url, *options, "--give-up", 600) as watch:
        with (camera / "slow.png").open("wb") as slow:
            slow.write(ng[:5000])
            slow.flush()
            (camera / "quick.png.part").write_bytes(ok)
            (camera / "quick.png.part").rename(camera / "quick.png")
            watch.wait_for("quick.png")
            (camera / "later.png").write_bytes(ok)
            watch.wait_for("later.png")
            assert "slow.png" not in [name for name, _ in watch.found()], "it was complete for a while, and was not"
            slow.write(ng[5000:])
        watch.wait_for("slow.png")
        (camera / "quick.png").rename(camera / "renamed.png")
        (camera / "deep").mkdir()
        (camera / "deep/cut.png").write_bytes(ng[:3000])
        (camera / "last.png").write_bytes(ok)
        watch.wait_for("last.png")
        inspected = [("quick.png", "ok"), ("later.png", "ok"), ("slow.png", "ng"), ("last.png", "ok")]
        assert watch.found() == inspected
    with watching(url, *options, "--give-up", 0, "--existing") as watch:
        watch.wait_for("deep/cut.png")
        (camera / "new.png").write_bytes(ng)
        watch.wait_for("new.png")
        again = {("before.png", "ok"), ("renamed.png", "ok"), ("deep/cut.png", "error"), ("new.png", "ng")}
        assert set(watch.found()) == again, "what the CSV file names is not inspected again"
        assert "damaged" in next(line for line in watch.lines if line["file"] == "deep/cut.png")["error"]["message"]
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row["file"] for row in csv.DictReader(file)]
    assert sorted(rows) == sorted(name for name, _ in [*inspected, *again])
    assert (camera / "overlays" / "slow.png").is_file()


def test_a_gateway_that_is_away_is_waited_for(gateway, taught, parts, capsys):
    image = parts / "test/ok.png"
    answer = gateway.infer("taught", image.read_bytes(), role="cli")

    async def inspected(url: str):
        async with AsyncPatchcoreClient(url, retries=Retries(attempts=1)) as client:
            found = Session(client, None, json=False, in_flight=1)
            inspector = Inspector(found, RoiName("cli", "taught"), InspectOptions(), mm_per_px=0.2, folder=image.parent)
            return await patient(inspector, Path(image))

    with scripted(refusal(503, "shutting_down"), (200, {}, answer)) as server:
        result = asyncio.run(inspected(server.url))
    assert result.inspection().score == pytest.approx(answer["score"])
    assert "waiting for the gateway: shutting_down" in capsys.readouterr().err
