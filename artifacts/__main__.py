"""`scripts/artifacts`: list, verify, repair, export, import, import-gui, publish-model, copy."""

import argparse
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from artifacts.archive import ArchiveError
from artifacts.checking import Listed, damages, listed
from artifacts.copying import CopyError, copy_roi
from artifacts.gui_data_sets import GuiFolderError, import_gui
from artifacts.moving import export_roi, import_roi
from artifacts.publishing import PublishError, publish_model
from gateway.cut_off_output import quiet_if_cut_off
from gateway.detectors.spatial_weighting import RoiConfigError
from gateway.errors import GatewayError, InvalidRequestError
from gateway.networks.embedded.engine import served_model
from gateway.networks.input_sizes import exported_sizes, name_of_size, sizes_of
from gateway.networks.model_description import DescriptionError, newest_version
from gateway.setting_names import SettingsError
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.manifest import LARGEST_MM_PER_PX
from gateway.store.opening import open_storage
from gateway.store.place import UnsuitableStorageError
from gateway.store.roi_key import RoiKey
from postprocess.roi_mask import ShapeError

_CHECKING = ("verify", "repair", "copy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 success and no damage, 1 failure or damage, 2 wrong usage.
    """
    args = _parser().parse_args(arguments)
    settings = Settings()
    logging.basicConfig(handlers=[logging.NullHandler()])  # damage is printed below, once
    if args.command in _CHECKING:
        settings = settings.model_copy(update={"store_cache_bytes": 0})  # what a bucket has, not what was read before
    where = settings.models_dir
    if isinstance(where, Path) and not where.is_dir() and args.command in ("list", "verify", "export"):
        print(f"error: GATEWAY_MODELS_DIR: {where} is not a folder", file=sys.stderr)
        return 1
    try:
        store = ArtifactStore(open_storage(settings), keep_versions=settings.keep_versions)
        commands = {
            "list": _list,
            "verify": _verify,
            "repair": _repair,
            "export": _export,
            "import": _import,
            "import-gui": _import_gui,
            "publish-model": _publish_model,
            "copy": _copy,
        }
        with quiet_if_cut_off():
            return commands[args.command](store, settings, args)
    except InvalidRequestError as error:
        print(f"error: {error.message}. {error.hint}", file=sys.stderr)
    except GatewayError as error:
        print(f"error: {error.message}", file=sys.stderr)
    except (
        ArchiveError,
        PublishError,
        CopyError,
        GuiFolderError,
        RoiConfigError,
        SettingsError,
        ShapeError,
        UnsuitableStorageError,
        OSError,
    ) as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/artifacts",
        description="List and check what GATEWAY_MODELS_DIR holds, and move ROIs to another site. "
        "Gateways may use it at the same time. An ROI of another recipe than the default one is "
        "RECIPE/ROLE/ROI.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    lists = commands.add_parser("list", help="list all ROIs with versions, counts, size and calibration")
    lists.add_argument("--json", action="store_true", help="print JSON")
    verify = commands.add_parser("verify", help="compare all files with their checksums; status 1 if one is damaged")
    verify.add_argument("roi", nargs="?", type=_key, metavar="ROLE/ROI", help="(default: all)")
    repair = commands.add_parser(
        "repair", help="in a bucket, write the damaged pointer of an ROI anew, from the lists that are there"
    )
    repair.add_argument("roi", type=_key, metavar="ROLE/ROI")
    repair.add_argument("--list", metavar="NAME", help="beginning of the name of a list, where several may be the last")
    export = commands.add_parser("export", help="write one version of an ROI with its OK images and calibration")
    export.add_argument("roi", type=_key, metavar="ROLE/ROI")
    export.add_argument("target", type=Path, metavar="FILE.tar", help="tar file or new folder")
    export.add_argument("--version", type=int, metavar="N", help="version to export (default: the one in use)")
    imports = commands.add_parser("import", help="check an export and make it the newest version of its ROI")
    imports.add_argument("source", type=Path, metavar="FILE.tar", help="tar file or folder")
    imports.add_argument("--as", dest="as_key", type=_key, metavar="ROLE/ROI", help="(default: as in the archive)")
    gui = commands.add_parser(
        "import-gui",
        help="store the data sets that the former server of the desktop GUI kept, fit and calibrate them; status 1 if "
        "something was skipped",
    )
    gui.add_argument("folder", type=Path, metavar="FOLDER", help="its models folder, which has the folder recipes")
    gui.add_argument(
        "--mm-per-px", type=_mm_per_px, metavar="MM", help="pixel side in recipes whose images do not state it"
    )
    publish = commands.add_parser(
        "publish-model", help="make a trained student-teacher model the newest version of an ROI, in use at once"
    )
    publish.add_argument(
        "model", type=Path, metavar="FOLDER", help="version folder, such as model_repository/st_conn1/1"
    )
    publish.add_argument("roi", type=_key, metavar="ROLE/ROI")
    publish.add_argument(
        "--mm-per-px", type=_mm_per_px, required=True, metavar="MM", help="pixel side of the OK images"
    )
    publish.add_argument(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="folders or files with the OK images of its validation, which are stored with the ROI; - reads file "
        "names from standard input, one per line",
    )
    publish.add_argument("--shape", metavar="JSON", help="shape of the part in these images, as in /fit_ok")
    publish.add_argument(
        "--spatial-weights",
        choices=("none", "variance"),
        help="without a manual box (default: the setting)",
    )
    copy = commands.add_parser(
        "copy", help="copy ROIs to another models folder or bucket, with all versions, images and the audit trail"
    )
    copy.add_argument("target", type=_place, metavar="FOLDER|URL", help="an ROI that it has already is left as it is")
    copy.add_argument("--roi", type=_key, action="append", metavar="ROLE/ROI", help="(default: all)")
    return parser


def _key(text: str) -> RoiKey:
    try:
        return RoiKey.parse(text)
    except GatewayError as error:
        raise argparse.ArgumentTypeError(f"{error.message}. {error.hint}") from error


def _place(text: str) -> Path | str:
    try:
        return Settings.folder_or_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _list(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    found, unreadable = [], []
    for key in store.rois():
        try:
            found.append(listed(store, key))
        except GatewayError as error:
            unreadable.append(error.message)
    unfitted = [(key, store.images(key).count()) for key in store.unfitted()]
    if args.json:
        listing = {
            "rois": [dataclasses.asdict(roi) for roi in found],
            "unfitted": [{**dataclasses.asdict(key), "n_stored": n_stored} for key, n_stored in unfitted],
            "unreadable": unreadable,
        }
        print(json.dumps(listing, indent=1))
    else:
        print("\n".join(_table(found)))
        for key, n_stored in unfitted:
            print(f"{key}: never fitted; {n_stored} stored images")
        for message in unreadable:
            print(f"damaged: {message}", file=sys.stderr)
    return 1 if unreadable or any(roi.damaged for roi in found) else 0


def _table(rois: Sequence[Listed]) -> list[str]:
    head = ("ROI", "version", "kept", "OK images", "stored", "embeddings", "calibration", "MB", "")
    rows = [
        (
            str(RoiKey(roi.role_id, roi.roi_id, roi.recipe_id)),
            str(roi.version),
            ",".join(map(str, roi.kept)),
            str(roi.n_ok),
            str(roi.n_stored),
            str(roi.n_embeddings),
            roi.calibration,
            f"{roi.n_bytes / 1e6:.1f}",
            "; ".join(roi.damaged),
        )
        for roi in rois
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]


def _verify(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    n_damaged = 0
    keys = [key for key in store.folders() if store.exists(key)] if args.roi is None else [args.roi]
    for key in keys:
        for damage in damages(store, key):
            print(f"{key}: {damage}")
            n_damaged += 1
    print(f"{len(keys)} ROIs verified, {n_damaged} damages", file=sys.stderr)
    return 1 if n_damaged else 0


def _repair(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    where = settings.models_dir
    if isinstance(where, Path):
        print(f"{args.roi}: nothing to repair: in a folder the newest whole version answers, and the next fit mends it")
        return 0
    from artifacts.repairing import RepairError, repair_pointer  # needs obstore

    try:
        repaired = repair_pointer(store, where, args.roi, args.list)
    except RepairError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if repaired is None:
        print(f"{args.roi}: its pointer is whole, and is left as it is")
        return 0
    answers = "not fitted" if repaired.version is None else f"version {repaired.version} answers"
    print(f"{args.roi}: {answers}; its list is {repaired.said}")
    return _verify(store, settings, args)


def _export(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    contents = export_roi(store, args.roi, args.target, args.version)
    print(f"{args.roi} version {contents.version}: {len(contents.files)} files in {args.target}")
    return 0


def _import(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    serves = _served(settings) if settings.engine == "embedded" else None
    imported = import_roi(store, settings, args.source, args.as_key, serves)
    for warning in imported.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{imported.key} version {imported.version}: {imported.n_images} OK images")
    return 0


def _served(settings: Settings) -> dict[int | None, str]:
    """Return the fingerprints of the token models here by the input size that names each; None: the configured one."""
    found: dict[int | None, str] = {}
    for size in (*exported_sizes(settings), None):
        name = settings.model_name if size is None else name_of_size(settings, size)
        try:
            model, _ = served_model(newest_version(settings.model_repository / name), settings)
        except (DescriptionError, RuntimeError) as error:
            print(f"warning: the model that is served here is unknown: {error}", file=sys.stderr)
        else:
            named = (size,) if size is not None else (None, *sizes_of(model))
            found |= dict.fromkeys(named, model.fingerprint)
    return found


def _import_gui(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    found = anyio.run(import_gui, settings, args.folder, args.mm_per_px)
    for each in found:
        for why in each.skipped:
            print(f"skipped: {each.folder.relative_to(args.folder)}: {why}", file=sys.stderr)
        if each.key is not None:
            version = "not fitted" if each.version is None else f"version {each.version}"
            threshold = "" if each.threshold is None else f", threshold {each.threshold:.4f}"
            print(
                f"{each.key}: {len(each.stored['ok'])} OK and {len(each.stored['ng'])} NG images, {version}{threshold}"
            )
    return 1 if any(each.skipped for each in found) else 0


def _mm_per_px(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LARGEST_MM_PER_PX:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0, at most {LARGEST_MM_PER_PX}")
    return value


def _publish_model(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    published = publish_model(
        store,
        settings,
        args.model,
        args.roi,
        mm_per_px=args.mm_per_px,
        images=[Path(line) for line in sys.stdin.read().splitlines()] if args.images == [Path("-")] else args.images,
        shape=args.shape,
        mode=args.spatial_weights,
    )
    for warning in published.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    manifest, calibration = published.manifest, published.calibration
    threshold = "not calibrated" if calibration is None else f"threshold {calibration.threshold:.4f}"
    known = ", in use already" if published.was_in_use else ""
    print(
        f"{args.roi} version {manifest.version}{known}: {manifest.extractor} {manifest.model_fingerprint[:16]}, "
        f"{len(manifest.images)} OK images, spatial weights {manifest.spatial_weights.kind}, {threshold}"
    )
    return 0


def _copy(store: ArtifactStore, settings: Settings, args: argparse.Namespace) -> int:
    target = ArtifactStore(open_storage(settings, args.target), keep_versions=settings.keep_versions)
    target.storage.prepare()
    n_copied = n_there = 0
    for key in args.roi or store.folders():
        if target.exists(key):
            print(f"{key}: is there already, and is left as it is")
            n_there += 1
            continue
        copied = copy_roi(store, target, key, settings.fit_lock_timeout_s)
        print(
            f"{key}: {copied.n_files} files, {copied.n_bytes / 1e6:.1f} MB, {copied.n_changes} lines of the audit trail"
        )
        n_copied += 1
    print(f"{n_copied} ROIs copied and verified, {n_there} were there", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
