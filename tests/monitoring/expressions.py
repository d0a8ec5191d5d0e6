"""Every PromQL expression in docker/: in the rules, their tests and the dashboard."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
RULES = sorted((DOCKER / "prometheus" / "rules").glob("*.yml"))
RULE_TESTS = sorted((DOCKER / "prometheus" / "tests").glob("*.yml"))
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))

VARIABLES = {"$__rate_interval": "5m", "$role": ".*", "$roi": ".*"}
"""Values that Grafana inserts for its variables."""


def rules() -> list[dict[str, Any]]:
    """Recording and alert rules, in the order of their evaluation."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, list[dict[str, Any]]]:
    """Alert rules by name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for rule in rules():
        if "alert" in rule:
            found.setdefault(rule["alert"], []).append(rule)
    return found


def rule_tests() -> list[dict[str, Any]]:
    return [test for path in RULE_TESTS for test in yaml.safe_load(path.read_text())["tests"]]


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def targets(board: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Queries of the panels: title of the panel, and the query with its expression for Prometheus."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], {**target, "expr": substituted(target["expr"])}


def substituted(text: str) -> str:
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text


def variable_query(variable: dict[str, Any]) -> tuple[str, str]:
    """Selector and label of a variable of the form label_values(selector, label)."""
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert found is not None, variable
    return substituted(found[1]), found[2]


def expressions() -> Iterator[tuple[str, str]]:
    """Return place and text of every expression."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for test in rule_tests():
        for series in test["input_series"]:
            yield f"test: {test['name']}", series["series"]
        for case in test.get("promql_expr_test", []):
            yield f"test: {test['name']}", case["expr"]
    for path in DASHBOARDS:
        board = dashboard(path)
        for title, target in targets(board):
            yield f"panel: {title}", target["expr"]
        for variable in board["templating"]["list"]:
            yield f"variable: {variable['name']}", variable_query(variable)[0]


def metric_names(expression: str) -> set[str]:
    """Return the metric names that an expression selects, by Prometheus' own parser."""
    found = set()

    def visit(node: Any) -> bool:
        selector = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(selector, promql_parser.VectorSelector):
            assert selector.name, f"selects by labels alone: {expression}"
            found.add(selector.name)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
