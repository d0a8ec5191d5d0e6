"""What the README says of settings is what the settings are."""

import ast
import re
from pathlib import Path

from gateway.settings import HOME, Settings

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def settings_table() -> str:
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, Path):
            default = f"{default}{'' if default.suffix else '/'}"
        rows.append(f"| `GATEWAY_{name.upper()}` | `{'' if default is None else default}` | {field.description} |")
    return "\n".join(rows).replace("| `` |", "| |") + "\n"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    expected = before + BEGIN + settings_table() + END + after
    assert text == expected, "write the table: python -m tests.test_readme"


def test_every_promise_of_the_table_is_a_test_and_every_test_of_a_promise_is_in_the_table() -> None:
    _, _, rest = README.read_text().partition("<!-- promises -->\n")
    table, _, _ = rest.partition("<!-- /promises -->")
    promised = re.findall(r"`(test_\w+)`", table)
    modules = (ast.parse(path.read_text()) for path in (README.parent / "tests" / "promises").glob("test_*.py"))
    held = [node.name for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    assert sorted(promised) == sorted(name for name in held if name.startswith("test_"))


def test_home_is_the_checkout() -> None:
    assert README.parent == HOME


if __name__ == "__main__":  # python -m tests.test_readme writes the table
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    README.write_text(before + BEGIN + settings_table() + END + rest.partition(END)[2])
