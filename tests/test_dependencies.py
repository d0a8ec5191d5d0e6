"""What is installed is what was chosen, and nothing known to be bad where somebody can be asked."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parent.parent


def constraints() -> dict[str, str]:
    """Names and versions of constraints.txt."""
    pinned = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, exactly, version = line.partition("==")
            assert exactly, f"{line}: name one version"
            assert re.fullmatch(r"\d[\w.!+-]*", version), f"{line}: name one version"
            pinned[canonicalize_name(name)] = version
    return pinned


def test_every_requirement_is_pinned_to_one_version_that_it_accepts():
    pinned = constraints()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in map(Requirement, [*project["dependencies"], *(each for extra in extras for each in extra)]):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_gpu_extra_is_for_cuda_12_throughout():
    pinned = constraints()
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (runtime,) = [each for each in map(Requirement, extras["gpu"]) if each.name == "onnxruntime-gpu"]
    assert runtime.extras == {"cuda", "cudnn"}  # NVIDIA's libraries
    assert not runtime.specifier.contains("1.27.0")  # for CUDA 13 from this version on
    nvidia = [name for name in pinned if name.startswith(("nvidia-", "faiss-gpu"))]
    assert len(nvidia) > 5
    assert all(name.endswith("-cu12") for name in nvidia)


def test_no_dependency_has_a_known_vulnerability():
    done = subprocess.run([PROJECT / "scripts" / "audit"], capture_output=True, text=True, timeout=900)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout
