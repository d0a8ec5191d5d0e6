"""The C# client compiles without a warning for C# 7.1, and fits, calibrates and inspects at a gateway."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.clients.csharp_models import FILE
from tests.clients.scripted_server import DROP, refusal, scripted
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.mono import Mono

PROGRAM = Path(__file__).with_name("csharp_program.cs")
JSON = ("System.Runtime.Serialization.dll",)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Run the program with arguments; return the lines that it prints."""
    mono = Mono()
    folder = tmp_path_factory.mktemp("csharp")
    strict = ("-langversion:7.1", "-warnaserror", "-warn:4")
    mono.compile(folder / "Patchcore.dll", FILE, references=JSON, options=(*strict, f"-doc:{folder / 'Patchcore.xml'}"))
    library = (*JSON, str(folder / "Patchcore.dll"))
    mono.compile(folder / "program.exe", PROGRAM, references=library)

    def run(*arguments):
        return mono.run(folder / "program.exe", *map(str, arguments)).splitlines()

    run.folder = folder
    return run


def test_every_public_method_has_a_comment(run):
    found = ElementTree.parse(run.folder / "Patchcore.xml").iter("member")
    members = {member.get("name"): member for member in found}
    methods = [name for name in members if name.startswith("M:Patchcore.PatchcoreClient.")]
    assert len(methods) >= 25
    assert all("".join(members[name].itertext()).strip() for name in methods)


def test_it_fits_calibrates_and_inspects(run, gateway, tmp_path):
    (tmp_path / "good").mkdir()
    for seed in range(6):
        (tmp_path / "good" / f"prüf {seed}.png").write_bytes(png(steel(seed)))
    spoiled = png(with_blob(steel(9), (190, 200), 30, 1.0)[0])
    (tmp_path / "ng.png").write_bytes(spoiled)
    url = f"http://127.0.0.1:{gateway.port}"
    said = dict(line.split("=", 1) for line in run("all", url, tmp_path / "good", tmp_path / "ng.png"))
    ok = [(path.name, path.read_bytes()) for path in sorted((tmp_path / "good").iterdir())]
    gateway.fit("by-hand", ok, role="csharp")
    calibration = gateway.calibrate("by-hand", role="csharp", false_alarm_rate=0.05)
    answer = gateway.infer("by-hand", spoiled, role="csharp")
    shaped = gateway.infer("by-hand", spoiled, role="csharp", shape='{"kind": "circle", "r": 150}', heatmap="none")
    assert said["fit"] == "6 1 64-bit seed 4000000000"
    assert float(said["threshold"]) == pytest.approx(calibration["threshold"])
    assert float(said["score"]) == pytest.approx(answer["score"])
    assert said["verdict"] == "True False ng"
    assert said["heatmap"] == "89504E47"
    assert int(said["regions"]) == len(answer["regions"])
    assert said["contour"] == json.dumps(answer["regions"][0]["contour"][0]).replace(" ", "")
    assert float(said["shaped"]) == pytest.approx(shaped["score"])
    assert json.loads(said["corner"]) == {"kind": "rect", "x": 0, "y": 0.5, "w": 2, "h": 1}
    assert said["batch"] == "ng unknown_roi"
    assert said["refused"] == "unknown_roi 404 32 True"
    assert said["roi"] == "6 prüf 0.png 1"
    assert said["stored"] == "1 1"
    assert said["listed"] == "6 1 6 2 prüf 4.png"
    assert said["file"] == "True"
    assert said["thumbnail"] == "FFD8"
    assert json.loads(said["metadata"]) == {"line": 3}
    assert said["relabelled"] == "ok"
    assert said["deleted image"] == "True"
    assert said["deleted images"] == "1"
    assert said["drift"] == "3 True 0"
    assert said["report"] == "6 2 True"
    assert said["page"] == "True"
    assert said["audit"] == "delete_images store_images"
    assert said["rolled back"] == "1"
    assert said["health"] == "ok seed True"
    assert said["recipe"] == "Ausführung"
    assert said["deleted"] == "True"


def test_a_refusal_is_repeated_and_a_broken_connection_only_where_that_is_safe(run):
    health = {"status": "ok", "device": "cpu", "model": "x", "version": "1"}
    with scripted(refusal(429, "overloaded", Retry_After="1"), DROP, (200, {}, health)) as server:
        assert run("health", server.url) == ["ok"]
        assert len(server.requests) == 3
        assert server.times[1] - server.times[0] >= 1
    with scripted(DROP) as server:
        assert run("rollback", server.url) == ["HttpRequestException"]
        assert len(server.requests) == 1


def test_an_answer_of_something_else_and_a_timeout_are_exceptions(run):
    with scripted((502, {}, "<html>bad gateway</html>")) as server:
        assert run("rollback", server.url) == ["GatewayException '' 502 502 <html>bad gateway</html>"]
    with scripted("hang") as server:
        assert run("late", server.url) == ["TimeoutException"]


def test_the_key_is_sent_and_follows_no_redirection(run):
    with scripted((200, {}, "{}")) as other, scripted((307, {"Location": f"{other.url}/health"}, "")) as server:
        assert run("key", server.url) == ["GatewayException '' 307 307"]
        assert server.requests[0][2]["authorization"] == "Bearer pcg_secret"
        assert other.requests == []
