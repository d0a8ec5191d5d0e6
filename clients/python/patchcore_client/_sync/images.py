"""The part of the synchronous client for stored images and kept inspections."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from patchcore_client._sync.sending import Sender
from patchcore_client._sync.waiting import in_thread
from patchcore_client.calls import Call, Shape, form, json_text, roi_path, shape_text, texts, without_none
from patchcore_client.images import Image, load_all
from patchcore_client.models import (
    ImageAnswer,
    ImageDeleted,
    ImageLabel,
    ImageList,
    ImagesDeleted,
    KeptInspectionList,
    StoredAnswer,
    Verdict,
)
from patchcore_client.retries import Repeat


class Images(Sender):
    """Requests about stored images and kept inspections."""

    def store_images(
        self,
        role_id: str,
        roi_id: str,
        images: Iterable[Image],
        *,
        label: ImageLabel,
        metas: Sequence[Mapping[str, Any] | None] | None = None,
        shape: Shape | None = None,
        bit_depth: int | None = None,
    ) -> StoredAnswer:
        """Store images with a label. `fit_ok` without images learns those labelled ok.

        Args:
            role_id: part or station.
            roi_id: region of the part.
            images: as `image` of `infer`.
            label: ok or ng, for all of them.
            metas: JSON of each image, in their order.
            shape: where the part is, in pixels of the images.
            bit_depth: bits per sample of the camera, for files with more than 8 bits.
        """
        files = in_thread(load_all, list(images))
        parts = form(
            {"label": label, "shape": shape_text(shape), "bit_depth": bit_depth}, [("images", file) for file in files]
        )
        for meta in metas or ():
            parts += form({"metas": json_text(meta)})
        path = roi_path(role_id, roi_id, "images")
        return self._send(
            Call("POST", path, StoredAnswer, Repeat.UNLESS_LATE, parts=parts, timeout_s=self._fit_timeout_s)
        )

    def list_images(
        self,
        role_id: str,
        roi_id: str,
        *,
        label: ImageLabel | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> ImageList:
        """List the images of an ROI, oldest first."""
        params = texts({"label": label, "offset": offset, "limit": limit})
        return self._send(Call("GET", roi_path(role_id, roi_id, "images"), ImageList, Repeat.ALWAYS, params=params))

    def get_image(self, role_id: str, roi_id: str, image_id: str) -> bytes:
        """Return the file of an image, as it was sent."""
        return self._send(Call("GET", roi_path(role_id, roi_id, "images", image_id), bytes, Repeat.ALWAYS))

    def get_thumbnail(self, role_id: str, roi_id: str, image_id: str, *, side: int | None = None) -> bytes:
        """Return a JPEG file of at most 192 pixels a side, or of at most `side`."""
        path = roi_path(role_id, roi_id, "images", image_id, "thumbnail")
        return self._send(Call("GET", path, bytes, Repeat.ALWAYS, params=texts({"side": side})))

    def get_image_metadata(self, role_id: str, roi_id: str, image_id: str) -> Any:
        """Return the JSON that came with an image; None if none came."""
        path = roi_path(role_id, roi_id, "images", image_id, "metadata")
        return self._send(Call("GET", path, object, Repeat.ALWAYS))

    def change_image(
        self,
        role_id: str,
        roi_id: str,
        image_id: str,
        *,
        label: ImageLabel | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ImageAnswer:
        """Change the label of an image, or replace its metadata."""
        fields = {"label": label, "metadata": None if metadata is None else dict(metadata)}
        path = roi_path(role_id, roi_id, "images", image_id)
        return self._send(Call("PATCH", path, ImageAnswer, Repeat.UNLESS_LATE, json=without_none(fields)))

    def delete_image(self, role_id: str, roi_id: str, image_id: str) -> ImageDeleted:
        """Delete an image. The next fit removes it from the memory bank."""
        path = roi_path(role_id, roi_id, "images", image_id)
        return self._send(Call("DELETE", path, ImageDeleted, Repeat.IF_REFUSED))

    def delete_images(self, role_id: str, roi_id: str, *, label: ImageLabel) -> ImagesDeleted:
        """Delete all images of a label. The next fit removes them from the memory bank."""
        path = roi_path(role_id, roi_id, "images")
        return self._send(Call("DELETE", path, ImagesDeleted, Repeat.IF_REFUSED, params=texts({"label": label})))

    # --- inspections

    def list_inspections(
        self,
        role_id: str,
        roi_id: str,
        *,
        order: Literal["borderline", "newest"] | None = None,
        verdict: Verdict | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> KeptInspectionList:
        """List the images that were inspected lately, where the gateway keeps them."""
        params = texts({"order": order, "verdict": verdict, "offset": offset, "limit": limit})
        path = roi_path(role_id, roi_id, "inspections")
        return self._send(Call("GET", path, KeptInspectionList, Repeat.ALWAYS, params=params))

    def get_inspected_image(self, role_id: str, roi_id: str, inspection_id: int) -> bytes:
        """Return the file of a kept inspection, as it was sent."""
        path = roi_path(role_id, roi_id, "inspections", str(inspection_id), "image")
        return self._send(Call("GET", path, bytes, Repeat.ALWAYS))

    def get_inspected_small(self, role_id: str, roi_id: str, inspection_id: int, *, side: int | None = None) -> bytes:
        """Return a JPEG file of a kept inspection, of at most 192 pixels a side, or of at most `side`."""
        path = roi_path(role_id, roi_id, "inspections", str(inspection_id), "thumbnail")
        return self._send(Call("GET", path, bytes, Repeat.ALWAYS, params=texts({"side": side})))
