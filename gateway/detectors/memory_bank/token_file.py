"""Tokens of OK images in a temporary file, read in blocks: the tokens of a large fit do not fit into memory."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class TokenRows(Protocol):
    """Tokens [N, D] that are read by rows; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, D)`."""

    def __getitem__(self, rows: NDArray[np.intp], /) -> NDArray[np.floating]:
        """Return the tokens of some rows, float [R, D]."""


class ImageTokens(Protocol):
    """Tokens [I, N, D] of I images that are read image by image or by rows."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(I, N, D)`."""

    def image(self, index: int) -> NDArray[np.float16]:
        """Return the tokens of an image, float16 [N, D]."""

    def rows(self, candidates: NDArray[np.intp] | None = None) -> TokenRows:
        """Return the tokens of all images as rows [I · N, D].

        Args:
            candidates: rows to keep, ascending; None keeps all.
        """


class ArrayTokens:
    """An array as `ImageTokens`."""

    def __init__(self, tokens: NDArray[np.float16]) -> None:
        """Wrap an array, float16 [I, N, D]."""
        self._tokens = tokens

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `ImageTokens.shape`."""
        n_images, n_tokens, dim = self._tokens.shape
        return n_images, n_tokens, dim

    def image(self, index: int) -> NDArray[np.float16]:
        """See `ImageTokens.image`."""
        return np.asarray(self._tokens[index], np.float16)

    def rows(self, candidates: NDArray[np.intp] | None = None) -> TokenRows:
        """See `ImageTokens.rows`."""
        flat = self._tokens.reshape(-1, self._tokens.shape[2])
        return flat if candidates is None else flat[candidates]


class TokenFile:
    """A temporary file of tokens, one image after another. It has no name and is gone once it is closed.

    Reading does not map the file into memory, so that it does not count towards the memory of the process. Several
    threads may read at once.
    """

    def __init__(self, folder: Path, n_tokens: int, dim: int) -> None:
        """Create an empty file.

        Args:
            folder: place of the file; created where it does not exist.
            n_tokens: N, the number of tokens of an image.
            dim: D, the length of a token.

        Raises:
            OSError: the file cannot be created.
        """
        self.n_tokens, self.dim = n_tokens, dim
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder, prefix="fit-")  # noqa: SIM115
        self._n_images = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, tokens: NDArray[np.float16]) -> int:
        """Write the tokens of an image, float16 [N, D], and return their place in the file.

        Raises:
            OSError: they cannot be written.
        """
        if tokens.shape != (self.n_tokens, self.dim) or tokens.dtype != np.float16:
            raise ValueError(f"tokens {tokens.dtype} {tokens.shape}; expected float16 ({self.n_tokens}, {self.dim})")
        data = np.ascontiguousarray(tokens).reshape(-1).view(np.uint8).data
        at = self._n_images * len(data)
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            at, data = at + written, data[written:]
        self._n_images += 1
        return self._n_images - 1

    def images(self, places: Sequence[int]) -> "FileTokens":
        """Return the tokens of some images, in the order of their places here."""
        return FileTokens(self, np.asarray(places, np.intp))

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.float16]:
        """Return the tokens of some rows of the file, float16 [R, D]."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        tokens = np.empty((len(rows), self.dim), np.float16)
        data = tokens.reshape(-1).view(np.uint8).data
        row_bytes = 2 * self.dim
        starts = np.flatnonzero(np.diff(ascending, prepend=-2) != 1).tolist()
        for start, stop in zip(starts, [*starts[1:], len(rows)][: len(starts)], strict=True):
            self._fill(data[start * row_bytes : stop * row_bytes], int(ascending[start]) * row_bytes)
        if bool((order[1:] > order[:-1]).all()):
            return tokens
        in_order = np.empty_like(tokens)
        in_order[order] = tokens
        return in_order

    def _fill(self, data: memoryview, at: int) -> None:
        while data:
            n = os.preadv(self._file.fileno(), [data], at)
            if not n:
                raise IndexError("rows beyond the end of the token file")
            at, data = at + n, data[n:]


class FileTokens:
    """`ImageTokens` of some images of a `TokenFile`."""

    def __init__(self, file: TokenFile, places: NDArray[np.intp]) -> None:
        """Choose images by their places in the file, int [I]."""
        self._file = file
        self._places = places

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `ImageTokens.shape`."""
        return len(self._places), self._file.n_tokens, self._file.dim

    def image(self, index: int) -> NDArray[np.float16]:
        """See `ImageTokens.image`."""
        n = self._file.n_tokens
        return self._file.read(np.arange(n, dtype=np.intp) + self._places[index] * n)

    def only(self, indices: Sequence[int]) -> "FileTokens":
        """Return the tokens of some of these images."""
        return FileTokens(self._file, self._places[np.asarray(indices, np.intp)])

    def rows(self, candidates: NDArray[np.intp] | None = None) -> TokenRows:
        """See `ImageTokens.rows`."""
        return _FileRows(self._file, self._places, candidates)


class _FileRows:
    """Rows of a token file, renumbered in the order of some images."""

    def __init__(self, file: TokenFile, places: NDArray[np.intp], candidates: NDArray[np.intp] | None) -> None:
        self._file = file
        self._places = places
        self._candidates = candidates

    @property
    def shape(self) -> tuple[int, int]:
        n_rows = len(self._places) * self._file.n_tokens if self._candidates is None else len(self._candidates)
        return n_rows, self._file.dim

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[np.float16]:
        wanted = rows if self._candidates is None else self._candidates[rows]
        image, token = np.divmod(wanted, self._file.n_tokens)
        return self._file.read(self._places[image] * self._file.n_tokens + token)
