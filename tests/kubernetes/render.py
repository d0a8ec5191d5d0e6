"""Render the chart with Helm's own engine, in a process of its own: Go's runtime stays out of the tests.

`python -m tests.kubernetes.render` reads a JSON list of values and writes a list of their objects, or of the refusal.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
CHART = PROJECT / "deploy" / "helm" / "patchcore"
NAMESPACE = "vision"

Object = dict[str, Any]


def rendered(*values: dict[str, Any]) -> list[list[Object] | str]:
    """The objects of a release named ``plant`` for each of the given values, or the message that refuses the values."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kubernetes.render"],
        cwd=PROJECT,
        input=json.dumps(values),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lint(values: dict[str, Any]) -> list[str]:
    """What `helm lint --strict` finds, but for the wish for an icon."""
    code = "import json, sys, helm_python; print(json.dumps(helm_python.lint(*json.load(sys.stdin), strict=True)))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([str(CHART), values]), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    return [*report["errors"], *(m["error"] for m in report["messages"] if m["error"] != "icon is recommended")]


def _main() -> None:
    import helm_python

    results: list[list[Object] | str] = []
    with helm_python.Chart.load(CHART) as chart:
        for values in json.load(sys.stdin):
            try:
                chart.validate_schema(values)
                files = chart.render(values, name="plant", namespace=NAMESPACE)
            except helm_python.HelmError as error:
                results.append(str(error))
            else:
                texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
                results.append([each for text in texts for each in yaml.safe_load_all(text) if each])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    _main()
