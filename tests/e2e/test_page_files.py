"""The files of the page: how they are served, their types, and their texts in every language."""

import re
import shutil
import subprocess

import pytest

from tests.e2e.gateway_process import PROJECT
from tests.npm import TYPESCRIPT, npm_package

STATIC = PROJECT / "gateway" / "page" / "static"
LANGUAGES = ("it", "es", "de")
TEXT = re.compile(r'^  (\w+):\s*\n?\s*"((?:[^"\\]|\\.)*)",$', re.MULTILINE)


def texts(language: str) -> dict[str, str]:
    return dict(TEXT.findall((STATIC / "texts" / f"{language}.js").read_text()))


def test_the_page_is_asked_for_anew_and_its_files_are_kept_for_good(gateway):
    page = gateway.client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert gateway.client.get("/", headers={"If-None-Match": page.headers["etag"]}).status_code == 304
    named = re.findall(r'(?:src|href)="(/page/[^"]+)"', page.text)
    assert {name.rpartition("/")[2] for name in named} == {"app.js", "app.css", "icon.svg"}
    for name in named:
        part = gateway.client.get(name)
        assert part.status_code == 200
        assert "immutable" in part.headers["cache-control"]
    assert gateway.client.get(named[0]).headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize("name", ["index.html", "../__init__.py", "..%2f__init__.py", "nothing.js", ""])
def test_nothing_but_the_files_of_the_page_is_served(gateway, name):
    base = re.findall(r'"(/page/[0-9a-f]+/)app.js"', gateway.client.get("/").text)[0]
    assert gateway.client.get(base + name).status_code in (401, 404)
    assert gateway.client.get(f"/page/{'0' * 16}/app.js").status_code == 404


def test_every_text_that_the_page_shows_is_there_and_none_is_left_over():
    sources = "\n".join(
        path.read_text() for path in STATIC.rglob("*.js") if path.parent.name not in ("texts", "vendor")
    )
    english = texts("en")
    assert len(english) > 150
    named = set(re.findall(r'"([a-z][a-z0-9_]+)"', sources))
    made = re.findall(r"`([a-z]+_)\$\{", sources)  # such as `view_${view}`
    used = {name for name in english if name in named or any(name.startswith(prefix) for prefix in made)}
    assert {name for name in english.keys() - used if name.removesuffix("_one") not in used} == set()
    asked = set(re.findall(r'\bt\(\s*"([a-z0-9_]+)"', sources))
    assert asked <= english.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_every_text_with_the_same_places(language):
    english, other = texts("en"), texts(language)
    assert other.keys() == english.keys()

    def places(text: str) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", text))

    assert {name for name in english if places(english[name]) != places(other[name])} == set()


def test_the_types_of_the_page_are_right():
    """By the comments in its files, with TypeScript."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    compiler = npm_package(TYPESCRIPT) / "bin" / "tsc"
    done = subprocess.run(
        ["node", compiler, "--project", STATIC.parent / "jsconfig.json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout


def test_the_library_is_the_one_that_its_project_released():
    released = npm_package("htm@3.1.1") / "preact" / "standalone.module.js"
    assert (STATIC / "vendor" / "htm-preact.js").read_bytes() == released.read_bytes()
    assert {path.name for path in (STATIC / "vendor").iterdir()} == {
        "htm-preact.js",
        "htm-preact.d.ts",
        "LICENSE-htm.txt",
        "LICENSE-preact.txt",
    }
