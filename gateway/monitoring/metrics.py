"""What Prometheus scrapes: every metric of the gateway, and nothing computed for it twice.

Under several worker processes the library keeps values in files of a folder that they share, and a scrape of any of
them adds all up. It decides so when it is imported, hence the order here.
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
    """When a process started, in ticks since boot: with its number it is the only one. None where it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]  # a zombie has ended, though nobody has asked how


def _share_between_workers() -> None:
    """Name the folder of a group of workers by the process that started them."""
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
    "Requests answered, by path template and outcome: ok, or the code of the error",
    ("endpoint", "code"),
    registry=METRICS,
)
REQUEST_SECONDS = Histogram(
    "gateway_request_duration_seconds",
    "From the first byte of a request to the last of its answer",
    ("endpoint",),
    buckets=(*_SECONDS, 10.0, 30.0, 100.0),
    registry=METRICS,
)
STAGE_SECONDS = Histogram(
    "gateway_stage_duration_seconds",
    "Of an inspection, by stage: decode, engine (with its queue), queue (waiting for the embedded engine), knn, "
    "postprocess",
    ("stage",),
    buckets=_SECONDS,
    registry=METRICS,
)
FIT_STAGE_SECONDS = Histogram(
    "gateway_fit_stage_duration_seconds",
    "Of a fit, by stage",
    ("stage",),
    buckets=_FIT_SECONDS,
    registry=METRICS,
)
IN_FLIGHT = Gauge(
    "gateway_in_flight",
    "Images to inspect, fits, or changes at work or waiting",
    ("work",),
    multiprocess_mode="livesum",
    registry=METRICS,
)
QUEUED = Gauge(
    "gateway_engine_queued",
    "Calls that wait for their turn at the engine",
    multiprocess_mode="livesum",
    registry=METRICS,
)
ADMITTED = Counter(
    "gateway_admitted", "Requests let in, by kind of work, counted when they end", ("work",), registry=METRICS
)
SHED = Counter("gateway_shed", "Requests refused with 429, by kind of work", ("work",), registry=METRICS)
ENGINE_ERRORS = Counter(
    "gateway_engine_errors", "Calls to the engine that failed, by the code of the error", ("code",), registry=METRICS
)
ENGINE_READY = Gauge(
    "gateway_engine_ready",
    "1 where the engine would answer now, else 0",
    multiprocess_mode="livemin",
    registry=METRICS,
)
BATCH_SIZE = Histogram(
    "gateway_engine_batch_images",
    "Images in one call to the engine",
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=METRICS,
)
BANK_HITS = Counter("gateway_bank_cache_hits", "Inspections whose memory bank was loaded already", registry=METRICS)
BANK_MISSES = Counter("gateway_bank_cache_misses", "Memory banks read from disk", registry=METRICS)
BANK_BYTES = Gauge(
    "gateway_bank_cache_bytes", "Memory held by loaded banks", multiprocess_mode="livesum", registry=METRICS
)
BANKS_LOADED = Gauge("gateway_bank_cache_banks", "Loaded banks", multiprocess_mode="livesum", registry=METRICS)
ARTIFACT_FAULTS = Counter(
    "gateway_artifact_faults", "Stored artifacts found damaged, by what they are", ("kind",), registry=METRICS
)
DEGRADED = Gauge(
    "gateway_degraded_rois",
    "ROIs in whose place something older answers, or nothing, since something stored is damaged",
    multiprocess_mode="livemax",
    registry=METRICS,
)
BUILD = Gauge(
    "gateway_build_info",
    "1 with what runs, 0 with what ran before",
    ("version", "engine", "runtime", "model", "weights"),
    multiprocess_mode="livemostrecent",
    registry=METRICS,
)
SCORES = Histogram(
    "gateway_score", "Scores of inspections, by ROI", ("role_id", "roi_id"), buckets=_SCORES, registry=METRICS
)
VERDICTS = Counter("gateway_verdicts", "Verdicts, by ROI", ("role_id", "roi_id", "verdict"), registry=METRICS)

OTHER = ("other", "other")


class RoiLabels:
    """Which ROIs have labels of their own: the first that come, up to a bound, and the same in every worker."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[RoiKey] = set()

    def of(self, key: RoiKey) -> tuple[str, str]:
        """``role_id`` and ``roi_id``, or `OTHER` beyond the bound."""
        if key not in self._known and (len(self._known) >= self._limit or not self._join(key)):
            return OTHER
        return key.role_id, key.roi_id

    def _join(self, key: RoiKey) -> bool:
        if _FOLDER not in os.environ:
            self._known.add(key)
            return True
        try:
            with _locked(Path(os.environ[_FOLDER]) / "rois.json") as file:
                text = file.read_text() if file.exists() else "[]"
                known = {RoiKey(*pair) for pair in json.loads(text)}
                if key not in known and len(known) < self._limit:
                    replace_file(file, json.dumps(sorted([k.role_id, k.roi_id] for k in {*known, key})).encode())
                    known.add(key)
                self._known = known
        except (OSError, ValueError):
            return False  # a full disk, or somebody's hand: an inspection does not end for its label
        return key in self._known


@contextmanager
def _locked(path: Path) -> Iterator[Path]:
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def registry(*collectors: Collector) -> CollectorRegistry:
    """All metrics for one scrape: of every worker, and what is read at the time of the scrape."""
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
    """A worker that was killed had no time to: what it held is no longer held."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if pid.isdecimal() and _started(int(pid)) is None:
            with suppress(OSError):
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def forget_worker() -> None:
    """What this process has in flight ends with it; its counts stay."""
    if _FOLDER in os.environ:
        with suppress(OSError):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
