"""A stand-in for the client of a Triton server, which stalls, refuses or changes its model as a test tells it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from gateway.networks.model_description import DESCRIPTION_FILE, ModelDescription, WeightsSource

MODEL = ModelDescription(
    name="m",
    timm_id="t",
    input_size=14,
    scales=(14,),
    layers=(0,),
    token_hw=(1, 1),
    dim=4,
    weights=WeightsSource(kind="file", detail="f", sha256="0"),
    graph_sha256="0",
    fingerprint="0",
)
IMAGES = np.zeros((1, 14, 14, 3), np.uint8)


class Channel:
    """A connection that is never lost."""

    def get_state(self, try_to_connect: bool = False) -> str:
        return "ready"

    async def wait_for_state_change(self, _: str) -> None:
        await asyncio.Event().wait()


class Server:
    """Answers as Triton does, except while `answers` is cleared."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()
        self.asks = self.infers = 0
        self.value = 1.0
        self.regions: set[str] = set()
        self.unregistered = asyncio.Semaphore(0)
        self.inferring: Callable[[], Awaitable[None]] | None = None
        self.model = MODEL
        self.max_batch = 4
        self.batches: list[int] = []
        self.refusal: tuple[str, str] | None = None
        """Status and message of the error that it answers to inferences."""
        self.is_down = False
        self.closed = asyncio.Event()
        self._channel = Channel()

    async def _answer(self) -> None:
        await self.answers.wait()
        if self.is_down:
            raise InferenceServerException("connection refused", "StatusCode.UNAVAILABLE")

    async def get_model_metadata(self, name: str, **_: object) -> Any:
        self.asks += 1
        self.asked.set()
        await self._answer()
        return service_pb2.ModelMetadataResponse(name=name, versions=["1"])

    async def get_model_config(self, name: str, **_: object) -> Any:
        await self._answer()
        config = model_config_pb2.ModelConfig(name=name, backend="python", max_batch_size=self.max_batch)
        config.parameters[f"{DESCRIPTION_FILE}/1"].string_value = self.model.model_dump_json()
        config.output.add(data_type=model_config_pb2.TYPE_FP32)
        return service_pb2.ModelConfigResponse(config=config)

    async def is_model_ready(self, *_: object, **__: object) -> bool:
        await self._answer()
        return True

    async def infer(self, *, inputs: list[Any], **_: object) -> Any:
        self.infers += 1
        await self._answer()
        if self.refusal is not None:
            raise InferenceServerException(self.refusal[1], self.refusal[0])
        batch = inputs[0].shape()[0]
        self.batches.append(batch)
        if self.inferring is not None:
            await self.inferring()

        value = self.value

        class Result:
            def as_numpy(self, _: str) -> Any:
                return np.full((batch, 1, 4), value, np.float32)

            def get_response(self) -> Any:
                return service_pb2.ModelInferResponse(model_version="1")

        return Result()

    async def register_system_shared_memory(self, name: str, *_: object, **__: object) -> None:
        await self._answer()
        self.regions.add(name)

    async def unregister_system_shared_memory(self, name: str, **_: object) -> None:
        await self._answer()
        self.regions.discard(name)
        self.unregistered.release()

    async def get_system_shared_memory_status(self, **_: object) -> Any:
        await self._answer()
        return service_pb2.SystemSharedMemoryStatusResponse()

    async def close(self) -> None:
        self.closed.set()
