"""Answers of the gateway: images."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from patchcore_client.answer import Answer
from patchcore_client.models.shared import ImageLabel


class ImageAnswer(Answer):
    """An image of an ROI."""

    id: str
    """SHA-256 of the decoded pixels; the same picture has the same id in every file."""
    label: ImageLabel
    file_name: str
    """As sent."""
    content_type: str
    created_at: str | None = None
    """When it was stored, UTC; null for an image that only a fit brought."""
    n_bytes: int
    width: int
    """In pixels, upright."""
    height: int
    has_metadata: bool
    learned: bool
    """Whether the version in use has learned it."""
    excluded: bool
    """Whether an earlier fit excluded it as a suspect."""
    suspect: bool
    """Whether it is learned and looks unlike the other learned images."""
    score: float | None = None
    """Its score in the version in use, if known: of a learned image against the bank without it; of another one since
    the fit or the calibration that scored it."""
    peak: float | None = None
    """Its peak, likewise; null as well where no region of the smallest area fits. That of a learned image is known
    once the ROI is calibrated by the peak."""


class ImageDeleted(Answer):
    """A deleted image. If a bank has learned it, the next fit removes it from there."""

    role_id: str
    roi_id: str
    recipe_id: str
    id: str
    deleted: bool


class ImageList(Answer):
    """A page of the images of an ROI, oldest first."""

    role_id: str
    roi_id: str
    recipe_id: str
    n_ok: int
    """OK images, also those that only a fit brought."""
    n_ng: int
    n_bytes: int
    """Size of all these files."""
    total: int
    """Images with the label that was asked for."""
    offset: int
    limit: int
    images: list[ImageAnswer]
    warnings: list[str]
    """Stored images whose record is damaged."""


class ImagesDeleted(Answer):
    """Deleted images of one label."""

    role_id: str
    roi_id: str
    recipe_id: str
    label: ImageLabel
    deleted: int


class StoredImageAnswer(Answer):
    """What became of one file of a request."""

    id: str
    file_name: str
    """Name of the stored image: that of the first file with this picture."""
    duplicate: bool
    """Whether the picture was stored already, or came before in this request."""


class StoredAnswer(Answer):
    """Result of storing images."""

    role_id: str
    roi_id: str
    recipe_id: str
    label: ImageLabel
    n_added: int
    duplicates: int
    """Images of this request that were stored already, or sent twice."""
    n_ok: int
    """Stored OK images of the ROI now."""
    n_ng: int
    images: list[StoredImageAnswer]
    """In the order of the request."""
    warnings: list[str]
