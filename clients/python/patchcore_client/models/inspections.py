"""Answers of the gateway: inspections."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from patchcore_client.answer import Answer
from patchcore_client.models.shared import ImageLabel, Verdict, VerdictReason


class KeptInspectionAnswer(Answer):
    """An image that was inspected lately."""

    id: int
    image_id: str
    """SHA-256 of the decoded pixels: the id that the picture has as a stored image."""
    file_name: str
    """As sent."""
    time: float
    """In seconds since 1970."""
    n_bytes: int
    width: int
    height: int
    verdict: Verdict
    verdict_reason: VerdictReason | None = None
    score: float
    threshold: float | None = None
    peak: float | None = None
    peak_threshold: float | None = None
    review_threshold: float | None = None
    version: int
    stored_label: ImageLabel | None = None
    """Label of the picture among the stored images; null if it is not stored."""


class KeptInspectionList(Answer):
    """A page of the kept inspections of an ROI."""

    role_id: str
    roi_id: str
    recipe_id: str
    keeps: bool
    """Whether this gateway keeps inspections: GATEWAY_KEEP_INSPECTIONS."""
    total: int
    """Kept inspections with the verdict that was asked for."""
    offset: int
    limit: int
    inspections: list[KeptInspectionAnswer]
