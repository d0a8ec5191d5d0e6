"""The synchronous client of the gateway."""

# Written by `python -m tests.clients.client_sources`: change the source of it instead.

import time
from collections.abc import Iterable, Sequence
from typing import Literal

import httpx

from patchcore_client._sync.images import Images
from patchcore_client._sync.waiting import in_thread, sleep
from patchcore_client.calls import (
    BatchAnswer,
    BatchItem,
    Call,
    Shape,
    batch_results,
    connection_error,
    form,
    json_text,
    roi_path,
    scores,
    shape_text,
    texts,
    without_none,
)
from patchcore_client.errors import GatewayError
from patchcore_client.images import Image, load_all
from patchcore_client.inspection import Inspection
from patchcore_client.models import (
    AuditAnswer,
    CalibrateAnswer,
    ComparisonAnswer,
    Deleted,
    DriftAnswer,
    FitAnswer,
    FitProgressAnswer,
    HealthAnswer,
    HeatmapMode,
    ImagePeaksAnswer,
    ReadyAnswer,
    RemovedAnswer,
    ReportAnswer,
    RoiDetail,
    RoiList,
    RollbackAnswer,
    SpatialWeightsMode,
)
from patchcore_client.retries import Repeat


class PatchcoreClient(Images):
    """A synchronous client of one gateway, for any number of requests at once.

    Every method raises a `GatewayError` where the gateway refuses, one class for each code; a `ConnectError` or
    `TimeoutError` where no answer comes; an `AnswerError` where something else than a gateway answers; and an
    `ImageError` where an image cannot be read. All are `PatchcoreError`.

    What changes nothing is sent again after a refusal (429, 503), a broken connection or a timeout. A fit, a
    calibration and the storing of images give the same when they are repeated, and are sent again after a refusal or a
    broken connection, but not after a timeout. A rollback and a deletion are sent again only where the gateway
    certainly did not do them.
    """

    # --- inspect

    def infer(
        self,
        role_id: str,
        roi_id: str,
        image: Image,
        *,
        mm_per_px: float,
        shape: Shape | None = None,
        bit_depth: int | None = None,
        k: int | None = None,
        p_score: float | None = None,
        blur_sigma: float | None = None,
        area_mm2_thr: float | None = None,
        heatmap: HeatmapMode | None = None,
        explain: bool | None = None,
    ) -> Inspection:
        """Inspect one image.

        Args:
            role_id: part or station.
            roi_id: region of the part.
            image: a path, bytes, an open file, or an array (uint8 or uint16 [H, W], or uint8 [H, W, 3] in RGB order).
            mm_per_px: millimetres per pixel of the image.
            shape: where the part is, in pixels of the image; everything else is ignored.
            bit_depth: bits per sample of the camera, for files with more than 8 bits.
            k: number of nearest neighbours to average.
            p_score: percentile of the anomaly map that is the score, 95 to 100.
            blur_sigma: standard deviation of the blur, in pixels.
            area_mm2_thr: regions smaller than this are dropped.
            heatmap: how the heatmap is returned; "none" makes the answer small.
            explain: show the OK patch that is nearest to the most anomalous patch.
        """
        name, data = self._loaded(image)
        fields = {
            "role_id": role_id,
            "roi_id": roi_id,
            "mm_per_px": mm_per_px,
            "shape": shape_text(shape),
            "bit_depth": bit_depth,
            "k": k,
            "p_score": p_score,
            "blur_sigma": blur_sigma,
            "area_mm2_thr": area_mm2_thr,
            "heatmap": heatmap,
            "explain": explain,
        }
        parts = form(fields, [("image", (name, data))])
        return self._send(Call("POST", "/infer", Inspection, Repeat.ALWAYS, parts=parts))

    def infer_batch(self, items: Sequence[BatchItem]) -> list[Inspection | GatewayError]:
        """Inspect several images, each with its own ROI and parameters, in one batch of the network.

        Returns:
            for each item, in their order: the inspection, or the error of that image, which is not raised.
        """
        images = in_thread(load_all, [item.image for item in items])
        parts = form({"items": json_text([item.fields() for item in items])}, [("images", image) for image in images])
        answer = self._send(Call("POST", "/infer_batch", BatchAnswer, Repeat.ALWAYS, parts=parts))
        return batch_results(answer.results)

    # --- teach

    def fit_ok(
        self,
        role_id: str,
        roi_id: str,
        images: Iterable[Image] = (),
        *,
        mm_per_px: float,
        shape: Shape | None = None,
        coreset_rate: float | None = None,
        seed: int | None = None,
        spatial_weights: SpatialWeightsMode | None = None,
        bit_depth: int | None = None,
        tiles: Literal["auto"] | int | None = None,
        exclude_suspects: bool | None = None,
    ) -> FitAnswer:
        """Add OK images to an ROI, and rebuild its memory bank from the whole set.

        Args:
            role_id: part or station.
            roi_id: region of the part.
            images: as `image` of `infer`. Without any, the OK images that `store_images` stored are learned. An image
                that the ROI has learned already counts once.
            mm_per_px: millimetres per pixel of the images.
            shape: where the part is, in pixels of the images.
            coreset_rate: share of the tokens to keep, usually 0.01 to 0.05.
            seed: seed of the coreset's first centre.
            spatial_weights: for an ROI without a manual box.
            bit_depth: bits per sample of the camera, for files with more than 8 bits.
            tiles: how many tiles an image is cut into, so that small defects of a large image are not lost: `auto`, or
                at most a number; 1 is the whole image. An inspection takes as many times as long.
            exclude_suspects: exclude images that look unlike the others.
        """
        files = in_thread(load_all, list(images))
        fields = {
            "role_id": role_id,
            "roi_id": roi_id,
            "mm_per_px": mm_per_px,
            "shape": shape_text(shape),
            "coreset_rate": coreset_rate,
            "seed": seed,
            "spatial_weights": spatial_weights,
            "bit_depth": bit_depth,
            "tiles": tiles,
            "exclude_suspects": exclude_suspects,
        }
        parts = form(fields, [("images", file) for file in files])
        return self._send(
            Call("POST", "/fit_ok", FitAnswer, Repeat.UNLESS_LATE, parts=parts, timeout_s=self._fit_timeout_s)
        )

    def calibrate_ng(
        self,
        role_id: str,
        roi_id: str,
        *,
        mm_per_px: float,
        ok_scores: Sequence[float] | None = None,
        ng_scores: Sequence[float] | None = None,
        area_mm2_thr: float | None = None,
        score_percentile: float | None = None,
        false_alarm_rate: float | None = None,
        pixel_threshold: Literal["peak", "score", "ok_pixels"] | float | None = None,
        peak_threshold: float | None = None,
        review_threshold: float | None = None,
        shape: Shape | None = None,
    ) -> CalibrateAnswer:
        """Compute and store the thresholds of an ROI.

        Args:
            role_id: part or station.
            roi_id: region of the part.
            mm_per_px: millimetres per pixel of the images.
            ok_scores: scores of unseen OK images; without any, those of the fit.
            ng_scores: scores of 0 to 3 NG images.
            area_mm2_thr: regions smaller than this are dropped.
            score_percentile: percentile of the anomaly map that is the score, 95 to 100.
            false_alarm_rate: share of OK images that the verdict may reject.
            pixel_threshold: rule of the threshold of regions, or a number.
            peak_threshold: threshold of the peak, instead of one that the rate chooses.
            review_threshold: lower end of a review band below it.
            shape: the shape that the scores were measured within.
        """
        fields = {
            "role_id": role_id,
            "roi_id": roi_id,
            "mm_per_px": float(mm_per_px),
            "ok_scores": scores(ok_scores),
            "ng_scores": scores(ng_scores),
            "area_mm2_thr": area_mm2_thr,
            "score_percentile": score_percentile,
            "false_alarm_rate": false_alarm_rate,
            "pixel_threshold": pixel_threshold,
            "peak_threshold": peak_threshold,
            "review_threshold": review_threshold,
            "shape": shape_text(shape),
        }
        return self._send(Call("POST", "/calibrate_ng", CalibrateAnswer, Repeat.UNLESS_LATE, json=without_none(fields)))

    def fit_progress(self, role_id: str, roi_id: str) -> FitProgressAnswer:
        """Return what the running fit of an ROI is doing."""
        return self._send(Call("GET", roi_path(role_id, roi_id, "fit"), FitProgressAnswer, Repeat.ALWAYS))

    def get_peaks(
        self,
        role_id: str,
        roi_id: str,
        *,
        mm_per_px: float | None = None,
        area_mm2_thr: float | None = None,
        score_percentile: float | None = None,
        shape: Shape | None = None,
    ) -> ImagePeaksAnswer:
        """Return the peaks of the images of an ROI, and what each threshold of the peak would mean.

        Args:
            role_id: part or station.
            roi_id: region of the part.
            mm_per_px: millimetres per pixel; that of the calibration or of the fit without one.
            area_mm2_thr: smallest region that counts; that of the calibration without one.
            score_percentile: percentile of the anomaly map that is the score; that of the calibration without one.
            shape: where the part is; that of the calibration without one.
        """
        params = texts(
            {
                "mm_per_px": mm_per_px,
                "area_mm2_thr": area_mm2_thr,
                "score_percentile": score_percentile,
                "shape": shape_text(shape),
            }
        )
        return self._send(
            Call("GET", roi_path(role_id, roi_id, "peaks"), ImagePeaksAnswer, Repeat.ALWAYS, params=params)
        )

    def compare_versions(self, role_id: str, roi_id: str, *, before: int, after: int) -> ComparisonAnswer:
        """Judge the images of an ROI by two kept versions, and return those with different verdicts."""
        path = roi_path(role_id, roi_id, "comparison")
        params = texts({"before": before, "after": after})
        return self._send(Call("GET", path, ComparisonAnswer, Repeat.ALWAYS, params=params))

    def delete_ok_image(self, role_id: str, roi_id: str, sha256: str) -> RemovedAnswer:
        """Remove one OK image, and rebuild the memory bank without it."""
        path = roi_path(role_id, roi_id, "ok", sha256)
        return self._send(Call("DELETE", path, RemovedAnswer, Repeat.IF_REFUSED, timeout_s=self._fit_timeout_s))

    def rollback(self, role_id: str, roi_id: str, version: int) -> RollbackAnswer:
        """Use a kept version again, with the threshold that it had."""
        path = roi_path(role_id, roi_id, "rollback")
        return self._send(Call("POST", path, RollbackAnswer, Repeat.IF_REFUSED, json={"version": version}))

    def delete_roi(self, role_id: str, roi_id: str) -> Deleted:
        """Delete an ROI with its OK images, versions and calibration."""
        return self._send(Call("DELETE", roi_path(role_id, roi_id), Deleted, Repeat.IF_REFUSED))

    # --- status

    def list_rois(self) -> RoiList:
        """List the fitted ROIs that the key allows."""
        return self._send(Call("GET", "/rois", RoiList, Repeat.ALWAYS))

    def get_roi(self, role_id: str, roi_id: str) -> RoiDetail:
        """Return one ROI with its OK images and versions."""
        return self._send(Call("GET", roi_path(role_id, roi_id), RoiDetail, Repeat.ALWAYS))

    def audit(self, role_id: str, roi_id: str, *, limit: int | None = None) -> AuditAnswer:
        """Return the changes of an ROI, newest first."""
        path = roi_path(role_id, roi_id, "audit")
        return self._send(Call("GET", path, AuditAnswer, Repeat.ALWAYS, params=texts({"limit": limit})))

    def drift(self, role_id: str, roi_id: str) -> DriftAnswer:
        """Compare recent inspections with the OK images."""
        return self._send(Call("GET", roi_path(role_id, roi_id, "drift"), DriftAnswer, Repeat.ALWAYS))

    def report(self, role_id: str, roi_id: str) -> ReportAnswer:
        """Return the figures of the report of an ROI."""
        path = roi_path(role_id, roi_id, "report")
        return self._send(Call("GET", path, ReportAnswer, Repeat.ALWAYS, params={"format": "json"}))

    def report_page(self, role_id: str, roi_id: str) -> str:
        """Return the report of an ROI as one HTML page that loads nothing from elsewhere."""
        path = roi_path(role_id, roi_id, "report")
        return self._send(Call("GET", path, str, Repeat.ALWAYS, params={"format": "html"}))

    def health(self) -> HealthAnswer:
        """Return what the gateway is: its version, engine and model."""
        return self._send(Call("GET", "/health", HealthAnswer, Repeat.ALWAYS))

    def ready(self) -> ReadyAnswer:
        """Return whether inspections are possible now, and why not. Does not raise for a gateway that is not ready."""
        call = Call("GET", "/ready", ReadyAnswer, Repeat.ALWAYS, accepts=frozenset({503}))
        return self._send(call)

    def wait_until_ready(self, timeout_s: float = 60) -> ReadyAnswer:
        """Wait until inspections are possible, and until the gateway listens at all.

        Raises:
            GatewayError: it is not ready after `timeout_s`.
            ConnectError: it does not listen after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            call = Call("GET", "/ready", ReadyAnswer, Repeat.ALWAYS, timeout_s=max(0.1, deadline - time.monotonic()))
            try:
                return self._send_once(call)
            except (GatewayError, httpx.TransportError) as error:
                if time.monotonic() >= deadline:
                    if isinstance(error, httpx.TransportError):
                        raise connection_error(call, self._url, error) from error
                    raise
            sleep(0.1)

    def metrics(self) -> str:
        """Return the metrics, in Prometheus's text format."""
        return self._send(Call("GET", "/metrics", str, Repeat.ALWAYS))
