"""Several desktop GUIs at one gateway, known by their addresses: nothing is lost, nothing is mixed."""

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.dotnet_multipart import exchange
from tests.e2e.gateway_process import answered as core_answered
from tests.e2e.gui_client import MM, SHAPE, Gui, answered, part, spoiled, text_of
from tests.promises.keys import bearer, make_key

_HANG_S = 900
_FIT_BYTES = 206 * 2**20
"""Enough for a fit with a coreset, too little for one that keeps every token."""
OK = [part(seed) for seed in range(500, 510)]


@pytest.fixture(scope="module")
def site(launch):
    """A gateway that knows this host as the key "desktop", with the dialect at / too."""
    admin, everything = make_key("admin", "teach", "*")
    _, desktop = make_key("desktop", "teach", "*/Inspection/*", "Inspection/*")
    with launch(
        "gui",
        api_keys=json.dumps([everything, desktop]),
        gui_clients="127.0.0.0/8=desktop",
        gui_root=True,
        max_fit_memory_bytes=_FIT_BYTES,
    ) as gateway:
        gateway.client.headers.update(bearer(admin))
        yield gateway
        crashes = gateway.log.read_text().count("Traceback")
    assert crashes == 0


def trained(gui: Gui) -> Gui:
    answered(gui.upload("ok", OK))
    answered(gui.fit())
    answered(gui.post_json("calibrate_dataset", default_mm_per_px=MM, require_ng=False))
    return gui


def test_four_guis_on_one_recipe_collect_and_inspect_while_one_of_them_trains(site, full, record_property):
    rounds = 12 if full else 3
    quiet, trainer = trained(Gui(site.port, "quiet")), trained(Gui(site.port, "busy"))
    before = answered(quiet.infer(part(599))), quiet.files("ok")

    def train() -> int:
        for _ in range(rounds):
            answered(trainer.fit())
            answered(trainer.post_json("calibrate_dataset", default_mm_per_px=MM, require_ng=False))
        return 0

    def collect_and_inspect(n: int) -> tuple[dict[str, bytes], dict[str, bytes], int]:
        gui, kept, inspected = Gui(site.port, "busy"), {"ok": {}, "ng": {}}, 0
        for i in range(rounds):
            seed = 1000 + 100 * n + 4 * i
            for label, images in (("ok", [part(seed), part(seed + 1)]), ("ng", [spoiled(seed + 2)])):
                saved = answered(gui.upload(label, images))["saved"]
                kept[label] |= dict(zip(saved, images, strict=True))
            moved, image = next(iter(kept["ok"].items()))
            if i % 2:
                assert answered(gui.ask("DELETE", "datasets/file", **gui.names, label="ok", filename=moved))["deleted"]
                assert answered(gui.upload("ng", [image]))["saved"] == [moved]
                kept["ng"][moved] = kept["ok"].pop(moved)
            for each in (part(seed + 3), spoiled(seed + 2)):
                answer = answered(gui.infer(each))
                assert answer["recipe_id"] == "busy"
                assert (answer["score"] > answer["threshold"]) == (answer["decision"] == "ng")
                inspected += 1
        return kept["ok"], kept["ng"], inspected

    with ThreadPoolExecutor(4) as pool:
        training = pool.submit(train)
        others = [each.result(_HANG_S) for each in [pool.submit(collect_and_inspect, n) for n in range(3)]]
        training.result(_HANG_S)

    for label, index in (("ok", 0), ("ng", 1)):
        acknowledged = {name: image for other in others for name, image in other[index].items()}
        if label == "ok":
            acknowledged |= dict(zip(quiet.files("ok"), OK, strict=True))
        assert sorted(trainer.files(label)) == sorted(acknowledged)
        for name, image in acknowledged.items():
            reply = trainer.ask("GET", "datasets/file", **trainer.names, label=label, filename=name)
            assert (reply.status, reply.content == image) == (200, True)
    assert answered(trainer.fit())["n_ok"] == len(trainer.files("ok"))
    assert answered(trainer.post_json("infer_dataset", include_heatmap=False))["n_errors"] == 0
    after = answered(quiet.infer(part(599))), quiet.files("ok")
    assert [{**answer, "request_id": ""} for answer, _ in (before, after)] == [{**before[0], "request_id": ""}] * 2
    assert before[1] == after[1]
    record_property(
        "images kept and inspections", (sum(len(a) + len(b) for a, b, _ in others), sum(n for *_, n in others))
    )


def test_a_gui_is_known_by_its_address_and_the_audit_trail_names_its_key(site):
    gui = trained(Gui(site.port, "audited"))
    trail = core_answered(site.client.get("/rois/Inspection/inspection-1/audit", params={"recipe_id": "audited"}))
    assert [(entry["action"], entry["actor"]) for entry in trail["entries"][::-1]] == [
        ("store_images", "desktop"),
        ("fit", "desktop"),
        ("calibrate", "desktop"),
    ]
    foreign = Gui(site.port, "audited")
    foreign.names["role_id"] = "Master1"
    assert foreign.ask("GET", "state", **foreign.names).status == 403
    unauthorized = site.client.get("/rois", headers={"Authorization": ""})
    assert unauthorized.status_code == 401, "the address opens the dialect alone"
    assert answered(gui.infer(part(1)))["decision"]


def test_a_fit_that_keeps_every_token_is_refused_beyond_the_memory_of_fits(site):
    gui = Gui(site.port, "large")
    answered(gui.upload("ok", OK))
    reply = gui.fit(memory_fit=True)
    assert reply.status == 413
    assert "memory_fit" in text_of(reply)
    assert "without memory_fit" in text_of(reply)
    answered(gui.fit(memory_fit=False))


_TEXTS = [
    "",
    "null",
    "0",
    "-1",
    "1e999",
    "nan",
    "0,5",
    "0.5",
    "true",
    "[]",
    "{}",
    "[" * 99,
    "last",
    "..",
    "a/b",
    "é",
    "\0",
]
_TEXTS += ["x" * 3000, SHAPE, '{"kind": "rect", "x": 1e5, "y": 0, "w": 1, "h": 1}', "99", "ok", "Inspection"]
_VALUES = [
    None,
    True,
    0,
    -1,
    0.5,
    1e308,
    10**400,
    "",
    "nan",
    "last",
    "é",
    [],
    ["ok"],
    ["NaN"],
    {},
    {"a": [[1]]},
    "x" * 3000,
]
_FORMS = ["infer", "fit_ok", "datasets/ok/upload", "datasets/ng/upload"]
_BODIES = ["calibrate_ng", "calibrate_dataset", "infer_dataset"]
_QUERIES = [("GET", "state"), ("GET", "manifest"), ("GET", "health"), ("DELETE", "datasets/file")]
_QUERIES += [("GET", f"datasets/{each}") for each in ("list", "file", "meta")]


def test_any_request_of_a_gui_is_answered(site, full, record_property):
    rng = random.Random(7)
    names = trained(Gui(site.port, "fuzzed")).names
    statuses: Counter[int] = Counter()

    def some(known: dict[str, Any], values: list[Any], *fields: str) -> dict[str, Any]:
        """The known fields, now and then without one or with another value, and some of the other fields."""
        sent = {name: value for name, value in known.items() if rng.random() < 0.97}
        return sent | {name: rng.choice(values) for name in fields if rng.random() < 0.15}

    def form() -> httpx.Request:
        path = rng.choice(_FORMS)
        fields = ("shape", "include_heatmap", "memory_fit", "use_dataset", "recipe_id", "metas", "mm_per_px", "roi_id")
        data = some({**names, "mm_per_px": str(MM)}, _TEXTS, *fields)
        image = part(rng.randrange(500, 520)) if rng.random() < 0.8 else rng.randbytes(rng.randrange(200))
        return site.client.build_request(
            "POST", f"/gui/{path}", data=data, files={"image" if path == "infer" else "images": ("x.png", image)}
        )

    def body() -> httpx.Request:
        fields = ("ok_scores", "ng_scores", "area_mm2_thr", "score_percentile", "require_ng", "labels", "recipe_id")
        sent = some({**names, "mm_per_px": MM}, _VALUES, *fields, "include_heatmap", "default_mm_per_px", "role_id")
        kind = {"Content-Type": "application/json"}
        return site.client.build_request(
            "POST", f"/gui/{rng.choice(_BODIES)}", content=json.dumps(sent).encode(), headers=kind
        )

    def query() -> httpx.Request:
        method, path = rng.choice(_QUERIES)
        params = some(
            {**names, "label": "ok", "filename": "x.png"}, _TEXTS, "label", "filename", "role_id", "recipe_id"
        )
        return site.client.build_request(method, f"/gui/{path}", params=params)

    for _ in range(1000 if full else 60):
        for request in (form(), body(), query()):
            del request.headers["Authorization"]
            request.headers["X-Recipe-Id"] = rng.choice(["fuzzed"] * 5 + ["last", "%ff", "", "x" * 90])
            reply = site.client.send(request)
            statuses[reply.status_code] += 1
            assert reply.status_code < 500, (request.url, reply.text)
            if reply.headers["content-type"] == "application/json":
                assert {"request_id", "recipe_id"} <= reply.json().keys()
    assert {200, 400, 404, 415, 422} <= statuses.keys()
    record_property("answers by status", dict(sorted(statuses.items())))


def test_without_the_right_a_gui_is_refused_before_its_body_is_read(site):
    for path in ("/gui/fit_ok", "/gui/datasets/ok/upload", "/calibrate_dataset"):
        lines = [f"POST {path} HTTP/1.1", "Host: gateway", "Connection: close", "Content-Length: 500000000"]
        lines += ["Authorization: Bearer pcg_wrong", "Content-Type: multipart/form-data; boundary=x", "", "--x"]
        assert exchange(site.port, "\r\n".join(lines).encode()).status == 401


def test_at_the_root_the_gui_and_the_api_are_served_side_by_side(site):
    gui = trained(Gui(site.port, None, base="", roi="inspection-2"))
    answer = answered(gui.infer(part(599)))
    assert (answer["decision"], answer["recipe_id"]) == ("ok", "default")
    core = site.infer("inspection-2", part(599), role="Inspection", mm_per_px=MM)
    assert (core["verdict"], core["recipe_id"]) == ("ok", "default")
    assert "decision" not in core
    fitted = site.fit("inspection-3", OK[:2], role="Inspection")
    assert fitted["n_ok_total"] == 2
    assert answered(Gui(site.port, "A", base="").ask("GET", "health"))["recipe_id"] == "A"
    counted = site.client.get("/metrics").text
    assert 'gateway_requests_total{code="ok",endpoint="/datasets/{label}/upload"}' in counted
