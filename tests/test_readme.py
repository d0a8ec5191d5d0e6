"""What the README says of settings and metrics is what they are."""

import ast
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from gateway.monitoring import metrics
from gateway.process.services import create_services
from gateway.settings import HOME, Settings

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_table() -> str:
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = f"{default}{'' if default.suffix else '/'}"
        rows.append(f"| `GATEWAY_{name.upper()}` | `{'' if default is None else default}` | {field.description} |")
    return "\n".join(rows).replace("| `` |", "| |") + "\n"


def metrics_table() -> str:
    families = [
        (
            f"{each._name}{'_total' if each._type == 'counter' else ''}",
            each._type,
            each._labelnames,
            each._documentation,
        )
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase)
    ]
    with tempfile.TemporaryDirectory() as folder:
        services = create_services(Settings(_env_file=None, models_dir=Path(folder), state_dir=Path(folder)))
        scraped = list(services.roi_metrics.collect())
    families += [(each.name, each.type, each._labelnames, each.documentation) for each in scraped]
    rows = ["| metric | type | labels | what it is |", "| --- | --- | --- | --- |"]
    for name, kind, labels, text in sorted(families):
        rows.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |")
    return "\n".join(rows).replace("|  |", "| |") + "\n"


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": metrics_table}


def with_tables(text: str) -> str:
    """The README with its tables as they must be."""
    for name, table in TABLES.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        assert begin, f"no <!-- {name} --> in the README"
        assert end, f"no <!-- /{name} --> in the README"
        text = f"{before}{begin}{table()}{end}{after}"
    return text


def test_the_tables_of_settings_and_metrics_are_those_of_the_code() -> None:
    text = README.read_text()
    assert text == with_tables(text), "write the tables: python -m tests.test_readme"


def test_every_promise_of_the_table_is_a_test_and_every_test_of_a_promise_is_in_the_table() -> None:
    _, _, rest = README.read_text().partition("<!-- promises -->\n")
    table, _, _ = rest.partition("<!-- /promises -->")
    promised = re.findall(r"`(test_\w+)`", table)
    modules = (ast.parse(path.read_text()) for path in (README.parent / "tests" / "promises").glob("test_*.py"))
    held = [node.name for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    assert sorted(promised) == sorted(name for name in held if name.startswith("test_"))


def test_home_is_the_checkout() -> None:
    assert README.parent == HOME


if __name__ == "__main__":  # python -m tests.test_readme writes the tables
    README.write_text(with_tables(README.read_text()))
