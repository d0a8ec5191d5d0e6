"""The properties of the server itself, which the gateway relies on."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, shared_memory

from export.comparison import camera_images
from export.triton_config import write_serving_files
from export.triton_options import FIT_PRIORITY, INSPECT_PRIORITY, ServingOptions
from gateway.networks.embedded.runtimes import OpenVinoNetwork, supports_bf16
from gateway.networks.model_description import ModelDescription, read_description
from tests.triton.conftest import SERVING
from tests.triton.server import MODEL, PROJECT, SCRIPT, add_version, free_ports

# Rounding error of fp16 for a number below 1. The measured error is half of it.
FP16_TOLERANCE = 2**-11


def image_input(images: np.ndarray) -> InferInput:
    tensor = InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    return tensor


async def infer(client: triton.InferenceServerClient, images: np.ndarray, **options):
    """Return the tokens and the version that computed them, or the status and the message of the error."""
    try:
        result = await client.infer(MODEL, [image_input(images)], outputs=[InferRequestedOutput("tokens")], **options)
    except InferenceServerException as error:
        return error.status(), error.message()
    return result.as_numpy("tokens"), result.get_response().model_version


def connected(server, work):
    """Run the coroutine function `work` with a client of `server`."""

    async def run():
        async with triton.InferenceServerClient(server.url) as client:
            return await asyncio.wait_for(work(client), 600)

    return asyncio.run(run())


def network_of(version) -> OpenVinoNetwork:
    model = read_description(version)
    bf16 = model.parity["openvino-bf16"].passed if supports_bf16() else False
    return OpenVinoNetwork(version, model, precision="bf16" if bf16 else "f32")


async def until(condition) -> None:
    """Wait for something that the server does while clients go on."""
    for _ in range(30_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def queued(server, count: int = 0) -> None:
    """Wait until one batch is in its execution at a server that is held, and so many requests in its queue."""
    await asyncio.to_thread(server.wait_queued, count)


@pytest.fixture(scope="module")
def model(model_version) -> ModelDescription:
    return read_description(model_version)


@pytest.fixture(scope="module")
def images(model) -> np.ndarray:
    return camera_images(4, model.input_size)


@pytest.fixture(scope="module")
def expected(model_version, images) -> np.ndarray:
    return network_of(model_version).run(images)


def test_tokens_are_those_of_the_same_network_in_process(triton_server, model, images, expected):
    tokens, version = connected(triton_server, lambda client: infer(client, images))
    assert (tokens.dtype, tokens.shape, version) == (np.float16, (4, model.n_tokens, model.dim), "1")
    np.testing.assert_allclose(tokens.astype(np.float32), expected, rtol=0, atol=FP16_TOLERANCE)


def test_sixteen_clients_at_once_share_executions_and_each_gets_its_own(triton_server, images, expected):
    async def work(client):
        with triton_server.held():
            clients = [asyncio.create_task(infer(client, images[i % 4 : i % 4 + 1], priority=1)) for i in range(16)]
            await queued(triton_server, 8)
        return await asyncio.gather(*clients)

    before = triton_server.settled_metrics()
    answers = connected(triton_server, work)
    after = triton_server.settled_metrics()
    images_run = after["nv_inference_count"] - before["nv_inference_count"]
    executions = after["nv_inference_exec_count"] - before["nv_inference_exec_count"]
    assert images_run == 16
    assert executions <= 6
    for i, (tokens, _) in enumerate(answers):
        # bf16 rounds differently in another batch. The tokens of another client differ far more.
        cosine = (tokens[0].astype(np.float32) * expected[i % 4]).sum(-1)
        assert cosine.min() > 0.999


def test_the_server_describes_the_version_that_answers(triton_server, model_version, images):
    async def work(client):
        _, version = await infer(client, images[:1])
        return version, (await client.get_model_config(MODEL)).config

    version, config = connected(triton_server, work)
    described = ModelDescription.model_validate_json(config.parameters[f"model.json/{version}"].string_value)
    assert described == read_description(model_version)
    assert config.parameters[f"fingerprint/{version}"].string_value == described.fingerprint


def test_a_full_queue_refuses_at_once_and_the_others_are_served(triton_server, images):
    async def work(client):
        with triton_server.held():
            asked = [asyncio.create_task(infer(client, images[:1], priority=INSPECT_PRIORITY)) for _ in range(60)]
            beyond = 60 - SERVING.inspect_queue_size - 8  # those of one batch are no longer in the queue
            await until(lambda: sum(each.done() for each in asked) >= beyond)
        return await asyncio.gather(*asked)

    answers = connected(triton_server, work)
    refused = [message for status, message in answers if isinstance(status, str)]
    served = [tokens for tokens, _ in answers if isinstance(tokens, np.ndarray)]
    assert len(served) >= SERVING.inspect_queue_size
    assert len(refused) == 60 - len(served) > 0
    assert {status for status, _ in answers if isinstance(status, str)} == {"StatusCode.UNAVAILABLE"}
    assert all("Exceeds maximum queue size" in message for message in refused)


def test_an_inspection_goes_before_the_waiting_batches_of_a_fit(triton_server, images):
    order = []

    async def work(client):
        async def noted(name, **options):
            answer = await infer(client, options.pop("images"), **options)
            order.append(name)
            assert isinstance(answer[0], np.ndarray), answer

        batch = np.concatenate([images, images])
        with triton_server.held() as let:
            fits = [asyncio.create_task(noted("fit", images=batch, priority=FIT_PRIORITY)) for _ in range(4)]
            await queued(triton_server, 3)  # the fourth is in its execution
            inspection = asyncio.create_task(noted("inspection", images=images[:1], priority=INSPECT_PRIORITY))
            await queued(triton_server, 4)
            let(2)
            await until(lambda: len(order) == 2)
        await asyncio.gather(inspection, *fits)

    connected(triton_server, work)
    assert sorted(order[:2]) == ["fit", "inspection"], "after the batch that was in its execution already"


def test_a_request_that_waits_longer_than_its_timeout_is_refused(triton_server, images):
    async def work(client):
        with triton_server.held():
            fit = asyncio.create_task(infer(client, np.concatenate([images, images]), priority=FIT_PRIORITY))
            await queued(triton_server)
            inspection = asyncio.create_task(infer(client, images[:1], priority=INSPECT_PRIORITY, timeout=1000))
            await queued(triton_server, 1)
            await asyncio.sleep(0.01)  # more than its thousand microseconds
        answer, _ = await asyncio.gather(inspection, fit)
        return answer

    assert connected(triton_server, work) == ("StatusCode.UNAVAILABLE", "Request timeout expired")


def test_a_request_that_is_cancelled_in_the_queue_is_not_run(triton_server, images):
    async def work(client):
        batch = np.concatenate([images, images])
        with triton_server.held():
            running = asyncio.create_task(infer(client, batch, priority=FIT_PRIORITY))
            await queued(triton_server)
            waiting = [asyncio.create_task(infer(client, batch, priority=FIT_PRIORITY)) for _ in range(3)]
            await queued(triton_server, 3)
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)
            for _ in range(20):  # what was sent before, over the same connection, has arrived when these are answered
                await client.is_server_live()
        await asyncio.gather(running, return_exceptions=True)
        await infer(client, images[:1])

    before = triton_server.settled_metrics()
    connected(triton_server, work)
    after = triton_server.settled_metrics()
    cancelled = "nv_inference_request_failure:CANCELED"
    assert after[cancelled] - before[cancelled] == 3
    assert after["nv_inference_count"] - before["nv_inference_count"] == len(images) * 2 + 1


def test_wrong_requests_get_their_own_error(triton_server, images):
    async def work(client):
        return [
            await infer(client, np.concatenate([images] * 3)),
            await infer(client, images[:, :-1]),
            await infer(client, images[:1], model_version="7"),
        ]

    too_many, shape, version = connected(triton_server, work)
    assert too_many[0] == shape[0] == "StatusCode.INVALID_ARGUMENT"
    assert "batch-size must be <= 8" in too_many[1]
    assert "unexpected shape" in shape[1]
    assert version[0] == "StatusCode.NOT_FOUND"


def test_images_and_tokens_go_through_shared_memory(triton_server, model, images, expected):
    names = [f"test-{os.getpid()}-{what}" for what in ("image", "tokens")]
    sizes = [images[:1].nbytes, model.n_tokens * model.dim * 2]
    regions = [shared_memory.create_shared_memory_region(n, f"/{n}", s) for n, s in zip(names, sizes, strict=True)]

    async def work(client):
        for name, size in zip(names, sizes, strict=True):
            await client.register_system_shared_memory(name, f"/{name}", size)
        try:
            given = InferInput("image", list(images[:1].shape), "UINT8")
            given.set_shared_memory(names[0], sizes[0])
            wanted = InferRequestedOutput("tokens")
            wanted.set_shared_memory(names[1], sizes[1])
            await client.infer(MODEL, [given], outputs=[wanted])
        finally:
            for name in names:
                await client.unregister_system_shared_memory(name)

    try:
        shared_memory.set_shared_memory_region(regions[0], [images[:1]])
        connected(triton_server, work)
        tokens = shared_memory.get_contents_as_numpy(regions[1], np.float16, expected[:1].shape).astype(np.float32)
    finally:
        for region in regions:
            shared_memory.destroy_shared_memory_region(region)
    np.testing.assert_allclose(tokens, expected[:1], rtol=0, atol=FP16_TOLERANCE)


def test_a_reload_in_mid_traffic_gives_each_answer_the_number_of_the_model_that_made_it(
    launch_triton, model_version, other_version, images, expected
):
    models = {"1": expected[:1], "2": network_of(other_version).run(images[:1])}
    assert ((models["1"] * models["2"]).sum(-1)).min() < 0.9

    async def work(client):
        answers, ended = [], asyncio.Event()

        async def traffic():
            while not ended.is_set():
                answers.append(await infer(client, images[:1], priority=INSPECT_PRIORITY))
                await asyncio.sleep(0.01)

        client_at_work = asyncio.create_task(traffic())
        await until(lambda: answers)
        add_version(server.repository, 2, other_version)
        await client.load_model(MODEL)
        assert {version for _, version in answers} <= {"1"}, "a folder alone is not served"
        write_serving_files(server.model_folder, options)
        await client.load_model(MODEL)
        await until(lambda: answers[-1][1] == "2")
        ended.set()
        await client_at_work
        return (
            answers,
            (await client.get_model_config(MODEL)).config,
            await infer(client, images[:1], model_version="1"),
        )

    options = ServingOptions("python", max_batch_size=1)
    with launch_triton("reload", options=options) as server:
        answers, config, old = connected(server, work)
    assert {version for _, version in answers} == {"1", "2"}, answers[-1]
    for tokens, version in answers:
        np.testing.assert_allclose(tokens.astype(np.float32), models[version], rtol=0, atol=FP16_TOLERANCE)
    assert {"model.json/1", "model.json/2"} <= set(config.parameters)
    assert old[0] in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND")


def test_a_version_that_differs_from_the_configuration_is_not_loaded(launch_triton, model, other_version, images):
    async def work(client):
        folder = server.model_folder / "1"
        for name in ("model.json", "model.onnx"):
            (folder / name).unlink()
            (folder / name).symlink_to(other_version / name)
        with pytest.raises(InferenceServerException, match=r"config\.pbtxt says that version 1 is"):
            await client.load_model(MODEL)
        return await infer(client, images[:1])

    with launch_triton("changed", options=ServingOptions("python", max_batch_size=2)) as server:
        tokens, version = connected(server, work)
    assert (version, tokens.shape) == ("1", (1, model.n_tokens, model.dim))


def test_with_the_restrictions_of_compose_a_gateway_may_infer_and_not_administer(launch_triton, model, images):
    compose = (SCRIPT.parent.parent / "docker" / "compose.yaml").read_text()
    (restricted,) = re.findall(r"restricted=(\S+:admin-key=)", compose)
    restrictions = re.findall(r"(--(?:grpc|http)-restricted-\S+)=", compose)
    assert len(restrictions) == 2

    async def work(client):
        described = (await client.get_model_config(MODEL)).config.name
        tokens, _ = await infer(client, images[:1])
        with pytest.raises(InferenceServerException, match="restricted"):
            await client.unload_model(MODEL)
        with pytest.raises(InferenceServerException, match="restricted"):
            await client.register_system_shared_memory("any", "/any", 1)
        await client.load_model(MODEL, headers={"triton-grpc-protocol-admin-key": "secret"})
        return described, tokens.shape, await client.is_server_ready()

    options = ServingOptions("python", max_batch_size=1)
    given = [f"{each}={restricted}secret" for each in restrictions]
    with launch_triton("restricted", "--", *given, options=options) as server:
        assert connected(server, work) == (MODEL, (1, model.n_tokens, model.dim), True)
        load = urllib.request.Request(
            f"http://127.0.0.1:{server.http}/v2/repository/models/{MODEL}/load", method="POST"
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(load)
        load.add_header("admin-key", "secret")
        with urllib.request.urlopen(load) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_stop_answers_running_requests_and_leaves_no_process(launch_triton, images, number):
    async def work(client):
        with server.held():
            waiting = [asyncio.create_task(infer(client, images, priority=1)) for _ in range(3)]
            await queued(server, 2)
            # To all processes, as a terminal does for Ctrl-C.
            os.killpg(server.pid, number)
        return await asyncio.gather(*waiting)

    options = ServingOptions("python", max_batch_size=4, inspect_timeout_ms=300_000)
    # The script's own 20 s, which fit an orchestrator, are too few where the machine does much else.
    with launch_triton(f"end-{number}", "--", "--exit-timeout-secs=300", options=options) as server:
        assert len(server.processes()) >= 2
        answers = connected(server, work)
        assert server.stop(number, timeout_s=400) == 0, server.said()
        assert server.processes() == []
    assert [answer[1] for answer in answers] == ["1"] * 3
    assert "ready: dinov2_vits14 by the python backend" in server.said()


def test_a_killed_server_leaves_no_process_and_restarts(launch_triton, model, images):
    with launch_triton("killed", options=ServingOptions("python", max_batch_size=1)) as server:
        server.kill()
        deadline = time.monotonic() + 120
        while server.processes():
            assert time.monotonic() < deadline, "a process of the Python backend outlived its server"
            time.sleep(0.1)
        server.start()
        tokens, _ = connected(server, lambda client: infer(client, images[:1]))
        assert tokens.shape == (1, model.n_tokens, model.dim)


def start(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, "--with", "wheel", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_an_occupied_port_is_named(triton_installed, launch_triton):
    with launch_triton("never", start=False) as server, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        http, metrics = free_ports(2)
        done = start(
            "--model-repository", server.repository, "--grpc-port", port, "--http-port", http, "--metrics-port", metrics
        )
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr


def test_without_an_export_it_says_what_to_run(triton_installed, tmp_path):
    done = start("--model-repository", tmp_path)
    assert done.returncode == 1
    assert "no exported model" in done.stderr
    assert "python -m export" in done.stderr


def test_a_backend_that_the_wheel_lacks_is_refused(triton_installed):
    done = start("--backend", "tensorrt")
    assert done.returncode == 1
    assert "has only the Python backend" in done.stderr


def test_a_second_preparation_does_nothing(triton_installed):
    stamp = PROJECT / ".venv-triton" / ".patchcore-gateway"
    before = stamp.stat().st_mtime_ns
    assert start("--prepare").stderr == ""
    assert stamp.stat().st_mtime_ns == before
