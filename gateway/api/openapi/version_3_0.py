"""The API document as OpenAPI 3.0.3, in the forms that client generators turn into plain classes."""

import copy
from typing import Any

from gateway.api.openapi.document import SCHEMAS, Node, name_of, operations

_JSON = "application/json"
_INT32_MAX = 2**31 - 1
_UNION_NAMES: dict[tuple[str, ...], str] = {("InferAnswer", "ErrorEnvelope"): "BatchResult"}
"""Names of the classes that stand for a union of answers."""
_LOST = ("title", "contentMediaType", "propertyNames")
"""Keys without a meaning in 3.0. Generators name nested classes after a title."""


def as_3_0(document: Node) -> Node:
    """Return the document as OpenAPI 3.0.3. The argument is unchanged.

    | 3.1 | 3.0.3 |
    | --- | --- |
    | `anyOf` with `null` | `nullable`, for a reference beside `allOf`; in a form an optional field |
    | a fixed tuple | an array of its length |
    | a union of answers | one class with the properties of all, none of them required |
    | a union in a request | text, which the gateway reads as well |
    | an answer as JSON or as a page | JSON |
    | a field that may be sent in the body, in the query or as a header | the body, else the query |
    | a pattern with classes of Unicode | no pattern: generated clients check it with engines that lack them |
    | a required enum that may be null | not required: the type that C# generators make otherwise cannot be null |

    Args:
        document: the OpenAPI 3.1 document, as `completed` returns it.
    """
    document = copy.deepcopy(document)
    schemas: Node = document["components"]["schemas"]
    in_requests, forms = _request_schemas(document)
    converted: Node = {}
    for name, schema in schemas.items():
        converted[name] = _Converter(schemas, converted, name in in_requests, name in forms).object(schema)
    document["components"]["schemas"] = {name: converted[name] for name in sorted(converted)}
    document["components"]["securitySchemes"].pop("password", None)
    for operation in operations(document):
        operation["security"] = [each for each in operation.get("security", ()) if "password" not in each]
        _name_fields_once(operation, schemas)
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _Converter(schemas, converted, True, True).schema(parameter["schema"])
        for answer in operation["responses"].values():
            content = answer.get("content", {})
            if _JSON in content:
                answer["content"] = {_JSON: content[_JSON]}
    return {"openapi": "3.0.3", **{key: value for key, value in document.items() if key != "openapi"}}


def _name_fields_once(operation: Node, schemas: Node) -> None:
    """Leave out the query parameter that the body has too, and the header that says the same as `recipe_id`."""
    in_body: set[str] = set()
    for content in operation.get("requestBody", {}).get("content", {}).values():
        in_body |= schemas[name_of(content["schema"])]["properties"].keys()
    operation["parameters"] = [
        each
        for each in operation.get("parameters", ())
        if each["in"] != "header" and (each["in"] != "query" or each["name"] not in in_body)
    ]


def _request_schemas(document: Node) -> tuple[set[str], set[str]]:
    """Return the names of the schemas of request bodies, and those of forms among them."""
    bodies, forms = set(), set()
    for operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            bodies.add(name_of(content["schema"]))
            if kind != _JSON:
                forms.add(name_of(content["schema"]))
    return bodies, forms


class _Converter:
    """Convert the schemas of one owner."""

    def __init__(self, schemas: Node, converted: Node, in_request: bool, in_form: bool) -> None:
        self._schemas = schemas
        self._converted = converted
        self._in_request = in_request
        self._in_form = in_form

    def object(self, schema: Node) -> Node:
        """Return a component."""
        result = self.schema(schema)
        if "properties" in schema:
            result["properties"] = {name: self.schema(each) for name, each in schema["properties"].items()}
            required = [name for name in schema.get("required", ()) if not self._is_nullable_enum(result, name)]
            result = {**result, "required": required} if required else result
        return result

    def _is_nullable_enum(self, converted: Node, name: str) -> bool:
        """Return whether a property is an enum or null. C# generators make it nullable only where it is optional."""
        prop = converted["properties"][name]
        return "nullable" in prop and "allOf" in prop and "enum" in self._schemas[name_of(prop["allOf"][0])]

    def schema(self, schema: Node) -> Node:
        """Return a schema of a property, a parameter or an item."""
        schema = {key: value for key, value in schema.items() if key not in _LOST}
        if "$ref" in schema:
            return {"$ref": schema["$ref"]}
        if "anyOf" in schema:
            return self._one_of(schema)
        examples = schema.pop("examples", None)
        if examples:
            schema["example"] = examples[0]
        if "const" in schema:
            schema.setdefault("example", schema.pop("const"))
        for limit, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if limit in schema:
                schema |= {inclusive: schema[limit], limit: True}
        if "\\p{" in schema.get("pattern", ""):
            del schema["pattern"]
        if "prefixItems" in schema:
            schema["items"] = schema.pop("prefixItems")[0]
        if isinstance(schema.get("items"), dict):
            schema["items"] = self.schema(schema["items"])
        if schema.get("type") == "number":
            schema["format"] = "double"
        if schema.get("type") == "integer":
            schema["format"] = "int64" if schema.get("maximum", 0) > _INT32_MAX else "int32"
        return schema

    def _one_of(self, schema: Node) -> Node:
        """Return what stands for alternatives: one schema, nullable if null is one of them."""
        around = {key: value for key, value in schema.items() if key != "anyOf"}
        alternatives = [each for each in schema["anyOf"] if each.get("type") != "null"]
        is_nullable = len(alternatives) < len(schema["anyOf"]) and not self._in_form
        if len(alternatives) == 1:
            result = self.schema({**around, **alternatives[0]})
        elif self._in_request:
            result = self.schema({**around, "type": "string"})
        else:
            result = {"$ref": f"{SCHEMAS}{self._merged([name_of(each) for each in alternatives])}"}
        if not is_nullable:
            return result
        if "$ref" in result:
            result = {"allOf": [result], **{key: around[key] for key in ("description",) if key in around}}
        return {**result, "nullable": True}

    def _merged(self, names: list[str]) -> str:
        """Add one class with the properties of several, and return its name."""
        name = _UNION_NAMES.get(tuple(names), "Or".join(names))
        properties: dict[str, Any] = {}
        for each in names:
            for key, value in self._schemas[each]["properties"].items():
                has_null = {"type": "null"} in value.get("anyOf", ())
                about = {key: value[key] for key in ("description",) if key in value}
                either = value if has_null else {"anyOf": [value, {"type": "null"}], **about}
                properties[key] = self.schema(either)
        text = f"One of {', '.join(names)}: the properties of the others are absent."
        self._converted[name] = {"type": "object", "description": text, "properties": properties}
        return name
