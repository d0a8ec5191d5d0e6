"""Everything that one gateway process shares between requests."""

import logging
import os
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
from gateway.learning.service import FitService
from gateway.monitoring.artifact_faults import counted_faults
from gateway.monitoring.drift import DriftLog
from gateway.monitoring.inspection_log import Watch
from gateway.monitoring.metrics import RoiLabels
from gateway.monitoring.roi_metrics import RoiCollector
from gateway.networks import TokenEngine
from gateway.networks.registry import Engines, create_engines
from gateway.process.admission import Admission
from gateway.process.lifecycle import Lifecycle
from gateway.settings import Settings
from gateway.store.artifact_store import ArtifactStore

log = logging.getLogger(__name__)

_MAX_CHANGES = 16


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by `create_services`, handed to every route."""

    settings: Settings
    engines: Engines
    store: ArtifactStore
    weighting: SpatialWeighting
    banks: VersionCache
    pipeline: InspectionPipeline
    fitting: FitService
    inspections: Admission
    fits: Admission
    changes: Admission
    """Calibrations and deletions, which wait for the lock of their ROI in threads of their own."""
    writers: CapacityLimiter
    drift: DriftLog
    roi_metrics: RoiCollector
    lifecycle: Lifecycle

    @property
    def engine(self) -> TokenEngine:
        """That of the tokens."""
        return self.engines.tokens


def create_services(settings: Settings) -> Services:
    """Wire the parts together; starts nothing.

    Raises:
        RuntimeError: GATEWAY_SEARCH asks for what this machine has not.
        RoiConfigError: the file of manual boxes cannot be used.
    """
    set_threads(settings.threads)
    log.info("nearest neighbours: %s", search_name(settings.search))
    engines = create_engines(settings)
    store = ArtifactStore(settings.models_dir, keep_versions=settings.keep_versions, faults=counted_faults())
    weighting = SpatialWeighting.from_settings(settings)
    banks = VersionCache(
        store,
        max_entries=settings.bank_cache_entries,
        max_bytes=settings.bank_cache_bytes,
        search=settings.search,
        notes=settings.cache_dir / f"recent-rois-{crc32(str(settings.models_dir).encode()):08x}.json",
    )
    drift = DriftLog(settings.state_dir / "drift", settings.drift_window)
    labels = RoiLabels(settings.metrics_max_rois)
    inspections = Admission(
        "inspect",
        settings.max_queued_inspections,
        max_wait_s=settings.max_queue_s,
        max_bytes=settings.max_queued_bytes,
    )
    fits = Admission("fit", settings.max_queued_fits, max_bytes=settings.max_queued_bytes)
    changes = Admission("change", _MAX_CHANGES)
    return Services(
        settings=settings,
        engines=engines,
        store=store,
        weighting=weighting,
        banks=banks,
        pipeline=InspectionPipeline(engines, banks, weighting, settings, Watch(drift, labels)),
        fitting=FitService(engines.tokens, store, weighting, settings),
        inspections=inspections,
        fits=fits,
        changes=changes,
        writers=CapacityLimiter(_MAX_CHANGES),
        drift=drift,
        roi_metrics=RoiCollector(store, labels, drift),
        lifecycle=Lifecycle((inspections, fits, changes)),
    )


def set_threads(threads: int) -> None:
    """The one place that says how many threads the computing libraries take (0: one a core).

    OpenCV works on small images from several request threads at once, so its own threads would only get in the way;
    a search or a coreset takes all cores. OpenVINO is told when the network is compiled.
    """
    cv2.setNumThreads(1)
    patchcore_threads.set_threads(threads)
    if faiss_available():
        import faiss

        faiss.omp_set_num_threads(threads or os.cpu_count() or 1)
