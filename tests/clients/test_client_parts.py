"""Parts of the Python client without a gateway: images, retries, errors, overlays, addresses."""

import base64
import io
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import numpy as np
import pytest
from patchcore_client import ImageError, Inspection, OverloadedError, Retries, encode
from patchcore_client.calls import BatchItem, auth_headers, form, gateway_url, json_text, roi_path
from patchcore_client.images import load
from patchcore_client.overlay import detections, draw, masks
from patchcore_client.retries import Repeat, may_repeat, retry_after_s
from PIL import Image

GREY = np.array([[0, 50], [100, 255], [7, 8]], np.uint8)
COLOUR = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)


class TestImages:
    def test_a_path_bytes_a_file_and_a_pair_are_the_same_file(self, tmp_path):
        path = tmp_path / "part 1.png"
        path.write_bytes(b"\x89PNG")
        assert load(path) == load(str(path)) == ("part 1.png", b"\x89PNG")
        with path.open("rb") as file:
            assert load(file) == ("part 1.png", b"\x89PNG")
        assert load(b"\x89PNG") == load(bytearray(b"\x89PNG")) == ("image.png", b"\x89PNG")
        assert load(io.BytesIO(b"\x89PNG"), "third.png") == ("third.png", b"\x89PNG")
        assert load(("named.png", path)) == ("named.png", b"\x89PNG")

    def test_an_array_comes_back_from_its_png(self):
        for array in (GREY, GREY.astype(np.uint16) * 257, COLOUR, GREY[:, :, None]):
            name, data = load(array)
            assert name == "image.png"
            assert np.array_equal(
                np.asarray(Image.open(io.BytesIO(data))), np.squeeze(array, 2) if array.shape[-1] == 1 else array
            )

    def test_bgr_is_sent_as_rgb(self):
        pixels = np.asarray(Image.open(io.BytesIO(encode(COLOUR, order="bgr"))))
        assert pixels.tolist() == [[[0, 0, 255], [255, 0, 0]]]

    @pytest.mark.parametrize(
        ("image", "said"),
        [
            ("absent.png", "absent.png: No such file"),
            (b"", "empty"),
            (GREY.astype(np.float32), "float32"),
            (np.zeros((2, 2, 4), np.uint8), r"\(2, 2, 4\)"),
            (COLOUR.astype(np.uint16), "uint16"),
            (np.zeros((0, 2), np.uint8), r"\(0, 2\)"),
            (io.StringIO("text"), "binary mode"),
            (7, "int"),
        ],
    )
    def test_what_is_no_image_is_refused_with_the_reason(self, image, said):
        with pytest.raises(ImageError, match=said):
            load(image)

    def test_without_numpy_only_arrays_need_it(self, tmp_path):
        """In a process of its own, where NumPy and Pillow cannot be imported."""
        code = (
            "import sys; sys.modules.update({'numpy': None, 'PIL': None, 'PIL.Image': None})\n"
            "from patchcore_client import ImageError, PatchcoreClient\n"
            "from patchcore_client.images import encode, load\n"
            "print(load(b'x'))\n"
            "try: encode(object())\n"
            "except ImageError as error: print(error)\n"
        )
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said.splitlines() == [
            "('image.png', b'x')",
            "numpy is not installed: pip install 'patchcore-client[images]'",
        ]


class TestRetries:
    def test_waits_double_and_are_random_within_half(self):
        retries = Retries(attempts=4, first_wait_s=1, longest_wait_s=3)
        for attempt, longest in ((1, 1), (2, 2), (3, 3)):
            waits = [retries.wait_s(attempt, None) for _ in range(200)]
            assert longest / 2 <= min(waits) < max(waits) <= longest
        assert retries.wait_s(4, None) is None

    def test_retry_after_is_the_shortest_wait_and_the_longest_wait_is_a_limit(self):
        retries = Retries(attempts=2, first_wait_s=0.1, longest_wait_s=30)
        assert retries.wait_s(1, 20) == 20
        assert retries.wait_s(1, 31) is None

    def test_retry_after_is_seconds_or_a_date(self):
        assert retry_after_s({"retry-after": "7"}) == 7
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
        assert 50 < retry_after_s({"retry-after": soon}) <= 60
        assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
        assert retry_after_s({"retry-after": "soon"}) is None
        assert retry_after_s({}) is None

    @pytest.mark.parametrize(
        ("failure", "repeated"),
        [
            (429, {Repeat.ALWAYS, Repeat.UNLESS_LATE, Repeat.IF_REFUSED}),
            (503, {Repeat.ALWAYS, Repeat.UNLESS_LATE, Repeat.IF_REFUSED}),
            (502, {Repeat.ALWAYS, Repeat.UNLESS_LATE}),
            (500, set()),
            (408, set()),
            (422, set()),
            (httpx.ConnectError(""), {Repeat.ALWAYS, Repeat.UNLESS_LATE, Repeat.IF_REFUSED}),
            (httpx.ConnectTimeout(""), {Repeat.ALWAYS, Repeat.UNLESS_LATE, Repeat.IF_REFUSED}),
            (httpx.ReadError(""), {Repeat.ALWAYS, Repeat.UNLESS_LATE}),
            (httpx.RemoteProtocolError(""), {Repeat.ALWAYS, Repeat.UNLESS_LATE}),
            (httpx.ReadTimeout(""), {Repeat.ALWAYS}),
            (httpx.WriteTimeout(""), {Repeat.ALWAYS}),
            (httpx.UnsupportedProtocol(""), set()),
        ],
        ids=lambda value: str(len(value)) if isinstance(value, set) else str(value) or type(value).__name__,
    )
    def test_a_request_is_repeated_only_where_that_is_safe(self, failure, repeated):
        assert {each for each in Repeat if may_repeat(each, failure)} == repeated

    @pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_wait_s": -1}, {"first_wait_s": 9, "longest_wait_s": 1}])
    def test_settings_that_make_no_sense_are_refused(self, wrong):
        with pytest.raises(ValueError, match="attempts"):
            Retries(**wrong)


class TestCalls:
    def test_address_and_key_come_from_the_environment_where_none_is_given(self, monkeypatch):
        monkeypatch.delenv("PATCHCORE_URL", raising=False)
        monkeypatch.delenv("PATCHCORE_KEY", raising=False)
        assert (gateway_url(None), auth_headers(None)) == ("http://127.0.0.1:8080", {})
        monkeypatch.setenv("PATCHCORE_URL", "https://vision.example/pc/")
        monkeypatch.setenv("PATCHCORE_KEY", "pcg_x\n")
        assert gateway_url(None) == "https://vision.example/pc"
        assert auth_headers(None) == {"Authorization": "Bearer pcg_x"}
        assert gateway_url("http://other:1") == "http://other:1"
        assert auth_headers("pcg_y") == {"Authorization": "Bearer pcg_y"}

    @pytest.mark.parametrize("url", ["vision:8000", "ftp://vision", "http://", "http:///x"])
    def test_an_address_that_is_none_is_refused(self, url):
        with pytest.raises(ValueError, match="expected the address of a gateway"):
            gateway_url(url)

    def test_ids_stay_one_part_of_a_path(self):
        assert roi_path("disc front", "pad/1", "ok", "é") == "/rois/disc%20front/pad%2F1/ok/%C3%A9"
        for wrong in ("", ".", ".."):
            with pytest.raises(ValueError, match="expected an id"):
                roi_path("disc", wrong)

    def test_fields_are_texts_with_a_decimal_point_and_none_is_left_out(self):
        fields = {"a": 0.2, "b": np.float32(0.5), "c": 3, "d": True, "e": None, "f": "x"}
        assert form(fields, [("image", ("a.png", b"1"))]) == [
            ("a", (None, b"0.2")),
            ("b", (None, b"0.5")),
            ("c", (None, b"3")),
            ("d", (None, b"true")),
            ("f", (None, b"x")),
            ("image", ("a.png", b"1")),
        ]

    def test_json_takes_the_numbers_of_numpy_and_refuses_nan(self):
        assert json_text({"r": np.float64(1.5), "n": np.int64(2)}) == '{"r":1.5,"n":2}'
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_text([float("nan")])

    def test_an_item_of_a_batch_leaves_out_what_is_not_given(self):
        item = BatchItem(role_id="a", roi_id="b", image=b"x", mm_per_px=0.2, k=3)
        assert item.fields() == {"role_id": "a", "roi_id": "b", "mm_per_px": 0.2, "k": 3}

    def test_an_error_survives_a_process_pool(self):
        error = OverloadedError("overloaded", "busy", "later", status=429, request_id="r", retry_after_s=2.0)
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is OverloadedError
        assert str(copy) == str(error) == "overloaded: busy later"
        assert vars(copy) == vars(error)


def inspection(**changes):
    """A 6 × 4 image with one region of 2 × 2 pixels at (1, 1), and its heatmap."""
    heat = np.zeros((4, 6), np.uint8)
    heat[1:3, 1:3] = 255
    file = io.BytesIO()
    Image.fromarray(heat).save(file, "PNG")
    region = {"bbox": [1, 1, 2, 2], "area_px": 4, "area_mm2": 0.16, "contour": [[1, 1], [1, 2], [2, 2], [2, 1]]}
    params = dict.fromkeys(("coreset_rate", "p_score", "blur_sigma", "area_mm2_thr", "mm_per_px"), 1.0)
    answer = {
        **{
            "role_id": "a",
            "roi_id": "b",
            "recipe_id": "default",
            "score": 1.0,
            "threshold": 0.5,
            "peak": 1.0,
            "peak_threshold": 0.5,
        },
        **{"verdict": "ng", "verdict_reason": "both", "heatmap_max": 1.5, "regions": [region]},
        **{"calibration_stale": False, "weights_stale": False, "degraded": False, "warnings": [], "version": 1},
        **{"token_shape": [27, 27], "image_size": [6, 4], "params": {**params, "extractor": "x", "k": 1}},
        "heatmap_png_base64": base64.b64encode(file.getvalue()).decode(),
        **changes,
    }
    return Inspection.model_validate(answer)


class TestInspection:
    def test_the_heatmap_is_distances(self):
        heat = inspection().heatmap
        assert heat.dtype == np.float32
        assert heat.tolist() == [[0] * 6, [0, 1.5, 1.5, 0, 0, 0], [0, 1.5, 1.5, 0, 0, 0], [0] * 6]
        assert inspection(heatmap_png_base64=None).heatmap is None

    def test_a_verdict_is_ok_ng_or_neither(self):
        found = [(each.is_ok, each.is_ng) for each in (inspection(verdict=v) for v in ("ok", "ng", "uncalibrated"))]
        assert found == [(True, False), (False, True), (False, False)]

    def test_keys_and_values_of_a_newer_gateway_are_kept(self):
        newer = inspection(verdict="perhaps", colour="red")
        assert (newer.verdict, newer.colour) == ("perhaps", "red")
        assert not newer.is_ok

    def test_an_overlay_shows_heat_and_outline_where_the_region_is(self):
        grey = Image.new("L", (6, 4), 100)
        file = io.BytesIO()
        grey.save(file, "PNG")
        drawn = np.asarray(draw(file.getvalue(), inspection()))
        assert drawn.shape == (4, 6, 3)
        assert drawn[1, 1].tolist() == [255, 0, 0]  # the outline
        assert drawn[0, 0].tolist() == [100, 100, 100]
        assert drawn[1, 4].tolist() == [100, 100, 100]
        with pytest.raises(ImageError, match="6, 4"):
            draw(encode(GREY), inspection())

    def test_the_area_of_a_region_at_the_corner_is_written_within_the_picture(self):
        corner = {"bbox": [90, 90, 10, 10], "contour": [[90, 90], [99, 90], [99, 99], [90, 99]], "area_px": 100}
        found = inspection(image_size=[100, 100], heatmap_png_base64=None, regions=[{**corner, "area_mm2": 4.0}])
        drawn = np.asarray(draw(np.full((100, 100), 90, np.uint8), found))
        _, columns = np.nonzero((drawn > 200).all(axis=2))
        assert columns.size > 20, "the digits are white"
        assert columns.min() < 80, "and begin left of the region"

    def test_masks_are_the_insides_of_the_outlines(self):
        assert masks(inspection()).tolist() == [
            [[False] * 6, [False, True, True, *[False] * 3], [False, True, True, *[False] * 3], [False] * 6]
        ]
        assert masks(inspection(regions=[])).shape == (0, 4, 6)

    def test_detections_are_those_of_supervision(self):
        pytest.importorskip("supervision")
        found = detections(inspection())
        assert found.xyxy.tolist() == [[1, 1, 3, 3]]
        assert found.mask.sum() == 4
        assert found.data["area_mm2"].tolist() == [0.16]
        assert len(detections(inspection(regions=[]))) == 0
