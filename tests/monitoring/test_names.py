"""Every metric in a rule, a test of a rule or a panel is exposed by the gateway or Triton."""

import re
import subprocess

import httpx
import pytest

from tests.monitoring.expressions import expressions, metric_names, rules
from tests.monitoring.site import Site

GPU_ONLY = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
"""Triton exposes them on a server with a GPU only, see the chapter on metrics of its documentation; not seen here."""
OF_PROMETHEUS = {"up", "ALERTS"}
"""Series that Prometheus makes itself: of each scrape, and of each alert."""


def triton_metrics(site: Site) -> str:
    return f"http://127.0.0.1:{site.triton.metrics_port}/metrics"


def families(text: str) -> dict[str, str]:
    """Families of a scrape and their types, those without samples as well."""
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))


def series_names(text: str) -> set[str]:
    """What can be selected of a scrape."""
    names = set()
    for family, kind in families(text).items():
        names |= {f"{family}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {family}
    return names


@pytest.fixture(scope="module")
def gateway_names(site):
    return series_names(site.gateway.client.get("/metrics").text)


@pytest.fixture(scope="module")
def triton_names(site):
    return series_names(httpx.get(triton_metrics(site), trust_env=False).text)


def test_both_say_in_which_format_they_answer(site):
    """Prometheus 3 refuses a scrape without."""
    answers = [site.gateway.client.get("/metrics"), httpx.get(triton_metrics(site), trust_env=False)]
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == ["text/plain"] * 2


def test_every_metric_that_is_asked_for_is_exposed_by_somebody(gateway_names, triton_names):
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    exposed = gateway_names | triton_names | recorded | GPU_ONLY | OF_PROMETHEUS
    for where, expression in expressions():
        unknown = metric_names(expression) - exposed
        assert not unknown, f"{where} names {sorted(unknown)}, which neither the gateway nor Triton exposes"


def test_the_list_of_what_only_gpus_have_holds_nothing_else(gateway_names, triton_names):
    asked = set().union(*(metric_names(expression) for _, expression in expressions()))
    assert asked >= GPU_ONLY
    assert not GPU_ONLY & (gateway_names | triton_names)


def test_a_name_that_does_not_exist_is_noticed_wherever_it_stands():
    assert metric_names("sum by (a) (rate(x_total{b='c'}[5m])) / on () group_left () -max_over_time(y[1h:1m])") == {
        "x_total",
        "y",
    }
    assert metric_names(
        "histogram_quantile(0.9, sum by (le) (rate(z_bucket[5m]))) > bool 1 unless absent(w offset 1h)"
    ) == {
        "z_bucket",
        "w",
    }


def test_promtool_finds_nothing_to_say_of_names_units_and_help(site, promtool):
    text = site.gateway.client.get("/metrics").content
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
