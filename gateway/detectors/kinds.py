"""The one place that knows which kinds of detectors there are."""

from collections.abc import Callable, Mapping, Sequence

from gateway.detectors.base import Detector
from gateway.detectors.memory_bank.detector import MemoryBankDetector
from gateway.detectors.memory_bank.search.neighbours import SearchBackend
from gateway.detectors.student_teacher.detector import StudentTeacherDetector
from gateway.errors import TrainedOfflineError
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import DetectorKind, FileName, Manifest

_KINDS: Mapping[DetectorKind, type[MemoryBankDetector] | type[StudentTeacherDetector]] = {
    "memory-bank": MemoryBankDetector,
    "student-teacher": StudentTeacherDetector,
}


def load_detector(files: Mapping[FileName, bytes], manifest: Manifest, search: SearchBackend = "auto") -> Detector:
    """The detector in the verified files of a version.

    Raises:
        DamagedError: they do not hold what they should.
    """
    try:
        return _KINDS[manifest.detector].load(files, manifest, search)
    except (KeyError, ValueError) as error:
        raise DamagedError(str(error)) from error


def require_taught(manifest: Manifest, kept: Callable[[], Sequence[Manifest]]) -> None:
    """Refuse to change the OK images of a version that does not learn from them here.

    Args:
        manifest: of the version in use.
        kept: gives those of the versions to which the ROI may be rolled back, newest first.

    Raises:
        TrainedOfflineError: says how it learns, and how to come back to one that does learn here.
    """
    if manifest.is_taught:
        return
    key = f"{manifest.role_id}/{manifest.roi_id}"
    taught = next((each.version for each in kept() if each.is_taught), None)
    back = f"roll back to version {taught}, its last memory bank, or " if taught is not None else ""
    raise TrainedOfflineError(
        f"{key} is served by a {manifest.extractor} model, which learns from OK images offline alone",
        f"Train it again with `python -m export student-teacher … --publish {key} --mm-per-px "
        f"{manifest.mm_per_px:g}`; {back}DELETE /rois/{key} to fit a memory bank.",
    )
