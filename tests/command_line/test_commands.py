"""`patchcore` at a real gateway: what it prints, what it writes, and its exit statuses."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.clients.scripted_server import HANG, refusal, scripted
from tests.e2e.gateway_process import PROJECT, environment, free_port, wait_until

PROGRAM = (sys.executable, "-m", "command_line")


@pytest.fixture
def own_gateway(run, small_model_repository, tmp_path, monkeypatch):
    """The settings of a gateway in this process: the small model, and folders of its own."""
    monkeypatch.setenv("GATEWAY_MODEL_REPOSITORY", str(small_model_repository))
    monkeypatch.setenv("GATEWAY_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("GATEWAY_STATE_DIR", str(tmp_path / "state"))


def test_it_teaches_calibrates_and_reports(run, parts, gateway, tmp_path):
    roi = "cli/life"
    assert "Add --mm-per-px" in run("roi", "fit", roi, parts / "good", status=2).stderr
    assert "6, 6 of them new" in run("roi", "fit", roi, parts / "good", "--mm-per-px", 0.2).stdout
    run("roi", "calibrate", roi, "--ng", parts / "test/ng/hole.png", "--ok", parts / "good")
    calibrated = json.loads(run("roi", "show", roi, "--json").stdout)["calibration"]
    score = gateway.infer("life", (parts / "test/ng/hole.png").read_bytes(), role="cli")["score"]
    assert (calibrated["n_ok"], calibrated["n_ng"], calibrated["ok_source"]) == (6, 1, "given")
    assert calibrated["threshold"] < score
    assert run("roi", "infer", roi, parts / "test/ng/hole.png").stdout.startswith("ng ")
    assert "yes, 6 OK and 1 NG scores" in run("roi", "show", roi).stdout
    run("roi", "fit", roi, parts / "good/0.png", "--coreset-rate", 0.05)
    assert "version 2" in run("roi", "report", roi).stdout
    run("roi", "report", roi, "--html", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert "uses version 1, before 2" in run("roi", "rollback", roi, 1).stdout
    assert "would delete cli/life" in run("roi", "delete", roi, "--dry-run").stdout
    assert "Add --yes" in run("roi", "delete", roi, status=2).stderr
    assert "cli/life" in run("roi", "list").stdout
    assert json.loads(run("roi", "delete", roi, "--yes", "--json").stdout)["deleted"]
    assert "cli/life" not in run("roi", "list").stdout


def test_a_folder_is_inspected_into_a_csv_file_and_overlays(run, parts, taught, gateway, tmp_path):
    table, overlays = tmp_path / "out.csv", tmp_path / "overlays"
    arguments = ("infer", parts / "test", "--roi", taught, "--csv", table, "--overlays", overlays)
    done = run(*arguments, "--fail-on-ng", status=3)
    assert "3 images: 1 error, 1 ng, 1 ok" in done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        cut, hole, ok = csv.DictReader(file)
    answer = gateway.infer("taught", (parts / "test/ng/hole.png").read_bytes(), role="cli")
    assert (hole["file"], hole["verdict"], ok["verdict"]) == ("ng/hole.png", "ng", "ok")
    assert float(hole["score"]) == pytest.approx(answer["score"])
    assert int(hole["regions"]) == len(answer["regions"])
    assert "damaged" in cut["error"]
    assert sorted(path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")) == [
        "ng/hole.png",
        "ok.png",
    ]
    drawn = cv2.imread(str(overlays / "ng/hole.png")).astype(int)
    redness = drawn[..., 2] - drawn[..., 0]
    assert redness[170:230, 160:220].mean() > 30 > redness[:60, :60].mean()


def test_json_has_one_line_for_each_image_and_a_part_that_is_ng_is_status_1_where_that_is_asked_for(run, parts, taught):
    images = (parts / "test/ok.png", parts / "test/ng/hole.png")
    done = run("infer", *images, "--roi", taught, "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["file"], line["verdict"]) for line in lines] == [("ok.png", "ok"), ("ng/hole.png", "ng")]
    assert "heatmap_png_base64" not in lines[0]
    run("infer", *images, "--roi", taught, "--fail-on-ng", status=1)
    run("infer", images[0], "--roi", taught, "--fail-on-ng")


def test_an_roi_without_thresholds_does_not_pass_for_good(run, parts):
    asked = ("--mm-per-px", 0.2, "--input-size", 112, "--tiles")
    assert (
        "--tiles nine: expected auto"
        in run("roi", "fit", "cli/raw", parts / "good/0.png", *asked, "nine", status=2).stderr
    )
    for said in (run("roi", "fit", "cli/raw", parts / "good/0.png", *asked, 1), run("roi", "show", "cli/raw")):
        assert "input size       112" in said.stdout
    done = run("roi", "infer", "cli/raw", parts / "test/ok.png", "--fail-on-ng", status=3)
    assert "uncalibrated is no verdict" in done.stderr


def test_overlays_in_the_folder_of_the_images_are_refused(run, parts, taught):
    before = (parts / "test/ok.png").read_bytes()
    done = run("roi", "infer", taught, parts / "test", "--overlays", parts / "test", status=2)
    assert "is the folder of the images" in done.stderr
    assert (parts / "test/ok.png").read_bytes() == before


def test_stored_images_are_added_listed_relabelled_and_deleted(run, parts):
    roi = "cli/stored"
    assert "6 added, 0 were stored" in run("roi", "images", "add", roi, parts / "good", "--label", "ok").stdout
    run("roi", "images", "add", roi, parts / "test/ng/hole.png", "--label", "ng")
    listed = json.loads(run("roi", "images", "list", roi, "--json").stdout)["images"]
    assert [image["label"] for image in listed] == ["ok"] * 6 + ["ng"]
    first, last = listed[0]["id"], listed[-1]["id"]
    assert "ok → ng" in run("roi", "images", "relabel", roi, first[:10], "--label", "ng").stdout
    assert "names 0 images" in run("roi", "images", "relabel", roi, "feed", "--label", "ng", status=2).stderr
    assert "first 4 characters" in run("roi", "images", "delete", roi, "", "--yes", status=2).stderr
    assert first[:12] in run("roi", "images", "delete", roi, "--label", "ng", "--dry-run").stdout
    assert "Add --yes" in run("roi", "images", "delete", roi, last, status=2).stderr
    assert "hole.png" in run("roi", "images", "list", roi).stdout
    assert "deleted 2 images" in run("roi", "images", "delete", roi, "--label", "ng", "--yes").stdout
    assert "not learned: 5 OK images are stored" in run("roi", "list").stdout
    assert "0 versions, 5 OK and 0 NG images" in run("roi", "delete", roi, "--dry-run").stdout
    assert "5, 5 of them new" in run("roi", "fit", roi, "--mm-per-px", 0.2).stdout
    run("roi", "images", "delete", roi, status=2)


def test_a_recipe_is_named_with_an_option(run, parts, taught):
    run("roi", "fit", "cli/variant", parts / "good/0.png", "--mm-per-px", 0.2, "--recipe", "winter")
    assert "unknown_roi" in run("roi", "show", "cli/variant", status=3).stderr
    assert "recipe winter" in run("roi", "show", "cli/variant", "--recipe", "winter").stdout
    done = run("infer", parts / "test/ok.png", "--recipe", "winter")
    assert "ROI cli/variant, the only one" in done.stderr
    assert "Name one with --roi" in run("infer", parts / "test/ok.png", "--recipe", "summer", status=2).stderr


def test_local_answers_as_the_gateway_of_the_same_models_folder_does(run, parts, taught, gateway, own_gateway):
    image = parts / "test/ng/hole.png"
    there = json.loads(run("roi", "infer", taught, image, "--json").stdout)
    here = json.loads(run("roi", "infer", taught, image, "--json", "--local", gateway.models_dir).stdout)
    assert {**here, "time": 0} == {**there, "time": 0}
    refused = run("roi", "list", "--local", gateway.models_dir, "--url", "http://127.0.0.1:1", status=2)
    assert "--url and --local" in refused.stderr


def test_local_says_why_it_cannot_compute(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_MODEL_REPOSITORY", str(tmp_path / "none"))
    assert "no exported model" in run("roi", "list", "--local", tmp_path, status=3).stderr
    monkeypatch.setenv("GATEWAY_K", "0")
    assert "GATEWAY_K='0'" in run("roi", "list", "--local", tmp_path, status=3).stderr


def test_no_gateway_and_a_wrong_address_are_errors_with_what_to_do(run, parts):
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert "`patchcore serve` starts one" in run("infer", parts / "good", "--url", nowhere, status=3).stderr
    assert "expected the address of a gateway" in run("roi", "list", "--url", "vision:8080", status=2).stderr
    assert "expected ROLE/ROI" in run("roi", "show", "housing", status=2).stderr


def test_the_key_of_the_environment_is_sent(run, monkeypatch):
    with scripted(refusal(401, "unauthorized")) as server:
        monkeypatch.setenv("PATCHCORE_KEY", "pcg_secret")
        assert "Give a key with --key" in run("roi", "list", "--url", server.url, status=3).stderr
        assert server.requests[0][2]["authorization"] == "Bearer pcg_secret"


def test_the_doctor_finds_what_is_used_and_what_is_missing(run, gateway, own_gateway, tmp_path, monkeypatch):
    checks = {each["about"]: each for each in json.loads(run("doctor", "--json").stdout)["checks"]}
    runtime = gateway.client.get("/health").json()["runtime"]
    assert runtime in checks["engine"]["found"]
    assert runtime in checks["gateway"]["found"]
    assert "random weights" in checks["model"]["remedy"]
    monkeypatch.setenv("GATEWAY_MODEL_REPOSITORY", str(tmp_path / "none"))
    monkeypatch.setenv("GATEWAY_ENGINE", "triton")
    servers = [f"localhost:{free_port()}", f"localhost:{free_port()}"]
    monkeypatch.setenv("GATEWAY_TRITON_URL", ",".join(servers))
    said = run("doctor", status=1).stdout
    assert "PROBLEM  engine         Triton at localhost" in said
    assert all(f"PROBLEM  Triton {server}" in said for server in servers)


def test_ctrl_c_ends_a_command_cleanly_and_keeps_what_is_done(parts, tmp_path):
    with scripted(HANG) as server:
        process = subprocess.Popen(
            [*PROGRAM, "infer", parts / "good", "--roi", "a/b", "--mm-per-px", "1", "--csv", tmp_path / "out.csv"],
            cwd=PROJECT,
            env={**environment({}), "PATCHCORE_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until(lambda: server.requests)
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, out, error) == (130, "", "")
    assert (tmp_path / "out.csv").read_text().startswith("file,modified,time,verdict,")


def test_the_shell_completes_commands_and_rois(run, taught):
    words = {"_PATCHCORE_COMPLETE": "complete_bash", "COMP_WORDS": "patchcore roi show cli/ta", "COMP_CWORD": "3"}
    assert run(env=words, prog_name="patchcore").stdout.split() == ["cli/taught"]
    words["COMP_WORDS"], words["COMP_CWORD"] = "patchcore roi r", "2"
    assert run(env=words, prog_name="patchcore").stdout.split() == ["report", "rollback"]


def test_the_program_is_installed_with_the_gateway():
    program = shutil.which("patchcore", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    assert done.stdout == "patchcore 0.1.0\n", done.stderr
