"""The command line of the token model: export DINOv2 ViT-S/14 as one ONNX graph into a model repository."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from export.errors import ExportError
from export.publish import ExportOptions, publish
from export.triton_config import write_serving_files
from export.triton_options import add_arguments, options_from
from export.typed_files import provide_typed_graph
from gateway.networks.model_description import read_description


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the export. Print the folder of the version to stdout, and the progress to stderr.

    Returns:
        The exit status: 0 published or up to date, 1 failed, 2 wrong usage, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    serving = options_from(options)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("export")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    try:
        version = publish(
            ExportOptions(
                weights=options.weights,
                repository=options.repository,
                name=options.name,
                scales=options.scales,
                layers=options.layers,
                force=options.force,
                tolerance_f32=options.tolerance_f32,
                tolerance_bf16=options.tolerance_bf16,
            )
        )
        if options.int8 is not None:
            from export.int8 import provide_int8

            provide_int8(version, read_description(version), options.int8)
        if options.tensorrt_dtype is not None:
            provide_typed_graph(version, read_description(version), options.tensorrt_dtype)
        if serving is not None:
            write_serving_files(version.parent, serving, version=int(version.name))
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was published", file=sys.stderr)
        return 130
    print(version)
    return 0


def _parser() -> argparse.ArgumentParser:
    default = ExportOptions()
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Export DINOv2 ViT-S/14 as one graph: uint8 RGB image -> L2-normalised patch tokens.",
        epilog="The environment variable DINOV2_WEIGHTS sets the default of --weights."
        " To train a model on OK images: python -m export student-teacher --help",
    )
    parser.add_argument(
        "--weights",
        default=os.environ.get("DINOV2_WEIGHTS") or default.weights,
        metavar="auto|hub|FILE|seed:N",
        help="source of the weights. auto (default): the hub, or stand-in weights if the hub does not answer. hub: only"
        " the hub. FILE: .safetensors or .pth with the original DINOv2 key names. seed:N: random weights for tests",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=default.repository,
        metavar="DIR",
        help="model repository to publish into (default: that of the project)",
    )
    parser.add_argument("--name", default=default.name, help="model folder in the repository (default: %(default)s)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--input-size",
        dest="scales",
        type=_numbers,
        default=default.scales,
        metavar="PIXELS",
        help="side of the image; the graph uses the largest multiple of 14 up to it (default: 384, used as 378)",
    )
    size.add_argument(
        "--scales",
        type=_numbers,
        metavar="PIXELS,…",
        help="several sizes in ascending order, such as 256,384: the graph takes the last and resizes to the others",
    )
    parser.add_argument(
        "--layers",
        type=_numbers,
        metavar="BLOCK,…",
        help="blocks whose tokens are concatenated, counted from 0 (default: 9,11; 6,8 for the stand-in weights)",
    )
    parser.add_argument(
        "--tolerance-f32",
        type=float,
        default=default.tolerance_f32,
        metavar="COSINE",
        help="lowest allowed cosine of a token in f32 with torch; below it nothing is published (default: %(default)s)",
    )
    parser.add_argument(
        "--tolerance-bf16",
        type=float,
        default=default.tolerance_bf16,
        metavar="COSINE",
        help="the same in bf16; below it the model is published and served in f32 (default: %(default)s)",
    )
    parser.add_argument(
        "--int8",
        type=Path,
        metavar="DIR",
        help="also write the model in int8, calibrated on the OK images of this folder (20 to 120); for CPUs with VNNI"
        " and without AMX. It is another model: ROIs must be fitted again",
    )
    parser.add_argument("--force", action="store_true", help="publish even if the newest version is the same model")
    add_arguments(parser, required=False)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers separated by commas") from None
