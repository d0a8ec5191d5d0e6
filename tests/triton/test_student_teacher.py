"""A trained student-teacher model on the real server: its maps equal those of the gateway's process."""

import asyncio
import base64
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.grpc import InferInput, InferRequestedOutput

from export.comparison import camera_images
from export.student_teacher.comparison import compare_maps
from export.student_teacher.parity import TOLERANCE
from export.triton_config import write_serving_files
from export.triton_options import ServingOptions
from gateway.networks.embedded.runtimes import OpenVinoNetwork, Precision, supports_bf16
from gateway.networks.student_description import StudentDescription, read_student
from tests.artifacts.test_artifacts import artifacts, done
from tests.e2e.synthetic_images import decoded, png
from tests.export.tiny_student import trained_once
from tests.triton.server import TritonServer, running_triton

SIZE = 64

Ask = Callable[[np.ndarray], tuple[np.ndarray, StudentDescription]]


@pytest.fixture(scope="module")
def images_and_version() -> tuple[Path, Path]:
    """OK images, and a student of the real network that was trained with them for two epochs."""
    return trained_once(12, SIZE, SIZE, ("layer1", "layer2", "layer3"))


@pytest.fixture(scope="module")
def trained(images_and_version: tuple[Path, Path]) -> Path:
    return images_and_version[1]


@pytest.fixture(scope="module", params=["bf16", "f32"])
def precision(request) -> Precision:
    if request.param == "bf16" and not supports_bf16():
        pytest.skip("this processor has no bf16")
    return request.param


@pytest.fixture(scope="module")
def model(trained: Path, precision: Precision) -> StudentDescription:
    """The model, with its check in bf16 passed or failed. The server uses bf16 only if it passed."""
    found = read_student(trained)
    bf16 = found.parity.get("openvino-bf16")
    parity = {} if bf16 is None else {"openvino-bf16": bf16.model_copy(update={"passed": precision == "bf16"})}
    return found.model_copy(update={"parity": {**found.parity, **parity}})


@pytest.fixture(scope="module")
def version(trained: Path, model: StudentDescription, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository") / "st_conn1" / "1"
    shutil.copytree(trained, folder)
    (folder / "model.json").write_text(model.model_dump_json(indent=2) + "\n")
    return folder


@pytest.fixture(scope="module")
def server(version: Path, triton_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    write_serving_files(version.parent, ServingOptions("python"))
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with running_triton(version.parents[1], log, model="st_conn1") as started:
        yield started


@pytest.fixture(scope="module")
def served(server: TritonServer) -> Ask:
    """Send images to the server. Return the maps, and the server's description of the model."""

    async def ask(images: np.ndarray) -> tuple[np.ndarray, StudentDescription]:
        async with triton.InferenceServerClient(server.url) as client:
            image = InferInput("image", list(images.shape), "UINT8")
            image.set_data_from_numpy(images)
            answer = await client.infer("st_conn1", [image], outputs=[InferRequestedOutput("map")])
            config = (await client.get_model_config("st_conn1")).config
            text = config.parameters[f"model.json/{answer.get_response().model_version}"].string_value
        return answer.as_numpy("map"), StudentDescription.model_validate_json(text)

    return lambda images: asyncio.run(asyncio.wait_for(ask(images), 600))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_the_map_of_the_server_is_that_of_the_same_network_in_process(served, version, model, precision, count):
    images = camera_images(count, SIZE, seed=3)
    maps, described = served(images)
    assert (maps.dtype, maps.shape) == (np.float32, (count, SIZE, SIZE))
    assert described == model
    network = OpenVinoNetwork(version, model.as_tokens(), precision=precision)
    assert compare_maps(maps, network.run(images), 1e-3).passed


def test_the_map_of_the_server_is_that_of_onnx_runtime_as_far_as_its_precision_goes(served, version, precision):
    images = camera_images(4, SIZE, seed=5)
    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    (expected,) = session.run(["map"], {"image": images})
    assert compare_maps(served(images)[0], expected, TOLERANCE[precision]).passed


def test_a_gateway_over_the_server_answers_as_one_with_the_network_inside(
    launch, server, version, images_and_version, precision, tmp_path
):
    """The fingerprint also distinguishes the model of another training with the same name."""
    models = tmp_path / "models"
    other_ok, other = trained_once(14, 40)

    def publish(model: Path, key: str, ok: Path) -> None:
        done(artifacts(models, "publish-model", model, key, "--mm-per-px", 0.2, "--images", ok))

    publish(version, "steel/conn1", images_and_version[0])
    publish(other, "steel/other", other_ok)
    settings = {"models_dir": models, "model_repository": tmp_path / "none"}
    unseen = [png(image) for image in camera_images(3, SIZE, seed=9)]
    with launch(f"student-inside-{precision}", **settings) as inside:
        expected = [inside.infer("conn1", image) for image in unseen]
    with launch(f"student-triton-{precision}", engine="triton", triton_url=server.url, **settings) as outside:
        answers = [outside.infer("conn1", image) for image in unseen]
        refused = outside.post("/infer", "other", unseen[:1], "image")
        assert outside.client.get("/ready").json()["networks"] == ["st_conn1: ready"]
        server.kill()
        (said,) = outside.client.get("/ready").json()["networks"]
        assert said.startswith("st_conn1: ")
        assert "ready" not in said
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer["score"] == pytest.approx(wanted["score"], rel=1e-3)
        maps = [decoded(base64.b64decode(each["heatmap_png_base64"])) for each in (answer, wanted)]
        assert np.abs(maps[0].astype(int) - maps[1]).max() <= 1
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (409, "model_mismatch")
    for folder in (version, other):
        assert read_student(folder).fingerprint[:16] in error["message"]
    assert "publish" in error["hint"]
