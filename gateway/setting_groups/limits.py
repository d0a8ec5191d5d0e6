"""Settings that limit what one request, one ROI and the whole gateway take."""

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from gateway import DECODER_PIXELS

MOST_TILES = 64
"""Limit of the limit of tiles."""


class LimitSettings(BaseModel):
    """Sizes, numbers, memory and times."""

    max_body_bytes: int = Field(512 * 2**20, gt=0, description="limit of a request body")
    max_json_bytes: int = Field(
        2 * 2**20, gt=0, description="limit of a request body without files, and of one text field in a form"
    )
    max_image_bytes: int = Field(32 * 2**20, gt=0, description="limit of one image file")
    max_image_pixels: int = Field(
        25_000_000, gt=0, le=DECODER_PIXELS, description="limit of width × height of one image, read from its header"
    )
    max_tiles: int = Field(
        9, ge=1, le=MOST_TILES, description="limit of the tiles that an image is cut into; 1: new ROIs have no tiles"
    )
    max_batch_images: int = Field(32, gt=0, description="limit of images in one /infer_batch")
    max_fit_images: int = Field(500, gt=0, le=1000, description="limit of images in one /fit_ok")
    max_roi_images: int = Field(2000, gt=0, description="limit of OK images of one ROI")
    max_stored_images: int = Field(5000, gt=0, description="limit of stored images of one ROI, OK and NG together")
    max_stored_bytes: int = Field(4 * 2**30, gt=0, description="limit of their files together")
    max_regions: int = Field(
        500,
        gt=0,
        description="limit of regions in one answer; the largest are returned, and a warning counts the others",
    )
    max_contour_points: int = Field(
        20_000,
        ge=4,
        validate_default=True,
        description="limit of contour points in one answer; above it the longest are simplified, with a warning",
    )
    max_queued_inspections: int = Field(
        64,
        gt=0,
        description="limit of inspections that run or wait; more are refused with 429, first of the line that floods",
    )
    max_queued_fits: int = Field(4, gt=0, description="limit of fits that run or wait; more are refused with 429")
    max_queue_s: float = Field(
        5.0,
        gt=0,
        description="limit of the expected waiting time of an inspection; above it inspections are refused with 429",
    )
    max_fit_memory_bytes: int = Field(
        2 * 2**30,
        gt=0,
        description="memory that the running fits take together, estimated from their images and coreset_rate; more "
        "are refused with 429, and a fit that takes more alone with 413",
    )
    max_queued_bytes: int = Field(
        2**30,
        gt=0,
        description="limit of the request bodies of all inspections that run or wait; the same limit holds for fits",
    )
    min_upload_bytes_s: int = Field(65536, gt=0, description="lowest mean rate of an upload, after the first 10 s")
    drain_s: float = Field(
        0.0, ge=0, le=600, description="after SIGTERM, time during which /ready is 503 and work is still accepted"
    )
    shutdown_grace_s: float = Field(
        25.0, ge=0, le=3600, description="after that, time for the accepted work to end before it is cancelled"
    )
    fit_lock_timeout_s: float = Field(60.0, gt=0, description="how long a fit waits for another fit of the same ROI")
    bank_cache_bytes: int = Field(2 * 2**30, gt=0, description="limit of the memory of all loaded versions")
    network_cache_bytes: int = Field(
        4 * 2**30,
        gt=0,
        description="limit of the estimated memory of all networks that stay compiled for single ROIs: "
        "student-teacher, and token models of other input sizes",
    )
    keep_versions: int = Field(5, ge=1, description="versions of a memory bank to keep on disk")

    @field_validator("max_contour_points")
    @classmethod
    def _enough_for_each_region(cls, points: int, info: ValidationInfo) -> int:
        regions = info.data.get("max_regions", 1)
        if points < 4 * regions:
            raise ValueError(f"below 4 × GATEWAY_MAX_REGIONS, {4 * regions}: a region has four corners")
        return points
