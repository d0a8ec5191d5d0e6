"""Limits are decided before work is done."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests import bombs
from tests.e2e.synthetic_images import jpeg, png, steel, with_blob
from tests.e2e.test_refusals import refused
from tests.promises.process_memory import peak_mib

OK = steel(0, (112, 112))
FORM = {"role_id": "steel", "roi_id": "pad", "mm_per_px": "0.2"}
SCORES = {"role_id": "steel", "roi_id": "pad", "mm_per_px": 0.2, "ok_scores": [0.4, 0.5]}
MIB = 2**20


@pytest.fixture(scope="module")
def gateway(launch, small_model_repository):
    with launch("limits", model_repository=small_model_repository, max_fit_images=20, max_batch_images=4) as started:
        started.fit("pad", [png(steel(i, (112, 112))) for i in range(3)])
        yield started
        assert "Traceback" not in started.log.read_text()


def as_json(gateway, text):
    return gateway.client.post("/calibrate_ng", content=text, headers={"Content-Type": "application/json"})


def test_json_that_is_too_large_or_too_deep_is_refused_before_it_is_parsed(gateway):
    large = json.dumps({**SCORES, "ok_scores": [0.5] * (MIB // 2)})
    refused(as_json(gateway, large), 413, "too_large", str(2 * MIB))
    refused(
        as_json(gateway, (large[i : i + 9999].encode() for i in range(0, len(large), 9999))), 413, "too_large"
    )  # no length
    for deep in ('{"role_id":' + "[" * 500 + "]" * 500 + "}", "[" * MIB, '{"a":' * 100_000):
        refused(as_json(gateway, deep), 422, "invalid_request", "nested")
    for field, path, images in (
        ("shape", "/infer", "image"),
        ("shape", "/fit_ok", "images"),
        ("items", "/infer_batch", "images"),
    ):
        form = FORM if field == "shape" else {}
        for deep in ("[" * 33 + "]" * 33, '[{"shape":' * 50_000):
            reply = gateway.client.post(path, data={**form, field: deep}, files=[(images, png(OK))])
            refused(reply, 422, "invalid_request", field, "nested")
        for long in ("[" + "0," * 9000 + "0]", " " * (2 * MIB + 1)):
            reply = gateway.client.post(path, data={**form, field: long}, files=[(images, png(OK))])
            refused(reply, 413, "too_large")
    # A million mistakes would be told in as many words: the first is enough.
    reply = as_json(gateway, json.dumps({**SCORES, "ok_scores": ["x"] * 90_000}))
    refused(reply, 422, "invalid_request", "ok_scores.0")
    assert "more" not in reply.json()["error"]["message"]
    reply = gateway.client.post("/infer_batch", data={"items": json.dumps([0] * 5000)}, files=[("images", png(OK))])
    refused(reply, 422, "invalid_request", "items.0")
    for path in ("/calibrate_ng", "/rois/steel/pad/rollback"):  # takes no form, so none may be large
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        refused(
            gateway.client.post(path, content=b"x" * (2 * MIB + 1), headers=headers), 413, "too_large", str(2 * MIB)
        )
    assert as_json(gateway, json.dumps({**SCORES, "ok_scores": [0.123456789012345678] * 90_000})).status_code == 200


def test_the_number_of_files_and_fields_of_a_form_is_limited(gateway):
    def sent(n_files, n_fields, path="/fit_ok"):
        fields = {**FORM, **{f"f{i}": "x" for i in range(n_fields)}}
        return gateway.client.post(path, data=fields, files=[("images", b"no image")] * n_files)

    refused(sent(20, 0), 415, "unsupported_image")
    refused(sent(21, 0), 413, "too_large", "20")
    refused(sent(900, 0), 413, "too_large", "20")
    refused(sent(1, 40), 422, "invalid_request", "fields")


def test_the_content_and_not_the_name_of_a_file_decides_its_format(gateway):
    encoded = {
        "PNG": png(OK),
        "JPEG": jpeg(OK),
        "BMP": cv2.imencode(".bmp", OK)[1].tobytes(),
        "TIFF": cv2.imencode(".tiff", OK)[1].tobytes(),
    }
    names = ("roi.png", "roi.gif", "roi.exe", "..\\..\\roi", "CON", "roi.png\0.exe", "")
    for data in encoded.values():
        for name in names[:-1]:
            reply = gateway.client.post("/infer", data=FORM, files=[("image", (name, data, "text/html"))])
            assert reply.status_code == 200, (name, reply.text)
    buffer = io.BytesIO()
    others = {"GIF": buffer}
    for kind in ("GIF", "WEBP", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "AVIF", "DDS", "PDF", "EPS"):
        buffer = io.BytesIO()
        try:
            Image.fromarray(OK).convert("RGB").save(buffer, kind)
        except (KeyError, OSError, ValueError):
            continue  # not written by this build of Pillow
        others[kind] = buffer
        reply = gateway.client.post("/infer", data=FORM, files=[("image", ("roi.png", buffer.getvalue(), "image/png"))])
        refused(reply, 415, "unsupported_image")
    assert len(others) >= 8


# What it is: how it is made, and with what it may be answered.
BOMBS = {
    "PNG that inflates to 800 MB": (lambda: bombs.png(n_zeros=800_000_000), (413,)),
    "PNG of 60 000 × 60 000": (lambda: bombs.png(size_wh=(60_000, 60_000), n_zeros=10**7), (413,)),
    "PNG with a profile of 500 MB": (
        lambda: bombs.png([(b"iCCP", b"x\0\0" + bombs.deflated_zeros(5 * 10**8))]),
        (415,),
    ),
    "PNG with texts of 500 MB": (lambda: bombs.png([(b"zTXt", b"x\0\0" + bombs.deflated_zeros(10**6))] * 500), (415,)),
    "PNG of a million chunks": (lambda: bombs.png([(b"tEXt", b"a\0b")] * 10**6), (413,)),
    "animated PNG of 2³¹ frames": (lambda: bombs.png([(b"acTL", b"\x7f\xff\xff\xff" + bytes(4))]), (200, 415)),
    "JPEG of 100 000 scans": (lambda: bombs.jpeg_of_scans(100_000), (413,)),
    "JPEG of a million segments": (lambda: bombs.jpeg_of_segments(10**6, b"\xff\xfe\x00\x02"), (413,)),
    "JPEG padded with 30 MB": (lambda: bombs.jpeg_of_segments(30 * 10**6, b"\xff"), (413,)),
    "TIFF with a tile of 30 000 × 30 000": (lambda: bombs.tiff_in_tiles(100, 30_000), (413,)),
    "TIFF with a tile of 16 000 × 16 000": (lambda: bombs.tiff_in_tiles(100, 16_000), (413,)),
    "BMP without its pixels": (lambda: bombs.bmp(4900, 4900, 0, b""), (415,)),
    "BMP of 2³¹ × 2³¹": (lambda: bombs.bmp(2**31 - 1, 2**31 - 1, 0, b""), (413,)),
    "BMP of negative width": (lambda: bombs.bmp(-5000, 5000, 0, bytes(1000)), (413, 415)),
}


def test_a_file_that_costs_more_than_its_pixels_is_refused_before_it_is_decoded(gateway):
    gateway.infer("pad", png(steel(0, (4900, 5000))))  # the largest image that is served
    before = peak_mib(gateway.process.pid)
    for name, (make, statuses) in BOMBS.items():
        data = make()
        reply = gateway.client.post("/infer", data=FORM, files=[("image", (name, data))], timeout=30)
        assert reply.status_code in statuses, (name, reply.text)
    grown = peak_mib(gateway.process.pid) - before
    assert grown < 100, f"{grown:.0f} MiB more than an image of 25 million pixels takes"


def test_an_answer_has_a_limited_number_of_regions_and_says_what_it_left_out(gateway, launch, small_model_repository):
    image = OK
    for centre in ((20, 20), (90, 20), (20, 90), (90, 90)):
        image, _ = with_blob(image, centre, 6, strength=1)
    asked = {"area_mm2_thr": 0, "heatmap": "none"}

    def answer(gateway):
        gateway.fit("blobs", [png(steel(i, (112, 112))) for i in range(4)])
        score = gateway.infer("blobs", png(image), **asked)["score"]
        gateway.calibrate("blobs", ok_scores=[score * 0.8], pixel_threshold=score * 0.8)
        return gateway.infer("blobs", png(image), **asked)

    all_of_it = answer(gateway)
    limits = {"max_regions": 2, "max_contour_points": 8}
    with launch("bounded", model_repository=small_model_repository, **limits) as limited:
        bounded = answer(limited)
    assert len(all_of_it["regions"]) > 2
    assert [r["area_px"] for r in bounded["regions"]] == [r["area_px"] for r in all_of_it["regions"][:2]]
    assert [r["bbox"] for r in bounded["regions"]] == [r["bbox"] for r in all_of_it["regions"][:2]]
    assert 0 < sum(len(r["contour"]) for r in bounded["regions"]) <= 8
    assert any(w.startswith(f"regions: {len(all_of_it['regions'])} were found") for w in bounded["warnings"])
    assert any(w.startswith("contours: ") for w in bounded["warnings"])
    assert bounded["verdict"] == all_of_it["verdict"]
    assert not np.any([w.startswith(("regions:", "contours:")) for w in all_of_it["warnings"]])
