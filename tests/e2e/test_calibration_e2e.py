"""Thresholds, suspects and spatial weights over HTTP."""

import hashlib
import json

import pytest

from tests.e2e.synthetic_images import png, steel, with_blob

SIZE = (200, 160)
OK = [png(steel(seed, SIZE)) for seed in range(10)]
UNSEEN = png(steel(90, SIZE))
LEFT, RIGHT = (png(with_blob(steel(91, SIZE), (x, 80), 18)[0]) for x in (40, 160))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def summary(gateway, roi):
    return gateway.client.get(f"/rois/steel/{roi}").json()


def test_the_ok_images_alone_give_a_threshold_that_follows_every_fit(gateway):
    roi = "own scores"
    fitted = gateway.fit(roi, OK[:9])
    assert fitted["calibration"] == "none"
    answer = gateway.calibrate(roi, false_alarm_rate=0.1, pixel_threshold="ok_pixels")
    assert (answer["ok_source"], answer["method"], answer["n_ok"], answer["n_ok_needed"]) == (
        "leave-one-out",
        "conformal",
        9,
        0,
    )
    assert answer["threshold"] == pytest.approx(fitted["ok_scores"]["max"])
    assert answer["pixel_threshold"] > answer["threshold"]
    assert answer["guaranteed"] is False
    assert answer["expected_false_alarm_rate"] == pytest.approx(0.1)
    assert answer["expected_false_alarm_interval"][0] == 0
    assert answer["blind_area_mm2"] == pytest.approx(0.01 * 200 * 160 * 0.2**2)

    again = gateway.fit(roi, OK[9:])
    assert again["calibration"] == "redone"
    stored = summary(gateway, roi)["calibration"]
    assert (stored["n_ok"], stored["version"], stored["stale"]) == (10, 2, False)
    assert stored["false_alarm_rate"] == 0.1
    inspected = gateway.infer(roi, LEFT)
    assert (inspected["verdict"], inspected["calibration_stale"]) == ("ng", False)
    assert inspected["verdict_reason"] in ("score", "region", "both")


def test_a_region_a_peak_at_the_threshold_and_ng_are_the_same_sentence(gateway):
    roi = "by the peak"
    gateway.fit(roi, OK)
    made = gateway.calibrate(roi)
    assert (made["pixel_threshold_source"], made["false_alarm_rate"], made["n_ok_needed"]) == ("peak", 0.02, 39)
    assert any("needs 39 more OK images than the 10" in warning for warning in made["warnings"])
    assert gateway.calibrate(roi, pixel_threshold="peak")["peak_threshold"] == made["peak_threshold"]
    stored = summary(gateway, roi)["calibration"]
    assert (stored["peak_threshold"], stored["pixel_threshold"]) == (made["peak_threshold"],) * 2
    verdicts = []
    for image in (UNSEEN, LEFT, RIGHT):
        for asked in ({}, {"area_mm2_thr": 0}, {"area_mm2_thr": 200}, {"blur_sigma": 3}):
            answer = gateway.infer(roi, image, **asked)
            assert answer["pixel_threshold"] == answer["peak_threshold"]
            assert bool(answer["regions"]) == (answer["peak"] >= answer["peak_threshold"])
            assert answer["verdict"] == ("ng" if answer["regions"] or answer["score"] > answer["threshold"] else "ok")
            assert answer["threshold_source"] == ("parameters" if asked else "calibration")
            verdicts.append((asked == {}, answer["verdict"]))
    assert [verdict for plain, verdict in verdicts if plain] == ["ok", "ng", "ng"]


def test_a_smaller_area_than_that_of_the_calibration_raises_the_threshold_of_the_peak(gateway):
    roi = "by the peak"
    plain, smaller, larger = (
        gateway.infer(roi, UNSEEN, area_mm2_thr=area)["peak_threshold"] for area in (1.0, 0.04, 100)
    )
    assert smaller > plain > larger


def test_an_ng_image_that_would_pass_is_named_and_raises_no_threshold(gateway):
    roi = "by the peak"
    without = gateway.calibrate(roi)
    faint = gateway.calibrate(roi, ng_scores=[0.0])
    assert faint["missed_ng"] == [0.0]
    assert any("missed_ng" in warning for warning in faint["warnings"])
    for made in (faint, gateway.calibrate(roi, ng_scores=[without["threshold"] * 1.5])):
        assert made["threshold"] <= without["threshold"]
        assert made["peak_threshold"] == without["peak_threshold"]


def test_a_threshold_from_given_scores_is_stale_after_a_fit_and_says_so_everywhere(gateway):
    roi = "given scores"
    gateway.fit(roi, OK[:3])
    gateway.calibrate(roi, ok_scores=[0.3, 0.31])
    assert gateway.fit(roi, OK[3:4])["calibration"] == "stale"
    answer = gateway.infer(roi, UNSEEN)
    assert answer["calibration_stale"] is True
    assert any("calibrate again" in warning for warning in answer["warnings"])
    stored = summary(gateway, roi)
    assert stored["calibration"]["stale"] is True
    assert any("calibrate again" in warning for warning in stored["warnings"])
    listed = next(r for r in gateway.client.get("/rois").json()["rois"] if r["roi_id"] == roi)
    assert listed["calibration"]["stale"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_alarm_rate": 0},
        {"false_alarm_rate": 1},
        {"false_alarm_rate": "0,05"},
        {"pixel_threshold": "pixels"},
        {"pixel_threshold": -0.1},
        {"pixel_threshold": [0.5]},
    ],
)
def test_an_invalid_option_is_refused_by_name(gateway, small_roi, wrong):
    body = {"role_id": "steel", "roi_id": small_roi, "mm_per_px": 0.2, "ok_scores": [0.5], **wrong}
    reply = gateway.client.post("/calibrate_ng", json=body)
    assert reply.status_code == 422
    assert next(iter(wrong)) in reply.json()["error"]["message"]


def test_an_ok_image_can_be_removed_but_not_the_last(gateway):
    roi = "taken out"
    gateway.fit(roi, OK[:2])
    url = f"/rois/steel/{roi}/ok/"
    reply = gateway.client.delete(url + sha256(OK[0]).upper())
    assert reply.status_code == 200, reply.text
    assert (reply.json()["n_ok_total"], reply.json()["removed"]) == (1, sha256(OK[0]))
    assert [image["sha256"] for image in summary(gateway, roi)["images"]] == [sha256(OK[1])]

    codes = []
    for name in (sha256(OK[0]), "not a hash", sha256(OK[1])):
        reply = gateway.client.delete(url + name)
        codes.append((reply.status_code, reply.json()["error"]["code"]))
    assert codes == [(404, "unknown_image"), (404, "unknown_image"), (422, "invalid_request")]
    assert gateway.client.delete(f"/rois/steel/never/ok/{'0' * 64}").json()["error"]["code"] == "unknown_roi"


def test_an_image_unlike_the_others_is_suspect_and_excluded_on_request(gateway):
    roi = "suspects"
    stray = png(with_blob(steel(91, SIZE), (100, 80), 70)[0])
    first = gateway.fit(roi, [*OK, ("stray.png", stray)])
    assert first["suspect_images"][0]["file_name"] == "stray.png"
    assert first["suspect_images"][0]["excluded"] is False
    second = gateway.fit(roi, [OK[0]], exclude_suspects="true")
    taken = [suspect["sha256"] for suspect in second["suspect_images"] if suspect["excluded"]]
    assert sha256(stray) in taken
    assert second["n_ok_total"] + second["n_ok_excluded"] == 11
    detail = summary(gateway, roi)
    assert sorted(image["sha256"] for image in detail["excluded_images"]) == sorted(taken)
    assert gateway.infer(roi, stray)["score"] > gateway.infer(roi, UNSEEN)["score"]


def test_a_defect_outside_the_manual_box_passes_until_the_box_is_changed(launch, small_model_repository, tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"edge": [0, 128, 0, 64]}))  # the left half
    models = tmp_path / "models"
    given = {"models_dir": models, "model_repository": small_model_repository, "roi_config": boxes}
    with launch("boxed", **given) as gateway:
        fitted = gateway.fit("edge", OK)
        assert fitted["spatial_weights"]["kind"] == "manual"
        gateway.fit("plain", OK)
        for roi in ("edge", "plain"):
            gateway.calibrate(roi, area_mm2_thr=4.0, pixel_threshold="ok_pixels")
        verdicts = {roi: [gateway.infer(roi, image)["verdict"] for image in (LEFT, RIGHT)] for roi in ("edge", "plain")}
        assert verdicts == {"edge": ["ng", "ok"], "plain": ["ng", "ng"]}
        log = gateway.log.read_text()
        assert "before the override" in log
        assert "overridden by the manual box" in log
    boxes.write_text(json.dumps({"edge": [0, 128, 64, 128]}))
    with launch("boxed again", **given) as gateway:
        answer = gateway.infer("edge", RIGHT)
        assert (answer["verdict"], answer["weights_stale"]) == ("ok", True)
        assert summary(gateway, "edge")["weights_stale"] is True
        assert gateway.fit("edge", OK[:1])["calibration"] == "redone"
        answer = gateway.infer("edge", RIGHT)
        assert (answer["verdict"], answer["weights_stale"]) == ("ng", False)


def test_a_malformed_file_of_boxes_stops_the_start_and_names_the_entry(launch, tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"edge": [64, 0, 0, 64]}')
    named = r"GATEWAY_ROI_CONFIG: .*'edge': \[64, 0, 0, 64\] is empty"
    with pytest.raises(RuntimeError, match=named), launch("malformed", roi_config=boxes):
        pass
