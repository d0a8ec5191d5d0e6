"""The Python client at a real gateway, synchronous and asynchronous; and what it does where no gateway answers well."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from patchcore_client import (
    AnswerError,
    AsyncPatchcoreClient,
    BatchItem,
    ConnectError,
    GatewayError,
    Inspection,
    InvalidRequestError,
    OverloadedError,
    PatchcoreClient,
    Retries,
    UnauthorizedError,
    UnknownRoiError,
)
from patchcore_client import TimeoutError as LateError
from patchcore_client.overlay import draw
from PIL import Image

from tests.clients.scripted_server import DROP, HANG, OK, refusal, scripted
from tests.e2e.gateway_process import PROJECT, free_port
from tests.e2e.synthetic_images import png, steel, with_blob
from tests.promises.keys import make_key

QUICK = Retries(attempts=3, first_wait_s=0.01, longest_wait_s=5)
ROI = ("client", "roi")


class Both:
    """Calls a method of either client by the same words."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, url, method, *arguments, client=(), **fields):
        options = {"retries": QUICK, **dict(client)}
        if self.kind == "sync":
            with PatchcoreClient(url, **options) as plain:
                return getattr(plain, method)(*arguments, **fields)

        async def call():
            async with AsyncPatchcoreClient(url, **options) as concurrent:
                return await getattr(concurrent, method)(*arguments, **fields)

        return asyncio.run(call())


@pytest.fixture(params=["sync", "async"])
def call(request):
    return Both(request.param)


@pytest.fixture(scope="module")
def url(gateway):
    return f"http://127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
def fitted(url):
    with PatchcoreClient(url) as client:
        client.fit_ok(*ROI, [png(steel(seed)) for seed in range(6)], mm_per_px=0.2)
        client.calibrate_ng(*ROI, mm_per_px=0.2)


@pytest.fixture(scope="module")
def ng():
    """A defect of radius 30 at (190, 200), uint8 [384, 384]."""
    return with_blob(steel(9), (190, 200), 30, 1.0)[0]


@pytest.fixture(scope="module")
def keyed(launch, small_model_repository):
    """Address of a gateway that asks for a key, and the key."""
    key, entry = make_key("line1", "inspect")
    with launch("keyed", model_repository=small_model_repository, api_keys=json.dumps([entry])) as started:
        yield f"http://127.0.0.1:{started.port}", key


class TestAtAGateway:
    def test_it_fits_calibrates_and_inspects(self, call, url, gateway, ng):
        roi = ("client", f"fit-{call.kind}")
        images = [png(steel(seed)) for seed in range(4)]
        fit = call(url, "fit_ok", *roi, images, mm_per_px=0.2, coreset_rate=0.05, exclude_suspects=False)
        assert (fit.n_ok_total, fit.coreset_rate) == (4, 0.05)
        again = call(url, "fit_ok", *roi, iter(images), mm_per_px=0.2)
        assert (again.n_ok_added, again.duplicates, again.version) == (0, 4, fit.version), "a fit may be repeated"
        calibration = call(
            url, "calibrate_ng", *roi, mm_per_px=0.2, ng_scores=np.array([1.5], np.float32), pixel_threshold=0.9
        )
        assert (calibration.n_ng, calibration.pixel_threshold) == (1, 0.9)
        result = call(url, "infer", *roi, png(ng), mm_per_px=0.2, shape={"kind": "circle", "r": 150}, heatmap="none")
        sent = {"shape": '{"kind": "circle", "r": 150}', "heatmap": "none"}
        answer = gateway.infer(roi[1], png(ng), role=roi[0], **sent)
        assert result.score == answer["score"]
        assert result.model_dump(mode="json") == answer

    def test_every_kind_of_image_gives_the_same_score(self, call, url, fitted, ng, tmp_path):
        path = tmp_path / "prüf 1.png"
        path.write_bytes(png(ng))
        with path.open("rb") as file:
            for image in (path, str(path), png(ng), file, ng, ("a.png", ng)):
                result = call(url, "infer", *ROI, image, mm_per_px=0.2)
                assert result.is_ng
                assert result.score == pytest.approx(call(url, "infer", *ROI, png(ng), mm_per_px=0.2).score)

    def test_heatmap_and_overlay_show_the_defect(self, url, fitted, ng, tmp_path):
        with PatchcoreClient(url) as client:
            result = client.infer(*ROI, ng, mm_per_px=0.2)
        y, x = np.unravel_index(result.heatmap.argmax(), result.heatmap.shape)
        assert abs(x - 190) < 40
        assert abs(y - 200) < 40
        assert result.heatmap.shape == (384, 384)
        picture = np.asarray(draw(ng, result)).astype(int)
        redness = picture[..., 0] - picture[..., 2]
        assert redness[170:230, 160:220].mean() > 3 * max(1.0, redness[:60, :60].mean())

    def test_a_batch_returns_an_error_in_its_place(self, call, url, fitted, ng):
        items = [
            BatchItem(role_id="client", roi_id=roi, image=ng, mm_per_px=0.2, heatmap="none") for roi in ("roi", "never")
        ]
        good, bad = call(url, "infer_batch", items)
        assert isinstance(good, Inspection)
        assert good.score == pytest.approx(call(url, "infer", *ROI, ng, mm_per_px=0.2).score)
        assert isinstance(bad, UnknownRoiError)
        assert bad.status is None

    def test_everything_about_an_roi_can_be_read_and_changed(self, call, url):
        roi = ("client", f"all {call.kind}")
        stored = call(url, "store_images", *roi, [steel(1), steel(2)], label="ok", metas=[{"n": 1}, None])
        assert stored.n_added == 2
        assert call(url, "store_images", *roi, [("ng.png", steel(3))], label="ng").n_ng == 1
        listed = call(url, "list_images", *roi, label="ok", limit=1)
        assert (listed.total, len(listed.images)) == (2, 1)
        image = listed.images[0].id
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(call(url, "get_image", *roi, image)))), steel(1))
        assert call(url, "get_thumbnail", *roi, image)[:2] == b"\xff\xd8"
        assert call(url, "get_image_metadata", *roi, image) == {"n": 1}
        assert call(url, "change_image", *roi, image, metadata={"n": 2}).label == "ok"
        assert call(url, "get_image_metadata", *roi, image) == {"n": 2}
        assert call(url, "fit_ok", *roi, mm_per_px=0.2).n_ok_total == 2
        call(url, "fit_ok", *roi, [steel(4)], mm_per_px=0.2)
        detail = call(url, "get_roi", *roi)
        assert [version.version for version in detail.versions] == [2, 1]
        assert call(url, "delete_ok_image", *roi, detail.images[-1].sha256).n_ok_total == 2
        assert call(url, "rollback", *roi, 2).version == 2
        assert [entry.action for entry in call(url, "audit", *roi, limit=2).entries] == ["rollback", "delete_ok_image"]
        assert call(url, "drift", *roi).n == 0
        assert call(url, "report", *roi).roi.n_ok_total == 3
        assert call(url, "report_page", *roi).startswith("<!doctype html>")
        assert roi[1] in [each.roi_id for each in call(url, "list_rois").rois]
        ng_image = call(url, "list_images", *roi, label="ng").images[0].id
        assert call(url, "delete_image", *roi, ng_image).deleted
        assert call(url, "delete_images", *roi, label="ng").deleted == 0
        assert call(url, "delete_roi", *roi).deleted

    def test_the_state_of_the_gateway_can_be_read(self, call, url):
        assert call(url, "health").model_weights == "seed"
        assert call(url, "ready").ready
        assert call(url, "wait_until_ready", 30).error is None
        assert "# TYPE" in call(url, "metrics")

    def test_a_recipe_is_a_namespace(self, call, url, ng):
        variant = {"recipe_id": f"Ausführung {call.kind}"}
        fit = call(url, "fit_ok", "client", "variant", [steel(1)], mm_per_px=0.2, client=variant)
        assert fit.recipe_id == variant["recipe_id"]
        result = call(url, "infer", "client", "variant", ng, mm_per_px=0.2, client=variant)
        assert (result.recipe_id, result.verdict) == (variant["recipe_id"], "uncalibrated")
        assert len(call(url, "list_rois", client=variant).rois) == 1
        item = BatchItem(role_id="client", roi_id="variant", image=ng, mm_per_px=0.2, **variant)
        assert call(url, "infer_batch", [item])[0].score == pytest.approx(result.score)
        with pytest.raises(UnknownRoiError):
            call(url, "infer", "client", "variant", ng, mm_per_px=0.2)
        assert call(url, "delete_roi", "client", "variant", client=variant).recipe_id == variant["recipe_id"]

    def test_a_client_for_another_recipe_has_the_same_connections(self, url):
        with PatchcoreClient(url) as client:
            assert client.recipe("other").list_rois().rois == []
            assert client.health().status == "ok"

    def test_a_refusal_is_the_exception_of_its_code(self, call, url, fitted, ng):
        with pytest.raises(UnknownRoiError, match="client/never") as raised:
            call(url, "infer", "client", "never", ng, mm_per_px=0.2)
        error = raised.value
        assert (error.code, error.status, len(error.request_id)) == ("unknown_roi", 404, 32)
        assert error.hint
        with pytest.raises(InvalidRequestError, match="mm_per_px"):
            call(url, "infer", *ROI, ng, mm_per_px=-1)
        with pytest.raises(GatewayError) as unknown:
            call(f"{url}/elsewhere", "health")
        assert unknown.value.code == "not_found"

    def test_eight_threads_may_share_a_client(self, url, fitted, ng):
        from concurrent.futures import ThreadPoolExecutor

        with PatchcoreClient(url) as client, ThreadPoolExecutor(8) as pool:
            work = [pool.submit(client.infer, *ROI, png(ng), mm_per_px=0.2, heatmap="none") for _ in range(16)]
            assert len({each.result().score for each in work}) == 1

    def test_a_gateway_with_keys_gets_the_key_of_the_environment(self, call, keyed, monkeypatch):
        address, key = keyed
        monkeypatch.setenv("PATCHCORE_URL", address)
        with pytest.raises(UnauthorizedError):
            call(None, "list_rois")
        monkeypatch.setenv("PATCHCORE_KEY", key)
        assert call(None, "list_rois").rois == []
        monkeypatch.delenv("PATCHCORE_KEY")
        assert call(address, "list_rois", client={"key": key}).rois == []


class TestRetries:
    def test_a_refusal_is_repeated_after_the_time_that_it_asks_for(self, call):
        refusals = (refusal(429, "overloaded", Retry_After="1"), refusal(503, "shutting_down"))
        with scripted(*refusals, (200, {}, "# TYPE")) as server:
            assert call(server.url, "metrics") == "# TYPE"
        assert len(server.requests) == 3
        assert server.times[1] - server.times[0] >= 1

    def test_the_last_refusal_is_raised(self, call):
        with (
            scripted(refusal(429, "overloaded")) as server,
            pytest.raises(OverloadedError) as raised,
        ):
            call(server.url, "list_rois")
        assert len(server.requests) == QUICK.attempts
        assert raised.value.retry_after_s is None

    def test_a_wait_that_is_too_long_is_left_to_the_caller(self, call):
        with scripted(refusal(429, "overloaded", Retry_After="60")) as server, pytest.raises(OverloadedError) as raised:
            call(server.url, "list_rois")
        assert (len(server.requests), raised.value.retry_after_s) == (1, 60)

    def test_a_broken_connection_is_repeated_where_that_changes_nothing(self, call):
        fields = {"mm_per_px": 0.2}
        with scripted(DROP, DROP, refusal(404, "unknown_roi")) as server:
            with pytest.raises(UnknownRoiError):
                call(server.url, "infer", *ROI, png(steel(0)), **fields)
            assert [request[:2] for request in server.requests] == [("POST", "/infer")] * 3
            bodies = {re.sub(rb"--[0-9a-f]{32}", b"--", body) for _, _, _, body in server.requests}
        assert len(bodies) == 1, "the repeated request is the same"
        with scripted(DROP) as server:
            with pytest.raises(ConnectError):
                call(server.url, "rollback", *ROI, 1)
            assert len(server.requests) == 1

    def test_a_timeout_is_repeated_for_an_inspection_and_not_for_a_fit(self, call):
        late = {"timeout_s": 0.2, "fit_timeout_s": 0.2}
        with scripted(HANG, refusal(404, "unknown_roi")) as server, pytest.raises(UnknownRoiError):
            call(server.url, "infer", *ROI, png(steel(0)), mm_per_px=0.2, client=late)
        with scripted(HANG) as server:
            with pytest.raises(LateError) as raised:
                call(server.url, "fit_ok", *ROI, [png(steel(0))], mm_per_px=0.2, client=late)
            assert len(server.requests) == 1
        assert isinstance(raised.value, TimeoutError)
        assert isinstance(raised.value, ConnectError)

    def test_no_gateway_is_a_connect_error_with_the_address(self, call):
        port = free_port()
        with pytest.raises(ConnectError, match=f":{port}/health"):
            call(f"http://127.0.0.1:{port}", "health")
        with pytest.raises(ConnectError):
            call(f"http://127.0.0.1:{port}", "wait_until_ready", 0.2)

    def test_an_answer_of_something_else_is_an_answer_error(self, call):
        with scripted((200, {}, "<html>welcome</html>")) as server, pytest.raises(AnswerError, match="welcome"):
            call(server.url, "health")
        with scripted((404, {}, "<html>nothing here</html>")) as server, pytest.raises(AnswerError, match="404"):
            call(server.url, "health")

    def test_the_key_goes_to_no_other_host(self, call):
        with scripted(OK) as other, scripted((307, {"Location": f"{other.url}/ready"}, "")) as server:
            with pytest.raises(AnswerError, match="307"):
                call(server.url, "list_rois", client={"key": "pcg_secret"})
            assert server.requests[0][2]["authorization"] == "Bearer pcg_secret"
            assert other.requests == []


class TestDocumentation:
    def test_the_examples_of_the_readme_run_in_their_order(self, url, tmp_path, ng):
        """In a process of its own, in a folder of parts, as a reader would run them."""
        for folder, images in (("good", [steel(seed) for seed in range(12)]), ("parts", [ng, steel(40)])):
            (tmp_path / folder).mkdir()
            for i, image in enumerate(images, 1):
                (tmp_path / folder / f"{i}.png").write_bytes(png(image))
        text = (PROJECT / "clients" / "python" / "README.md").read_text()
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert len(blocks) >= 8
        (tmp_path / "examples.py").write_text("\n".join(blocks).replace("http://127.0.0.1:8080", url))
        environment = {**os.environ, "PATCHCORE_URL": url, "PYTHONPATH": str(PROJECT / "clients" / "python")}
        done = subprocess.run(
            [sys.executable, "-W", "error", "examples.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[0].startswith("1.png ng")
        assert lines[1].startswith("2.png ok")
        assert lines[2] == "ready dinov2-vit-s/14"
        assert len(set(lines[3:7])) == 1, "every kind of image has the same score"
        assert "face ng" in lines
        assert "back unknown_roi" in lines
        assert (tmp_path / "overlay.png").is_file()
