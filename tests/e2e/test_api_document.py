"""What the gateway answers is what its API document says, key by key."""

import json

import pytest
from openapi_schema_validator import OAS30Validator

from tests.e2e.gateway_process import wait_until
from tests.e2e.synthetic_images import png, steel

OPTIONAL = {"BatchResult"}
"""Schemas that stand for one of several answers."""


@pytest.fixture(scope="module")
def document(gateway):
    return gateway.client.get("/openapi-3.0.json").json()


@pytest.fixture(scope="module")
def documented(gateway):
    """An ROI with a calibration."""
    gateway.fit("documented", [png(steel(seed)) for seed in (0, 1, 2)])
    gateway.calibrate("documented")
    return "/rois/steel/documented"


def inspect(gateway, **fields):
    return gateway.post("/infer", "documented", [png(steel(9))], "image", fields=fields)


def inspect_two(gateway):
    item = {"role_id": "steel", "roi_id": "documented", "mm_per_px": 0.2}
    items = json.dumps([item, {**item, "roi_id": "never"}])
    return gateway.client.post("/infer_batch", data={"items": items}, files=[("images", png(steel(9)))] * 2)


def image_path(gateway, roi, index=-1):
    return f"{roi}/images/{gateway.client.get(f'{roi}/images').json()['images'][index]['id']}"


def inspection_path(gateway, roi):
    wait_until(lambda: gateway.client.get(f"{roi}/inspections").json()["inspections"])
    return f"{roi}/inspections/{gateway.client.get(f'{roi}/inspections').json()['inspections'][0]['id']}"


def calibrate(gateway, **fields):
    body = {"role_id": "steel", "roi_id": "documented", "mm_per_px": 0.2, **fields}
    return gateway.client.post("/calibrate_ng", json=body)


# In this order: what is deleted comes last.
REQUESTS = {
    "health": lambda gateway, roi: gateway.client.get("/health"),
    "ready": lambda gateway, roi: gateway.client.get("/ready"),
    "metrics": lambda gateway, roi: gateway.client.get("/metrics", headers={"Accept": "text/plain"}),
    "fitOk": lambda gateway, roi: gateway.post("/fit_ok", "documented", [png(steel(3))], "images"),
    "calibrateNg": lambda gateway, roi: calibrate(gateway),
    "infer": lambda gateway, roi: inspect(gateway),
    "inferBatch": lambda gateway, roi: inspect_two(gateway),
    "listRois": lambda gateway, roi: gateway.client.get("/rois"),
    "getRoi": lambda gateway, roi: gateway.client.get(roi),
    "fitProgress": lambda gateway, roi: gateway.client.get(f"{roi}/fit"),
    "getPeaks": lambda gateway, roi: gateway.client.get(f"{roi}/peaks"),
    "audit": lambda gateway, roi: gateway.client.get(f"{roi}/audit"),
    "drift": lambda gateway, roi: gateway.client.get(f"{roi}/drift"),
    "report": lambda gateway, roi: gateway.client.get(f"{roi}/report", headers={"Accept": "application/json"}),
    "storeImages": lambda gateway, roi: gateway.client.post(
        f"{roi}/images", data={"label": "ng"}, files=[("images", png(steel(8))), ("images", png(steel(7)))]
    ),
    "listImages": lambda gateway, roi: gateway.client.get(f"{roi}/images"),
    "getImage": lambda gateway, roi: gateway.client.get(image_path(gateway, roi)),
    "getThumbnail": lambda gateway, roi: gateway.client.get(f"{image_path(gateway, roi)}/thumbnail"),
    "getImageMetadata": lambda gateway, roi: gateway.client.get(f"{image_path(gateway, roi)}/metadata"),
    "changeImage": lambda gateway, roi: gateway.client.patch(image_path(gateway, roi), json={"label": "ng"}),
    "deleteImage": lambda gateway, roi: gateway.client.delete(image_path(gateway, roi)),
    "deleteImages": lambda gateway, roi: gateway.client.delete(f"{roi}/images", params={"label": "ng"}),
    "listInspections": lambda gateway, roi: gateway.client.get(f"{roi}/inspections"),
    "getInspectedImage": lambda gateway, roi: gateway.client.get(f"{inspection_path(gateway, roi)}/image"),
    "getInspectedSmall": lambda gateway, roi: gateway.client.get(f"{inspection_path(gateway, roi)}/thumbnail"),
    "deleteOkImage": lambda gateway, roi: gateway.client.delete(
        f"{roi}/ok/{gateway.client.get(roi).json()['images'][0]['sha256']}"
    ),
    "compareVersions": lambda gateway, roi: gateway.client.get(f"{roi}/comparison", params={"before": 1, "after": 2}),
    "rollback": lambda gateway, roi: gateway.client.post(f"{roi}/rollback", json={"version": 1}),
    "deleteRoi": lambda gateway, roi: gateway.client.delete(roi),
}


def test_every_answer_has_just_the_documented_keys(gateway, document, documented):
    described = {
        operation["operationId"]: operation["responses"]["200"]["content"]
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    assert described.keys() <= REQUESTS.keys(), "a new operation needs a request here"
    for name, send in REQUESTS.items():
        reply = send(gateway, documented)
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].partition(";")[0] in described[name], name
        if "application/json" not in described[name]:
            continue
        schema = described[name]["application/json"]["schema"]
        validator = OAS30Validator({**schema, "components": with_null(document["components"])})
        assert [error.message for error in validator.iter_errors(reply.json())] == [], name
        assert list(strangers(schema, reply.json(), document, name)) == []


def with_null(node):
    """Say of a nullable reference what generators understand by it. Read strictly, `allOf` refuses null."""
    if isinstance(node, list):
        return [with_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "allOf" in node:
        return {"oneOf": [{"enum": [None], "nullable": True}, *node["allOf"]]}
    return {key: with_null(value) for key, value in node.items()}


def strangers(schema, value, document, where):
    """Yield keys that an answer has and the document lacks, and keys that it lacks."""
    schema = schema["allOf"][0] if "allOf" in schema else schema
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = document["components"]["schemas"][name] if name else schema
    if isinstance(value, list):
        for each in value:
            yield from strangers(schema["items"], each, document, f"{where}[]")
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        differing = value.keys() - known.keys() if name in OPTIONAL else value.keys() ^ known.keys()
        yield from (f"{where}.{key}" for key in sorted(differing))
        for key in value.keys() & known.keys():
            yield from strangers(known[key], value[key], document, f"{where}.{key}")


def test_a_union_of_a_request_may_be_sent_as_text(gateway, document):
    """Which the 3.0 document declares."""
    fields = document["components"]["schemas"]["CalibrateRequest"]["properties"]
    assert {fields[name]["type"] for name in ("pixel_threshold", "shape")} == {"string"}
    gateway.fit("documented", [png(steel(seed)) for seed in (0, 1, 2)])
    assert calibrate(gateway, pixel_threshold="0.75").json()["pixel_threshold"] == 0.75
    assert calibrate(gateway, shape='{"kind": "circle", "r": 90}').status_code == 200


def test_the_address_in_the_document_is_that_of_the_gateway(launch, small_model_repository):
    """Behind a proxy that adds a prefix, a client would otherwise miss it."""
    command = ("-m", "uvicorn", "gateway.app:app", "--port", "{port}", "--root-path", "/vision")
    with launch("prefixed", command=command, model_repository=small_model_repository) as started:
        for path in ("/openapi.json", "/openapi-3.0.json"):
            assert started.client.get(path).json()["servers"] == [{"url": "/vision"}]
