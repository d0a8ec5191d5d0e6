"""Models of the stored JSON files: ``manifest.json``, ``calib.json``, ``current``.

`to_bytes` writes the present format. `from_bytes` reads all formats up to it and refuses a file that fails its seal.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from gateway.store.checksummed import FORMAT, DamagedError, sealed
from gateway.store.ok_maps import Frame
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey
from gateway.store.sealed_model import SealedModel
from postprocess.anomaly_map import ScoreRule
from postprocess.roi_mask import Shape, parse_shape

CURRENT = "current"
CALIBRATION = "calib.json"
MANIFEST = "manifest.json"
MEMORY: Final = "memory.npz"
INDEX: Final = "index.faiss"
SEARCH: Final = "search.npz"
LEAVE_ONE_OUT: Final = "leave_one_out.npz"
WEIGHTS: Final = "spatial_mask.npy"
NETWORK: Final = "model.onnx"
NETWORK_DESCRIPTION: Final = "model.json"
FileName = Literal[
    "memory.npz", "index.faiss", "search.npz", "leave_one_out.npz", "spatial_mask.npy", "model.onnx", "model.json"
]
LARGEST_MM_PER_PX: Final = 1000
DetectorKind = Literal["memory-bank", "student-teacher"]
STUDENT_FORMAT: Final = 3
"""Format of a student's manifest. A gateway that knows formats up to 2 refuses a student, which it would misread."""
TILES_FORMAT: Final = 4
"""Newest format of a manifest: with tiles, which a gateway that knows formats up to 3 does not cut."""
PEAK_FORMAT: Final = 4
"""Format of a calibration by the peak. A gateway that knows formats up to 3 cannot judge by it."""
CALIBRATION_FORMAT: Final = 5
"""Newest format of a calibration: with a given threshold of the peak, or with a review band."""
_FORMAT_OF: dict[DetectorKind, Literal[2, 3]] = {"memory-bank": 2, "student-teacher": 3}
_ANSWERS: dict[DetectorKind, FileName] = {"memory-bank": MEMORY, "student-teacher": NETWORK}
"""The file that the scores depend on, by detector."""
Method = Literal["p99_ok+margin", "conformal", "grid", "given"]
"""How a threshold was chosen."""
PixelThresholdSource = Literal["peak", "score", "ok_pixels", "given"]
"""Source of the threshold of regions: the peaks of the OK maps at the false-alarm rate, the threshold of the score, the
highest pixels of the OK maps, or a client."""
OwnSource = Literal["leave-one-out", "validation"]
OkSource = Literal["given", "leave-one-out", "validation"]
_OWN_SCORES: dict[DetectorKind, OwnSource] = {"memory-bank": "leave-one-out", "student-teacher": "validation"}


class WeightsRecipe(BaseModel):
    """How the spatial weights of a version were made."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)

    kind: Literal["none", "variance", "manual", "file"] = "none"
    """``file``: the weights came with a published model."""
    box: tuple[float, float, float, float] | None = None
    """`[y1, y2, x1, x2]` from the ROI file, for kind manual."""
    box_space: int | None = None
    """Side of the square image space of `box`, in pixels."""
    min_weight: float | None = None
    max_weight: float | None = None


@lru_cache(maxsize=256)
def _parsed(shape: str) -> Shape:
    # Cached, since most images of a version have the same shape.
    return parse_shape(shape)[0]


class OkImage(BaseModel):
    """One OK image of an ROI, identified by the SHA-256 of its file."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    file_name: str
    extension: str = Field(pattern=r"^[a-z]{1,8}$")
    width: int
    height: int
    shape: str | None = None
    """The shape that the image was sent with, as JSON. It masks the leave-one-out score."""
    added_in: int
    """The first version that learned the image."""
    brightness: float | None = None
    sharpness: float | None = None
    """Measured by `gateway.images.appearance`; None for images that an old gateway learned."""
    pixels_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Identity of the decoded picture, from `gateway.images.identity`. The next fit fills it in where it is None."""
    bits: int | None = None
    """Bits of a sample in the file, 8 to 16. The next fit fills it in where it is None."""

    @property
    def frame(self) -> Frame:
        """The pixel grid of the image and the shape of the part."""
        return Frame((self.width, self.height), None if self.shape is None else _parsed(self.shape))


class ExcludedImage(OkImage):
    """An image that was sent as OK and is excluded from the memory bank until it is deleted."""

    reason: Literal["suspect"] = "suspect"
    score: float
    """Score against the bank without the image, at the time of the exclusion."""
    robust_z: float
    excluded_in: int
    """The first version without the image."""


class ScoreSummary(BaseModel):
    """Summary of the leave-one-out scores of a version's OK images."""

    model_config = ConfigDict(frozen=True)

    n: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, scores: list[float]) -> "ScoreSummary | None":
        """Return the summary, or None for no scores."""
        if not scores:
            return None
        p50, p95, p99 = (float(p) for p in np.percentile(scores, (50, 95, 99)))
        return cls(n=len(scores), mean=float(np.mean(scores)), p50=p50, p95=p95, p99=p99, max=max(scores))


class StoredScore(BaseModel):
    """What a version says of a stored image that it has not learned."""

    model_config = ConfigDict(frozen=True)

    id: str
    label: Literal["ok", "ng"]
    score: float
    peak: float | None
    """None where no region of the smallest area fits."""


class Manifest(SealedModel):
    """The content of a version and how it was made. Fields that only a memory bank has are 0 for a student."""

    newest = TILES_FORMAT

    role_id: str
    roi_id: str
    recipe_id: str = DEFAULT_RECIPE
    version: int
    created_at: str
    detector: DetectorKind = "memory-bank"
    score_rule: ScoreRule = "percentile"
    """How a map is scored, at `/infer` and for `ok_scores`."""
    model_fingerprint: str
    """Fingerprint of the network. Tokens and maps of another network do not compare."""
    extractor: str
    token_hw: tuple[int, int]
    """`(h, w)` of the grid of an image, stitched where it is cut into tiles."""
    tiles: tuple[PositiveInt, PositiveInt] = (1, 1)
    """Rows and columns of the tiles that an image is cut into; `(1, 1)` is the whole image."""
    dim: int
    coreset_rate: float
    coreset_rate_applied: float
    seed: int
    k: int
    p_score: float
    """Percentile of the leave-one-out scores."""
    mm_per_px: float
    bit_depth: int | None = None
    """Bits of a sample of the camera, 8 to 16. Files of more than 8 bits are scaled by it. None takes the file's."""
    n_embeddings: int
    n_tokens_total: int
    covering_radius: float
    images: tuple[OkImage, ...]
    """The learned images, in the order of the memory bank's `image_index`; for a student its validation images."""
    excluded: tuple[ExcludedImage, ...] = ()
    """Images that were sent as OK and are excluded."""
    spatial_weights: WeightsRecipe = WeightsRecipe()
    ok_scores: tuple[float, ...]
    """Leave-one-out scores, or a student's validation scores, in the order of `images`. Empty for a single image."""
    stored_scores: tuple[StoredScore, ...] = ()
    """Of stored images that are not learned, when the version was made."""
    heatmap_max: float
    files: dict[FileName, str] = Field({})
    """SHA-256 of each file of the version, without `SEARCH`. The calibration is left out: it may change and has its
    own seal."""
    search_sha256: str | None = None
    """SHA-256 of `SEARCH`; None where the version has no such file. It is not among `files`, since older gateways,
    which need no such file, refuse a name that they do not know."""

    def to_bytes(self) -> bytes:
        """Return the file's bytes in the oldest format whose gateways can serve the version."""
        number = _FORMAT_OF[self.detector] if self.tiles == (1, 1) else TILES_FORMAT
        return sealed(self.model_copy(update={"format": number}).model_dump_json(indent=1))

    @property
    def key(self) -> RoiKey:
        """The ROI."""
        return RoiKey(self.role_id, self.roi_id, self.recipe_id)

    @property
    def checksums(self) -> dict[FileName, str]:
        """SHA-256 of each file of the version besides manifest and calibration."""
        return self.files if self.search_sha256 is None else {**self.files, SEARCH: self.search_sha256}

    @property
    def checksum(self) -> str:
        """SHA-256 of the memory bank or the network. The same images, order and seed give the same checksum."""
        return self.files[_ANSWERS[self.detector]]

    @property
    def is_taught(self) -> bool:
        """Whether the version learned from `/fit_ok`; a student is trained offline."""
        return self.detector == "memory-bank"

    @property
    def ok_source(self) -> OwnSource:
        """Where `ok_scores` come from."""
        return _OWN_SCORES[self.detector]

    @property
    def weights_checksum(self) -> str | None:
        """SHA-256 of the spatial weights, or None without weights."""
        return self.files.get(WEIGHTS)


class Calibration(SealedModel):
    """Contents of ``calib.json``."""

    newest = CALIBRATION_FORMAT

    threshold: float
    pixel_threshold: float
    """Threshold of the blurred map, for regions: the threshold of the peak."""
    review_threshold: float | None = None
    """An image that is not NG goes to review if its peak is at or above it; None without a review band."""
    review_rate: float | None = None
    """(x+1)/(n+1), if x of the n OK maps have a peak at or above `review_threshold`; None without a band or maps."""
    pixel_threshold_source: PixelThresholdSource = "score"
    p99_ok: float
    p5_ng: float | None
    mm_per_px: float
    area_mm2_thr: float
    score_percentile: float
    k: int | None = None
    """Number of neighbours of the OK scores; None in old files."""
    shape: str | None = None
    """Shape that the scores were measured within, as JSON; None for the shape of the OK images, or if unknown."""
    blur_sigma: float | None = None
    """Blur of the OK maps, in pixels, for `pixel_threshold` and the false alarms of the verdict."""
    method: Method
    false_alarm_rate: float | None = None
    """The requested rate; with source `peak`, the rate of the verdict that the thresholds were chosen for."""
    guaranteed: bool | None = None
    n_ok_needed: int | None = None
    expected_false_alarm_rate: float | None = None
    """Expected rate of the score; None in old files."""
    expected_false_alarm_interval: tuple[float, float] | None = None
    verdict_false_alarm_rate: float | None = None
    """Rate of score and regions together on the leave-one-out maps; None without maps."""
    verdict_false_alarm_interval: tuple[float, float] | None = None
    ng_scores: tuple[float, ...] = ()
    ok_peaks: tuple[float, ...] = ()
    """Peaks of the OK maps, ascending, without maps that have none; empty where the peak did not decide."""
    n_ok: int
    n_ng: int
    ok_above: int
    ng_below: int
    missed_ng: tuple[float, ...] = ()
    """Scores of the NG images that pass."""
    separable: bool | None
    ok_source: OkSource
    stored_images: bool = False
    """Whether it rests on the stored images of the ROI. The next fit redoes it with those that are stored then."""
    n_ok_unseen: int = 0
    """Number of stored OK images among the OK images that the version has not learned."""
    stored_scores: tuple[StoredScore, ...] = ()
    """Of the stored images that it rests on."""
    learned_peaks: tuple[float | None, ...] = ()
    """Peaks of the learned images, in the order of the manifest; empty if it was not made by the peak."""
    margin: float
    version: int
    """The version that the calibration was made for."""
    bank_checksum: str = ""
    weights_checksum: str | None = None
    """Checksum of the spatial weights that the calibration was made for."""
    kept_with: int | None = None
    """The version whose verdicts it decides. If stale, later than `version`. None in format 1."""
    created_at: str

    @model_validator(mode="before")
    @classmethod
    def _one_threshold(cls, given: Any) -> Any:
        """Files of old gateways have one threshold for both uses."""
        if isinstance(given, dict) and "pixel_threshold" not in given and "threshold" in given:
            return {**given, "pixel_threshold": given["threshold"]}
        return given

    def to_bytes(self) -> bytes:
        """Return the file's bytes in the oldest format whose gateways can read it."""
        number = STUDENT_FORMAT if self.ok_source == "validation" else FORMAT
        number = PEAK_FORMAT if self.pixel_threshold_source == "peak" else number
        number = CALIBRATION_FORMAT if self.method == "given" or self.review_threshold is not None else number
        return sealed(self.model_copy(update={"format": number}).model_dump_json(indent=1))

    @property
    def rests_on_the_fit_alone(self) -> bool:
        """Return whether a new fit can redo it: no client measured a value in it against an earlier bank."""
        has_no_given_ng = self.n_ng == 0 or self.stored_images
        return self.ok_source != "given" and has_no_given_ng and self.pixel_threshold_source != "given"

    def bound_to(self, manifest: Manifest) -> "Calibration":
        """Return a copy that is marked as made for a published version."""
        return self.model_copy(
            update={
                "version": manifest.version,
                "bank_checksum": manifest.checksum,
                "weights_checksum": manifest.weights_checksum,
            }
        )

    def is_stale(self, manifest: Manifest) -> bool:
        """Return whether it was made for another memory bank, other spatial weights or other OK scores."""
        if self.bank_checksum != manifest.checksum or self.weights_checksum != manifest.weights_checksum:
            return True
        # The same bank may have other scores, if an image was sent again with another shape.
        return self.ok_source != "given" and self.version != manifest.version


class Pointer(SealedModel):
    """Contents of ``current``: the version in use and the kept versions."""

    version: int
    last: int
    """The highest version number ever used. A number is never used twice."""
    manifests: dict[int, str]
    """SHA-256 of the manifest of each kept version."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the manifest of the version in use."""
        return self.manifests[self.version]

    def to_bytes(self) -> bytes:
        """Return the file's bytes: the same sealed line twice, so that one remains if the other is damaged."""
        return 2 * (sealed(self.model_copy(update={"format": FORMAT}).model_dump_json()) + b"\n")

    @classmethod
    def from_lines(cls, data: bytes) -> Self:
        """Read the first whole line.

        Raises:
            DamagedError: no line is whole.
            NewerFormatError: the line has a later format.
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
    """A version by number and SHA-256 of its manifest. After a deletion a number may return; the hash does not."""

    number: int
    manifest_sha256: str
    damaged: str | None = None
    """The damage of ``current``, if it is damaged."""
    manifests: dict[int, str] = field(default_factory=dict, compare=False)
    """SHA-256 of the manifests of the kept versions, if ``current`` has them."""
    last: int | None = field(default=None, compare=False)
    """The highest version number ever used; None if ``current`` is damaged or has format 1."""

    def keeps(self, other: "VersionRef") -> bool:
        """Return whether exactly this version is still kept."""
        return self.manifests.get(other.number) == other.manifest_sha256
