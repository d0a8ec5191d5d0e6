"""``python -m bench.instant``: the gateway with a network that answers at once, to see what is beside the network."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.networks.embedded.runtimes import OpenVinoNetwork


def main() -> int:
    """Let each network answer with the tokens of its first image, then serve."""
    computed = OpenVinoNetwork.run
    known: dict[int, NDArray[np.float32]] = {}

    def at_once(self: Any, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if id(self) not in known:
            known[id(self)] = computed(self, images[:1])
        return np.repeat(known[id(self)], len(images), axis=0)

    OpenVinoNetwork.run = at_once  # type: ignore[method-assign]
    from gateway.__main__ import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
