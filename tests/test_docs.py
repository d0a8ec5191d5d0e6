"""What the documentation says is what the code does, and every link in it leads somewhere."""

import ast
import inspect
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import markdown
import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from command_line.app import app as patchcore
from gateway.app import create_app
from gateway.errors import ERRORS
from gateway.monitoring import metrics
from gateway.process.services import create_services
from gateway.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent
DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
# Read where they lie, outside the site: MkDocs does not see their links.
PAGES_OF_THE_REPOSITORY = [
    README,
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "CHANGELOG.md",
    PROJECT / "docker" / "README.md",
]


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


def endpoints_table() -> str:
    rows = ["| endpoint | what it does | scope |", "| --- | --- | --- |"]
    for path, operations in create_app(Settings(_env_file=None)).openapi()["paths"].items():
        for method, operation in operations.items():
            scope = re.search(r"^Scope: (.+)\.$", operation.get("description", ""), re.MULTILINE)
            said = "open" if scope is None else scope[1].replace("`", "")
            rows.append(f"| `{method.upper()} {path}` | {operation['summary']} | {said} |")
    return "\n".join(rows) + "\n"


def errors_table() -> str:
    rows = ["| status | code | when | what to do |", "| --- | --- | --- | --- |"]
    for error in sorted(ERRORS, key=lambda each: each.status):
        when = " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split())
        hint = error.default_hint.replace("<", "&lt;")
        rows.append(f"| {error.status} | `{error.code}` | {when} | {hint} |")
    return "\n".join(rows) + "\n"


def commands_table() -> str:
    rows = ["| command | what it does |", "| --- | --- |"]

    def add(name: str, command: Any) -> None:
        for each in getattr(command, "commands", {}).values():
            add(f"{name} {each.name}", each)
        if not hasattr(command, "commands"):
            said = (command.help or "").partition("\n")[0]
            arguments = [
                (each.metavar if each.required else f"[{each.metavar}]") + "..." * (each.nargs == -1)
                for each in command.params
                if each.param_type_name == "argument"
            ]
            rows.append(f"| `{' '.join([name, *arguments])}` | {said} |")

    add("patchcore", typer.main.get_command(patchcore))
    return "\n".join(rows) + "\n"


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "settings": (DOCS / "settings.md", settings_table),
    "metrics": (DOCS / "metrics.md", metrics_table),
    "commands": (DOCS / "command-line.md", commands_table),
    "endpoints": (DOCS / "http-api.md", endpoints_table),
    "errors": (DOCS / "http-api.md", errors_table),
}


def with_table(name: str) -> str:
    """The page of a table, with the table as it must be."""
    page, table = TABLES[name]
    before, begin, rest = page.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    assert begin, f"no <!-- {name} --> in {page.name}"
    assert end, f"no <!-- /{name} --> in {page.name}"
    return f"{before}{begin}{table()}{end}{after}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_what_the_code_says(name):
    assert TABLES[name][0].read_text() == with_table(name), "write the tables: python -m tests.test_docs"


def test_every_promise_of_the_page_is_a_test_and_every_test_of_a_promise_is_on_the_page() -> None:
    _, _, rest = (DOCS / "promises.md").read_text().partition("<!-- promises -->\n")
    table, _, _ = rest.partition("<!-- /promises -->")
    promised = re.findall(r"`(test_\w+)`", table)
    modules = (ast.parse(path.read_text()) for path in (PROJECT / "tests" / "promises").glob("test_*.py"))
    held = [node.name for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    assert sorted(promised) == sorted(name for name in held if name.startswith("test_"))


def test_the_page_of_the_architecture_names_files_that_exist_and_every_room_of_the_gateway() -> None:
    page = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:gateway|postprocess|artifacts|export)/[\w/.]*)`", page))
    assert {name for name in named if not (PROJECT / name).exists()} == set()
    rooms = {f"gateway/{each.parent.name}/" for each in (PROJECT / "gateway").glob("*/__init__.py")}
    assert rooms <= named


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.read_text().splitlines()) <= 200


class _Links(HTMLParser):
    """Collects what a page loads (`src`, and stylesheets' `href`) and what it links to (`a`)."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("src"):
            self.loaded.append(given["src"] or "")
        if tag == "link" and given.get("rel") != "canonical" and given.get("href"):
            self.loaded.append(given["href"] or "")
        if tag == "a" and given.get("href"):
            self.linked.append(given["href"] or "")

    @classmethod
    def of(cls, html: str) -> "_Links":
        parser = cls()
        parser.feed(html)
        return parser


def rendered(page: Path) -> tuple[_Links, set[str]]:
    """Links of a Markdown file, and the anchors of its headings."""
    converter = markdown.Markdown(extensions=["fenced_code", "tables", "toc"])
    html = converter.convert(page.read_text())
    return _Links.of(html), set(re.findall(r'<h\d id="([^"]+)"', html))


@pytest.mark.parametrize("page", PAGES_OF_THE_REPOSITORY, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    links, _ = rendered(page)
    for link in links.loaded + links.linked:
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.exists(), f"{link}: there is no {target}"
        if parts.fragment:
            assert parts.fragment in rendered(target)[1], f"{link}: {target.name} has no such heading"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `scripts/docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_documentation_builds_and_no_link_in_it_is_dead(site):
    written = {page.relative_to(site).with_suffix("").as_posix() for page in site.glob("*.html")}
    assert written == {page.stem for page in DOCS.glob("*.md")} | {"404"}


def test_the_documentation_loads_nothing_from_another_host(site):
    for page in site.rglob("*.html"):
        for link in _Links.of(page.read_text()).loaded:
            assert not urlsplit(link).netloc, f"{page.name} loads {link}"


def test_a_dead_link_or_anchor_fails_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n[there](there.md) and [further down](#nowhere)\n")
    configuration = re.sub(r"(?ms)^nav:\n.*?\n\n", "", (PROJECT / "mkdocs.yml").read_text())
    (tmp_path / "mkdocs.yml").write_text(configuration)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    for dead in ("there.md", "#nowhere"):
        assert f"'{dead}'" in done.stderr


def test_the_hooks_before_a_commit_are_the_checks_before_the_tests() -> None:
    configuration = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    (repository,) = configuration["repos"]
    assert repository["repo"] == "local", "a hook of another repository is downloaded"
    hooks = [hook["entry"] for hook in repository["hooks"]]
    script = (PROJECT / "scripts" / "test").read_text()
    checks = re.findall(r'^(env [^"]*)?"\$venv(/bin/(?!python)[\w-]+"?.*)$', script, re.MULTILINE)
    assert hooks == [f"{prefix}.venv{check}".replace('"', "") for prefix, check in checks]


if __name__ == "__main__":
    for each in TABLES:
        TABLES[each][0].write_text(with_table(each))
