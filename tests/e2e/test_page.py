"""The page to teach, calibrate, try and review, in a real Chromium."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.chromium import browser
from tests.e2e.gateway_process import wait_until
from tests.e2e.page_driver import PATIENT_MS, files, go, opened
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.export.tiny_model import write_version
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


@pytest.fixture(scope="module")
def axe():
    """Finds the serious faults of accessibility of a page."""
    source = (npm_package(AXE) / "axe.min.js").read_text()

    def faults(page):
        page.evaluate(source)  # by the protocol of the browser, which the policy of the page does not bind
        found = page.evaluate("axe.run({resultTypes: ['violations']})")
        return [(each["id"], each["nodes"][0]["html"]) for each in found["violations"] if each["impact"] in SERIOUS]

    return faults


@pytest.fixture(scope="module")
def two_sizes(launch, tmp_path_factory):
    """A gateway with tiles, a model of 112 pixels, and one of 224 beside it."""
    repository = tmp_path_factory.mktemp("two-sizes")
    write_version(repository / "dinov2_vits14" / "1", factor=1 / 256, grid=8)
    write_version(repository / "dinov2_vits14_224" / "1", factor=1 / 256, grid=16)
    with launch("page-detail", model_repository=repository, max_tiles=9) as started:
        wait_until(lambda: started.client.get("/ready").status_code == 200)
        yield started


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


def test_tiles_and_input_size_are_chosen_and_kept_with_the_roi(two_sizes, chromium, axe):
    roi = "/rois/steel/detail"
    two_sizes.client.post(f"{roi}/images", data={"label": "ok"}, files=[("images", image) for image in OK[:3]])
    with opened(chromium, two_sizes.port) as page:
        go(page, "teach", "detail")
        summary, learn = page.locator("summary"), page.get_by_role("button", name="Learn 3 OK images")
        tiles, input_size, result = (page.locator(name) for name in ("[name=tiles]", "[name=input_size]", ".result"))

        def fitted():
            body = two_sizes.client.get(roi).json()
            return body["tiles"], body["input_size"]

        page.fill("[name=mm_per_px]", "0.2")
        summary.click()
        assert tiles.locator("option").all_inner_texts() == ["Automatic", "Off: whole image", "At most …"]
        tiles.select_option("Off: whole image")
        learn.click()
        expect(result).to_contain_text("Version 1")
        expect(result).not_to_contain_text("tiles")
        expect(summary).to_contain_text("whole image")
        assert fitted() == ([1, 1], None)

        expect(tiles).to_have_value("")  # the choice was for that version
        tiles.select_option("At most …")
        for wrong in ("0", "2.5", "65", "x", ""):
            page.fill("[name=most_tiles]", wrong)
            expect(learn).to_be_disabled()
            expect(page.get_by_text("a whole number from 1 to 64")).to_be_visible()
        page.fill("[name=most_tiles]", "4")
        page.click("nav >> text=Versions")
        page.click("nav >> text=Teach")
        expect(page.locator("[name=most_tiles]")).to_have_value("4")  # not lost, and not hidden
        expect(input_size.locator("option")).to_have_text(["As learned before: default", "112 pixels", "224 pixels"])
        assert axe(page) == []
        learn.click()
        expect(result).to_contain_text("Each image is cut into 2 × 2 tiles.")
        expect(summary).to_contain_text("2 × 2 tiles")
        assert fitted() == ([2, 2], None)

        tiles.select_option("Automatic")
        learn.click()
        expect(result).to_contain_text("3 × 3 tiles")
        assert fitted() == ([3, 3], None)

        input_size.select_option("224 pixels")
        learn.click()
        expect(input_size.locator("option").first).to_have_text("As learned before: 224 pixels")
        assert fitted() == ([2, 2], 224)
        with page.expect_response("**/fit_ok") as answer:
            learn.click()
        again = answer.value.json()
        assert (again["version"], again["tiles"], again["input_size"]) == (4, [2, 2], 224)


def test_one_input_size_is_no_choice_and_too_many_tiles_are_refused(gateway, chromium, taught):
    before = gateway.client.get(taught).json()
    with opened(chromium, gateway.port) as page:
        go(page, "teach", "page")
        with page.expect_response("**/ready"):
            page.locator("summary").click()
        page.select_option("[name=tiles]", "At most …")
        expect(page.locator("[name=input_size]")).to_have_count(0)
        page.locator("button.primary", has_text="OK images").click()
        expect(page.get_by_role("alert")).to_contain_text("tiles: 4; the limit is 1")
        expect(page.locator("[name=most_tiles]")).to_have_value("4")
    assert gateway.client.get(taught).json() == before


def test_no_view_has_a_serious_fault_of_accessibility_and_each_speaks_the_browsers_language(
    gateway, chromium, taught, axe
):
    headings = {
        "teach": "Bilder hinzufügen",
        "calibrate": "Kalibrieren",
        "try": "Ausprobieren",
        "review": "Durchsehen",
        "versions": "Versionen",
    }
    with opened(chromium, gateway.port, locale="de-DE") as page:
        for view, heading in headings.items():
            go(page, view, "page")
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
            page.wait_for_load_state("networkidle")  # lists and pictures are there
            assert axe(page) == [], view
