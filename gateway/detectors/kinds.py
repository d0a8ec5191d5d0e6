"""The kinds of detectors: the only module that lists them."""

from collections.abc import Callable, Mapping, Sequence

from gateway.detectors.base import Detector
from gateway.detectors.memory_bank.detector import MemoryBankDetector
from gateway.detectors.memory_bank.search.backend import SearchBackend
from gateway.detectors.student_teacher.detector import StudentTeacherDetector
from gateway.errors import TrainedOfflineError
from gateway.store.checksummed import DamagedError
from gateway.store.manifest import DetectorKind, FileName, Manifest

_KINDS: Mapping[DetectorKind, type[MemoryBankDetector] | type[StudentTeacherDetector]] = {
    "memory-bank": MemoryBankDetector,
    "student-teacher": StudentTeacherDetector,
}


def load_detector(files: Mapping[FileName, bytes], manifest: Manifest, search: SearchBackend = "auto") -> Detector:
    """Return the detector in the verified files of a version.

    Raises:
        DamagedError: the files do not hold what their manifest says.
    """
    try:
        return _KINDS[manifest.detector].load(files, manifest, search)
    except (KeyError, ValueError) as error:
        raise DamagedError(str(error)) from error


def require_taught(manifest: Manifest, kept: Callable[[], Sequence[Manifest]]) -> None:
    """Refuse to change the OK images of a version that is trained offline.

    Args:
        manifest: manifest of the version in use.
        kept: returns the manifests of the versions to which the ROI can be rolled back, newest first.

    Raises:
        TrainedOfflineError: the hint says how to train it again and how to return to a memory bank.
    """
    if manifest.is_taught:
        return
    key = manifest.key
    taught = next((each.version for each in kept() if each.is_taught), None)
    back = f"roll back to version {taught}, its last memory bank, or " if taught is not None else ""
    raise TrainedOfflineError(
        f"{key} is served by a {manifest.extractor} model, which is trained offline; /fit_ok cannot change it",
        f"Train it again with `python -m export student-teacher … --publish {key} --mm-per-px "
        f"{manifest.mm_per_px:g}`; {back}DELETE {key.url()} to fit a memory bank.",
    )
