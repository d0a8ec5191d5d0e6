"""Decisions about the images of a data set."""

from collections.abc import Sequence
from typing import Any

from gateway.errors import GatewayError, InvalidRequestError
from gateway.gui.answers import decision_body
from gateway.gui.data_set import file_name, sample_of, shape_of
from gateway.gui.deciding import require_decision
from gateway.inspection.answer import Inspection
from gateway.inspection.pipeline import InspectionPipeline
from gateway.inspection.request import InferRequest
from gateway.process.admission import Place
from gateway.process.services import Services
from gateway.store.labelled_images import ImageRecord
from gateway.store.roi_key import RoiKey
from gateway.worker_threads import in_thread

_AT_ONCE = 4
"""Images that are inspected at once: few, so that a large data set leaves room for the inspections of a line."""


class Evaluation:
    """Inspects the images of a data set, a few at a time."""

    def __init__(
        self,
        services: Services,
        pipeline: InspectionPipeline,
        key: RoiKey,
        images: RoiKey,
        *,
        mm_per_px: float | None,
        include_heatmap: bool | None,
    ) -> None:
        """Wire the parts together.

        Args:
            services: those of the gateway.
            pipeline: inspects.
            key: the ROI that decides.
            images: the ROI that has the images.
            mm_per_px: scale of the images whose metadata states none, if it is known.
            include_heatmap: as in `decision_body`.
        """
        self._services = services
        self._pipeline = pipeline
        self._key = key
        self._images = images
        self._mm_per_px = mm_per_px
        self._include_heatmap = include_heatmap

    async def items(self, records: Sequence[ImageRecord], place: Place) -> list[dict[str, Any]]:
        """Return one item for each image, with the error of an image in its item.

        Raises:
            OverloadedError: there is no place for a few images at once.
        """
        items: list[dict[str, Any]] = []
        for start in range(0, len(records), _AT_ONCE):
            some = records[start : start + _AT_ONCE]
            with place.work(len(some)):
                items += await self._items(some)
        return items

    async def _items(self, records: Sequence[ImageRecord]) -> list[dict[str, Any]]:
        requests = [await self._request(record) for record in records]
        good = [request for request in requests if isinstance(request, InferRequest)]
        results = iter(await self._pipeline.infer_batch(good) if good else ())
        return [
            self._item(record, next(results) if isinstance(request, InferRequest) else request)
            for record, request in zip(records, requests, strict=True)
        ]

    async def _request(self, record: ImageRecord) -> InferRequest | GatewayError:
        """Return the request to inspect an image, or the error in it."""
        limiter = self._services.image_readers
        try:
            mm_per_px = sample_of(record.metadata, "metadata").mm_per_px or self._mm_per_px
            if mm_per_px is None:
                return InvalidRequestError(
                    "mm_per_px: neither the metadata of the image nor default_mm_per_px states it"
                )
            return InferRequest(
                key=self._key,
                image=await in_thread(self._services.images.content, self._images, record, limiter=limiter),
                image_name=record.file_name,
                mm_per_px=mm_per_px,
                shape=shape_of(record.shape, "shape"),
                bit_depth=record.bit_depth,
                heatmap="none" if self._include_heatmap is False else "base64",
            )
        except GatewayError as error:
            return error

    def _item(self, record: ImageRecord, result: Inspection | GatewayError) -> dict[str, Any]:
        item: dict[str, Any] = {
            "label": record.label,
            "filename": file_name(record),
            "mm_per_px": None,
            "score": None,
            "threshold": None,
            "decision": None,
            "regions": [],
            "n_regions": 0,
            "heatmap_png_base64": None,
            "error": None,
        }
        try:
            if isinstance(result, GatewayError):
                raise result
            body = decision_body(result, require_decision(result), self._include_heatmap)
        except GatewayError as error:
            return {**item, "error": error.message}
        return {**item, **body, "mm_per_px": result.params.mm_per_px, "n_regions": len(result.regions)}
