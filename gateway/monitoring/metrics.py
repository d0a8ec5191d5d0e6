"""Metrics for Prometheus.

With several worker processes, prometheus_client stores values in files of a shared folder, and a scrape of any worker
adds them up. The library chooses this mode when it is imported, so the folder is set before the import.
"""

import fcntl
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "patchcore-gateway-metrics-"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot, or None if it has ended. Id and start are unique together."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]  # a zombie process has ended, its parent has not collected it


def _share_between_workers() -> None:
    """Set the folder of this group of workers, named after the process that started them."""
    parent = multiprocessing.parent_process()
    if _FOLDER in os.environ or parent is None or parent.pid is None:
        return
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_PREFIX}*"):
        pid, _, started = left.name.removeprefix(_PREFIX).partition("-")
        if pid.isdecimal() and _started(int(pid)) != started:
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{_PREFIX}{parent.pid}-{_started(parent.pid)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        os.environ[_FOLDER] = str(folder)


_share_between_workers()

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

from gateway.store.atomic import replace_file  # noqa: E402
from gateway.store.roi_key import RoiKey  # noqa: E402

_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_FIT_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
_SCORES = (*(round(0.1 + 0.05 * i, 2) for i in range(24)), 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)

disable_created_metrics()  # type: ignore[no-untyped-call]
METRICS = CollectorRegistry()

REQUESTS = Counter(
    "gateway_requests",
    "Answered requests, by path template and outcome: ok, or the error code",
    ("endpoint", "code"),
    registry=METRICS,
)
REQUEST_SECONDS = Histogram(
    "gateway_request_duration_seconds",
    "Time from the first byte of a request to the last byte of its answer",
    ("endpoint",),
    buckets=(*_SECONDS, 10.0, 30.0, 100.0),
    registry=METRICS,
)
STAGE_SECONDS = Histogram(
    "gateway_stage_duration_seconds",
    "Time of an inspection by stage: decode, engine (with its queue), queue (wait for the embedded engine), knn, "
    "postprocess",
    ("stage",),
    buckets=_SECONDS,
    registry=METRICS,
)
FIT_STAGE_SECONDS = Histogram(
    "gateway_fit_stage_duration_seconds",
    "Time of a fit by stage",
    ("stage",),
    buckets=_FIT_SECONDS,
    registry=METRICS,
)
IN_FLIGHT = Gauge(
    "gateway_in_flight",
    "Images to inspect, fits, or changes that run or wait",
    ("work",),
    multiprocess_mode="livesum",
    registry=METRICS,
)
QUEUED = Gauge(
    "gateway_engine_queued",
    "Calls that wait for the engine",
    multiprocess_mode="livesum",
    registry=METRICS,
)
ADMITTED = Counter(
    "gateway_admitted", "Admitted requests by kind of work, counted when they end", ("work",), registry=METRICS
)
SHED = Counter("gateway_shed", "Requests refused with 429, by kind of work", ("work",), registry=METRICS)
ENGINE_ERRORS = Counter(
    "gateway_engine_errors", "Failed calls to the engine, by error code", ("code",), registry=METRICS
)
ENGINE_READY = Gauge(
    "gateway_engine_ready",
    "1 if the engine answers, else 0",
    multiprocess_mode="livemin",
    registry=METRICS,
)
TRITON_SERVERS = Gauge(
    "gateway_triton_servers",
    "Triton servers by state: used; other_model: reachable but serves another model; unreachable",
    ("state",),
    multiprocess_mode="livemostrecent",
    registry=METRICS,
)
BATCH_SIZE = Histogram(
    "gateway_engine_batch_images",
    "Images in one call to the engine",
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=METRICS,
)
BANK_HITS = Counter("gateway_bank_cache_hits", "Inspections whose memory bank was already loaded", registry=METRICS)
BANK_MISSES = Counter("gateway_bank_cache_misses", "Memory banks read from disk", registry=METRICS)
BANK_BYTES = Gauge(
    "gateway_bank_cache_bytes", "Memory used by loaded banks", multiprocess_mode="livesum", registry=METRICS
)
BANKS_LOADED = Gauge("gateway_bank_cache_banks", "Loaded banks", multiprocess_mode="livesum", registry=METRICS)
ARTIFACT_FAULTS = Counter("gateway_artifact_faults", "Damaged artifacts found, by kind", ("kind",), registry=METRICS)
DEGRADED = Gauge(
    "gateway_degraded_rois",
    "ROIs with damaged artifacts: an older version answers, or none",
    multiprocess_mode="livemax",
    registry=METRICS,
)
BUILD = Gauge(
    "gateway_build_info",
    "1 for what runs now, 0 for what ran before",
    ("version", "engine", "runtime", "model", "weights"),
    multiprocess_mode="livemostrecent",
    registry=METRICS,
)
ROI_LABELS = ("recipe", "role_id", "roi_id")
SCORES = Histogram("gateway_score", "Scores of inspections, by ROI", ROI_LABELS, buckets=_SCORES, registry=METRICS)
VERDICTS = Counter("gateway_verdicts", "Verdicts, by ROI", (*ROI_LABELS, "verdict"), registry=METRICS)

OTHER = ("other", "other", "other")


class RoiLabels:
    """The ROIs with labels of their own: the first ones up to a limit, the same in every worker."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[RoiKey] = set()

    def of(self, key: RoiKey) -> tuple[str, str, str]:
        """Return the values of `ROI_LABELS`, or `OTHER` for an ROI beyond the limit."""
        if key not in self._known and (len(self._known) >= self._limit or not self._join(key)):
            return OTHER
        return key.recipe_id, key.role_id, key.roi_id

    def _join(self, key: RoiKey) -> bool:
        if _FOLDER not in os.environ:
            self._known.add(key)
            return True
        try:
            with _locked(Path(os.environ[_FOLDER]) / "rois.json") as file:
                text = file.read_text() if file.exists() else "[]"
                known = {RoiKey.parse(each) for each in json.loads(text)}
                if key not in known and len(known) < self._limit:
                    replace_file(file, json.dumps(sorted(map(str, {*known, key}))).encode())
                    known.add(key)
                self._known = known
        except (OSError, ValueError):
            return False  # a full disk or a damaged file: an inspection does not fail because of its label
        return key in self._known


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def registry(*collectors: Collector) -> CollectorRegistry:
    """Return all metrics for one scrape: those of every worker, and those of `collectors`, read at the scrape."""
    scraped = CollectorRegistry()
    if _FOLDER in os.environ:
        _forget_the_dead(Path(os.environ[_FOLDER]))
        MultiProcessCollector(scraped)  # type: ignore[no-untyped-call]
    else:
        scraped.register(METRICS)
    for collector in collectors:
        scraped.register(collector)
    return scraped


def _forget_the_dead(folder: Path) -> None:
    """Remove the gauges of killed workers, which had no time to do it themselves."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if pid.isdecimal() and _started(int(pid)) is None:
            with suppress(OSError):
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def forget_worker() -> None:
    """Remove the gauges of this process, because it ends. Its counters stay."""
    if _FOLDER in os.environ:
        with suppress(OSError):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
