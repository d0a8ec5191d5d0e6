"""The page in a browser, as tests use it: what it must never do is noted and told at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import Browser, Page, Response

PATIENT_MS = 300_000
"""A loaded machine must not miss it."""


@contextmanager
def opened(browser: Browser, port: int, *, locale: str = "en-GB", **options) -> Iterator[Page]:
    """Open the page. Afterwards: it reported nothing of its policy, threw nothing, and asked no other host."""
    # Without transitions: half-way through one, a colour is neither that before nor that after.
    context = browser.new_context(
        locale=locale, viewport={"width": 1280, "height": 800}, reduced_motion="reduce", **options
    )
    context.set_default_timeout(PATIENT_MS)
    page = context.new_page()
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"thrown: {error}"))
    page.on("console", lambda said: found.append(f"console: {said.text}") if is_complaint(said.text) else None)
    page.on("request", lambda request: found.append(request.url) if is_foreign(request.url, port) else None)
    page.on(
        "response", lambda response: found.append(f"{response.status} {response.url}") if failed(response) else None
    )
    page.goto(f"http://127.0.0.1:{port}/")
    try:
        yield page
    finally:
        context.close()
    assert found == []


def is_complaint(said: str) -> bool:
    """Whether the console says more than that the gateway refused a request."""
    return not said.startswith("Failed to load resource")


def is_foreign(url: str, port: int) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.netloc != f"127.0.0.1:{port}"


def failed(response: Response) -> bool:
    return response.status >= 500


def go(page: Page, view: str, roi: str, role: str = "steel") -> None:
    """Go to a view of an ROI by its address."""
    place = urlencode({"recipe": "default", "role": role, "roi": roi})
    page.evaluate("hash => { location.hash = hash; }", f"#/{view}?{place}")


def files(*images: tuple[str, bytes]) -> list[dict]:
    """Files for an input of the page."""
    return [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in images]
