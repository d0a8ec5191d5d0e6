import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Path of real DINOv2 ViT-S/14 weights. Skip without them."""
    named = os.environ.get("DINOV2_WEIGHTS", "")
    path = Path(named) if named else PROJECT.parent / "shared" / "weights" / "dinov2_vits14.safetensors"
    if not path.is_file():
        pytest.skip(f"no real weights: {path.name} is not in ../shared/weights and DINOV2_WEIGHTS names no file")
    return path
