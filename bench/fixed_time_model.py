"""A stand-in network for Triton's Python backend. Each image takes a fixed time, as on a GPU, and no processor time."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Return the tokens of a file beside this one, [B, N, D], for images uint8 [B, S, S, 3]."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the shapes from the configuration, and the time from its parameter ``ms_an_image``."""
        config = json.loads(args["model_config"])
        self._output = config["output"][0]["name"]
        dtype = pb_utils.triton_string_to_numpy(config["output"][0]["data_type"])
        self._tokens = np.load(Path(__file__).with_name("tokens.npy")).astype(dtype)
        self._seconds = float(config["parameters"]["ms_an_image"]["string_value"]) / 1e3

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one batch after the time of its images."""
        sizes = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy().shape[0] for request in requests]
        time.sleep(self._seconds * sum(sizes))
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(self._output, np.stack([self._tokens] * size))])
            for size in sizes
        ]
