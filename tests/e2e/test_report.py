"""The report of an ROI says what the API says, and holds all that it shows."""

import base64
import re
from html.parser import HTMLParser

import pytest

from tests.e2e.synthetic_images import decoded, png, steel, with_blob

ODD = "<script>alert(1)</script>&amp;'.png"


@pytest.fixture(scope="module")
def roi(launch, small_model_repository, tmp_path_factory):
    """An ROI with a suspect among its OK images, a calibration, and inspections."""
    state = tmp_path_factory.mktemp("state")
    with launch(
        "report", model_repository=small_model_repository, state_dir=state, spatial_weights="variance"
    ) as gateway:
        images = [(f"ok-{i}.png", png(steel(i))) for i in range(14)]
        spoiled, _ = with_blob(steel(99), (190, 190), 120, strength=1.0)
        gateway.fit("shown", [*images, (ODD, png(spoiled))])
        gateway.calibrate("shown")
        for i in range(3):
            gateway.infer("shown", png(steel(50 + i)))
        yield gateway


@pytest.fixture(scope="module")
def page(roi) -> str:
    response = roi.client.get("/rois/steel/shown/report")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.text


class Parts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_figures_are_those_of_the_other_endpoints(roi) -> None:
    def get(path):
        return roi.client.get(f"/rois/steel/shown{path}").json()

    report = roi.client.get("/rois/steel/shown/report", headers={"Accept": "application/json"}).json()
    assert report == {**get("/report?format=json"), "made_at": report["made_at"]}
    assert report["roi"] == get("")
    assert report["drift"] == get("/drift")
    assert report["audit"] == get("/audit")["entries"]


def test_the_page_shows_the_figures_of_the_api(roi, page) -> None:
    detail = roi.client.get("/rois/steel/shown").json()
    text = Parts(page).text
    assert f"{detail['calibration']['threshold']:.4f}" in text
    assert detail["calibration"]["peak_threshold"] == detail["calibration"]["pixel_threshold"]
    assert f"threshold {detail['calibration']['peak_threshold']:.4f}" in text
    assert f"{detail['n_embeddings']} of" in text
    assert detail["checksum"] in text
    for image in detail["images"]:
        assert f"{image['score']:.3f}" in text
    assert re.search(r"3 of 200, \d judged OK", text)
    assert "calibrate" in text


def test_the_peaks_of_all_ok_images_are_counted_below_the_threshold_of_the_peak(roi, page) -> None:
    report = roi.client.get("/rois/steel/shown/report?format=json").json()
    # 15 OK images are too few for 2 %: the threshold is just above the largest peak.
    assert sum(report["peaks"]["ok_images"]) == 15
    assert report["peaks"]["edges"][-1] < report["roi"]["calibration"]["peak_threshold"]
    assert "Histogram of peaks" in page


def test_the_page_loads_nothing_and_runs_no_script(roi, page) -> None:
    parts = Parts(page)
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in parts.tags}
    sources = [attributes["src"] for tag, attributes in parts.tags if tag == "img"]
    assert len(sources) == 15 + 2  # contact sheet, mean image, weights
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not any(name.startswith("on") for _, attributes in parts.tags for name in attributes)
    policy = roi.client.get("/rois/steel/shown/report").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")


def test_a_file_name_is_escaped(page) -> None:
    assert ODD in Parts(page).text
    assert ODD not in page


def test_suspects_come_first_and_are_marked(roi, page) -> None:
    detail = roi.client.get("/rois/steel/shown").json()
    suspects = sorted((i for i in detail["images"] if i["suspect"]), key=lambda image: -image["score"])
    figures = [attributes for tag, attributes in Parts(page).tags if tag == "figure" and "class" in attributes]
    assert shown(page)[: len(suspects)] == [suspect["sha256"] for suspect in suspects]
    marked = [attributes["class"] == "suspect" for attributes in figures]
    assert marked == [True] * len(suspects) + [False] * (15 - len(suspects))


def shown(page: str) -> list[str]:
    """SHA-256 of the images of the contact sheet."""
    return [
        attributes["title"] for tag, attributes in Parts(page).tags if tag == "figcaption" and "title" in attributes
    ]


def test_a_thumbnail_is_the_image_learned(roi, page) -> None:
    detail = roi.client.get("/rois/steel/shown").json()
    odd = next(image["sha256"] for image in detail["images"] if image["file_name"] == ODD)
    sheet = [attributes["src"] for tag, attributes in Parts(page).tags if tag == "img"][2:]
    small = decoded(base64.b64decode(sheet[shown(page).index(odd)].split(",")[1]))
    assert small.shape[:2] == (112, 112)
    assert small[40:70, 40:70].mean() < small[:15, :15].mean() - 30  # its dark blob


def test_a_damaged_ok_image_is_marked_as_damaged(launch, small_model_repository, tmp_path) -> None:
    with launch("report-damaged", model_repository=small_model_repository, state_dir=tmp_path) as gateway:
        gateway.fit("torn", [png(steel(0)), png(steel(1))])
        victim = next((gateway.models_dir / "steel" / "torn" / "ok").glob("*.png"))
        victim.write_bytes(victim.read_bytes()[:100])
        text = gateway.client.get("/rois/steel/torn/report").text
        assert text.count('<div class="gone">damaged</div>') == 1


def test_the_report_of_a_damaged_version_shows_its_images_and_says_so(launch, small_model_repository, tmp_path) -> None:
    with launch(
        "report-old", model_repository=small_model_repository, state_dir=tmp_path, spatial_weights="variance"
    ) as gateway:
        gateway.fit("older", [png(steel(i)) for i in range(3)])
        gateway.fit("older", [png(steel(i)) for i in range(3, 8)])
        (gateway.models_dir / "steel" / "older" / "versions" / "2" / "spatial_mask.npy").write_bytes(b"x")
        response = gateway.client.get("/rois/steel/older/report")
        assert response.status_code == 200, response.text
        assert len(shown(response.text)) == 8
        assert "the version in use is damaged" in response.text
        assert "spatial_mask.npy fails its checksum" in response.text


def test_an_roi_that_was_never_fitted_has_no_report(roi) -> None:
    response = roi.client.get("/rois/steel/nothing/report")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_roi")
