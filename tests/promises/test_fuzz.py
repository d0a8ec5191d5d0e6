"""No request causes a 500, a hang, a leak, or a file in a wrong place.

Seeded by Hypothesis itself (`derandomize`): a run sends what the run before sent. A failure prints what did it.
"""

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway.api.schemas.calibrate import CalibrateAnswer
from gateway.api.schemas.fit import FitAnswer
from gateway.api.schemas.infer import BatchAnswer, InferAnswer
from gateway.errors import ERRORS
from tests.e2e.gateway_process import Gateway
from tests.e2e.synthetic_images import png, steel
from tests.promises import hostile
from tests.promises.canaries import OURS, listing, plant, strangers
from tests.promises.hostile import ROI, ROLE, SIDE
from tests.promises.process_memory import rss_mib

CODES = {kind.code for kind in ERRORS} | {"not_found", "method_not_allowed"}
ANSWERS = {"/infer": InferAnswer, "/infer_batch": BatchAnswer, "/fit_ok": FitAnswer, "/calibrate_ng": CalibrateAnswer}
OK = [png(steel(i, (SIDE, SIDE))) for i in range(3)]
FORM = {"role_id": ROLE, "roi_id": ROI, "mm_per_px": "0.2"}
WARM_UP = 60
GROWTH_MIB = 150
"""Memory that a gateway may use more after any number of requests than after the warm-up, in MiB."""


@dataclass
class Target:
    """A gateway to fuzz, and the files that it must not change."""

    gateway: Gateway
    root: Path
    statuses: dict[int, int] = field(default_factory=dict)

    def send(self, method: str, path: str | httpx.URL, **request) -> httpx.Response:
        """Send a request and check the answer. No answer within the client's timeout is a failure."""
        reply = self.gateway.client.request(method, path, timeout=60, **request)
        self.judge(reply.status_code, reply.content, reply.headers, str(path))
        return reply

    def judge(self, status: int, content: bytes, headers, path: str) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        assert status < 500, content
        assert headers["x-request-id"]
        assert headers["x-content-type-options"] == "nosniff"
        if status >= 400:
            body = json.loads(content)
            assert list(body) == ["error"]
            assert list(body["error"]) == ["code", "message", "hint"]
            assert body["error"]["code"] in CODES
            assert len(body["error"]["message"]) < 1000
        elif status == 200 and path in ANSWERS:
            ANSWERS[path].model_validate_json(content)

    def fit(self) -> None:
        self.send("POST", "/fit_ok", data=FORM, files=[("images", image) for image in OK])

    def inspected(self) -> dict:
        answer = self.send("POST", "/infer", data=FORM, files=[("image", OK[0])]).json()
        return {key: answer[key] for key in ("score", "token_shape", "image_size", "heatmap_png_base64")}


@pytest.fixture(scope="module")
def fuzzed(launch, small_model_repository, tmp_path_factory) -> Iterator[Target]:
    root = tmp_path_factory.mktemp("canaries")
    site = plant(root)
    folders = {f"{name.removesuffix('s') if name == 'heatmaps' else name}_dir": site / name for name in OURS}
    with launch("fuzzed", model_repository=small_model_repository, fit_lock_timeout_s=5, **folders) as gateway:
        target = Target(gateway, root)
        target.fit()
        for _ in range(WARM_UP):
            target.inspected()
        yield target


@pytest.fixture
def target(fuzzed, record_property) -> Iterator[Target]:
    """The gateway with an undamaged ROI. After the test, check the ROI, the memory and the files around it."""
    fuzzed.fit()
    before = fuzzed.inspected()
    around, memory = listing(fuzzed.root), rss_mib(fuzzed.gateway.process.pid)
    fuzzed.statuses.clear()
    yield fuzzed
    grown = rss_mib(fuzzed.gateway.process.pid) - memory
    by_status = dict(sorted(fuzzed.statuses.items()))
    record_property("fuzzed", f"{sum(by_status.values())} requests, by status {by_status}, {grown:+.1f} MiB")
    assert {200, 422} <= by_status.keys() or {200, 415} <= by_status.keys(), "all refused, or none: that tries little"
    assert listing(fuzzed.root) == around
    assert strangers(fuzzed.gateway.models_dir) == []
    assert grown < GROWTH_MIB
    fuzzed.send("DELETE", f"/rois/{ROLE}/{ROI}")
    fuzzed.fit()
    assert fuzzed.inspected() == before
    assert "Traceback" not in fuzzed.gateway.log.read_text()


def examples(strategy: st.SearchStrategy, n: int, check) -> None:
    """Run a check on n examples of a strategy. They are the same in every run."""
    everything = list(HealthCheck)

    @settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=everything,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(strategy)
    def run(example) -> None:
        check(example)

    run()


def test_requests_made_from_the_openapi_document_are_answered_as_it_says(target, full):
    # Imported here, since it takes a worker seconds.
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as of_document

    url = f"http://127.0.0.1:{target.gateway.port}"
    schema = schemathesis.openapi.from_dict(requests.get(f"{url}/openapi.json", timeout=60).json())
    operations = [result.ok() for result in schema.get_all_operations()]
    checks = [
        not_a_server_error,
        of_document.status_code_conformance,
        of_document.content_type_conformance,
        of_document.response_schema_conformance,
    ]
    with requests.Session() as session:

        def check(case) -> None:
            response = case.call(base_url=url, session=session, timeout=60)
            headers = {name: values[0] for name, values in response.headers.items()}
            target.judge(response.status_code, response.content, headers, case.path)
            case.validate_response(response, checks=checks)

        for operation in operations:
            has_parameters = bool(operation.body) or "{" in operation.path
            for mode in list(schemathesis.GenerationMode) if has_parameters else [schemathesis.GenerationMode.POSITIVE]:
                n = (350 if full else 8) if has_parameters else (50 if full else 3)
                examples(operation.as_strategy(generation_mode=mode), n, check)


def test_any_bytes_of_a_form_are_answered(target, full):
    def check(drawn) -> None:
        path, content_type, body = drawn
        target.send("POST", path, content=body, headers=[(b"Content-Type", content_type)])

    examples(hostile.forms(), 4000 if full else 60, check)


def test_any_image_is_answered(target, full):
    def check(drawn) -> None:
        path, image = drawn
        field = "images" if path == "/fit_ok" else "image"
        form = {**FORM, "roi_id": "hostile"} if path == "/fit_ok" else {**FORM, "heatmap": "none"}
        reply = target.send("POST", path, data=form, files=[(field, image)])
        nothing_to_learn = path == "/fit_ok" and reply.status_code == 422 and "shows nothing" in reply.text
        assert reply.status_code in (200, 413, 415) or nothing_to_learn, reply.text

    paths = st.sampled_from(["/infer"] * 19 + ["/fit_ok"])
    examples(st.tuples(paths, hostile.IMAGES), 6000 if full else 100, check)


def test_any_shape_and_any_json_is_answered(target, full):
    def check(drawn) -> None:
        kind, text = drawn
        if kind == "calibration":
            target.send("POST", "/calibrate_ng", content=text, headers={"Content-Type": "application/json"})
        elif kind == "items":
            form = {"items": text.decode(errors="replace")}
            # About as many as there are items, so that most requests get past the count.
            target.send("POST", "/infer_batch", data=form, files=[("images", OK[0])] * max(1, text.count(b'"role_id"')))
        else:
            form = {**FORM, "heatmap": "none", "shape": text.decode(errors="replace")}
            target.send("POST", "/infer", data=form, files=[("image", OK[0])])

    kinds = {"calibration": hostile.CALIBRATIONS, "items": hostile.ITEMS, "shape": hostile.SHAPES}
    any_of_them = st.one_of(
        [st.tuples(st.just(kind), hostile.json_text(st.one_of(s, s, s, hostile.ANY_JSON))) for kind, s in kinds.items()]
    )
    examples(any_of_them, 4000 if full else 80, check)


def test_no_id_leads_out_of_the_models_folder(target, full):
    def check(drawn) -> None:
        role_id, roi_id, recipe_id, sha256, bare, way = drawn
        encode = functools.partial(hostile.percent_encoded, bare=bare)
        recipe = {} if recipe_id is None else {"recipe_id": recipe_id}
        form = {"role_id": role_id, "roi_id": roi_id, "mm_per_px": "0.2", **recipe}
        form |= {"heatmap": "path"} if way == "/infer" else {}
        form = {name: value.encode(errors="surrogatepass") for name, value in form.items()}
        if way in ("/fit_ok", "/infer"):
            field = "images" if way == "/fit_ok" else "image"
            target.send("POST", way, data=form, files=[(field, (role_id[:200], OK[0]))])
        elif way == "/calibrate_ng":
            body = {"role_id": role_id, "roi_id": roi_id, "mm_per_px": 0.2, "ok_scores": [0.5], **recipe}
            target.send("POST", way, content=json.dumps(body), headers={"Content-Type": "application/json"})
        else:
            method, *end = way.split(" ")
            path = b"/rois/" + encode(role_id) + b"/" + encode(roi_id)
            path += {"": b"", "ok": b"/ok/" + encode(sha256), "drift": b"/drift"}["".join(end)]
            if recipe_id is not None:
                path += b"?recipe_id=" + encode(recipe_id)
            target.send(method, httpx.URL(str(target.gateway.client.base_url)).copy_with(raw_path=path))

    ways = ["/fit_ok", "/infer", "/calibrate_ng", "GET", "DELETE", "DELETE ok", "GET drift"]
    bare = st.sampled_from(["", "/", "/.", "/.:~", "%", "/.%"])

    def mostly(good: str | None) -> st.SearchStrategy:
        return st.sampled_from([True, True, False]).flatmap(lambda is_good: st.just(good) if is_good else hostile.IDS)

    roles, rois, recipes = mostly(ROLE), mostly(ROI), mostly(None)
    examples(
        st.tuples(roles, rois, recipes, hostile.IDS, bare, st.sampled_from(ways)),
        4000 if full else 100,
        check,
    )
