"""The gateway with a real Triton: the same answers, batches, and every failure of a server."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="needs the triton extra")

from export.triton_config import write_serving_files
from export.triton_options import ServingOptions
from gateway.errors import ModelMismatchError
from gateway.networks.embedded.runtimes import OpenVinoNetwork, supports_bf16
from gateway.networks.model_description import newest_version, read_description
from gateway.networks.registry import create_engine_registry
from gateway.networks.triton.engine import TritonEngine
from gateway.settings import Settings
from tests.e2e.gateway_process import Gateway, answered
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.triton.asking import asking
from tests.triton.conftest import SERVING
from tests.triton.server import MODEL, TritonServer, add_version

OK = [png(steel(seed)) for seed in range(6)]
UNSEEN = png(steel(70))
NG = png(with_blob(steel(71), (200, 150), 22)[0])


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton-models") / "models"


@pytest.fixture(scope="module")
def start(launch: Callable, served_repository: Path, models_dir: Path) -> Callable:
    """Start a gateway with a Triton behind it: start("name", triton, **settings)."""

    def start(name: str, triton: TritonServer, **settings: object):
        given = {"models_dir": models_dir, "model_repository": served_repository, **settings}
        return launch(name, engine="triton", triton_url=triton.url, **given)

    return start


@pytest.fixture(scope="module")
def behind(start: Callable, triton_server: TritonServer) -> Iterator[Gateway]:
    """A gateway with Triton behind it, and an ROI fitted through both."""
    with start("behind", triton_server) as gateway:
        gateway.fit("pad", OK)
        yield gateway


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def is_ready(gateway: Gateway) -> bool:
    return gateway.client.get("/ready").status_code == 200


def test_fit_calibrate_infer_through_gateway_and_triton(behind):
    health = behind.client.get("/health").json()
    assert (health["engine"], health["runtime"], health["device"]) == ("triton", "triton-python", "cpu")
    ok, ng = behind.infer("pad", UNSEEN)["score"], behind.infer("pad", NG)["score"]
    calibration = behind.calibrate("pad", ok_scores=[ok], ng_scores=[ng])
    assert ok <= calibration["threshold"] < ng
    answer = behind.infer("pad", NG)
    x, y, w, h = answer["regions"][0]["bbox"]
    assert x <= 200 <= x + w
    assert y <= 150 <= y + h


def test_tokens_are_those_of_the_embedded_engine(triton_server, tmp_path):
    folder = newest_version(triton_server.model_folder)
    model = read_description(folder)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, model.input_size, model.input_size, 3), np.uint8)
    precision = "bf16" if supports_bf16() and model.parity["openvino-bf16"].passed else "f32"
    expected = OpenVinoNetwork(folder, model, precision=precision, cache_dir=tmp_path).run(images)

    async def through_triton(shared_memory: str) -> np.ndarray:
        engine = TritonEngine(
            Settings(
                triton_url=triton_server.url,
                model_repository=triton_server.repository,
                triton_shared_memory=shared_memory,
            )
        )
        await engine.start()
        try:
            singly = [await engine.tokens(images[i : i + 1], model=engine.model) for i in range(3)]
            together = await engine.tokens(images, model=engine.model)
        finally:
            await engine.close()
        # A batch of three is rounded differently from three batches of one.
        np.testing.assert_allclose(together, np.concatenate(singly), atol=5e-3)
        return np.concatenate(singly)

    tokens = asyncio.run(through_triton("on"))
    # The response is fp16: 11 bits per value, and all values are below 1.
    np.testing.assert_allclose(tokens, expected, atol=2**-11)
    np.testing.assert_array_equal(tokens, asyncio.run(through_triton("off")))


def test_a_model_of_another_size_is_served_beside_the_first(triton_server, tmp_path):
    settings = Settings(
        _env_file=None, engine="triton", triton_url=triton_server.url, model_repository=triton_server.repository
    )

    async def compute() -> None:
        engines = create_engine_registry(settings)
        await engines.token_engine.start()
        try:
            for engine in (await engines.token_engine_of(28), engines.token_engine):
                model = engine.model
                images = np.full((2, model.input_size, model.input_size, 3), 100, np.uint8)
                tokens = await engines.tokens(images, model=model)
                assert tokens.shape == (2, model.n_tokens, model.dim)
            with pytest.raises(ModelMismatchError, match=r"input size 999 is served; there are 28, .*unknown model"):
                await engines.token_engine_of(999)
        finally:
            await engines.close()

    asyncio.run(asyncio.wait_for(compute(), 60))


def test_tiles_of_both_input_sizes_score_as_with_the_embedded_engine(
    start, launch, triton_server, model_version, tmp_path
):
    """Nine tiles are more than a batch of Triton has."""
    own = {"models_dir": tmp_path / "models", "model_repository": triton_server.repository, "max_tiles": 9}
    side = read_description(model_version).input_size
    parts = [png(steel(seed, (7 * side // 2, 3 * side))) for seed in range(3)]
    unseen = png(with_blob(steel(71, (7 * side // 2, 3 * side)), (3 * side, side // 2), side // 5)[0])
    tiled = {"first": ("9", None, [3, 3]), "other": ("4", 28, [2, 2])}
    with start("tiles", triton_server, **own) as gateway, launch("embedded tiles", **own) as embedded:
        for roi, (tiles, input_size, expected) in tiled.items():
            size = {} if input_size is None else {"input_size": input_size}
            assert gateway.fit(roi, parts, tiles=tiles, **size)["tiles"] == expected
        items = [{"role_id": "steel", "roi_id": roi, "mm_per_px": 0.2} for roi in tiled]
        files = [("images", (f"{roi}.png", unseen)) for roi in tiled]
        answers = [
            each.client.post("/infer_batch", data={"items": json.dumps(items)}, files=files)
            for each in (gateway, embedded)
        ]
        ours, theirs = (answered(answer)["results"] for answer in answers)
    for one, other in zip(ours, theirs, strict=True):
        assert one["token_shape"] == other["token_shape"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_the_same_score_as_the_embedded_engine(behind, launch, served_repository, models_dir):
    with launch("embedded beside", models_dir=models_dir, model_repository=served_repository) as embedded:
        for image in (UNSEEN, NG):
            ours, theirs = embedded.infer("pad", image), behind.infer("pad", image)
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-3)
            assert embedded.client.get("/health").json()["engine"] == "embedded"


def test_concurrent_inspections_are_batched_by_triton(behind, triton_server):
    before = triton_server.settled_metrics()
    with ThreadPoolExecutor(16) as pool:
        with triton_server.held():
            asked = [pool.submit(behind.infer, "pad", UNSEEN, heatmap="none") for _ in range(16)]
            triton_server.wait_queued(8)
        scores = [each.result()["score"] for each in asked]
    assert scores == pytest.approx([scores[0]] * 16, abs=5e-3)
    after = triton_server.settled_metrics()
    inferred, executed = (after[name] - before[name] for name in ("nv_inference_count", "nv_inference_exec_count"))
    assert inferred == 16
    assert executed <= 8


def test_an_inspection_does_not_wait_for_a_fit(behind, triton_server):
    config = httpx.get(f"http://127.0.0.1:{triton_server.http}/v2/models/{MODEL}/config", timeout=60).json()
    assert config["dynamic_batching"]["priority_levels"] == 2
    with ThreadPoolExecutor(2) as pool:
        with triton_server.held() as let:
            fit = pool.submit(behind.fit, "other", [png(steel(seed)) for seed in range(20, 52)])
            triton_server.wait_queued()
            inspection = pool.submit(behind.infer, "pad", UNSEEN)
            triton_server.wait_queued(1)
            let(2)
            assert inspection.result(300)["score"] > 0, "after the batch that was in its execution already"
            assert not fit.done()
        assert fit.result()["n_ok_total"] == 32


def test_a_fit_through_one_gateway_is_used_by_the_other_at_its_next_request(behind, start, triton_server):
    with start("second behind", triton_server) as second:
        behind.fit("shared", OK[:2])
        assert second.infer("shared", UNSEEN)["version"] == 1
        assert behind.infer("shared", UNSEEN)["version"] == 1
        answer = second.fit("shared", OK[2:4])
        assert answer["n_ok_total"] == 4
        assert behind.infer("shared", UNSEEN)["version"] == answer["version"] == 2


def test_shared_memory_is_given_back_even_after_a_crash(behind, start, triton_server):
    def ours() -> list[str]:
        return [name for name in shared_memory(triton_server) if f"-{behind.process.pid}-" not in name]

    files = {path.name for path in Path("/dev/shm").glob("patchcore-*")}
    kept = set(ours())
    with start("crashing", triton_server) as crashing:
        crashing.infer("pad", UNSEEN)
        assert set(ours()) > kept, "the images did not go by shared memory"
        crashing.process.kill()
        crashing.process.wait()
    assert {path.name for path in Path("/dev/shm").glob("patchcore-*")} <= files
    with start("after the crash", triton_server) as after:
        after.infer("pad", UNSEEN)
        left = {name for name in ours() if f"-{crashing.process.pid}-" in name}
        assert left == set()
    assert set(ours()) == kept


def test_without_shared_memory_the_images_go_by_grpc(behind, start, triton_server):
    with start("off", triton_server, triton_shared_memory="off") as off:
        assert off.infer("pad", NG)["score"] == pytest.approx(behind.infer("pad", NG)["score"], abs=1e-3)
        assert not any(f"-{off.process.pid}-" in name for name in shared_memory(triton_server))


def test_a_client_that_goes_away_frees_its_place_in_the_queue(behind, triton_server):
    def cancelled() -> float:
        return triton_server.metrics().get("nv_inference_request_failure:CANCELED", 0)

    before = cancelled()
    form = {"role_id": "steel", "roi_id": "pad", "mm_per_px": "0.2"}
    request = behind.client.build_request("POST", "/infer", data=form, files={"image": ("a.png", UNSEEN)})
    body = request.read()
    head = (
        f"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['content-type']}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    def ended() -> float:
        """Inspections that the gateway has ended, however."""
        counters = behind.client.get("/metrics").text.splitlines()
        mine = [line for line in counters if line.startswith("gateway_requests_total{") and '"/infer"' in line]
        return sum(float(line.split()[-1]) for line in mine)

    for _ in range(20):  # what the gateway cancels may reach Triton just too late
        with ThreadPoolExecutor(1) as pool, triton_server.held():
            running = pool.submit(behind.infer, "pad", UNSEEN)
            triton_server.wait_queued()
            ended_before = ended()
            with socket.create_connection(("127.0.0.1", behind.port)) as client:
                client.sendall(head.encode() + body)
                triton_server.wait_queued(1)
            wait_until(lambda expected=ended_before + 1: ended() == expected)
        assert running.result()["score"] > 0
        assert behind.infer("pad", UNSEEN)["score"] > 0
        if cancelled() > before:
            break
    assert cancelled() > before


def test_a_server_slower_than_the_deadline_is_a_timeout_of_its_own(behind, start, triton_server):
    with start("impatient", triton_server, triton_timeout_s=2) as gateway:
        wait_until(lambda: gateway.post("/infer", "pad", [UNSEEN], "image").status_code == 200)
        triton_server.stall()
        try:
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda _: gateway.post("/infer", "pad", [UNSEEN], "image"), range(4)))
            assert gateway.client.get("/health").status_code == 200
        finally:
            triton_server.resume()
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] in {"engine_timeout", "engine_unavailable"}
            assert "Retry-After" in answer.headers
        assert "engine_timeout" in {answer.json()["error"]["code"] for answer in answers}
        wait_until(lambda: is_ready(gateway))
        wait_until(lambda: gateway.post("/infer", "pad", [UNSEEN], "image").status_code == 200)


def test_a_triton_that_starts_later_is_found_without_a_restart(behind, start, launch_triton):
    with launch_triton("late", start=False) as triton, start("early", triton) as gateway:
        assert gateway.client.get("/health").json()["status"] == "ok"
        ready = gateway.client.get("/ready")
        assert ready.status_code == 503
        assert triton.url in ready.json()["engine"]
        refused = gateway.post("/infer", "pad", [UNSEEN], "image")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
        assert int(refused.headers["Retry-After"]) >= 1
        triton.start()
        wait_until(lambda: is_ready(gateway))
        assert gateway.infer("pad", UNSEEN)["score"] > 0


def test_killed_under_load_every_request_ends_and_none_is_answered_wrongly(behind, start, launch_triton):
    with launch_triton("killed") as triton, start("under load", triton, triton_timeout_s=60) as gateway:
        expected = gateway.infer("pad", UNSEEN)["score"]
        with asking(gateway, UNSEEN, clients=8) as answers:
            wait_until(lambda: len(answers) >= 8)
            triton.kill()
            wait_until(lambda: any(a.status_code == 503 for a in answers))
            ready = gateway.client.get("/ready")
            triton.start()
            wait_until(lambda: is_ready(gateway))
            n = len(answers)
            wait_until(lambda: sum(a.status_code == 200 for a in answers[n:]) >= 8)
    assert ready.status_code == 503
    assert {a.status_code for a in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert answer.json()["score"] == pytest.approx(expected, abs=5e-3)
        else:
            assert answer.json()["error"]["code"] in {"engine_unavailable", "engine_timeout"}
            assert "Retry-After" in answer.headers


def test_a_full_queue_is_429(behind, start, launch_triton):
    narrow = ServingOptions("python", inspect_queue_size=1, max_batch_size=1, inspect_timeout_ms=100_000)
    with launch_triton("narrow", options=narrow) as triton, start("queueing", triton) as gateway:
        gateway.infer("pad", UNSEEN)
        with ThreadPoolExecutor(12) as pool:
            with triton.held():
                asked = [pool.submit(gateway.post, "/infer", "pad", [UNSEEN], "image") for _ in range(12)]
                wait_until(lambda: sum(each.done() for each in asked) == 10)
            answers = [each.result() for each in asked]
        assert sorted(a.status_code for a in answers) == [200] * 2 + [429] * 10
        refused = next(a for a in answers if a.status_code == 429)
        assert refused.json()["error"]["code"] == "overloaded"
        assert int(refused.headers["Retry-After"]) >= 1
        assert is_ready(gateway)


def test_another_model_in_mid_traffic_is_the_old_the_new_or_a_clear_409(
    start, launch_triton, model_version, other_version, tmp_path
):
    old, new = (read_description(folder).fingerprint for folder in (model_version, other_version))
    own = {"models_dir": tmp_path / "models", "model_repository": tmp_path / "none"}
    with launch_triton("reloaded") as triton, start("reloaded", triton, **own) as gateway:
        gateway.fit("pad", OK)
        expected = gateway.infer("pad", UNSEEN)["score"]
        add_version(triton.repository, 2, other_version)
        write_serving_files(triton.model_folder, SERVING)
        with asking(gateway, UNSEEN) as answers:
            wait_until(lambda: len(answers) >= 8)
            loaded = httpx.post(f"http://127.0.0.1:{triton.http}/v2/repository/models/{MODEL}/load", timeout=300)
            assert loaded.status_code == 200
            wait_until(lambda: answers[-1].status_code == 409)
        for answer in answers:
            if answer.status_code == 200:
                assert answer.json()["score"] == pytest.approx(expected, abs=5e-3)
            else:
                assert answer.status_code in {409, 503}, answer.text
        last = gateway.post("/infer", "pad", [UNSEEN], "image")
        assert last.status_code == 409
        error = last.json()["error"]
        assert error["code"] == "model_mismatch"
        assert old[:16] in error["message"]
        assert new[:16] in error["message"]
        # The remedy of the hint: with one OK image, all stored images are learned again.
        assert gateway.fit("pad", [png(steel(90))])["n_ok_total"] == 7
        assert gateway.infer("pad", UNSEEN)["version"] == 2


def test_a_server_with_another_model_than_the_gateways_own_is_refused(
    behind, start, triton_server, other_version, tmp_path
):
    add_version(tmp_path, 1, other_version)
    with start("strict", triton_server, model_repository=tmp_path) as gateway:
        ready = gateway.client.get("/ready")
        assert ready.status_code == 503
        assert "model_mismatch" in ready.json()["engine"]
        for path, field in (("/infer", "image"), ("/fit_ok", "images")):
            refused = gateway.post(path, "pad", [UNSEEN], field)
            assert refused.status_code == 409
            assert refused.json()["error"]["code"] == "model_mismatch"


def shared_memory(server: TritonServer) -> list[str]:
    """Return the names of the regions that clients have registered."""
    regions = httpx.get(f"http://127.0.0.1:{server.http}/v2/systemsharedmemory/status", timeout=5).json()
    return [region["name"] for region in regions]
