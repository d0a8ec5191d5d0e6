"""Images and options for a training that takes seconds: the real network on 32 x 32 pixels."""

from dataclasses import replace
from pathlib import Path

import cv2
from filelock import FileLock

from export.comparison import camera_images
from export.student_teacher.dataset import load, read_folder
from export.student_teacher.graph import StudentTeacherGraph
from export.student_teacher.publish import StudentOptions, publish_student
from export.student_teacher.resnet import load_teacher, new_student
from export.student_teacher.training import TrainingOptions, train
from export.weights import sha256_of
from tests.conftest import PROJECT, kept_folder

TRAINING = TrainingOptions(epochs=2, batch_size=4)
COMMAND = ("--weights", "seed:0", "--size", "32", "--layers", "layer1", "--epochs", "2", "--batch-size", "4")


def options(repository: Path, *, layers: tuple[str, ...] = ("layer1",), size: int = 32, **training) -> StudentOptions:
    return StudentOptions(
        weights="seed:0", repository=repository, size=size, layers=layers, training=replace(TRAINING, **training)
    )


def write_images(folder: Path, count: int, seed: int = 0, size: int = 40) -> list[Path]:
    """Write `count` different images of parts."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(camera_images(count, size, seed)):
        paths.append(folder / f"{seed}_{i}.png")
        assert cv2.imwrite(str(paths[-1]), image[..., ::-1])
    return paths


def publish_folder(folder: Path, given: StudentOptions, connector: str = "conn1") -> Path:
    """Train on all images of `folder`."""
    training = given.training
    images = load(read_folder(folder, connector), given.size, training.seed, training.validation_share)
    return publish_student(given, connector, images, {})


def trained(folder: Path, given: StudentOptions, checkpoints: Path, connector: str = "conn1") -> str:
    """Train as `publish_folder` does, and publish nothing. Returns the checksum of the student."""
    training = given.training
    images = load(read_folder(folder, connector), given.size, training.seed, training.validation_share)
    teacher, _ = load_teacher(given.weights, given.layers)
    graph = StudentTeacherGraph(teacher, new_student(given.layers, training.seed), given.size)
    train(graph, images, training, recipe="recipe", folder=checkpoints, name=connector)
    return sha256_of(graph.student.state_dict())


def trained_once(
    count: int, size_sent: int, size: int = 32, layers: tuple[str, ...] = ("layer1",)
) -> tuple[Path, Path]:
    """Images of a part and a student trained on them, kept under .cache.

    Returns:
        The folders of the images and of the version. Tests only read them.
    """
    folder = kept_folder(
        "test-student", sorted((PROJECT / "export").rglob("*.py")), repr((count, size_sent, size, layers)).encode()
    )
    version = folder / "repository" / "st_conn1" / "1"
    with FileLock(f"{folder}.lock"):
        if not (version / "model.json").is_file():
            write_images(folder / "conn1", count, size=size_sent)
            assert publish_folder(folder / "conn1", options(folder / "repository", layers=layers, size=size)) == version
    return folder / "conn1", version
