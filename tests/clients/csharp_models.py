"""Classes of the C# client for answers, from the API document."""

import re
import textwrap
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

FILE = Path(__file__).resolve().parents[2] / "clients" / "csharp" / "PatchcoreClient.cs"
ROOTS = (
    "InferAnswer",
    "FitAnswer",
    "CalibrateAnswer",
    "CalibrateRequest",
    "RollbackAnswer",
    "Deleted",
    "StoredAnswer",
    "ImageList",
    "ImageDeleted",
    "ImagesDeleted",
    "RoiList",
    "RoiDetail",
    "AuditAnswer",
    "DriftAnswer",
    "ReportAnswer",
    "HealthAnswer",
    "ErrorEnvelope",
)
# A class may not have the name of one of its properties.
RENAMED = {"Deleted": "DeletedAnswer"}
PARTIAL = {"InferAnswer", "CalibrateRequest"}

Node = dict[str, Any]


def written(schemas: Node) -> str:
    """Return the file with the classes of the API document."""
    before, begin, rest = FILE.read_text().partition("    // <models>")
    first_line = rest.partition("\n")[0]
    _, end, after = rest.partition("    // </models>")
    assert begin, "no // <models>"
    assert end, "no // </models>"
    classes = "\n".join(class_of(name, schemas) for name in names(schemas))
    return f"{before}{begin}{first_line}\n{classes}{end}{after}"


def names(schemas: Node) -> list[str]:
    found: list[str] = []

    def add(schema: Any) -> None:
        if isinstance(schema, list):
            for each in schema:
                add(each)
        elif isinstance(schema, dict) and "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in found and "enum" not in schemas[name]:
                found.append(name)
                add(schemas[name])
        elif isinstance(schema, dict):
            add([value for key, value in schema.items() if key != "example"])

    add([{"$ref": f"#/{root}"} for root in ROOTS])
    return found


def class_of(name: str, schemas: Node) -> str:
    schema = schemas[name]
    kind = "partial " if name in PARTIAL else "sealed "
    lines = [*summary(schema.get("description", name), 4), "    [DataContract]"]
    lines += [f"    public {kind}class {RENAMED.get(name, name)}", "    {"]
    for key, prop in schema["properties"].items():
        is_optional = prop.get("nullable") or key not in schema.get("required", ())
        left_out = ", EmitDefaultValue = false" if is_optional and name == "CalibrateRequest" else ""
        values = schemas[reference(prop)].get("enum") if reference(prop) else None
        text = prop.get("description", "")
        if values:
            text = f"{text.rstrip('.')}. One of: {', '.join(values)}".lstrip(". ")
        lines += summary(text, 8) if text else []
        attribute = f'[DataMember(Name = "{key}"{left_out})]'
        lines.append(f"        {attribute} public {type_of(prop, schemas, is_optional)} {pascal(key)} {{ get; set; }}")
    return "\n".join(lines).rstrip() + "\n    }\n"


def summary(text: str, indent: int) -> list[str]:
    text = text if text.endswith((".", "…")) else f"{text}."
    text = text[0].upper() + text[1:] if re.match(r"[a-z]{2,}\b(?![_=(/.:])", text) else text
    filled = textwrap.wrap(f"<summary>{escape(' '.join(text.split()))}</summary>", 116 - indent)
    return [f"{' ' * indent}/// {line}" for line in filled]


def pascal(name: str) -> str:
    return "".join(word[0].upper() + word[1:] for word in name.split("_"))


def reference(schema: Node) -> str:
    schema = schema["allOf"][0] if "allOf" in schema else schema
    return str(schema.get("$ref", "")).rpartition("/")[2]


def type_of(schema: Node, schemas: Node, is_optional: bool) -> str:
    name = reference(schema)
    if name:
        return "string" if "enum" in schemas[name] else RENAMED.get(name, name)
    if schema["type"] == "array":
        return f"{type_of(schema['items'], schemas, False)}[]"
    if schema["type"] == "string":
        return "string"
    kind = {"number": "double", "boolean": "bool"}.get(schema["type"]) or {"int64": "long"}.get(schema["format"], "int")
    return f"{kind}?" if is_optional else kind
