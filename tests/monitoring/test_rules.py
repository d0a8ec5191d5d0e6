"""The rules without a server: promtool runs their tests, and every alert has tests."""

import re
import subprocess

import pytest

from gateway.errors import ERRORS, ModelMismatchError, ShuttingDownError
from tests.monitoring.expressions import DOCKER, RULE_TESTS, RULES, alerts, rule_tests, rules

CONFIGURATION = DOCKER / "prometheus" / "prometheus.yml"
RUNBOOK = DOCKER.parent / "docs" / "runbook.md"


def run(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], cwd=DOCKER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_configuration_and_rules(promtool):
    # Syntax only: the key that it names is not here.
    run(promtool, "check", "config", "--syntax-only", CONFIGURATION)
    said = run(promtool, "check", "rules", *RULES)
    assert sum(int(n) for n in re.findall(r"(\d+) rules found", said)) == len(rules())


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(promtool, file):
    assert "SUCCESS" in run(promtool, "test", "rules", file)


def test_every_alert_is_driven_to_firing_and_back():
    driven = {}
    for test in rule_tests():
        for case in test.get("alert_rule_test", []):
            seen = driven.setdefault((case["alertname"], test["name"]), [])
            seen.append({alert["exp_labels"]["severity"] for alert in case.get("exp_alerts", [])})
    for name, definitions in alerts().items():
        fired = [set().union(*seen) for (alert, _), seen in driven.items() if alert == name and not seen[-1]]
        assert {each["labels"]["severity"] for each in definitions} <= set().union(*fired), (
            f"{name}: no test of docker/prometheus/tests has it fire and then end"
        )


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_how_bad_it_is_what_is_wrong_and_where_to_read_on(name):
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL))
    for rule in alerts()[name]:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    for part in ("**Means.**", "**Look at.**", "**Do.**", "**Threshold.**"):
        assert part in sections[name], f"section {name} of the runbook lacks {part}"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone():
    assert set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == set(alerts())


def test_requests_that_fail_are_those_that_clients_are_not_to_blame_for():
    (rule,) = [each for each in rules() if each.get("record") == "instance:gateway_errors:ratio_rate5m"]
    codes = set(re.search(r'code=~"([^"]+)"', rule["expr"])[1].split("|"))
    ours = {error.code for error in ERRORS if error.status >= 500 and error is not ShuttingDownError}
    assert codes == ours | {ModelMismatchError.code, "internal", "http_5.."}


def test_every_recorded_series_is_used():
    text = "".join(path.read_text() for path in (*RULES, *(DOCKER / "grafana").rglob("*.json")))
    for rule in rules():
        if "record" in rule:
            assert len(re.findall(rf"{re.escape(rule['record'])}\b", text)) >= 2, f"{rule['record']} serves nobody"
