"""The services that the requests of one gateway process share."""

import logging
import os
import sys
from dataclasses import dataclass
from zlib import crc32

import cv2
from anyio import CapacityLimiter

from gateway.detectors.memory_bank import threads as patchcore_threads
from gateway.detectors.memory_bank.search.backend import search_name
from gateway.detectors.memory_bank.search.faiss_search import faiss_available
from gateway.detectors.spatial_weighting import SpatialWeighting
from gateway.inspection.pipeline import InspectionPipeline
from gateway.inspection.version_cache import VersionCache
from gateway.learning.image_peaks import ImagePeaks
from gateway.learning.service import FitService
from gateway.learning.stored_images import StoredImages
from gateway.learning.stored_scores import StoredScorer
from gateway.learning.storing import ImageStorer
from gateway.monitoring.artifact_faults import counted_faults
from gateway.monitoring.drift.recent import RecentInspections
from gateway.monitoring.drift.watch import DriftWatch
from gateway.monitoring.inspection_log import Watch
from gateway.monitoring.kept_inspections import KeptInspections
from gateway.monitoring.metrics import RoiLabels
from gateway.monitoring.roi_metrics import RoiCollector
from gateway.networks import TokenEngine
from gateway.networks.embedded.runtimes import require_cuda
from gateway.networks.registry import EngineRegistry, create_engine_registry
from gateway.process.admission import Admission
from gateway.process.lifecycle import Lifecycle
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore
from gateway.store.opening import open_storage

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005
"""How long a thread keeps Python's lock while another wants it. The event loop wants it for each step of each request,
and by Python's default waits up to 5 ms each time that worker threads compute."""
_MAX_CHANGES = 16
_MAX_CHANGES_OF_ROI = 3
_MAX_UPLOADS = 16
_MAX_IMAGE_READERS = 2


@dataclass(frozen=True, slots=True)
class Services:
    """The shared services. `create_services` makes them once, and every route gets them."""

    settings: Settings
    engines: EngineRegistry
    store: ArtifactStore
    weighting: SpatialWeighting
    banks: VersionCache
    pipeline: InspectionPipeline
    fitting: FitService
    inspections: Admission
    fits: Admission
    changes: Admission
    """Admission of calibrations, rollbacks and deletions, which wait for the lock of their ROI in own threads."""
    uploads: Admission
    """Admission of images to store."""
    writers: CapacityLimiter
    images: StoredImages
    storing: ImageStorer
    scorer: StoredScorer
    peaks: ImagePeaks
    image_readers: CapacityLimiter
    """Threads that read stored images. They are few: a page of thumbnails must not delay inspections."""
    recent_inspections: RecentInspections
    drift: DriftWatch
    kept: KeptInspections
    """The images that were inspected lately, for review."""
    roi_metrics: RoiCollector
    lifecycle: Lifecycle

    @property
    def engine(self) -> TokenEngine:
        """The engine that computes tokens."""
        return self.engines.token_engine


def create_services(settings: Settings) -> Services:
    """Create the services. Starts no engine and no task.

    Raises:
        RuntimeError: GATEWAY_SEARCH names a library that is not installed, or a GPU that is missing.
        CudaUnavailableError: GATEWAY_DEVICE is cuda, and ONNX Runtime cannot use it.
        RoiConfigError: the file of manual boxes is invalid.
    """
    set_threads(settings.threads)
    log.info("nearest neighbours: %s", search_name(settings.search))
    if settings.engine == "embedded" and settings.device == "cuda":
        require_cuda()
    engines = create_engine_registry(settings)
    store = ArtifactStore(open_storage(settings), keep_versions=settings.keep_versions, faults=counted_faults())
    weighting = SpatialWeighting.from_settings(settings)
    banks = VersionCache(
        store,
        max_bytes=settings.bank_cache_bytes,
        search=settings.search,
        notes=settings.cache_dir / f"recent-rois-{crc32(str(settings.models_dir).encode()):08x}.json",
    )
    recent = RecentInspections(settings.state_dir / "drift", settings.drift_window)
    drift = DriftWatch(recent, settings.drift_window)
    kept = KeptInspections(
        settings.state_dir / "review",
        keeps=settings.keep_inspections,
        max_bytes=settings.keep_inspections_bytes,
        days=settings.keep_inspections_days,
    )
    labels = RoiLabels(settings.metrics_max_rois)
    inspections = Admission(
        "inspect",
        settings.max_queued_inspections,
        max_wait_s=settings.max_queue_s,
        max_bytes=settings.max_queued_bytes,
        shared_by_lines=True,
    )
    fits = Admission(
        "fit",
        settings.max_queued_fits,
        max_bytes=settings.max_queued_bytes,
        max_memory=settings.max_fit_memory_bytes,
    )
    # A change waits for the fit of its ROI. Changes of one ROI do not take the places of the others.
    changes = Admission("change", _MAX_CHANGES, max_per_roi=_MAX_CHANGES_OF_ROI)
    uploads = Admission("store images", _MAX_UPLOADS, max_bytes=settings.max_queued_bytes)
    images = StoredImages(store, settings)
    scorer = StoredScorer(engines.token_engine, store, settings)
    return Services(
        settings=settings,
        engines=engines,
        store=store,
        weighting=weighting,
        banks=banks,
        pipeline=InspectionPipeline(engines, banks, store, weighting, settings, Watch(recent, labels), kept),
        fitting=FitService(engines.token_engine, store, weighting, settings),
        inspections=inspections,
        fits=fits,
        changes=changes,
        uploads=uploads,
        writers=CapacityLimiter(_MAX_CHANGES),
        images=images,
        scorer=scorer,
        peaks=ImagePeaks(store, images, scorer, settings),
        storing=ImageStorer(engines.token_engine, store, settings),
        image_readers=CapacityLimiter(_MAX_IMAGE_READERS),
        recent_inspections=recent,
        drift=drift,
        kept=kept,
        roi_metrics=RoiCollector(store, labels, drift),
        lifecycle=Lifecycle((inspections, fits, changes, uploads)),
    )


def set_threads(threads: int) -> None:
    """Set the number of threads of the computing libraries, 0 being one per core, and how Python shares its lock.

    OpenCV gets one thread: it works on small images in several request threads at once. Searches and coresets use all
    threads. OpenVINO gets the number when it compiles a network.
    """
    sys.setswitchinterval(_SWITCH_S)
    cv2.setNumThreads(1)
    patchcore_threads.set_threads(threads)
    if faiss_available():
        import faiss

        faiss.omp_set_num_threads(threads or os.cpu_count() or 1)
