"""Measure images per second through one and through two Triton servers, with a network of fixed time."""

import argparse
import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import Row, interleave, spread
from bench.service import triton
from export.triton_config import CONFIG_FILE, write_serving_files
from export.triton_options import ServingOptions
from gateway.networks.model_description import DESCRIPTION_FILE, GRAPH_FILE, ModelDescription, WeightsSource
from gateway.networks.triton.engine import TritonEngine
from gateway.settings import Settings

HELP = "Triton engine with one and two servers, whose stand-in network takes a fixed time per image"

MODEL = ModelDescription(
    name="dinov2_vits14",
    timm_id="none",
    input_size=378,
    scales=(384,),
    layers=(0,),
    token_hw=(27, 27),
    dim=768,
    weights=WeightsSource(kind="seed", detail="a stand-in of fixed time", sha256="0" * 64),
    graph_sha256=hashlib.sha256(b"").hexdigest(),
    fingerprint="0" * 64,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--ms", type=float, default=50, help="time that the stand-in takes for an image")
    parser.add_argument("--images", type=int, default=128, help="in a round, one in each request")
    parser.add_argument("--in-flight", type=int, default=32, help="requests at once")
    parser.add_argument("--rounds", type=int, default=5)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return a description of the network, and a row for each number of servers."""
    image = np.zeros((1, MODEL.input_size, MODEL.input_size, 3), np.uint8)

    async def all_images(engine: TritonEngine) -> None:
        places = asyncio.Semaphore(args.in_flight)

        async def one() -> None:
            async with places:
                await engine.tokens(image, model=MODEL)

        await asyncio.gather(*(one() for _ in range(args.images)))

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        repository = stand_in_repository(folder, args.ms)
        urls = [stack.enter_context(triton(repository)) for _ in range(2)]
        runner = stack.enter_context(asyncio.Runner())
        engines = {}
        for count in (1, 2):
            settings = Settings(
                triton_url=",".join(urls[:count]),
                triton_shared_memory="off",
                triton_timeout_s=600,
                model_repository=folder / "none",
            )
            engines[count] = TritonEngine(settings)
            runner.run(engines[count].start())
            stack.callback(_close, runner, engines[count])
        ways = {str(count): partial(_round, runner, all_images, engine) for count, engine in engines.items()}
        seconds = interleave(ways, args.rounds)
    rows = [
        {
            "servers": count,
            "images_a_second": round(args.images / float(np.median(each)), 1),
            **spread(each, seconds["1"]),
        }
        for count, each in seconds.items()
    ]
    return f"stand-in network of {args.ms:g} ms an image; {args.in_flight} requests at once, images by gRPC", rows


def stand_in_repository(folder: Path, ms: float, tokens: NDArray[np.float32] | None = None) -> Path:
    """Write a model repository into `folder`, whose network sleeps `ms` milliseconds for each image.

    It answers with the same tokens for every image: those given, float32 [N, D], or equal ones.
    """
    version = folder / "repository" / MODEL.name / "1"
    version.mkdir(parents=True)
    (version / DESCRIPTION_FILE).write_text(MODEL.model_dump_json())
    (version / GRAPH_FILE).touch()
    write_serving_files(version.parent, ServingOptions("python", inspect_timeout_ms=600_000))
    shutil.copy(Path(__file__).with_name("fixed_time_model.py"), version / "model.py")
    equal = np.full((MODEL.n_tokens, MODEL.dim), MODEL.dim**-0.5)
    np.save(version / "tokens.npy", equal if tokens is None else tokens)
    with (version.parent / CONFIG_FILE).open("a") as file:
        file.write(f'parameters {{ key: "ms_an_image" value {{ string_value: "{ms:g}" }} }}\n')
    return folder / "repository"


def _round(
    runner: asyncio.Runner, work: Callable[[TritonEngine], Coroutine[Any, Any, None]], engine: TritonEngine, _: int
) -> None:
    runner.run(work(engine))


def _close(runner: asyncio.Runner, engine: TritonEngine) -> None:
    runner.run(engine.close())
