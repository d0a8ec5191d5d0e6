"""`scripts/run` passes DINOV2_WEIGHTS on to the export. The script is real; only the installation is left out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script in a folder whose environment counts as installed: its Python is that of this test."""
    root = tmp_path / "project"
    (root / "scripts").mkdir(parents=True)
    for name in ("scripts/run", "scripts/_env", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, root / name)
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    sums = subprocess.run(
        ["bash", "-c", "cat pyproject.toml constraints.txt | cksum"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    (root / ".venv" / ".patchcore-gateway").write_text(f"{sums.stdout.decode().strip()}\nexport\n")
    return root / "scripts" / "run"


def started(script: Path, cwd: Path, weights: str) -> str:
    """What the script says where the hub is a closed port of this machine, and no model is exported."""
    given = {
        "DINOV2_WEIGHTS": weights,
        "GATEWAY_MODEL_REPOSITORY": str(cwd / "repository"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(cwd / "hf"),
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run([script], cwd=cwd, env={**os.environ, **given}, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    return done.stderr


def test_the_word_hub_forbids_stand_in_weights_at_the_first_run(script, tmp_path):
    said = started(script, tmp_path, "hub")
    (error,) = [line for line in said.splitlines() if line.startswith("error: the hub did not give the weights")]
    assert all(named in error for named in ("DINOV2_WEIGHTS", "--weights FILE", "seed:0"))
    assert "STAND-IN" not in said
    assert "Traceback" not in said
    assert not (tmp_path / "repository" / "dinov2_vits14").exists()


def test_a_relative_file_is_looked_for_in_the_folder_of_the_caller(script, tmp_path):
    assert f"no weights file {tmp_path / 'mine.safetensors'}" in started(script, tmp_path, "mine.safetensors")
