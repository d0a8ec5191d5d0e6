"""A trained student as a detector: its network computes the anomaly map itself."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from gateway.detectors.memory_bank.search.backend import SearchBackend
from gateway.networks import TokenEngine
from gateway.networks.registry import EngineRegistry
from gateway.networks.student_description import StudentDescription
from gateway.store.manifest import NETWORK, NETWORK_DESCRIPTION, FileName, Manifest


class StudentTeacherDetector:
    """See `Detector`. The "tokens" of its engine are the rows of the anomaly map."""

    mismatch_hint: ClassVar[str | None] = (
        "Serve the version of this model that the ROI was published with, or publish the version that is served: "
        "scripts/artifacts publish-model."
    )

    def __init__(self, description: StudentDescription, files: Mapping[FileName, bytes], manifest: Manifest) -> None:
        self.description = description
        self._files: dict[FileName, bytes] = {name: files[name] for name in (NETWORK, NETWORK_DESCRIPTION)}
        self._manifest = manifest
        self._learned = frozenset(i.sha256 for i in description.training.images if i.part == "train")

    @classmethod
    def load(cls, files: Mapping[FileName, bytes], manifest: Manifest, search: SearchBackend) -> Self:
        """Read the description. The network is compiled with the first image.

        Raises:
            KeyError: a file is missing.
            ValueError: a file does not hold what a publication writes.
        """
        try:
            description = StudentDescription.model_validate_json(files[NETWORK_DESCRIPTION])
        except ValidationError as error:
            raise ValueError(f"{NETWORK_DESCRIPTION} does not describe a student") from error
        detector = cls(description, files, manifest)
        detector.check()
        return detector

    @property
    def n_bytes(self) -> int:
        """See `Detector.n_bytes`."""
        return sum(map(len, self._files.values()))

    def files(self) -> dict[FileName, bytes]:
        """See `Detector.files`."""
        return dict(self._files)

    def check(self) -> None:
        """See `Detector.check`."""
        model, manifest = self.description, self._manifest
        is_right = (
            manifest.files.get(NETWORK) == model.graph_sha256
            and model.fingerprint == manifest.model_fingerprint
            and manifest.token_hw == (model.input_size, model.input_size)
        )
        if not is_right:
            raise ValueError("the network is not the one that the manifest describes")

    async def engine(self, engines: EngineRegistry) -> TokenEngine:
        """See `Detector.engine`."""
        return await engines.engine_for(self.description.as_tokens(), self._files[NETWORK])

    def neighbours(self, asked: int | None) -> tuple[int, list[str]]:
        """See `Detector.neighbours`."""
        if asked is None:
            return 0, []
        return 0, [f"k: {asked} was ignored: a student-teacher model has no neighbours"]

    def distances(self, tokens: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """See `Detector.distances`."""
        return tokens.reshape(-1)

    def nearest_ok_patch(self, token: NDArray[np.float32]) -> None:
        """See `Detector.nearest_ok_patch`: a student keeps no OK patches."""
        return

    def has_learned(self, sha256: str) -> bool:
        """See `Detector.has_learned`."""
        return sha256 in self._learned
