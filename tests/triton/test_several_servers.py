"""One gateway with two real Tritons: turns, a server that is killed, and one that returns with another model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")

from gateway.networks.model_description import read_description
from tests.e2e.gateway_process import Gateway, wait_until
from tests.e2e.synthetic_images import png, steel
from tests.triton.asking import asking
from tests.triton.conftest import SERVING
from tests.triton.server import MODEL, TritonServer, serving_repository

OK = [png(steel(seed)) for seed in range(4)]
UNSEEN = png(steel(70))


@pytest.fixture(scope="module")
def pair(launch_triton: Callable) -> Iterator[tuple[TritonServer, TritonServer]]:
    """Two servers of the same model. A test that changes one makes it as before."""
    with ExitStack() as stack:
        servers = [stack.enter_context(launch_triton(name, start=False)) for name in ("first", "second")]
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_ready()
        yield servers[0], servers[1]


@pytest.fixture(scope="module")
def warm_up(pair: tuple[TritonServer, TritonServer]) -> float:
    """Images that a server counts before its first request."""
    return inferred(pair[1])


@pytest.fixture(scope="module")
def before_both(launch: Callable, pair: tuple[TritonServer, TritonServer], warm_up: float, tmp_path_factory):
    """A gateway with both behind it, and an ROI fitted through them. It has no repository of its own."""
    folder = tmp_path_factory.mktemp("several")
    urls = ",".join(server.url for server in pair)
    with launch(
        "several", engine="triton", triton_url=urls, models_dir=folder / "models", model_repository=folder / "none"
    ) as gateway:
        gateway.fit("pad", OK)
        yield gateway


def states(gateway: Gateway) -> dict[str, int]:
    """The servers as the metric counts them."""
    lines = [line for line in gateway.client.get("/metrics").text.splitlines() if line.startswith("gateway_triton_s")]
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines}


def inferred(server: TritonServer) -> float:
    return server.settled_metrics().get("nv_inference_count", 0)


def wait_more(answers: list[httpx.Response], count: int = 12) -> None:
    wanted = len(answers) + count
    wait_until(lambda: len(answers) >= wanted)


def test_two_servers_take_turns(before_both, pair):
    wait_until(lambda: states(before_both) == {"used": 2, "other_model": 0, "unreachable": 0})
    before = [inferred(server) for server in pair]
    for _ in range(6):
        before_both.infer("pad", UNSEEN)
    assert [inferred(server) - b for server, b in zip(pair, before, strict=True)] == [3, 3]


def test_images_to_two_local_servers_go_by_grpc(before_both, pair):
    before_both.infer("pad", UNSEEN)
    for server in pair:
        assert httpx.get(f"http://127.0.0.1:{server.http}/v2/systemsharedmemory/status", timeout=5).json() == []


def test_a_killed_server_costs_no_request_and_one_with_another_model_gives_no_answer(
    before_both, pair, warm_up, model_version, other_version, tmp_path
):
    second = pair[1]
    expected = before_both.infer("pad", UNSEEN)["score"]
    own, other = (read_description(folder).fingerprint for folder in (model_version, other_version))
    with asking(before_both, UNSEEN) as answers:
        wait_more(answers)
        second.kill()
        wait_until(lambda: states(before_both) == {"used": 1, "other_model": 0, "unreachable": 1})
        wait_more(answers)
        # It returns at the same address, with another model under the same name and version number.
        right, second.repository = (
            second.repository,
            serving_repository(tmp_path / "repository", {1: other_version}, SERVING),
        )
        second.start()
        wait_until(lambda: states(before_both) == {"used": 1, "other_model": 1, "unreachable": 0})
        wait_more(answers)
        assert inferred(second) == warm_up
        # The right model again, without a restart.
        for name in ("model.json", "model.onnx"):
            (second.model_folder / "1" / name).unlink()
            (second.model_folder / "1" / name).hardlink_to(model_version / name)
        (second.model_folder / "config.pbtxt").write_text((right / MODEL / "config.pbtxt").read_text())
        loaded = httpx.post(f"http://127.0.0.1:{second.http}/v2/repository/models/{MODEL}/load", timeout=300)
        assert loaded.status_code == 200
        wait_until(lambda: states(before_both) == {"used": 2, "other_model": 0, "unreachable": 0})
        wait_more(answers)
    assert inferred(second) > warm_up
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.json()["score"] == pytest.approx(expected, abs=5e-3)
    assert before_both.client.get("/health").json()["model_fingerprint"] == own
    assert f"{second.url} serves model {other[:16]}, not {own[:16]}" in before_both.log.read_text()
