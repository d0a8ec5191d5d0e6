"""Answer bodies about the stored images of an ROI."""

from dataclasses import asdict
from typing import Any

from gateway.learning.stored_images import RoiImage, RoiImages
from gateway.learning.storing import StoreRequest, StoreResult
from gateway.store.labelled_images import Label
from gateway.store.roi_key import RoiKey

CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "bmp": "image/bmp", "tif": "image/tiff"}


def content_type(extension: str) -> str:
    """Return the content type of a stored file. It was decoded when it came, so its extension says what it is."""
    return CONTENT_TYPES.get(extension, "application/octet-stream")


def image_body(image: RoiImage) -> dict[str, Any]:
    """Return an image as `ImageAnswer` describes it."""
    record = image.record
    return {
        **record.model_dump(include={"id", "label", "file_name", "created_at", "n_bytes", "width", "height"}),
        "content_type": content_type(record.extension),
        "has_metadata": record.metadata is not None,
        "learned": image.learned,
        "excluded": image.excluded,
        "suspect": image.suspect,
        "score": image.score,
        "peak": image.peak,
    }


def list_body(key: RoiKey, found: RoiImages, label: Label | None, offset: int, limit: int) -> dict[str, Any]:
    """Return a page of images as `ImageList` describes it."""
    records = [image.record for image in found.images]
    wanted = [image for image in found.images if label in (None, image.record.label)]
    return {
        **asdict(key),
        "n_ok": sum(record.label == "ok" for record in records),
        "n_ng": sum(record.label == "ng" for record in records),
        "n_bytes": sum(record.n_bytes for record in records),
        "total": len(wanted),
        "offset": offset,
        "limit": limit,
        "images": [image_body(image) for image in wanted[offset : offset + limit]],
        "warnings": [
            f"damaged: the record of image {image_id}: send the image again, or delete it" for image_id in found.damaged
        ],
    }


def stored_body(request: StoreRequest, result: StoreResult) -> dict[str, Any]:
    """Return the answer of `POST …/images` as `StoredAnswer` describes it."""
    n_added = sum(is_new for _, is_new in result.images)
    return {
        **asdict(request.key),
        "label": request.label,
        "n_added": n_added,
        "duplicates": len(result.images) - n_added,
        "n_ok": result.n_ok,
        "n_ng": result.n_ng,
        "images": [
            {"id": record.id, "file_name": record.file_name, "duplicate": not is_new}
            for record, is_new in result.images
        ],
        "warnings": result.warnings,
    }
