"""Take the pictures of docs/page.md: `python -m tests.e2e.page_pictures`. Needs real weights and the magnetic tiles."""

import os
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.chromium import browser
from tests.conftest import exported
from tests.e2e.gateway_process import PATIENT, PROJECT, Gateway, running, wait_until
from tests.e2e.page_driver import go, opened

SHARED = PROJECT.parent / "shared"
TILES = Path(os.environ.get("MAGNETIC_TILE_DIR", SHARED / "data" / "magnetic_tile"))
WEIGHTS = SHARED / "weights" / "dinov2_vits14.safetensors"
PICTURES = PROJECT / "docs" / "images"
KINDS = ("crack", "blowhole", "break", "fray", "uneven")
SETTLE_MS = 1500


def tiles(*folder: str, start: int = 0, n: int = 1) -> list[str]:
    return [str(path) for path in sorted(TILES.joinpath(*folder).iterdir())[start : start + n]]


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(SETTLE_MS)
    page.evaluate("document.querySelectorAll('.notice button').forEach(each => each.click())")
    page.mouse.move(2, 400)
    page.screenshot(path=PICTURES / f"page-{name}.jpg", type="jpeg", quality=72)


def show(page: Page, gateway: Gateway) -> None:
    page.fill("[name=role_id]", "magnetic-tile")
    page.fill("[name=roi_id]", "surface")
    page.get_by_role("button", name="Make").click()
    page.set_input_files("[name=files]", tiles("train", "good", n=60))
    page.wait_for_selector("text=60 of 60")
    page.click("text=They are NG")
    ng = [tile for kind in KINDS for tile in tiles("test", kind, n=5)]
    page.set_input_files("[name=files]", ng)
    page.wait_for_selector("text=25 of 25")
    page.fill("[name=mm_per_px]", "0.2")
    learn(page)
    go(page, "calibrate", "surface", "magnetic-tile")
    page.get_by_role("button", name="2%").click()
    page.get_by_role("button", name="Apply").click()
    page.wait_for_selector("p.done")
    go(page, "teach", "surface", "magnetic-tile")
    page.set_input_files("[name=files]", tiles("train", "good", start=60, n=40))
    page.wait_for_selector("text=40 of 40")
    learn(page)
    page.get_by_role("button", name="All").click()
    page.select_option(".tools select", "score")
    page.locator(".item").nth(1).click()
    take(page, "teach")
    page.get_by_role("button", name="Draw").click()
    page.get_by_role("button", name="rectangle").click()
    page.fill("[name=angle]", "4")
    take(page, "shape")
    page.get_by_role("button", name="Cancel").click()
    go(page, "calibrate", "surface", "magnetic-tile")
    page.get_by_role("button", name="5%").click()
    page.check("[name=review]")
    take(page, "calibrate")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_selector("p.done")
    go(page, "try", "surface", "magnetic-tile")
    parts = [
        *tiles("test", "crack", start=6, n=4),
        *tiles("test", "good", n=3),
        *tiles("test", "blowhole", start=6, n=2),
    ]
    page.set_input_files("[name=parts]", parts)
    wait_until(lambda: page.locator(".parts .badge").count() == len(parts))
    page.locator(".parts button").nth(2).click()
    take(page, "try")
    go(page, "review", "surface", "magnetic-tile")
    page.locator(".parts button", has_text="Review").first.click()
    page.get_by_role("button", name="Show the heatmap").click()
    page.wait_for_selector(".crops")
    take(page, "review")
    go(page, "versions", "surface", "magnetic-tile")
    page.locator("button.primary", has_text="Compare").click()
    page.wait_for_selector("text=verdicts changed")
    take(page, "versions")


def learn(page: Page) -> None:
    page.locator("button.primary", has_text="OK images").click()
    page.wait_for_selector(".result")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        own = {name: Path(folder) / name for name in ("models_dir", "state_dir", "cache_dir")}
        repository = exported(str(WEIGHTS.resolve()), WEIGHTS.read_bytes())
        settings = {**PATIENT, **own, "model_repository": repository, "keep_inspections": True}
        with running(Path(folder) / "log", settings) as gateway, opened(chromium, gateway.port) as page:
            show(page, gateway)


if __name__ == "__main__":
    main()
