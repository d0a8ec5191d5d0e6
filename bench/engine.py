"""Time the network: bare in a loop, through the engine protocol, and by ONNX Runtime in fp32."""

import argparse
import asyncio

import numpy as np
from numpy.typing import NDArray

from bench.report import Row, interleave, spread
from bench.tokens import Tokens
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.engine import EmbeddedEngine, open_network
from gateway.networks.embedded.runtimes import OnnxRuntimeNetwork

HELP = "the network: bare, through the engine protocol, and ONNX Runtime fp32 (the reference), by batch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], metavar="B")
    parser.add_argument("--rounds", type=int, default=11)


def run(args: argparse.Namespace) -> tuple[str, list[Row]]:
    """Measure. Return the source of the images, and a row for each batch size and way."""
    tokens = Tokens()
    size = tokens.model.input_size
    images = np.stack([to_model_input(tokens.image(i), size) for i in range(max(args.batches))])
    bare = open_network(tokens.folder, tokens.model, tokens.settings)
    reference = OnnxRuntimeNetwork(tokens.folder, tokens.exported, device="cpu")
    rows = []
    with asyncio.Runner() as runner:
        engine = EmbeddedEngine(tokens.settings.model_copy(update={"model_repository": tokens.repository}))
        runner.run(engine.start())
        for batch in args.batches:
            part = images[:batch]

            def reference_of(_: int, part: NDArray[np.uint8] = part) -> object:
                return reference.run(part)

            def bare_of(_: int, part: NDArray[np.uint8] = part) -> object:
                return bare.run(part)

            def engine_of(_: int, part: NDArray[np.uint8] = part) -> object:
                return runner.run(engine.tokens(part, model=engine.model))

            ways = {reference.runtime: reference_of, f"bare {bare.runtime}": bare_of, "engine protocol": engine_of}
            seconds = interleave(ways, args.rounds)
            floor = seconds[f"bare {bare.runtime}"]
            for name, each in seconds.items():
                rows.append(
                    {
                        "batch": batch,
                        "way": name,
                        **spread(each, seconds[reference.runtime]),
                        "ms_an_image": round(float(np.median(each)) * 1e3 / batch, 1),
                        "of_bare": round(float(np.median(each / floor)), 3),
                    }
                )
        runner.run(engine.close())
    return tokens.source, rows
