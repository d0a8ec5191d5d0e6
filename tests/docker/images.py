"""The images of docker/, built on base images of Debian packages under the names that docker/ uses.

No registry of images can be reached from the machines that the project is developed on.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docker.engine import SITE, Engine, bootstrap

PROJECT = Path(__file__).resolve().parents[2]
TRITON = "local/tritonserver:26.11-py3"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_SETTINGS = ("cert", "default-timeout", "find-links", "index-url", "proxy")


def copy_project(site: Path) -> None:
    """Copy docker/ and what its images are built from, so that nothing is written to the checkout."""
    context = re.findall(r"^!([^*\n]+?)/?$", (PROJECT / ".dockerignore").read_text(), re.MULTILINE)
    for name in ("docker", ".dockerignore", *context):
        source, target = PROJECT / name, site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (site / "triton").mkdir()
    shutil.copy(PROJECT / "constraints-triton.txt", site / "triton")
    shutil.copy(Path(__file__).with_name("triton.Dockerfile"), site / "triton" / "Dockerfile")


def build(engine: Engine) -> None:
    """Make the base images, then build the images of docker/ as `docker compose build` does."""
    named = "".join((engine.site / "docker" / name).read_text() for name in ("gateway.Dockerfile", "compose.yaml"))

    def base(pattern: str, suite: str, packages: str, *options: str, changes: tuple[str, ...]) -> None:
        (image, *_) = re.findall(pattern, named)
        tar = engine.site / "base.tar"
        bootstrap(suite, tar, packages.split(","), *options)
        given = [part for change in changes for part in ("--change", change)]
        engine.docker("import", *given, "-", image, stdin=tar)
        tar.unlink()

    pip = _pip_settings()
    # What the machine's pip reads has to be in the image as well.
    wheels = [each for each in pip.get("PIP_FIND_LINKS", "").split() if Path(each).is_dir()]
    copied = [f"--customize-hook=copy-in {each} {Path(each).parent}" for each in wheels]
    if _CERTIFICATES.is_file():
        copied.append(f"--customize-hook=copy-in {_CERTIFICATES} {_CERTIFICATES.parent}")
    base(
        r"FROM (python:\S+)",
        "bookworm",
        # curl and the library are for Triton, whose image is built on this one.
        "python3.11,python3-venv,python3-pip,python-is-python3,ca-certificates,curl,libpython3.11",
        "--customize-hook=rm $1/usr/lib/python3.11/EXTERNALLY-MANAGED",
        *copied,
        changes=tuple(f"ENV {name}={value}" for name, value in pip.items()),
    )
    base(r"image: (nginx\S+)", "sid", "nginx,wget", changes=("USER 101", 'CMD ["nginx", "-g", "daemon off;"]'))
    base(
        r"image: (prom/\S+)",
        "sid",
        "prometheus",
        "--customize-hook=install -d -o 65534 -g 65534 $1/prometheus",
        changes=("USER 65534", "WORKDIR /prometheus", 'ENTRYPOINT ["/usr/bin/prometheus"]'),
    )
    for name, target in (("gateway", ()), ("export", ("--target", "export"))):
        file = f"{SITE}/docker/{name}.Dockerfile"
        engine.docker("build", "--network", "host", "--file", file, *target, "--tag", f"patchcore-{name}:0.1.0", SITE)
    engine.docker("build", "--network", "host", "--tag", TRITON, f"{SITE}/triton")


def _pip_settings() -> dict[str, str]:
    """Return the machine's own settings of pip, as variables."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    found = re.findall(r"^[\w:.]+?\.([\w-]+)='(.*)'$", listed, re.MULTILINE)
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found if name in _PIP_SETTINGS}
