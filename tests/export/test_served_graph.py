"""The published graph: its input, its output, and that each token depends mostly on its own patch."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.parity import camera_images
from gateway.networks.model_description import ModelDescription, newest_version, read_description


@pytest.fixture(scope="module")
def version(model_repository: Path) -> Path:
    return newest_version(model_repository / "dinov2_vits14")


@pytest.fixture(scope="module")
def description(version: Path) -> ModelDescription:
    return read_description(version)


@pytest.fixture(scope="module")
def session(version: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(version / "model.onnx"), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def images(description) -> np.ndarray:
    return camera_images(2, description.input_size, seed=7)


@pytest.fixture(scope="module")
def tokens(session, images) -> np.ndarray:
    """The tokens of `images`, computed in one batch."""
    (tokens,) = session.run(None, {"image": images})
    return tokens


def test_takes_uint8_images_and_gives_float32_tokens(session):
    (image,), (tokens,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 378, 378, 3])
    assert (tokens.name, tokens.type, tokens.shape) == ("tokens", "tensor(float)", ["batch", 729, 768])


def test_description_says_what_the_graph_is(description, session):
    assert description.name == "dinov2_vits14"
    assert description.input_size == 378
    assert description.scales == (384,)
    assert description.layers == (9, 11)
    assert description.token_hw == (27, 27)
    assert description.dim == 768
    assert description.has_random_weights


def test_tokens_are_of_norm_1(tokens):
    assert tokens.shape == (2, 729, 768)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=-1), 1, atol=1e-5)


def test_an_image_gets_the_same_tokens_alone_and_in_a_batch(session, images, tokens):
    (alone,) = session.run(None, {"image": images[1:]})
    assert alone.shape == (1, 729, 768)
    np.testing.assert_allclose(tokens[1:], alone, atol=1e-5)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 20), (26, 25)])
def test_a_change_in_one_patch_changes_its_own_token_most(session, images, tokens, row, column):
    changed = images[:1].copy()
    patch = changed[:, row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
    patch[:] = 255 - patch
    (after,) = session.run(None, {"image": changed})
    distance = np.linalg.norm(after - tokens[:1], axis=-1).reshape(27, 27)
    assert np.unravel_index(distance.argmax(), distance.shape) == (row, column)
    others = np.delete(distance.ravel(), row * 27 + column)
    assert distance[row, column] > 3 * others.max()


def test_the_file_is_valid_and_self_contained_and_names_no_machine(version):
    data = (version / "model.onnx").read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert str(Path(__file__).parents[2]).encode() not in data
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # weights contain any three bytes by chance
    assert b".py" not in model.SerializeToString()


def test_every_runtime_of_this_machine_is_recorded_as_agreeing(description):
    assert {"onnxruntime-cpu-f32", "openvino-f32"} <= description.parity.keys()
    assert all(found.passed for found in description.parity.values())
    assert all(found.min_cosine <= 1 + 1e-9 for found in description.parity.values())
