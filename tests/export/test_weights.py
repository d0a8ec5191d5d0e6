"""Weights are read as timm reads them, from a file under the original key names or from a seed, or refused clearly."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from export.backbone import TIMM_ID, build_backbone, load_weights
from export.errors import ExportError


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return load_weights("seed:1").state


def loaded_by_timm(path: Path, size: int) -> dict[str, torch.Tensor]:
    overlay = {"file": str(path), "hf_hub_id": None, "url": ""}
    return timm.create_model(TIMM_ID, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size).state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_original_key_names_load_as_timm_loads_them(tmp_path, state, suffix):
    path = tmp_path / f"weights{suffix}"
    original = {**state, "mask_token": torch.zeros(1, 384)}
    if suffix == ".pth":
        torch.save(original, path)
    else:
        save_file(original, path)
    weights = load_weights(str(path))
    assert (weights.source.kind, weights.source.detail) == ("file", path.name)
    assert_same(build_backbone(weights, 378).state_dict(), loaded_by_timm(path, 378))


def test_real_weights_load_as_timm_loads_them(tmp_path, shared_weights):
    weights = load_weights(str(shared_weights))
    save_file(weights.state, tmp_path / "float32.safetensors")  # timm resamples positions in the precision of the file
    assert_same(build_backbone(weights, 378).state_dict(), loaded_by_timm(tmp_path / "float32.safetensors", 378))


def test_the_mask_token_changes_nothing(tmp_path, state):
    save_file(state, tmp_path / "without.safetensors")
    save_file({**state, "mask_token": torch.ones(1, 384)}, tmp_path / "with.safetensors")
    without, having = (load_weights(str(tmp_path / f"{name}.safetensors")) for name in ("without", "with"))
    assert without.source.sha256 == having.source.sha256


def test_the_checksum_is_over_values_not_over_the_file(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    torch.save(dict(reversed(state.items())), tmp_path / "b.pth")
    assert load_weights(str(tmp_path / "a.safetensors")).source.sha256 == load_weights("seed:1").source.sha256
    assert load_weights(str(tmp_path / "b.pth")).source.sha256 == load_weights("seed:1").source.sha256


def test_a_seed_gives_the_same_weights_each_time_and_another_seed_others(state):
    assert_same(load_weights("seed:1").state, state)
    assert load_weights("seed:2").source.sha256 != load_weights("seed:1").source.sha256
    assert (load_weights("seed:1").source.kind, load_weights("seed:1").source.detail) == ("seed", "1")


def test_missing_and_unexpected_keys_are_named(tmp_path, state):
    other = {key: value for key, value in state.items() if key != "blocks.3.attn.qkv.bias"}
    save_file({**other, "blocks.3.attn.query": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match=r"1 missing \(blocks.3.attn.qkv.bias\), 1 unexpected \(blocks.3.attn.query"):
        build_backbone(load_weights(str(tmp_path / "other.safetensors")), 112)


def test_another_shape_is_named(tmp_path, state):
    save_file({**state, "norm.bias": torch.zeros(768)}, tmp_path / "wide.safetensors")
    with pytest.raises(ExportError, match=r"norm.bias \(768,\), not \(384,\)"):
        build_backbone(load_weights(str(tmp_path / "wide.safetensors")), 112)


class NotATensor:
    pass


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no weights file"),
        ("weights.bin", b"", r"only .safetensors and .pth"),
        ("torn.safetensors", b"\x00" * 20, "cannot be read"),
        ("torn.pth", b"PK\x03\x04 torn", "cannot be read"),
        ("empty.pth", b"", "cannot be read"),
        ("object.pth", NotATensor(), "cannot be read"),
        ("nested.pth", {"teacher": {"x": torch.zeros(1)}}, "not a plain state dict"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ExportError, match=message):
        load_weights(str(path))


@pytest.mark.parametrize("seed", ["seed:", "seed:x", "seed:-1", "seed:1.5", "seed:²"])
def test_what_is_not_a_seed_is_refused(seed):
    with pytest.raises(ExportError, match="not a seed"):
        load_weights(seed)


def test_half_precision_weights_are_widened(tmp_path, state):
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    weights = load_weights(str(tmp_path / "half.safetensors"))
    assert {value.dtype for value in weights.state.values()} == {torch.float32}
    assert np.isfinite(build_backbone(weights, 112).pos_embed.numpy()).all()
