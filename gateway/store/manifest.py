"""Models of what is stored beside arrays and images: ``manifest.json``, ``calib.json``, ``current``.

`to_bytes` writes the format of now; `from_bytes` reads every format up to it and believes nothing that fails its seal.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.store.checksummed import FORMAT, DamagedError, sealed, unsealed
from gateway.store.ok_maps import Frame
from postprocess.anomaly_map import ScoreRule
from postprocess.roi_mask import Shape, parse_shape

CURRENT = "current"
CALIBRATION = "calib.json"
MANIFEST = "manifest.json"
MEMORY: Final = "memory.npz"
INDEX: Final = "index.faiss"
LEAVE_ONE_OUT: Final = "leave_one_out.npz"
WEIGHTS: Final = "spatial_mask.npy"
NETWORK: Final = "model.onnx"
NETWORK_DESCRIPTION: Final = "model.json"
FileName = Literal["memory.npz", "index.faiss", "leave_one_out.npz", "spatial_mask.npy", "model.onnx", "model.json"]
LARGEST_MM_PER_PX: Final = 1000
DetectorKind = Literal["memory-bank", "student-teacher"]
MANIFEST_FORMAT: Final = 3
"""The last one of a manifest. A gateway that knows up to 2 leaves alone what it would take for a memory bank."""
_FORMAT_OF: dict[DetectorKind, Literal[2, 3]] = {"memory-bank": 2, "student-teacher": 3}
_ANSWERS: dict[DetectorKind, FileName] = {"memory-bank": MEMORY, "student-teacher": NETWORK}
"""The file that scores come from."""
Method = Literal["p99_ok+margin", "conformal", "grid"]
"""How a threshold was chosen."""
OwnSource = Literal["leave-one-out", "validation"]
OkSource = Literal["given", "leave-one-out", "validation"]
_OWN_SCORES: dict[DetectorKind, OwnSource] = {"memory-bank": "leave-one-out", "student-teacher": "validation"}


class _Sealed(BaseModel):
    """A model that is stored as a sealed JSON file."""

    model_config = ConfigDict(frozen=True)

    newest: ClassVar[int] = FORMAT
    """The last format of such a file."""

    format: Literal[1, 2, 3] = 2

    def to_bytes(self) -> bytes:
        """The whole file, in the format of now."""
        return sealed(self.model_copy(update={"format": FORMAT}).model_dump_json(indent=1))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Read a file.

        Raises:
            DamagedError: a byte changed, or it is no such file.
            NewerFormatError: it is whole, and of a later format.
        """
        try:
            return cls.model_validate(unsealed(data, name, cls.newest), strict=False)
        except ValidationError as error:
            raise DamagedError(f"{name} does not hold what it should") from error


class WeightsRecipe(BaseModel):
    """How the spatial weights of a version came about."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["none", "variance", "manual", "file"] = "none"
    """``file``: they came with a published model."""
    box: tuple[float, float, float, float] | None = None
    """`[y1, y2, x1, x2]` as the ROI file has it, for kind manual."""
    box_space: int | None = None
    """Side of the square image space that `box` is in."""
    min_weight: float | None = None
    max_weight: float | None = None


@lru_cache(maxsize=256)
def _parsed(shape: str) -> Shape:
    # The images of a version mostly have the same shape.
    return parse_shape(shape)[0]


class OkImage(BaseModel):
    """One OK image of an ROI, known by the SHA-256 of its bytes."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    file_name: str
    extension: str = Field(pattern=r"^[a-z]{1,8}$")
    width: int
    height: int
    shape: str | None = None
    """The shape that it was sent with, as JSON, for its leave-one-out score."""
    added_in: int
    """Version of the memory bank that learned it first."""
    brightness: float | None = None
    sharpness: float | None = None
    """As `gateway.images.appearance` measures them; None in what was learned before they were kept."""
    pixels_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Identity of the picture, whatever file it came in: see `gateway.images.identity`. The next fit fills in None."""
    bits: int | None = None
    """Bits of a sample in the file, 8 to 16. The next fit fills in None."""

    @property
    def frame(self) -> Frame:
        """Its pixel grid and where the part is."""
        return Frame((self.width, self.height), None if self.shape is None else _parsed(self.shape))


class ExcludedImage(OkImage):
    """An image that was sent as OK and is kept out of the bank until somebody deletes it."""

    reason: Literal["suspect"] = "suspect"
    score: float
    """Against the bank of all the others, when it was excluded."""
    robust_z: float
    excluded_in: int
    """Version of the memory bank that is the first without it."""


class ScoreSummary(BaseModel):
    """Scores of the OK images of a version, each against the bank without it."""

    model_config = ConfigDict(frozen=True)

    n: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, scores: list[float]) -> "ScoreSummary | None":
        """Summarise, or None where there is nothing to summarise."""
        if not scores:
            return None
        p50, p95, p99 = (float(p) for p in np.percentile(scores, (50, 95, 99)))
        return cls(n=len(scores), mean=float(np.mean(scores)), p50=p50, p95=p95, p99=p99, max=max(scores))


class Manifest(_Sealed):
    """What a version is made of and how. What only a memory bank has is 0 where another detector answers."""

    newest = MANIFEST_FORMAT

    role_id: str
    roi_id: str
    version: int
    created_at: str
    detector: DetectorKind = "memory-bank"
    score_rule: ScoreRule = "percentile"
    """How a map is scored, by `/infer` and for `ok_scores`."""
    model_fingerprint: str
    """Of the network: tokens, or maps, of another one mean something else."""
    extractor: str
    token_hw: tuple[int, int]
    dim: int
    coreset_rate: float
    coreset_rate_applied: float
    seed: int
    k: int
    p_score: float
    """Of the leave-one-out scores."""
    mm_per_px: float
    bit_depth: int | None = None
    """Bits a sample of the camera, 8 to 16, by which files of more than 8 bits are scaled; None takes the file's."""
    n_embeddings: int
    n_tokens_total: int
    covering_radius: float
    images: tuple[OkImage, ...]
    """Learned, in the order of the memory bank's `image_index`; of a student, those of its validation."""
    excluded: tuple[ExcludedImage, ...] = ()
    """Sent as OK, but kept out."""
    spatial_weights: WeightsRecipe = WeightsRecipe()
    ok_scores: tuple[float, ...]
    """Leave-one-out, or of a student's validation, in the order of `images`; empty where a bank has one image only."""
    heatmap_max: float
    files: dict[FileName, str] = {}
    """SHA-256 of every other file of the version but its calibration, which may change and has a seal of its own."""

    def to_bytes(self) -> bytes:
        """The whole file, in the oldest format whose gateways can serve the version."""
        return sealed(self.model_copy(update={"format": _FORMAT_OF[self.detector]}).model_dump_json(indent=1))

    @property
    def checksum(self) -> str:
        """SHA-256 of the memory bank or the network: the same images, order and seed give the same."""
        return self.files[_ANSWERS[self.detector]]

    @property
    def is_taught(self) -> bool:
        """Whether the version learned from `/fit_ok`; a student is trained offline."""
        return self.detector == "memory-bank"

    @property
    def ok_source(self) -> OwnSource:
        """How `ok_scores` came about."""
        return _OWN_SCORES[self.detector]

    @property
    def weights_checksum(self) -> str | None:
        """SHA-256 of the spatial weights, where there are any."""
        return self.files.get(WEIGHTS)


class Calibration(_Sealed):
    """Contents of ``calib.json``."""

    newest = MANIFEST_FORMAT

    threshold: float
    pixel_threshold: float
    """Of the blurred map, for regions."""
    pixel_threshold_source: Literal["score", "ok_pixels", "given"] = "score"
    p99_ok: float
    p5_ng: float | None
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    k: int | None = None
    """Neighbours that the OK scores were made with; None in what was written before it was kept."""
    shape: str | None = None
    """The shape that the scores were measured within, as JSON; None for that of the OK images, or where unknown."""
    blur_sigma: float | None = None
    """That the OK maps were blurred with, for `pixel_threshold` and the verdict's false alarms."""
    method: Method
    false_alarm_rate: float | None = None
    """Asked for."""
    guaranteed: bool | None = None
    n_ok_needed: int | None = None
    expected_false_alarm_rate: float | None = None
    """Of the score; None in what was written before it was told."""
    expected_false_alarm_interval: tuple[float, float] | None = None
    verdict_false_alarm_rate: float | None = None
    """Of score and regions together, on the leave-one-out maps; None where there are none."""
    verdict_false_alarm_interval: tuple[float, float] | None = None
    ng_scores: tuple[float, ...] = ()
    n_ok: int
    n_ng: int
    ok_above: int
    ng_below: int
    separable: bool | None
    ok_source: OkSource
    margin: float
    version: int
    """Of the memory bank that it was made for."""
    bank_checksum: str = ""
    weights_checksum: str | None = None
    """Of the spatial weights that it was made for."""
    kept_with: int | None = None
    """Version whose verdicts it decides: a later one than `version` where it became stale. None in format 1."""
    created_at: str

    @model_validator(mode="before")
    @classmethod
    def _one_threshold(cls, given: Any) -> Any:
        """What was written before there were two has one for both."""
        if isinstance(given, dict) and "pixel_threshold" not in given and "threshold" in given:
            return {**given, "pixel_threshold": given["threshold"]}
        return given

    def to_bytes(self) -> bytes:
        """The whole file, in the oldest format whose gateways can read it."""
        number = MANIFEST_FORMAT if self.ok_source == "validation" else FORMAT
        return sealed(self.model_copy(update={"format": number}).model_dump_json(indent=1))

    @property
    def rests_on_the_fit_alone(self) -> bool:
        """Whether a new fit can redo it: nothing in it was measured by a client against the bank of then."""
        return self.ok_source != "given" and self.n_ng == 0 and self.pixel_threshold_source in ("score", "ok_pixels")

    def bound_to(self, manifest: Manifest) -> "Calibration":
        """The same, said to be made for a published version."""
        return self.model_copy(
            update={
                "version": manifest.version,
                "bank_checksum": manifest.checksum,
                "weights_checksum": manifest.weights_checksum,
            }
        )

    def is_stale(self, manifest: Manifest) -> bool:
        """Whether it was made for another memory bank, other spatial weights or other OK scores than a version has."""
        if self.bank_checksum != manifest.checksum or self.weights_checksum != manifest.weights_checksum:
            return True
        # The same bank may come with other scores: an image that was sent again with another shape.
        return self.ok_source != "given" and self.version != manifest.version


class Pointer(_Sealed):
    """Contents of ``current``: which version is in use, and what makes the others that are kept."""

    version: int
    last: int
    """The highest number that a version ever had, so that none is given twice."""
    manifests: dict[int, str]
    """SHA-256 of the manifest of every version kept."""

    @property
    def sha256(self) -> str:
        """Of the manifest of the version in use."""
        return self.manifests[self.version]

    def to_bytes(self) -> bytes:
        """The whole file: the same sealed line twice, so that one is left when the other is damaged."""
        return 2 * (sealed(self.model_copy(update={"format": FORMAT}).model_dump_json()) + b"\n")

    @classmethod
    def from_lines(cls, data: bytes) -> Self:
        """Read the first line that is whole.

        Raises:
            DamagedError: none is.
            NewerFormatError: it is of a later format.
        """
        for line in (*data.split(b"\n"), data[: len(data) // 2 - 1]):
            try:
                found = cls.from_bytes(line, CURRENT)
            except DamagedError:
                continue
            if found.format == FORMAT and found.version in found.manifests:
                return found
        raise DamagedError("'current' is damaged")


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version by number and by the SHA-256 of its manifest: a number may come again after a delete, this does not."""

    number: int
    manifest_sha256: str
    damaged: str | None = None
    """What is wrong with ``current``, where it was not read as it was written."""
    manifests: dict[int, str] = field(default_factory=dict, compare=False)
    """SHA-256 of the manifests of the versions kept, where ``current`` tells them."""
    last: int | None = field(default=None, compare=False)
    """The highest number ever given; None where ``current`` does not tell: damaged, or of format 1."""

    def keeps(self, other: "VersionRef") -> bool:
        """Whether this very version is still among those kept."""
        return self.manifests.get(other.number) == other.manifest_sha256
