"""The images of a data set with their tokens, for splits that learn and inspect them many times."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evaluation.data import DataError, DataSet, Sample
from evaluation.inspection import Progress
from gateway.detectors.memory_bank.token_file import FileTokens, TokenFile
from gateway.images.decoding import Limits, decode, read_header
from gateway.learning.earlier_version import tiling_for
from gateway.learning.request import TilesAsked
from gateway.networks import TokenEngine
from gateway.store.manifest import OkImage
from gateway.store.ok_maps import Frame

_BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image."""

    pixels: NDArray[np.uint8]
    """[H, W] grey or [H, W, 3] RGB."""
    record: OkImage
    """What a manifest says of it."""


def read_picture(path: Path, limits: Limits) -> Picture:
    """Read an image as the gateway does.

    Raises:
        GatewayError: it cannot be read.
    """
    data = path.read_bytes()
    header = read_header(data, path.name, limits)
    width, height = header.upright_size
    record = OkImage(
        sha256=hashlib.sha256(data).hexdigest(),
        file_name=path.name,
        extension=header.extension,
        width=width,
        height=height,
        added_in=1,
    )
    return Picture(decode(data, path.name, header), record)


class Pool:
    """All OK images of a data set, those to learn and those to inspect, then all NG images, with their tokens."""

    def __init__(
        self,
        data: DataSet,
        engine: TokenEngine,
        limits: Limits,
        tiles: TilesAsked | None = None,
        max_tiles: int = 1,
    ) -> None:
        """Name the images; `load` reads them. An OK image that is there twice counts once.

        Args:
            data: the data set.
            engine: started.
            limits: of one image.
            tiles: how many tiles the images are cut into; None chooses as the first fit of an ROI.
            max_tiles: limit of the tiles of an image.

        Raises:
            InvalidRequestError: more tiles are asked for than the limit.
            GatewayError: the first image cannot be read.
        """
        distinct: dict[str, Path] = {}
        for path in (*data.train, *(sample.path for sample in data.test if not sample.is_ng)):
            distinct.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        self.name = data.name
        self.ok: Sequence[Path] = list(distinct.values())
        self.ng: Sequence[Sample] = [sample for sample in data.test if sample.is_ng]
        self.engine = engine
        self.limits = limits
        first_size = read_picture(self.ok[0], limits).record.frame.size_wh if self.ok else None
        self.tiling = tiling_for(tiles, None, first_size, engine.model, max_tiles)
        self.records: list[OkImage] = []
        """What a manifest says of each image, OK images first."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="evaluate-")))
        n_tokens, dim = self.tiling.n_tokens, self.engine.model.dim
        n = len(self.ok) + len(self.ng)
        self._tokens = np.memmap(folder / "tokens", np.float32, "w+", shape=(n, n_tokens, dim))
        self._to_learn = self._stack.enter_context(TokenFile(folder, n_tokens, dim))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def n_images(self) -> int:
        """Number of images that `load` reads."""
        return len(self.ok) + len(self.ng)

    async def load(self, progress: Progress) -> None:
        """Compute the tokens of all images, or take them from the engine's memory.

        Raises:
            DataError: a split needs at least two OK images.
        """
        if len(self.ok) < 2:
            raise DataError(f"{self.name}: splits need at least two OK images")
        paths = [*self.ok, *(sample.path for sample in self.ng)]
        for start in range(0, len(paths), _BATCH):
            pictures = [read_picture(path, self.limits) for path in paths[start : start + _BATCH]]
            tokens = await self.tokens_of([picture.pixels for picture in pictures])
            self._tokens[start : start + len(pictures)] = tokens
            for own in tokens:
                self._to_learn.append(own.astype(np.float16))
            self.records += [picture.record for picture in pictures]
            progress(len(pictures))

    async def tokens_of(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the tokens of images, float32 [B, N, D]."""
        found: list[NDArray[np.float32]] = []
        size = max(1, _BATCH // self.tiling.n_tiles)
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            tiles = np.concatenate([self.tiling.cut(self.tiling.resized(each)) for each in part])
            tokens = await self.engine.tokens(tiles, model=self.engine.model)
            found += [self.tiling.stitched(own) for own in np.split(tokens, len(part))]
        return np.stack(found)

    def tokens(self, index: int) -> NDArray[np.float32]:
        """Return the tokens of an image to inspect, float32 [N, D]."""
        return np.asarray(self._tokens[index])

    def to_learn(self, indices: Sequence[int]) -> FileTokens:
        """Return the tokens of images to learn, in the precision of a fit."""
        return self._to_learn.images(indices)

    def frames(self, indices: Sequence[int]) -> list[Frame]:
        """Return the pixel grids of images."""
        return [self.records[index].frame for index in indices]

    @property
    def ng_indices(self) -> list[int]:
        """Places of the NG images."""
        return list(range(len(self.ok), self.n_images))
