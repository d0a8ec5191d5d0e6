"""`patchcore roi …`: what a gateway has learned, and teaching it."""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from patchcore_client import TooLargeError, UnknownRoiError

from command_line.arguments import (
    BitDepth,
    DryRun,
    InspectOptions,
    MmPerPx,
    PathsArgument,
    RoiArgument,
    RoiName,
    Shape,
    Yes,
    tiles_asked,
    tiles_in_words,
)
from command_line.commands import command, confirmed
from command_line.connection import Session
from command_line.exits import CommandError, ExitStatus, UsageError
from command_line.files import image_files
from command_line.infer import Csv, FailOnNg, Overlays, inspect_files
from command_line.inspecting import Inspector, mm_per_px_of
from command_line.output import line, print_json, progress, say, table

roi_app = typer.Typer(no_args_is_help=True, help="ROIs: what they have learned, and teaching them.")

Scores = list[float]


@command(roi_app, "list")
async def list_rois(found: Session) -> ExitStatus:
    """List the ROIs that were taught, and those that only have stored images."""
    answer = await found.client.list_rois()
    if found.json:
        print_json(answer)
    else:
        learned: list[tuple[Any, ...]] = [
            (
                f"{roi.role_id}/{roi.roi_id}",
                roi.recipe_id,
                roi.version,
                roi.n_ok_total,
                roi.mm_per_px,
                _calibrated(roi.calibration),
                None if roi.calibration is None else roi.calibration.peak_threshold,
                [*(["damaged"] if roi.degraded else []), *(f"drift: {alarm}" for alarm in roi.drift_alarms)],
            )
            for roi in answer.rois
        ]
        stored = [
            (f"{roi.role_id}/{roi.roi_id}", roi.recipe_id, *[None] * 5, f"not learned: {roi.n_ok} OK images are stored")
            for roi in answer.unfitted
        ]
        columns = ("ROI", "recipe", "version", "OK images", "mm/px", "calibrated", "peak threshold", "notes")
        table(columns, [*learned, *stored])
    for problem in answer.unreadable:
        say(f"damaged: {problem}")
    return ExitStatus.FAILED if answer.unreadable else ExitStatus.DONE


@command(roi_app, "show")
async def show(found: Session, roi: RoiArgument) -> None:
    """Show an ROI with its versions."""
    answer = await found.client.get_roi(roi.role_id, roi.roi_id)
    if found.json:
        print_json(answer)
        return
    scores, calibration = answer.ok_scores, answer.calibration
    _facts(
        ("ROI", f"{roi}, recipe {answer.recipe_id}"),
        ("version", f"{answer.version}, {answer.detector}, made {answer.created_at}"),
        ("OK images", f"{answer.n_ok_total} learned, {answer.n_ok_excluded} excluded, {answer.n_suspects} suspects"),
        ("memory bank", f"{answer.n_embeddings} tokens, coreset rate {answer.coreset_rate_applied:.3g}"),
        ("input size", answer.input_size),
        ("tiles", tiles_in_words(answer.tiles)),
        ("mm per pixel", answer.mm_per_px),
        (
            "OK scores",
            None if scores is None else f"median {scores.p50:.3f}, p99 {scores.p99:.3f}, max {scores.max:.3f}",
        ),
        ("calibrated", _calibrated(calibration)),
    )
    if calibration is not None:
        rate = calibration.verdict_false_alarm_rate
        _facts(
            ("thresholds", f"score {calibration.threshold:.4f}, peak {calibration.peak_threshold:.4f}"),
            ("smallest region", f"{calibration.area_mm2_thr:g} mm²"),
            ("false alarms", None if rate is None else f"{rate:.1%} expected"),
        )
    _warn(answer.warnings)
    table(
        ("version", "in use", "made", "detector", "OK images", "tokens"),
        (
            (each.version, each.current, each.created_at, each.detector, each.n_ok, each.n_embeddings)
            for each in answer.versions
        ),
    )


@command(roi_app, "fit")
async def fit(
    found: Session,
    roi: RoiArgument,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="OK images, and folders. Default: the stored OK images.", exists=True, metavar="PATH"),
    ] = None,
    mm_per_px: MmPerPx = None,
    coreset_rate: Annotated[
        float | None, typer.Option("--coreset-rate", help="Share of the tokens to keep, 0.01 to 0.05.", metavar="RATE")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the coreset.", metavar="N")] = None,
    spatial_weights: Annotated[
        Literal["none", "variance"] | None, typer.Option("--spatial-weights", help="For an ROI without a manual box.")
    ] = None,
    exclude_suspects: Annotated[
        bool, typer.Option("--exclude-suspects", help="Leave out images that look unlike the others.")
    ] = False,
    shape: Shape = None,
    bit_depth: BitDepth = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            "--input-size", help="Input size of the token model, where several are exported.", metavar="PIXELS"
        ),
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option(
            help="Tiles that a large image is cut into: auto, or at most N; 1: the whole image.", metavar="auto|N"
        ),
    ] = None,
) -> None:
    """Learn OK images."""
    images = image_files(paths).paths if paths else []
    try:
        mm_per_px = await mm_per_px_of(found.client, roi, mm_per_px)
    except UnknownRoiError:
        raise UsageError(f"{roi} is new: its millimetres per pixel are unknown", "Add --mm-per-px.") from None
    with progress(counts=False) as bar:
        bar.add_task(f"learning {len(images)} images" if images else "learning the stored images")
        try:
            answer = await found.client.fit_ok(
                roi.role_id,
                roi.roi_id,
                images,
                mm_per_px=mm_per_px,
                shape=shape,
                coreset_rate=coreset_rate,
                seed=seed,
                spatial_weights=spatial_weights,
                bit_depth=bit_depth,
                input_size=input_size,
                tiles=tiles_asked(tiles),
                exclude_suspects=exclude_suspects or None,
            )
        except TooLargeError as error:
            raise CommandError(
                str(error), "`patchcore roi images add` sends many images in parts; then fit without naming files."
            ) from error
    if found.json:
        print_json(answer)
        return
    suspects = [f"{each.file_name} (score {each.score:.3f})" for each in answer.suspect_images]
    _facts(
        ("version", f"{answer.version} of {roi}"),
        ("OK images", f"{answer.n_ok_total}, {answer.n_ok_added} of them new; {answer.duplicates} were known"),
        ("memory bank", f"{answer.n_embeddings} of {answer.n_tokens_total} tokens"),
        ("input size", answer.input_size),
        ("tiles", tiles_in_words(answer.tiles)),
        ("suspects", ", ".join(suspects) or None),
        ("calibration", answer.calibration),
    )
    _warn(answer.warnings)
    if answer.calibration in ("none", "stale"):
        say(f"next: patchcore roi calibrate {roi}")


@command(roi_app, "calibrate")
async def calibrate(
    found: Session,
    roi: RoiArgument,
    mm_per_px: MmPerPx = None,
    ok: Annotated[
        list[Path] | None,
        typer.Option("--ok", help="OK image, or a folder of them, that was not learned. Repeatable.", exists=True),
    ] = None,
    ng: Annotated[
        list[Path] | None, typer.Option("--ng", help="NG image; up to three. Repeatable.", exists=True, dir_okay=False)
    ] = None,
    ok_score: Annotated[Scores | None, typer.Option("--ok-score", help="Score of an OK image. Repeatable.")] = None,
    ng_score: Annotated[Scores | None, typer.Option("--ng-score", help="Score of an NG image. Repeatable.")] = None,
    false_alarm_rate: Annotated[
        float | None,
        typer.Option(
            "--false-alarm-rate", help="Share of OK parts that may be rejected, such as 0.02.", metavar="RATE"
        ),
    ] = None,
    area_mm2_thr: Annotated[
        float | None, typer.Option("--area-mm2-thr", help="Smallest area of a region, in mm².", metavar="MM2")
    ] = None,
    score_percentile: Annotated[
        float | None, typer.Option("--score-percentile", help="Percentile that is the score, 95 to 100.", metavar="P")
    ] = None,
    pixel_threshold: Annotated[
        str | None,
        typer.Option("--pixel-threshold", help="Threshold of regions: peak, score, ok_pixels or a number."),
    ] = None,
    shape: Shape = None,
) -> None:
    """Set the thresholds.

    Without images and scores, those of the fit and of the stored images are used.
    """
    mm_per_px = await mm_per_px_of(found.client, roi, mm_per_px)
    options = InspectOptions(shape=shape, p_score=score_percentile, area_mm2_thr=area_mm2_thr)
    ok_scores = [*(ok_score or []), *await _scores(found, roi, ok, options, mm_per_px)]
    ng_scores = [*(ng_score or []), *await _scores(found, roi, ng, options, mm_per_px)]
    answer = await found.client.calibrate_ng(
        roi.role_id,
        roi.roi_id,
        mm_per_px=mm_per_px,
        ok_scores=ok_scores or None,
        ng_scores=ng_scores or None,
        area_mm2_thr=area_mm2_thr,
        score_percentile=score_percentile,
        false_alarm_rate=false_alarm_rate,
        pixel_threshold=_rule(pixel_threshold),
        shape=shape,
    )
    if found.json:
        print_json(answer)
        return
    rate, interval = answer.verdict_false_alarm_rate, answer.verdict_false_alarm_interval
    stated = None if rate is None else f"{rate:.1%} of OK parts expected"
    if stated and interval:
        stated += f" ({interval[0]:.1%} to {interval[1]:.1%})"
    _facts(
        ("thresholds", f"score {answer.threshold:.4f}, peak {answer.peak_threshold:.4f}"),
        ("from", f"{answer.n_ok} OK and {answer.n_ng} NG scores, {answer.method}"),
        ("false alarms", stated),
        ("missed NG", answer.missed_ng or None),
    )
    _warn(answer.warnings)


@command(roi_app, "infer")
async def infer(
    found: Session,
    roi: RoiArgument,
    paths: PathsArgument,
    options: InspectOptions,
    csv: Csv = None,
    overlays: Overlays = None,
    fail_on_ng: FailOnNg = False,
) -> ExitStatus:
    """Inspect images."""
    return await inspect_files(found, roi, paths, options, csv, overlays, fail_on_ng=fail_on_ng)


@command(roi_app, "report")
async def report(
    found: Session,
    roi: RoiArgument,
    html: Annotated[
        Path | None, typer.Option(help="Write the report as one page.", metavar="FILE", dir_okay=False)
    ] = None,
) -> None:
    """Report what an ROI has learned, its drift, and its last changes."""
    if html is not None:
        page = await found.client.report_page(roi.role_id, roi.roi_id)
        try:
            html.write_text(page, "utf-8")
        except OSError as error:
            raise UsageError(f"{html}: {error.strerror}") from error
        say(f"report in {html}")
        return
    answer = await found.client.report(roi.role_id, roi.roi_id)
    if found.json:
        print_json(answer)
        return
    drift = answer.drift
    rejected = None if drift.rejected is None else f", {drift.rejected:.1%} ng"
    _facts(
        ("ROI", f"{roi}, recipe {answer.recipe_id}, version {answer.roi.version}"),
        ("OK images", f"{answer.roi.n_ok_total} learned, {answer.roi.n_suspects} suspects"),
        ("calibrated", _calibrated(answer.roi.calibration)),
        ("inspections", f"{drift.n} lately{rejected or ''}"),
        ("drift", ", ".join(drift.alarms) or drift.reason or "none"),
    )
    _warn(answer.roi.warnings)
    table(
        ("time", "change", "by", "version", "OK images", "outcome"),
        (
            (each.time, each.action, each.actor, each.version_after, each.n_ok_after, each.outcome)
            for each in answer.audit
        ),
    )


@command(roi_app, "rollback")
async def rollback(
    found: Session,
    roi: RoiArgument,
    version: Annotated[int, typer.Argument(help="A kept version, see `show`.", min=1, metavar="VERSION")],
) -> None:
    """Use an earlier version again, with the thresholds that it had."""
    answer = await found.client.rollback(roi.role_id, roi.roi_id, version)
    if found.json:
        print_json(answer)
        return
    line(f"{roi} uses version {answer.version}, before {answer.version_before}; calibration: {answer.calibration}")
    _warn(answer.warnings)


@command(roi_app, "delete")
async def delete(found: Session, roi: RoiArgument, dry_run: DryRun = False, yes: Yes = False) -> ExitStatus:
    """Delete an ROI with its images, versions and calibration."""
    images = await found.client.list_images(roi.role_id, roi.roi_id, limit=1)
    try:
        n_versions = len((await found.client.get_roi(roi.role_id, roi.roi_id)).versions)
    except UnknownRoiError:
        if not images.n_ok + images.n_ng:
            raise
        n_versions = 0  # it has stored images alone
    counted = f"{n_versions} versions, {images.n_ok} OK and {images.n_ng} NG images"
    what = f"{roi} of recipe {images.recipe_id}: {counted}"
    if dry_run:
        if found.json:
            counts = {"versions": n_versions, "n_ok": images.n_ok, "n_ng": images.n_ng}
            print_json({"would_delete": {"role_id": images.role_id, "roi_id": images.roi_id, **counts}})
        else:
            line(f"would delete {what}")
        return ExitStatus.DONE
    if not confirmed(f"delete {what}", yes=yes):
        return ExitStatus.NG
    deleted = await found.client.delete_roi(roi.role_id, roi.roi_id)
    if found.json:
        print_json(deleted)
    else:
        line(f"deleted {what}")
    return ExitStatus.DONE


async def _scores(
    found: Session, roi: RoiName, given: list[Path] | None, options: InspectOptions, mm_per_px: float
) -> Scores:
    """Inspect images and return their scores.

    Raises:
        PatchcoreError: an image cannot be inspected.
    """
    if not given:
        return []
    images = image_files(given)
    inspector = Inspector(found, roi, options, mm_per_px=mm_per_px, folder=images.folder)
    scores: Scores = []
    with progress() as bar:
        task = bar.add_task("scoring", total=len(images.paths))
        async with aclosing(inspector.results(images.paths)) as results:
            async for result in results:
                scores.append(result.inspection().score)
                bar.advance(task)
    return scores


def _rule(given: str | None) -> Any:
    """Return a rule of the threshold of regions by name, or a number."""
    try:
        return given if given is None else float(given)
    except ValueError:
        return given


def _calibrated(calibration: Any) -> str:
    if calibration is None:
        return "no"
    return (
        "stale: calibrate again"
        if calibration.stale
        else f"yes, {calibration.n_ok} OK and {calibration.n_ng} NG scores"
    )


def _facts(*facts: tuple[str, Any]) -> None:
    """Print names and values. None is left out."""
    for name, value in facts:
        if value is not None:
            line(f"{name:<16} {value}")


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        say(f"warning: {warning}")
