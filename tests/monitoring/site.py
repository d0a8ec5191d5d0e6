"""A gateway with Triton, both scraped by Prometheus."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.triton_options import ServingOptions
from gateway.monitoring.drift.measure import MIN_SAMPLES
from tests.e2e.gateway_process import Gateway
from tests.e2e.synthetic_images import png, steel
from tests.monitoring.prometheus_process import Prometheus, running_prometheus, wait_until
from tests.triton.server import MODEL, TritonServer

PLACES = 5
"""Limit of admitted inspections."""


@dataclass(frozen=True)
class Site:
    """Two ROIs are fitted and calibrated: `watched`, and `lamp`, whose threshold is far from all scores."""

    gateway: Gateway
    triton: TritonServer
    prometheus: Prometheus

    def look(self, seeds: Iterable[int], brightness: float = 1.0) -> None:
        """Inspect OK parts at `lamp`, in another light than at the fit."""

        def inspect(seed: int) -> None:
            image = np.clip(steel(seed) * brightness, 0, 255).astype(np.uint8)
            assert self.gateway.infer("lamp", png(image), heatmap="none")["verdict"] == "ok"

        with ThreadPoolExecutor(PLACES - 1) as pool:
            list(pool.map(inspect, seeds))


@contextmanager
def running_site(launch, launch_triton, prometheus: str, models: Path, folder: Path) -> Iterator[Site]:
    """Start gateway, Triton and Prometheus on free ports.

    Args:
        launch: starts a gateway, see tests/e2e/conftest.py.
        launch_triton: starts a Triton, see tests/triton/conftest.py.
        prometheus: its executable.
        models: model repository, for both.
        folder: an empty one.
    """
    settings = {
        "engine": "triton",
        "model_repository": models,
        "state_dir": folder / "state",
        "drift_window": MIN_SAMPLES,
        "max_queued_inspections": PLACES,
        "bank_cache_bytes": 1,
    }
    versions = {1: models / MODEL / "1"}
    with (
        launch_triton("watched", versions=versions, options=ServingOptions("python")) as triton,
        launch("watched", triton_url=triton.url, **settings) as gateway,
        running_prometheus(
            prometheus, folder / "prometheus", gateway=gateway.port, triton=triton.metrics_port, key="pcg_unused"
        ) as server,
    ):
        wait_until(lambda: gateway.client.get("/ready").status_code == 200, "the gateway is ready")
        for roi in ("watched", "lamp"):
            gateway.fit(roi, [png(steel(seed)) for seed in range(24)])
        gateway.calibrate("watched")
        gateway.calibrate("lamp", ok_scores=[0.9], pixel_threshold=1.9)
        yield Site(gateway, triton, server)
