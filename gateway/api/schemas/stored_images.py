"""Bodies about the stored images of an ROI."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.api.schemas.requests import RequestBody

_ID = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_IMAGE: dict[str, JsonValue] = {
    "id": _ID,
    "label": "ok",
    "file_name": "pad-1_0017.png",
    "content_type": "image/png",
    "created_at": "2026-03-02T08:15:30.120+00:00",
    "n_bytes": 48213,
    "width": 384,
    "height": 384,
    "has_metadata": True,
    "learned": True,
    "excluded": False,
    "suspect": False,
    "score": 0.52,
    "peak": 0.61,
}


class ImageAnswer(BaseModel):
    """An image of an ROI."""

    model_config = ConfigDict(json_schema_extra={"examples": [_IMAGE]})

    id: str = Field(description="SHA-256 of the decoded pixels; the same picture has the same id in every file")
    label: Literal["ok", "ng"]
    file_name: str = Field(description="as sent")
    content_type: str
    created_at: str | None = Field(description="when it was stored, UTC; null for an image that only a fit brought")
    n_bytes: int
    width: int = Field(description="in pixels, upright")
    height: int
    has_metadata: bool
    learned: bool = Field(description="whether the version in use has learned it")
    excluded: bool = Field(description="whether an earlier fit excluded it as a suspect")
    suspect: bool = Field(description="whether it is learned and looks unlike the other learned images")
    score: float | None = Field(
        description="its score in the version in use, if known: of a learned image against the bank without it; of "
        "another one since the fit or the calibration that scored it"
    )
    peak: float | None = Field(
        description="its peak, likewise; null as well where no region of the smallest area fits. That of a learned "
        "image is known once the ROI is calibrated by the peak"
    )


class StoredImageAnswer(BaseModel):
    """What became of one file of a request."""

    id: str
    file_name: str = Field(description="name of the stored image: that of the first file with this picture")
    duplicate: bool = Field(description="whether the picture was stored already, or came before in this request")


class StoredAnswer(BaseModel):
    """Result of storing images."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "role_id": "disc-front",
                    "roi_id": "pad-1",
                    "recipe_id": "default",
                    "label": "ok",
                    "n_added": 1,
                    "duplicates": 0,
                    "n_ok": 31,
                    "n_ng": 4,
                    "images": [{"id": _ID, "file_name": "pad-1_0017.png", "duplicate": False}],
                    "warnings": [],
                }
            ]
        }
    )

    role_id: str
    roi_id: str
    recipe_id: str
    label: Literal["ok", "ng"]
    n_added: int
    duplicates: int = Field(description="images of this request that were stored already, or sent twice")
    n_ok: int = Field(description="stored OK images of the ROI now")
    n_ng: int
    images: list[StoredImageAnswer] = Field(description="in the order of the request")
    warnings: list[str]


class ImageList(BaseModel):
    """A page of the images of an ROI, oldest first."""

    role_id: str
    roi_id: str
    recipe_id: str
    n_ok: int = Field(description="OK images, also those that only a fit brought")
    n_ng: int
    n_bytes: int = Field(description="size of all these files")
    total: int = Field(description="images with the label that was asked for")
    offset: int
    limit: int
    images: list[ImageAnswer]
    warnings: list[str] = Field(description="stored images whose record is damaged")


class ChangeImage(RequestBody):
    """What to change of an image."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"label": "ng"}]})

    label: Literal["ok", "ng"] | None = None
    metadata: dict[str, Any] | None = Field(None, description="replaces the metadata")


class ImageDeleted(BaseModel):
    """A deleted image. If a bank has learned it, the next fit removes it from there."""

    role_id: str
    roi_id: str
    recipe_id: str
    id: str
    deleted: Literal[True] = True


class ImagesDeleted(BaseModel):
    """Deleted images of one label."""

    role_id: str
    roi_id: str
    recipe_id: str
    label: Literal["ok", "ng"]
    deleted: int
