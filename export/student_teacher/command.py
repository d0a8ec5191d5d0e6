"""The command line of the student-teacher model."""

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError
from export.labelled_csv import add_column_arguments, columns_from
from export.student_teacher.dataset import OkImages, TrainingImages, load, read_csv, read_folder
from export.student_teacher.publish import StudentOptions, model_name, publish_student
from export.student_teacher.resnet import STAGES, WEIGHTS_VARIABLE
from export.student_teacher.training import TrainingOptions
from export.triton_config import write_serving_files
from export.triton_options import add_arguments, options_from
from export.typed_files import provide_typed_graph
from gateway.errors import GatewayError
from gateway.networks.student_description import read_student
from gateway.store.manifest import LARGEST_MM_PER_PX
from gateway.store.roi_key import RoiKey


def main(arguments: Sequence[str]) -> int:
    """Train the connectors of the command line. Print the folder of each version to stdout, and the progress to stderr.

    Returns:
        The exit status: 0 published or up to date, 1 failed, 2 wrong usage, 130 interrupted.
    """
    parsed = _parser().parse_args(arguments)
    serving = options_from(parsed)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("export")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    options = StudentOptions(
        weights=parsed.weights,
        repository=parsed.repository,
        size=parsed.size,
        layers=parsed.layers,
        training=TrainingOptions(
            seed=parsed.seed,
            epochs=parsed.epochs,
            patience=parsed.patience,
            batch_size=parsed.batch_size,
            learning_rate=parsed.learning_rate,
            validation_share=parsed.validation_share,
            device=parsed.train_on,
            threads=parsed.train_threads,
        ),
        force=parsed.force,
    )
    try:
        _check_publication(parsed)
        options.check()
        # Read all images before the first training, so that a missing image shows now and not in an hour.
        read, left_out = _read(_chosen(parsed), options, skip=parsed.all)
        for each, images in read:
            try:
                version = publish_student(options, each.connector, images, dict(each.unused))
            except ExportError as error:
                if not parsed.all:
                    raise
                left_out.append(f"{each.where}: {error}")
                continue
            if parsed.tensorrt_dtype is not None:
                provide_typed_graph(version, read_student(version), parsed.tensorrt_dtype)
            if serving is not None:
                write_serving_files(version.parent, serving, version=int(version.name))
            print(version, flush=True)
            if parsed.publish is not None:
                _publish(version, images, parsed.publish, parsed.mm_per_px)
        for message in left_out:
            print(f"error: not trained: {message}", file=sys.stderr)
        if left_out:
            return 1
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: only the versions printed above were published; the same command continues", file=sys.stderr
        )
        return 130
    return 0


def _read(
    chosen: Sequence[OkImages], options: StudentOptions, *, skip: bool
) -> tuple[list[tuple[OkImages, TrainingImages]], list[str]]:
    """Return the images of each connector, and the reasons why other connectors cannot be trained.

    Args:
        chosen: one item per connector.
        options: of the training.
        skip: leave out connectors that cannot be trained.

    Raises:
        ExportError: a connector cannot be trained and `skip` is false, or no connector is left.
    """
    read: list[tuple[OkImages, TrainingImages]] = []
    left_out: list[str] = []
    for each in chosen:
        try:
            model_name(each.connector)
            seed, share = options.training.seed, options.training.validation_share
            read.append((each, load(each, options.size, seed, share)))
        except ExportError as error:
            if not skip:
                raise
            print(f"left out: {error}", file=sys.stderr)
            left_out.append(str(error))
    if not read:
        raise ExportError(left_out[0])
    return read, left_out


def _check_publication(parsed: argparse.Namespace) -> None:
    if (parsed.publish is None) != (parsed.mm_per_px is None) or (parsed.publish is not None and parsed.all):
        raise ExportError("--publish and --mm-per-px belong together, with one connector instead of --all")
    if parsed.publish is None:
        return
    try:
        RoiKey.parse(parsed.publish)
    except GatewayError as error:
        raise ExportError(f"--publish {parsed.publish}: {error.message}. {error.hint}") from error
    if not 0 < parsed.mm_per_px <= LARGEST_MM_PER_PX:
        raise ExportError(f"--mm-per-px {parsed.mm_per_px}: expected a number above 0, at most {LARGEST_MM_PER_PX}")


def _publish(version: Path, images: TrainingImages, key: str, mm_per_px: float) -> None:
    """Publish the version with the gateway's tool, in a process without torch.

    Raises:
        ExportError: the tool failed. The trained version stays.
    """
    command = [sys.executable, "-m", "artifacts", "publish-model", str(version), key, "--mm-per-px", str(mm_per_px)]
    # Name the files, since their folders may also contain NG images. The output of the tool goes to stderr, since
    # stdout is for the names of versions.
    files = "".join(f"{file}\n" for file in images.validation_files())
    done = subprocess.run([*command, "--images", "-"], input=files, stdout=sys.stderr, text=True, check=False)
    if done.returncode:
        raise ExportError(
            f"{version} is trained, but not published as {key}: see above. Run the same command again, or "
            f"scripts/artifacts publish-model {version} {key} --mm-per-px {mm_per_px:g} --images FOLDER"
        )


def _chosen(parsed: argparse.Namespace) -> list[OkImages]:
    if parsed.ok is not None:
        if parsed.all:
            raise ExportError("--all trains every connector of a CSV. With --ok, name one with --connector NAME")
        return [read_folder(parsed.ok, parsed.connector or parsed.ok.resolve().name)]
    connectors = read_csv(parsed.csv, columns_from(parsed))
    there = ", ".join(connectors) or "none"
    if parsed.all:
        if not connectors:
            raise ExportError(f"{parsed.csv} has no rows, so it names no connector")
        return list(connectors.values())
    if parsed.connector is None:
        raise ExportError(f"name a connector with --connector NAME, or use --all. {parsed.csv} has: {there}")
    if parsed.connector not in connectors:
        raise ExportError(f"{parsed.csv} has no connector {parsed.connector!r}. It has: {there}")
    return [connectors[parsed.connector]]


def _parser() -> argparse.ArgumentParser:
    default = StudentOptions()
    training = default.training
    parser = argparse.ArgumentParser(
        prog="python -m export student-teacher",
        description="Train a ResNet18 student on OK images of a connector to predict the maps of a frozen teacher, and"
        " export both as one graph: uint8 RGB image -> anomaly map. Images with other labels are not opened. The same"
        " command continues an interrupted training.",
        epilog=f"The environment variable {WEIGHTS_VARIABLE} sets the default of --weights.",
    )
    source = parser.add_argument_group("images")
    where = source.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--csv", type=Path, metavar="FILE", help="columns: image path (relative to the file), connector, label"
    )
    where.add_argument("--ok", type=Path, metavar="DIR", help="folder of OK images")
    which = source.add_mutually_exclusive_group()
    which.add_argument(
        "--connector", metavar="NAME", help="the model is named st_NAME (default with --ok: the name of the folder)"
    )
    which.add_argument("--all", action="store_true", help="train every connector of the CSV")
    add_column_arguments(source)
    model = parser.add_argument_group("model")
    model.add_argument(
        "--weights",
        default=os.environ.get(WEIGHTS_VARIABLE) or default.weights,
        metavar="hub|FILE|seed:N",
        help="weights of the teacher: from the hub (default), a .safetensors or .pth file, or random for tests",
    )
    model.add_argument(
        "--layers",
        type=lambda text: tuple(text.split(",")),
        default=default.layers,
        metavar="LAYER,…",
        help=f"some of {', '.join(STAGES)} (default: {','.join(default.layers)})",
    )
    model.add_argument(
        "--size", type=int, default=default.size, metavar="PIXELS", help="side of the image (default: %(default)s)"
    )
    model.add_argument(
        "--repository", type=Path, default=default.repository, metavar="DIR", help="repository to publish into"
    )
    model.add_argument(
        "--force", action="store_true", help="train even if the newest version has the same images and options"
    )
    model.add_argument(
        "--publish",
        metavar="ROLE/ROI",
        help="activate the version for an ROI under GATEWAY_MODELS_DIR, as scripts/artifacts publish-model does",
    )
    model.add_argument("--mm-per-px", type=float, metavar="MM", help="scale of the OK images, for --publish")
    learning = parser.add_argument_group("training")
    numbers: tuple[tuple[str, type, float, str], ...] = (
        ("--seed", int, training.seed, "seed of the first weights, the split, the order and the changes of images"),
        ("--epochs", int, training.epochs, "most epochs"),
        ("--patience", int, training.patience, "epochs without a lower validation loss before the training ends"),
        ("--batch-size", int, training.batch_size, "images per batch"),
        ("--learning-rate", float, training.learning_rate, "learning rate at the start"),
        ("--validation-share", float, training.validation_share, "share of the OK images for validation"),
        ("--train-threads", int, training.threads, "threads on a CPU; 0 means one per core"),
    )
    for name, kind, number, text in numbers:
        learning.add_argument(name, type=kind, default=number, metavar="N", help=f"{text} (default: %(default)s)")
    learning.add_argument(
        "--train-on",
        choices=("auto", "cpu", "cuda"),
        default=training.device,
        help="device of the training (default: CUDA if available)",
    )
    add_arguments(parser, required=False)
    return parser
