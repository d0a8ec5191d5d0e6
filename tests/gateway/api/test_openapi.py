"""The API document: valid in both versions, and in forms that client generators turn into plain classes."""

import inspect
import re

import pytest
from fastapi import APIRouter
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from gateway.api.openapi.document import operations, parts
from gateway.api.openapi.version_3_0 import as_3_0
from gateway.api.routes import calibrate, drift, fit, health, images, infer, report, rois, stored_images
from gateway.app import create_app
from gateway.settings import Settings
from tests.e2e.test_api_document import with_null

FILES = {
    ("InferForm", "image"),
    ("InferBatchForm", "images"),
    ("FitOkForm", "images"),
    ("StoreImagesForm", "images"),
}
IDS = {"infer", "inferBatch", "fitOk", "calibrateNg", "listRois", "getRoi", "deleteRoi", "rollback", "health", "ready"}


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    return create_app(Settings(_env_file=None, models_dir=folder, state_dir=folder))


@pytest.fixture(scope="module")
def latest(app):
    return app.openapi()


@pytest.fixture(scope="module")
def plain(app):
    """The document as OpenAPI 3.0.3."""
    return app.openapi_3_0


@pytest.fixture(scope="module", params=["3.1.", "3.0.3"])
def document(request, app):
    found = app.openapi() if request.param == "3.1." else app.openapi_3_0
    assert found["openapi"].startswith(request.param)
    return found


def nodes(value):
    """Every object of a document, however deep."""
    if isinstance(value, dict):
        yield value
        value = value.values()
    if not isinstance(value, str | int | float | bool | None):
        for each in value:
            yield from nodes(each)


def schemas(document):
    """Every schema of a document: components, their properties and items, and parameters."""
    for component in document["components"]["schemas"].values():
        yield from parts(component)
        for prop in component.get("properties", {}).values():
            yield from parts(prop)
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            yield from parts(parameter["schema"])


def test_the_document_is_valid(document):
    validate(without_unicode_classes(document))
    with pytest.raises(OpenAPIValidationError):
        validate(without_unicode_classes({**document, "info": {}}))


def without_unicode_classes(node):
    """Leave out patterns with `\\p{…}`: they are those of ECMA-262, and the validator checks them by Python's re."""
    if isinstance(node, list):
        return [without_unicode_classes(each) for each in node]
    if isinstance(node, dict):
        kept = {key: value for key, value in node.items() if not (key == "pattern" and "\\p{" in value)}
        return {key: without_unicode_classes(value) for key, value in kept.items()}
    return node


def test_every_file_is_binary_and_nothing_else_is(document):
    found = {
        (owner, name)
        for owner, schema in document["components"]["schemas"].items()
        for name, prop in schema.get("properties", {}).items()
        if any(part.get("format") == "binary" for part in parts(prop))
    }
    assert found == FILES
    assert not any("contentMediaType" in schema for schema in schemas(document))


def test_operation_ids_are_short_and_tags_name_the_classes(document):
    found = [operation["operationId"] for operation in operations(document)]
    assert set(found) >= IDS
    assert len(set(found)) == len(found)
    assert all(each.isalnum() and len(each) <= 20 for each in found), found
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for operation in operations(document) for tag in operation["tags"]} == tags


def test_every_error_has_the_one_schema_of_errors(document):
    for operation in operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert "500" in errors, "any operation may fail"
        for status, answer in errors.items():
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}, (operation["operationId"], status)


def test_every_enum_has_a_name(document):
    components = document["components"]["schemas"].values()
    inline = [schema for schema in schemas(document) if "enum" in schema and schema not in components]
    assert inline == []
    assert document["components"]["schemas"]["Verdict"]["enum"] == ["ok", "review", "ng", "uncalibrated"]


def test_a_form_is_flat_and_bears_the_name_of_its_operation(document):
    for operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        if "multipart/form-data" in content:
            name = operation["operationId"]
            expected = f"#/components/schemas/{name[0].upper()}{name[1:]}Form"
            assert content["multipart/form-data"]["schema"] == {"$ref": expected}
    assert not any(name.startswith("Body") for name in document["components"]["schemas"])


def test_the_server_is_relative_and_the_key_a_bearer_token(document):
    assert document["servers"] == [{"url": "/"}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    by_id = {operation["operationId"]: operation for operation in operations(document)}
    assert by_id["infer"]["security"] == [{"key": []}]


def test_an_example_is_an_instance_of_its_schema(plain):
    components = with_null(plain["components"])
    found = {name: schema["example"] for name, schema in components["schemas"].items() if "example" in schema}
    assert {"InferAnswer", "FitAnswer", "CalibrateAnswer", "CalibrateRequest"} <= found.keys()
    for name, example in found.items():
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        assert [error.message for error in OAS30Validator(schema).iter_errors(example)] == [], name


class TestVersion30:
    def test_nothing_of_3_1_is_left(self, plain):
        new = {"prefixItems", "const", "examples", "contentMediaType", "title", "propertyNames"}
        for schema in schemas(plain):
            assert new & schema.keys() == set(), schema
            re.compile(schema.get("pattern", ""))
            assert schema.get("type") != "null"
            assert not isinstance(schema.get("exclusiveMinimum"), float | int) or schema["exclusiveMinimum"] is True

    def test_there_is_no_union_and_allof_only_makes_a_reference_nullable(self, plain):
        for schema in schemas(plain):
            assert {"anyOf", "oneOf"} & schema.keys() == set(), schema
            assert "allOf" not in schema or (schema["nullable"] and len(schema["allOf"]) == 1)
        for name, schema in plain["components"]["schemas"].items():
            if name.endswith("Form"):
                assert not any("allOf" in prop or "nullable" in prop for prop in schema["properties"].values())

    def test_numbers_and_integers_name_their_size(self, plain):
        for schema in schemas(plain):
            if schema.get("type") == "number":
                assert schema["format"] == "double"
            if schema.get("type") == "integer":
                assert schema["format"] in ("int32", "int64")
        assert plain["components"]["schemas"]["FitAnswer"]["properties"]["seed"]["format"] == "int64"

    def test_an_item_of_a_batch_is_one_class_with_an_error_that_may_be_null(self, plain):
        components = plain["components"]["schemas"]
        results = components["BatchAnswer"]["properties"]["results"]
        assert results["items"] == {"$ref": "#/components/schemas/BatchResult"}
        assert components["BatchResult"]["properties"].keys() == {*components["InferAnswer"]["properties"], "error"}
        assert all(prop["nullable"] for prop in components["BatchResult"]["properties"].values())
        assert "required" not in components["BatchResult"]

    def test_an_answer_has_one_type(self, plain):
        """A client that accepts JSON or a page gets a page."""
        for operation in operations(plain):
            content = operation["responses"]["200"]["content"]
            assert len(content) == 1 or all(each["schema"].get("format") == "binary" for each in content.values())

    def test_a_field_that_may_be_sent_in_several_places_is_named_once(self, plain):
        components = plain["components"]["schemas"]
        for operation in operations(plain):
            names = [parameter["name"] for parameter in operation.get("parameters", ())]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                names += components[content["schema"]["$ref"].rpartition("/")[2]]["properties"]
            assert len(set(names)) == len(names), operation["operationId"]
            assert "X-Recipe-Id" not in names

    def test_the_latest_version_stays_as_it_is(self, latest):
        before = str(latest)
        as_3_0(latest)
        assert str(latest) == before


def test_schemas_convert_as_the_table_says():
    """Small schemas that one can check by eye."""
    text = {"type": "string", "title": "Name"}
    null = {"type": "null"}
    pair = {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "minItems": 2, "maxItems": 2}
    colour = {"$ref": "#/components/schemas/Colour"}
    answer = {
        "type": "object",
        "required": ["name", "colour", "pair"],
        "properties": {
            "name": {"anyOf": [text, null]},
            "colour": {"anyOf": [colour, null], "description": "of the part"},
            "pair": pair,
            "share": {"type": "number", "exclusiveMinimum": 0},
        },
    }
    request = {"type": "object", "properties": {"either": {"anyOf": [{"type": "number"}, text, null]}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}}}
    document = {
        "openapi": "3.1.0",
        "paths": {"/": {"post": {"requestBody": {"content": content}, "responses": {}}}},
        "components": {
            "schemas": {"Answer": answer, "Colour": {"type": "string", "enum": ["red"]}, "Request": request},
            "securitySchemes": {},
        },
    }
    found = as_3_0(document)["components"]["schemas"]
    assert found["Answer"] == {
        "type": "object",
        "required": ["name", "pair"],
        "properties": {
            "name": {"type": "string", "nullable": True},
            "colour": {"allOf": [colour], "description": "of the part", "nullable": True},
            "pair": {"type": "array", "items": {"type": "integer", "format": "int32"}, "minItems": 2, "maxItems": 2},
            "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "format": "double"},
        },
    }
    assert found["Request"]["properties"]["either"] == {"type": "string", "nullable": True}


def test_no_dependency_of_a_route_takes_a_worker_thread():
    def called(dependant):
        for each in dependant.dependencies:
            yield each.call
            yield from called(each)

    modules = (calibrate, drift, fit, health, images, infer, report, rois, stored_images)
    routers = [each for module in modules for each in vars(module).values() if isinstance(each, APIRouter)]
    calls = {call for router in routers for route in router.routes for call in called(route.dependant)}
    assert len(calls) >= 3
    assert all(inspect.iscoroutinefunction(call) for call in calls), calls
