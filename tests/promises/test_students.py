"""A student is what its OK images, its options and its seed make it, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors import SafetensorError, safe_open

from export.student_teacher.checkpoint import FILE
from gateway.networks.student_description import read_student
from tests.export.tiny_student import COMMAND, TRAINING, options, publish_folder, trained, trained_once, write_images

PROJECT = Path(__file__).resolve().parents[2]

_TELLING = """
import atexit, os, sys
opened = set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
@atexit.register
def tell():
    with open(os.environ["TOLD"], "a") as file:
        file.write("\\n".join(opened) + "\\n")
"""
"""`sitecustomize.py`: every Python process started writes down which files it opened."""


def test_of_images_that_are_not_ok_not_even_the_file_is_opened(tmp_path, full):
    rows, labels = [], ("OK", "KO", "OCCLUSION", "PARTIAL OCCLUSION")
    for number, label in enumerate(labels):
        for connector in (1, 2):
            for shift in (0, 1):  # the same names in each, and beside OK images others
                folder = tmp_path / f"images-{shift}"
                for i, path in enumerate(write_images(tmp_path / "made", 6, 100 * number + 10 * connector + shift)):
                    own = folder / f"conn{connector}-{(6 * number + i + 3 * shift) % 24}.png"
                    own.parent.mkdir(exist_ok=True)
                    path.rename(own)
                    rows.append((own, f"conn{connector}", label))
    file = tmp_path / "dataset.csv"
    lines = [f"{path.relative_to(tmp_path)},{connector},{label}" for path, connector, label in rows]
    file.write_text("\n".join(["image path,connector,label", *lines]) + "\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_TELLING)
    told = tmp_path / "opened.txt"
    paths = os.pathsep.join(map(str, (tmp_path / "site", PROJECT)))
    environment = {**os.environ, "PYTHONPATH": paths, "TOLD": str(told), "GATEWAY_MODELS_DIR": str(tmp_path / "rois")}
    line = [sys.executable, "-m", "export", "student-teacher", "--csv", file, *COMMAND]
    line += ["--repository", tmp_path / "repository"]
    published = ["--connector", "conn1", "--publish", "steel/conn1", "--mm-per-px", "0.2"]
    for more in (["--all"], published) if full else (published,):
        done = subprocess.run([*line, *more], cwd=PROJECT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "steel/conn1 version 1" in done.stderr
    opened = {Path(line) for line in told.read_text().splitlines() if line.endswith(".png")}
    images = {path for path in opened if path.parent.name.startswith("images-")}
    trained = ("conn1", "conn2") if full else ("conn1",)
    assert images == {path for path, connector, label in rows if label == "OK" and connector in trained}
    for connector in trained:
        model = read_student(tmp_path / "repository" / f"st_{connector}" / "1")
        assert model.training.unused == dict.fromkeys(labels[1:], 12)
        assert model.training.n_train + model.training.n_validation == 12


def test_the_same_seed_and_images_give_the_same_student_and_another_seed_another(tmp_path):
    images, version = trained_once(14, 40)
    one = read_student(version).student_sha256
    same, other = (
        trained(images, options(tmp_path, seed=seed), tmp_path / str(seed))
        for seed in (TRAINING.seed, TRAINING.seed + 1)
    )
    assert one == same != other


def epochs_done(checkpoint: Path) -> int:
    try:
        with safe_open(checkpoint, framework="np") as file:
            return len(json.loads(file.metadata()["progress"])["history"])
    except (OSError, SafetensorError):
        return 0


def test_a_killed_training_goes_on_in_another_process_to_the_result_of_an_uninterrupted_one(tmp_path, caplog):
    data = tmp_path / "data"
    write_images(data / "conn1", 10)
    whole = publish_folder(data / "conn1", options(tmp_path / "whole", epochs=12, patience=12))
    line = [sys.executable, "-m", "export", "student-teacher", "--ok", data / "conn1", *COMMAND]
    line += ["--epochs", "12", "--patience", "12", "--repository", tmp_path / "killed"]
    checkpoint = tmp_path / "killed" / "st_conn1" / ".training" / FILE
    with subprocess.Popen(line, cwd=PROJECT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while epochs_done(checkpoint) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    reached = epochs_done(checkpoint)
    assert 3 <= reached < 12
    assert not (tmp_path / "killed" / "st_conn1" / "1").exists()

    with caplog.at_level("INFO"):
        resumed = publish_folder(data / "conn1", options(tmp_path / "killed", epochs=12, patience=12))
    assert f"conn1: continuing after epoch {reached}" in caplog.text
    assert resumed == tmp_path / "killed" / "st_conn1" / "1"
    one, other = read_student(whole), read_student(resumed)
    assert one.training.losses == other.training.losses
    assert one.student_sha256 == other.student_sha256
    assert one.fingerprint == other.fingerprint
    assert not checkpoint.parent.exists()
