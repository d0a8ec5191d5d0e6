"""The page to teach, calibrate, try and review, in a real Chromium."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.chromium import browser
from tests.e2e.gateway_process import wait_until
from tests.e2e.page_driver import PATIENT_MS, files, go, opened
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.npm import AXE, npm_package
from tests.promises.keys import bearer, make_key

expect.set_options(timeout=PATIENT_MS)

OK = [(f"ok-{i:02}.png", png(steel(i))) for i in range(12)]
CRACKED = ("cracked.png", png(with_blob(steel(90), (190, 200), 30, 1.0)[0]))
NG = ("ng.png", png(with_blob(steel(91), (120, 220), 24, 1.0)[0]))
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def taught(gateway):
    """An ROI with two versions, a calibration, NG images and kept inspections; tests undo what they change."""
    roi = "/rois/steel/page"
    gateway.client.post(f"{roi}/images", data={"label": "ok"}, files=[("images", image) for image in OK])
    gateway.fit("page", OK[:8])
    gateway.fit("page", OK[8:10])
    gateway.client.post(f"{roi}/images", data={"label": "ng"}, files=[("images", NG)])
    gateway.calibrate("page", ok_scores=None, ng_scores=None, false_alarm_rate=0.1)
    gateway.infer("page", CRACKED)
    gateway.infer("page", ("fine.png", png(steel(40))))
    wait_until(lambda: gateway.client.get(f"{roi}/inspections").json()["total"] == 2)
    return roi


def test_the_whole_life_from_an_empty_gateway_to_a_verdict(launch, chromium):
    """With a key, which is asked for once and kept for the session."""
    key, entry = make_key("page", "teach", "*")
    with launch("page", api_keys=json.dumps([entry])) as gateway, opened(chromium, gateway.port) as page:
        api = gateway.client
        page.fill("input[name=key]", "wrong")
        page.click("text=Use the key")
        expect(page.get_by_text("The gateway does not know this key.")).to_be_visible()
        page.fill("input[name=key]", key)
        page.click("text=Use the key")
        expect(page.get_by_text("There is no ROI yet.")).to_be_visible()

        page.fill("[name=role_id]", "tile")
        page.fill("[name=roi_id]", "Línea 1")
        page.get_by_role("button", name="Make").click()
        page.set_input_files("[name=files]", files(*OK, ("torn.png", OK[0][1][:900])))
        expect(page.locator(".uploaded")).to_contain_text("13 of 13 sent, 12 added")
        expect(page.locator(".refused")).to_contain_text("torn.png")
        page.click("text=They are NG")
        page.set_input_files("[name=files]", files(NG))
        expect(page.locator(".item")).to_have_count(13)

        page.fill("[name=mm_per_px]", "0,2")
        page.get_by_role("button", name="Learn 12 OK images").click()
        expect(page.locator(".running")).to_be_visible()
        expect(page.locator(".result")).to_contain_text("Version 1")
        page.reload()  # the key is kept

        page.click("nav >> text=Calibrate")
        sentence = page.locator(".sentence")
        expect(sentence).to_contain_text("0 of 12 OK images lie above the threshold")
        line = page.locator("g.threshold")
        at = line.bounding_box()
        page.mouse.move(at["x"] + at["width"] / 2, at["y"] + 30)
        page.mouse.down()
        page.mouse.move(at["x"] - 80, at["y"] + 60, steps=4)
        expect(sentence).not_to_contain_text("0 of 12 OK images")
        page.mouse.up()
        shown = float(line.get_attribute("aria-valuenow"))
        roi = "/rois/tile/L%C3%ADnea 1"
        assert api.get(roi, headers=bearer(key)).json()["calibration"] is None, "stored before it was applied"
        page.get_by_role("button", name="Apply").click()
        expect(page.get_by_text("The threshold is in use.")).to_be_visible()
        stored = api.get(roi, headers=bearer(key)).json()["calibration"]
        assert stored["peak_threshold"] == pytest.approx(shown)

        page.click("nav >> text=Try")
        page.set_input_files("[name=parts]", files(CRACKED))
        expect(page.locator(".verdict")).to_contain_text("NG")
        expect(page.locator(".regions li").first).to_contain_text("mm²")
        expect(page.locator(".contour").first).to_be_visible()
        expect(page.locator(".crops img")).to_have_count(2)
        page.keyboard.down("h")
        expect(page.locator(".contour")).to_have_count(0)
        page.keyboard.up("h")
        page.get_by_role("button", name="This is NG").click()
        expect(page.get_by_text("Stored as NG.")).to_be_visible()
        assert api.get(f"{roi}/images", headers=bearer(key)).json()["n_ng"] == 2


def test_labels_and_deletions_are_undone_and_redone_by_key(gateway, chromium, taught):
    def state():
        images = gateway.client.get(f"{taught}/images").json()["images"]
        return sorted((image["id"], image["label"]) for image in images)

    before = state()
    with opened(chromium, gateway.port) as page:
        go(page, "teach", "page")
        grid = page.get_by_role("listbox", name="Images")
        page.locator(".item", has=page.locator(".badge.ok")).first.click()
        grid.press("Shift+ArrowRight")
        grid.press("n")
        expect(page.locator(".notice").last).to_contain_text("labelled")
        changed = state()
        assert changed != before
        grid.press("Delete")
        expect(page.locator(".notice").last).to_contain_text("deleted")
        assert len(state()) == len(before) - 2
        grid.press("Control+z")
        expect(page.locator(".notice").last).to_contain_text("Taken back: 2 images deleted")
        assert state() == changed
        grid.press("Control+z")
        expect(page.locator(".notice").last).to_contain_text("labelled")
        assert state() == before
        grid.press("Control+y")
        expect(page.locator(".notice").last).to_contain_text("Done again")
        assert state() == changed
        grid.press("Control+z")
        expect(page.locator(".notice").last).to_contain_text("Taken back")
    assert state() == before


def test_what_was_inspected_is_reviewed_by_keyboard_and_stored_with_the_suspect_guard(gateway, chromium, taught):
    with opened(chromium, gateway.port) as page:
        go(page, "review", "page")
        expect(page.locator(".parts button")).to_have_count(2)
        page.select_option("[name=order]", "newest")
        expect(page.locator(".parts .on .name")).to_contain_text("fine.png")
        page.locator(".parts .on").click()
        page.keyboard.press("j")
        expect(page.locator(".parts .on .name")).to_contain_text("cracked.png")
        page.keyboard.press("o")  # an NG part called OK: asked first
        expect(page.get_by_role("dialog")).to_contain_text("Is it really OK?")
        page.get_by_role("button", name="Cancel").click()
        page.keyboard.press("n")
        expect(page.locator(".notice").last).to_contain_text("Labelled NG.")
    images = gateway.client.get(f"{taught}/images", params={"label": "ng"}).json()["images"]
    added = [image for image in images if image["file_name"] == "cracked.png"]
    assert len(added) == 1
    gateway.client.delete(f"{taught}/images/{added[0]['id']}")


def test_two_versions_are_compared_and_an_earlier_one_is_used_again(gateway, chromium, taught):
    with opened(chromium, gateway.port) as page:
        go(page, "versions", "page")
        page.locator("button.primary", has_text="Compare").click()
        expect(page.get_by_text(re.compile(r"\d+ of \d+ verdicts changed"))).to_be_visible()
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.locator(".notice").last).to_contain_text("Version 1 is in use.")
        assert gateway.client.get(taught).json()["version"] == 1
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.locator(".notice").last).to_contain_text("Version 2 is in use.")


def test_no_view_has_a_serious_fault_of_accessibility_and_each_speaks_the_browsers_language(gateway, chromium, taught):
    axe = (npm_package(AXE) / "axe.min.js").read_text()
    headings = {
        "teach": "Bilder hinzufügen",
        "calibrate": "Kalibrieren",
        "try": "Ausprobieren",
        "review": "Durchsehen",
        "versions": "Versionen",
    }
    # By the protocol of the browser, which the policy of the page does not bind.
    with opened(chromium, gateway.port, locale="de-DE") as page:
        page.evaluate(axe)
        for view, heading in headings.items():
            go(page, view, "page")
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
            page.wait_for_load_state("networkidle")  # lists and pictures are there
            found = page.evaluate("axe.run({resultTypes: ['violations']})")
            faults = [each for each in found["violations"] if each["impact"] in SERIOUS]
            assert [(each["id"], each["nodes"][0]["html"]) for each in faults] == [], view
