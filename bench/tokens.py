"""Tokens for benchmarks, of real images where there are any, else of drawn ones. Never of noise alone."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.detectors.memory_bank.coreset import k_center_greedy
from gateway.images.decoding import to_model_input
from gateway.networks.embedded.engine import open_network, served_model
from gateway.networks.model_description import DescriptionError, newest_version, read_description
from gateway.settings import HOME, Settings

CACHE = HOME / ".cache" / "bench"


class Tokens:
    """Tokens of up to 244 images, computed once and stored under ``.cache/bench``."""

    def __init__(self) -> None:
        settings = Settings()
        try:
            folder = newest_version(settings.model_folder)
        except DescriptionError:
            folder = _seeded_model()
        self.folder = folder
        """Folder of the version that is measured."""
        self.repository = folder.parent.parent
        self.settings = settings
        self.exported = read_description(folder)
        """The description of the graph in f32."""
        self.model, _ = served_model(folder, settings)
        """The description of the graph that is served: in int8, it is another."""
        data = Path(os.environ.get("MAGNETIC_TILE_DIR", HOME.parent / "shared" / "data" / "magnetic_tile"))
        self.data = data
        """Where the magnetic tiles are, if they are."""
        self._files = [*sorted(data.glob("train/good/*")), *sorted(data.glob("test/good/*"))]
        self._files += sorted(p for p in data.glob("test/*/*") if p.parent.name != "good")
        images = "magnetic tiles (Huang et al.)" if self._files else "drawn surfaces (no photographs found)"
        weights = f"{self.model.weights.kind}:{Path(self.model.weights.detail).name}"
        self.source = f"tokens of {images}; {self.model.extractor}, layers {self.model.layers}, weights {weights}"
        key = hashlib.sha256(f"{self.model.fingerprint} {[p.name for p in self._files]}".encode()).hexdigest()[:16]
        self._cache = CACHE / key
        self._cache.mkdir(parents=True, exist_ok=True)

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self._files) or 208

    def of_images(self, n: int) -> NDArray[np.float16]:
        """Return the tokens of the first images, float16 [n, N, D]; good images come first."""
        return self._all()[:n]

    def of_last(self, n: int) -> NDArray[np.float32]:
        """Return the tokens of the last images, float32 [n, N, D]; they are in no bank."""
        return self._all()[-n:].astype(np.float32)

    def bank(self, size: int) -> NDArray[np.float16]:
        """Return tokens of the first 200 images, float16 [size, D]: a coreset up to 10 000, random tokens above."""
        path = self._cache / f"bank-{size}.npy"
        if not path.exists():
            flat = self.of_images(200).reshape(-1, self.model.dim)
            if size <= 10_000:
                rows = k_center_greedy(flat, size, 0).indices
            else:
                rows = np.random.default_rng(0).permutation(len(flat))[:size]
            np.save(path, flat[rows])
        bank: NDArray[np.float16] = np.load(path)
        return bank

    def _all(self) -> NDArray[np.float16]:
        path = self._cache / "tokens.npy"
        if not path.exists():
            print(f"computing {self.source} once; this takes about a minute", file=sys.stderr)
            network = open_network(self.folder, self.model, self.settings)
            size = self.model.input_size
            tokens = [network.run(to_model_input(self.image(i), size)[None])[0] for i in range(self.n_images)]
            np.save(path, np.stack(tokens).astype(np.float16))
        all_tokens: NDArray[np.float16] = np.load(path, mmap_mode="r")
        return all_tokens

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return an image, uint8 [H, W, 3] RGB; a negative index counts from the end."""
        if not self._files:
            return drawn_surface(index % self.n_images)
        image = cv2.imread(str(self._files[index]), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise FileNotFoundError(f"{self._files[index]} cannot be read")
        return np.asarray(image, np.uint8)


def drawn_surface(seed: int) -> NDArray[np.uint8]:
    """Draw brushed metal under uneven light with one or two holes, uint8 [384, 384, 3]; each seed differs slightly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:384, :384] / 384
    brushed = cv2.GaussianBlur(rng.normal(size=(384, 384)), (0, 0), sigmaX=12, sigmaY=0.8)
    fine = cv2.GaussianBlur(rng.normal(size=(384, 384)), (0, 0), 1.2)
    grey = 120 + 40 * (x * rng.normal() + y * rng.normal()) + 90 * brushed + 20 * fine
    grey = np.clip(grey, 0, 255).astype(np.uint8)
    for _ in range(2):
        centre = rng.integers(60, 320, size=2).tolist()
        cv2.circle(grey, centre, int(rng.integers(8, 40)), int(rng.integers(20, 90)), -1, cv2.LINE_AA)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _seeded_model() -> Path:
    repository = CACHE / "model_repository"
    try:
        return newest_version(repository / "dinov2_vits14")
    except DescriptionError:
        print("no exported model: exporting one with random weights", file=sys.stderr)
        command = [sys.executable, "-m", "export", "--weights", "seed:0", "--repository", str(repository)]
        subprocess.run(command, cwd=HOME, check=True, stdout=sys.stderr)
        return newest_version(repository / "dinov2_vits14")
