"""The OpenAPI 3.1 document: what FastAPI makes of the routes, completed for people and for client generators."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute

from gateway.api.openapi.enums import enum_name
from gateway.api.security.document import document_access
from gateway.errors import GatewayError

Node = dict[str, Any]
"""An object of the document."""

SCHEMAS = "#/components/schemas/"
_ERROR = {"$ref": f"{SCHEMAS}ErrorEnvelope"}
_TAGS = {
    "inspect": "Inspection of images.",
    "images": "Images of an ROI with labels, learned or not.",
    "inspections": "Images that were inspected lately, where the gateway keeps them.",
    "teach": "Learning, calibration, and every change of what is stored.",
    "status": "What is stored, how it fares, and the state of the process.",
}


def operation_id(route: APIRoute) -> str:
    """Return the id of an operation: the name of its function in camel case, such as `fitOk`."""
    first, *others = route.name.split("_")
    return first + "".join(word.capitalize() for word in others)


def completed(document: Node) -> Node:
    """Complete, in place, the document that FastAPI makes.

    Files are `format: binary`, which generators understand; FastAPI's `contentMediaType` makes them declare a text.
    Forms and enums have names of their own. Every error has the one schema of errors. Operations name the key that
    they need.
    """
    schemas: Node = document["components"]["schemas"]
    document["servers"] = [{"url": "/"}]
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    _name_forms(document)
    for owner, name, schema in list(_properties(document)):
        for part in parts(schema):
            if part.pop("contentMediaType", None) == "application/octet-stream":
                part["format"] = "binary"
            if "enum" in part and part["type"] == "string":
                _name_enum(part, schemas, owner, name)
    for schema in schemas.values():
        _require_constants(schema)
        for example in schema.get("examples", ()):
            _restore_nulls(example, schema, schemas)
    _type_answers(document)
    _only_one_error(document)
    return document_access(document)


def operations(document: Node) -> Iterator[Node]:
    """Yield every operation of a document."""
    for methods in document["paths"].values():
        yield from methods.values()


def parts(schema: Node) -> Iterator[Node]:
    """Yield a schema and the schemas inside it."""
    yield schema
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for each in schema.get(key, ()):
            yield from parts(each)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key])


def name_of(reference: Node) -> str:
    """Return the name of the schema that a `$ref` names."""
    return str(reference["$ref"]).removeprefix(SCHEMAS)


def _properties(document: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield the schema of each property and parameter, with its owner and its name."""
    for owner, schema in document["components"]["schemas"].items():
        for name, prop in schema.get("properties", {}).items():
            yield owner, name, prop
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            owner = operation["operationId"]
            yield owner[0].upper() + owner[1:], parameter["name"], parameter["schema"]


def _name_forms(document: Node) -> None:
    """Name the body of a form after its operation: `FitOkForm`."""
    schemas = document["components"]["schemas"]
    for operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            found = re.fullmatch(r"Body_(\w+)", name_of(content["schema"]))
            if found is not None:
                name = f"{found[1][0].upper()}{found[1][1:]}Form"
                schemas[name] = {**schemas.pop(found[0]), "title": name}
                content["schema"] = {"$ref": f"{SCHEMAS}{name}"}


def _name_enum(part: Node, schemas: Node, owner: str, name: str) -> None:
    values = part.pop("enum")
    enum = enum_name(values, owner, name)
    schemas.setdefault(enum, {"type": part.pop("type"), "enum": values, "title": enum})
    part.pop("type", None)
    part["$ref"] = f"{SCHEMAS}{enum}"


def _require_constants(schema: Node) -> None:
    """Require properties of one value, such as `deleted`: their default is for the code that makes the answer."""
    for name, prop in schema.get("properties", {}).items():
        if "const" in prop and name not in schema.get("required", ()):
            schema.setdefault("required", []).append(name)


def _type_answers(document: Node) -> None:
    """Give an answer that is no JSON a schema: text, or a file."""
    for operation in operations(document):
        for answer in operation["responses"].values():
            for kind, content in answer.get("content", {}).items():
                binary = {} if kind.startswith("text/") else {"format": "binary"}
                content.setdefault("schema", {} if kind == "application/json" else {"type": "string", **binary})


def _restore_nulls(example: Any, schema: Node, schemas: Node) -> None:
    """Add the keys that are null, which FastAPI removes from examples."""
    if isinstance(example, list):
        for each in example:
            _restore_nulls(each, schema.get("items", {}), schemas)
    if not isinstance(example, dict):
        return
    schema = schemas[name_of(schema)] if "$ref" in schema else schema
    for name, prop in schema.get("properties", {}).items():
        alternatives = prop.get("anyOf", [prop])
        if name in schema.get("required", ()) and {"type": "null"} in alternatives:
            example.setdefault(name, None)
        _restore_nulls(example.get(name), alternatives[0], schemas)


def _only_one_error(document: Node) -> None:
    """Give every error of every operation the schema of errors. Any operation may fail with `internal`."""
    internal = GatewayError("the gateway failed: ValueError")
    for operation in operations(document):
        answers = operation["responses"]
        known = answers.setdefault("500", {"description": "", "content": {"application/json": {"examples": {}}}})
        known["description"] = f"{known['description']}\n\n`internal`: An error in the gateway itself.".strip()
        known["content"]["application/json"]["examples"][internal.code] = {"value": internal.envelope()}
        for status, answer in answers.items():
            if status >= "400":
                answer["content"]["application/json"]["schema"] = dict(_ERROR)
