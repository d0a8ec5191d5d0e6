"""Checks of docker/ that need no engine: the linter, Compose's own parser, and properties of the files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gateway.settings import Settings

DOCKER = Path(__file__).resolve().parents[2] / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
PROFILES = ("gpu", "cpu", "export", "tensorrt", "monitoring")


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def compose(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "GATEWAY_"))}
    return subprocess.run(
        [tool("docker-compose"), "--file", DOCKER / "compose.yaml", "--env-file", DOCKER / ".env.example", *arguments],
        cwd=DOCKER,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.stem)
def test_the_linter_finds_nothing(file):
    done = subprocess.run([tool("hadolint"), "--no-color", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", [*DOCKERFILES, DOCKER / "compose.yaml"], ids=lambda path: path.name)
def test_every_image_is_pinned(file):
    text = file.read_text()
    images = re.findall(r"^(?:FROM|\s*image:) (\S+)", text, re.MULTILINE)
    assert images
    for image in images:
        if image.startswith("${"):
            continue  # named in .env.example, see below
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), f"{image}: name a release"


def test_triton_and_the_builder_of_its_plans_are_of_one_release():
    named = "".join(
        p.read_text() for p in (*DOCKERFILES, DOCKER / ".env.example", DOCKER.parent / "scripts" / "triton")
    )
    releases = re.findall(r"(?:tritonserver|tensorrt):(\d+\.\d+-py3)", named)
    assert len(releases) >= 4
    assert len(set(releases)) == 1, releases


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda path: path.stem)
def test_no_image_runs_as_root(file):
    for stage in file.read_text().split("\nFROM ")[1:]:
        if "CMD" in stage or "ENTRYPOINT" in stage:
            assert "\nUSER 10001\n" in stage


def test_the_build_context_contains_only_what_the_images_copy():
    ignored = (DOCKER.parent / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", "".join(f.read_text() for f in DOCKERFILES), re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    assert names == {entry.strip("!/") for entry in ignored if entry.startswith("!")}


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_accepts_the_file(profile):
    done = compose("--profile", profile, "config", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("key", ["", "secret"])
def test_triton_starts_with_an_administrators_key_alone(key, tmp_path):
    command = yaml.safe_load((DOCKER / "compose.yaml").read_text())["x-triton"]["command"]
    (tmp_path / "key").write_text(key)
    shell, option, script, _, *arguments = [
        part.replace("$$", "$").replace("/run/secrets/triton_admin_key", str(tmp_path / "key")) for part in command
    ]
    done = subprocess.run([shell, option, script, "echo", *arguments], capture_output=True, text=True)
    if key:
        *given, grpc, http = done.stdout.split()
        assert given == arguments
        assert grpc.startswith("--grpc-restricted-protocol=model-repository,")
        assert grpc.endswith(":admin-key=secret")
        assert http == grpc.replace("--grpc-restricted-protocol", "--http-restricted-api")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "the secret triton_admin_key is empty\n")


def test_the_gateways_read_their_keys_from_a_secret_and_refuse_other_clients():
    done = compose("--profile", "cpu", "config")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("GATEWAY_API_KEYS_FILE: /run/secrets/api_keys") == 2
    assert "ALLOW_ANONYMOUS" not in done.stdout


def test_every_folder_that_a_gateway_writes_to_is_a_volume_or_in_memory():
    """The container's own file system is read-only: anything else would fail in silence, as drift once did."""
    (gateway,) = [file for file in DOCKERFILES if file.stem == "gateway"]
    text = gateway.read_text()
    set_there = dict(re.findall(r"GATEWAY_(\w+)=(\S+)", text))
    (workdir,) = re.findall(r"^WORKDIR (/data)$", text, re.MULTILINE)
    service = yaml.safe_load((DOCKER / "compose.yaml").read_text())["x-gateway"]
    assert service["read_only"]
    writable = [volume.split(":")[1] for volume in service["volumes"] if not volume.endswith(":ro")]
    writable += [mount.split(":")[0] for mount in service["tmpfs"]]
    for name in ("models_dir", "cache_dir", "state_dir"):
        default = Path(workdir) / Settings.model_fields[name].default
        folder = set_there.get(name.upper(), str(default))
        assert any(Path(folder).is_relative_to(mount) for mount in writable), f"{name}: {folder} cannot be written"
        assert re.search(rf"install -d .*{folder}\b", text), f"{folder} would belong to root"


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_only_the_proxy_and_grafana_are_reachable_from_outside(profile):
    done = compose("--profile", profile, "config")
    assert done.returncode == 0, done.stderr
    services = re.split(r"^  (?=[a-z-]+:$)", done.stdout.partition("services:\n")[2], flags=re.MULTILINE)
    assert [each.partition(":")[0].strip() for each in services if "    ports:" in each] == ["grafana", "proxy"]
