"""Clients that openapi-generator makes of the 3.0.3 document fit, calibrate and inspect, and their files are files.

One client is generated in every run; with --all, three are compiled and run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.mono import Mono
from tests.npm import TYPESCRIPT, npm_package

PROJECT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("generated")
CSHARP = ("csharp", "--library", "httpclient", "-p", "targetFramework=netstandard2.0,packageName=Patchcore")
NEWTONSOFT = "jillejr.newtonsoft.json-for-unity@12.0.101"
"""Newtonsoft.Json, which the generated C# needs: this package has the library itself."""

PYTHON_FILE = r"Union\[StrictBytes, StrictStr, Tuple\[StrictStr, StrictBytes\]\]"
# File parameters, as each language declares them: one file of /infer, several of /fit_ok.
DECLARED = {
    "csharp": (r"Infer\(string roleId, [^)]*FileParameter image", r"FitOk\([^)]*List<FileParameter> images"),
    "typescript": (
        r"interface InferRequest {[^}]*image: Blob;",
        r"interface FitOkRequest {[^}]*images\?: Array<Blob>;",
    ),
    "python": (
        rf"def infer\((?s:.)*?image: Annotated\[{PYTHON_FILE}",
        rf"def fit_ok\((?s:.)*?images: Annotated\[Optional\[List\[{PYTHON_FILE}",
    ),
}


@pytest.fixture(scope="session")
def generate(tmp_path_factory):
    if shutil.which("java") is None:
        pytest.skip("the generator needs Java, which is not installed")
    folder = tmp_path_factory.mktemp("generated")
    document = create_app(Settings(_env_file=None, models_dir=folder, state_dir=folder)).openapi_3_0
    (folder / "openapi.json").write_text(json.dumps(document))

    def run(name, generator, *options):
        out = folder / name
        command = [Path(sys.executable).with_name("openapi-generator-cli"), "generate", "-g", generator]
        command += ["-i", folder / "openapi.json", "-o", out, *options]
        environment = {**os.environ, "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return run


@pytest.fixture(scope="session")
def csharp(generate):
    return generate("csharp", *CSHARP)


@pytest.fixture
def full(pytestconfig):
    if not pytestconfig.getoption("--all"):
        pytest.skip("compiled and run with --all")


def declares_files(folder: Path, language: str) -> None:
    source = "\n".join(path.read_text() for path in sorted(folder.iterdir()) if path.is_file())
    for declared in DECLARED[language]:
        assert re.search(declared, source), declared


def test_the_generated_csharp_takes_files_and_names_its_operations_and_enums(csharp):
    declares_files(csharp / "src" / "Patchcore" / "Api", "csharp")
    models = csharp / "src" / "Patchcore" / "Model"
    assert {"Verdict.cs", "BatchResult.cs", "InferAnswer.cs", "ErrorEnvelope.cs"} <= {
        each.name for each in models.iterdir()
    }
    answer = (models / "InferAnswer.cs").read_text()
    assert "public Verdict Verdict { get; set; }" in answer
    assert "public VerdictReason? VerdictReason { get; set; }" in answer
    assert "public double? Threshold { get; set; }" in answer


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "ok"
    folder.mkdir()
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(png(steel(seed)))
    spoiled, _ = with_blob(steel(9), (190, 200), 30, 1.0)
    (folder.parent / "ng.png").write_bytes(png(spoiled))
    return folder, folder.parent / "ng.png"


class TestAtAGateway:
    """Each client fits six images, calibrates by their scores and inspects a defect; one ROI was never fitted."""

    def holds(self, gateway, images, roi, printed):
        ok = [(path.name, path.read_bytes()) for path in sorted(images[0].iterdir())]
        gateway.fit("by-hand", ok, role="generated")
        threshold = gateway.calibrate("by-hand", role="generated")["threshold"]
        answer = gateway.infer("by-hand", images[1].read_bytes(), role="generated")
        n, *values, verdict, in_batch, code, refused = printed.split()
        assert (n, verdict, in_batch, code, refused) == ("6", "ng", "ng", "unknown_roi", "404")
        assert [float(value) for value in values] == pytest.approx([threshold, answer["score"]])
        assert gateway.client.get(f"/rois/generated/{roi}").json()["n_ok_total"] == 6

    def test_the_generated_csharp(self, full, csharp, gateway, images, tmp_path):
        mono = Mono()
        package = npm_package(NEWTONSOFT)
        shutil.copy(package / "Plugins" / "Newtonsoft.Json Editor" / "Newtonsoft.Json.dll", tmp_path)
        library = tmp_path / "Patchcore.dll"
        references = ("System.Runtime.Serialization.dll", "System.ComponentModel.DataAnnotations.dll", "System.Web.dll")
        references += (str(tmp_path / "Newtonsoft.Json.dll"),)
        sources = sorted((csharp / "src" / "Patchcore").rglob("*.cs"))
        mono.compile(library, PROGRAMS / "Polly.cs", *sources, references=references)
        mono.compile(tmp_path / "program.exe", PROGRAMS / "Program.cs", references=(*references, str(library)))
        printed = mono.run(tmp_path / "program.exe", url(gateway), str(images[0]), str(images[1]))
        self.holds(gateway, images, "csharp", printed)

    def test_the_generated_python(self, full, generate, gateway, images):
        """With its library httpx: the default, urllib3, refuses a number in a form."""
        client = generate("python", "python", "--library", "httpx", "-p", "packageName=patchcore_generated")
        declares_files(client / "patchcore_generated" / "api", "python")
        command = [sys.executable, PROGRAMS / "program.py", url(gateway), *images]
        printed = ran(command, env={**os.environ, "PYTHONPATH": str(client)})
        self.holds(gateway, images, "python", printed)

    def test_the_generated_typescript(self, full, generate, gateway, images, tmp_path):
        if shutil.which("node") is None:
            pytest.skip("Node.js is not installed")
        client = generate("typescript", "typescript-fetch")
        declares_files(client / "apis", "typescript")
        compiler = npm_package(TYPESCRIPT) / "bin" / "tsc"
        types = npm_package("@types/node@20.9.5")
        shutil.copytree(client, tmp_path / "client")
        shutil.copytree(types, tmp_path / "node_modules" / "@types" / "node")
        shutil.copytree(npm_package("undici-types@5.26.5"), tmp_path / "node_modules" / "undici-types")
        shutil.copy(PROGRAMS / "program.ts", tmp_path)
        options = ["--module", "commonjs", "--target", "es2022", "--strict", "--skipLibCheck", "--types", "node"]
        ran(["node", compiler, *options, "program.ts"], cwd=tmp_path)
        self.holds(gateway, images, "typescript", ran(["node", "program.js", url(gateway), *images], cwd=tmp_path))


def url(gateway) -> str:
    return f"http://127.0.0.1:{gateway.port}"


def ran(command, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
