"""The generated parts of the clients: models from the API document, and the synchronous client of Python.

`python -m tests.clients.client_sources` writes them.
"""

import re
import subprocess
import sys
import tempfile
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import Any

import tokenize_rt
import unasync

from gateway.app import create_app
from gateway.settings import Settings
from tests.clients import csharp_models

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = PROJECT / "clients" / "python" / "patchcore_client"
NOTE = "# Written by `python -m tests.clients.client_sources`: change the source of it instead."
WIDTH = 119
# The client turns a result of a batch into an answer or an exception.
LEFT_OUT = {"BatchAnswer", "BatchResult", "ErrorEnvelope"}
SYNC_NAMES = {"_async": "_sync", "aclose": "close", "AsyncClient": "Client", "AsyncPatchcoreClient": "PatchcoreClient"}
SYNC_NAMES |= {"AsyncSender": "Sender", "AsyncImages": "Images"}

Node = dict[str, Any]


def document() -> Node:
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(_env_file=None, models_dir=Path(folder), state_dir=Path(folder))).openapi_3_0


def written() -> dict[Path, str]:
    """Return every generated file of the clients, with its text."""
    api = document()
    found = {PACKAGE / "models" / name: text for name, text in models(api).items()}
    found[csharp_models.FILE] = csharp_models.written(api["components"]["schemas"])
    for name in ("client.py", "images.py", "sending.py"):
        found[PACKAGE / "_sync" / name] = formatted(synchronous((PACKAGE / "_async" / name).read_text()))
    return found


def synchronous(source: str) -> str:
    """Return the source without async and await, and with the names of the synchronous helpers."""
    rule = unasync.Rule("", "", SYNC_NAMES)
    text = tokenize_rt.tokens_to_src(rule._unasync_tokens(tokenize_rt.src_to_tokens(source)))
    # In docstrings, which have no tokens.
    text = text.replace("httpx.AsyncClient", "httpx.Client")
    text = text.replace("An asynchronous", "A synchronous").replace("asynchronous", "synchronous")
    docstring, rest = text.split("\n", 1)
    return f"{docstring}\n\n{NOTE}\n{rest}"


def models(found: Node) -> dict[str, str]:
    """Return modules of pydantic models: one for each tag, and `shared.py` for models of several tags."""
    schemas = found["components"]["schemas"]
    users = defaultdict(set)
    for methods in found["paths"].values():
        for operation in methods.values():
            content = operation["responses"]["200"]["content"].get("application/json", {})
            for name in reachable(content.get("schema", {}), schemas):
                users[name] |= set(operation["tags"])
    for name in reachable({"$ref": "#/components/schemas/ErrorEnvelope"}, schemas):
        users[name] |= {"inspect", "teach"}
    for schema in schemas.values():  # enums of requests, for the parameters of methods
        for prop in schema.get("properties", {}).values():
            for name in reachable(prop, schemas):
                if "enum" in schemas[name] and name not in users:
                    users[name] |= {"inspect", "teach"}
    modules = defaultdict(list)
    for name in sorted(users):
        if name not in LEFT_OUT:
            modules["shared" if len(users[name]) > 1 else next(iter(users[name]))].append(name)
    files = {f"{module}.py": module_of(module, names, modules["shared"], schemas) for module, names in modules.items()}
    files["__init__.py"] = package(modules)
    return {name: formatted(text) for name, text in files.items()}


def reachable(schema: Any, schemas: Node) -> set[str]:
    """Return the names of the components that a schema refers to, directly or indirectly."""
    if isinstance(schema, list):
        return set().union(*(reachable(each, schemas) for each in schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {name} | reachable(schemas[name], schemas)
    return set().union(*(reachable(each, schemas) for key, each in schema.items() if key != "example"))


def module_of(module: str, names: list[str], shared: list[str], schemas: Node) -> str:
    bodies = [enum_of(name, schemas[name]) if "enum" in schemas[name] else None for name in names]
    enums = [body for body in bodies if body]
    classes = [class_of(name, schemas[name]) for name in ordered(names, schemas) if "enum" not in schemas[name]]
    text = "\n".join([*enums, *classes])
    lines = [f'"""Answers of the gateway: {module}."""', "", NOTE, ""]
    typing = [name for name in ("Annotated", "Any", "Literal") if re.search(rf"\b{name}\b", text)]
    if typing:
        lines.append(f"from typing import {', '.join(typing)}\n")
    base = [name for name in ("Answer", "OPEN") if re.search(rf"\b{name}\b", text)]
    lines.append(f"from patchcore_client.answer import {', '.join(base)}")
    if module != "shared":
        used = [name for name in shared if re.search(rf"\b{name}\b", text)]
        if used:
            lines.append(f"from patchcore_client.models.shared import {', '.join(used)}")
    return "\n".join(lines) + "\n\n" + text


def ordered(names: list[str], schemas: Node) -> list[str]:
    """Return the names, each class after the classes that it refers to."""
    done: list[str] = []

    def place(name: str) -> None:
        for needed in sorted(reachable(schemas[name], schemas) - {name}):
            if needed in names and needed not in done:
                place(needed)
        if name not in done:
            done.append(name)

    for name in names:
        place(name)
    return done


def enum_of(name: str, schema: Node) -> str:
    values = ", ".join(f'"{value}"' for value in schema["enum"])
    return f"{name} = Annotated[Literal[{values}], OPEN]\n"


def class_of(name: str, schema: Node) -> str:
    lines = ["", "", f"class {name}(Answer):", *docstring(schema.get("description", name), ""), ""]
    for key, prop in schema["properties"].items():
        kind = type_of(prop)
        is_optional = prop.get("nullable") or key not in schema.get("required", ())
        kind = f"{kind} | None = None" if is_optional else kind
        lines.append(f"    {key}: {kind}")
        if "description" in prop:
            lines += docstring(prop["description"], "")
    return "\n".join(lines) + "\n"


def docstring(text: str, indent: str) -> list[str]:
    text = text.replace("\\", "\\\\")
    text = text[0].upper() + text[1:] if re.match(r"[a-z]{2,}\b(?![_=(/.:])", text) else text
    text = text if text.endswith((".", "…")) else f"{text}."
    body = textwrap.fill(" ".join(text.split()), WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    quoted = f'"""{body}"""' if len(body.rpartition("\n")[2]) < WIDTH - 12 else f'"""{body}\n"""'
    return [f"    {indent}{line}" for line in quoted.split("\n")]


def type_of(schema: Node) -> str:
    if "allOf" in schema:
        schema = schema["allOf"][0]
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if schema.get("type") == "array":
        item = type_of(schema["items"])
        if "minItems" in schema and schema["minItems"] == schema.get("maxItems"):
            return f"tuple[{', '.join([item] * schema['minItems'])}]"
        return f"list[{item}]"
    if schema.get("type") == "object":
        return "dict[str, Any]"
    return {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}.get(schema.get("type"), "Any")


def package(modules: dict[str, list[str]]) -> str:
    lines = ['"""Answers of the gateway, as its API document describes them."""', "", NOTE, ""]
    for module, names in sorted(modules.items()):
        lines.append(f"from patchcore_client.models.{module} import {', '.join(names)}")
    every = sorted(name for names in modules.values() for name in names)
    return "\n".join([*lines, "", f"__all__ = {every!r}"]) + "\n"


def formatted(text: str) -> str:
    ruff = str(Path(sys.executable).with_name("ruff"))
    for arguments in (["check", "--fix-only", "--quiet", "--select", "I"], ["format", "--quiet"]):
        command = [ruff, *arguments, "--stdin-filename", str(PACKAGE / "models" / "x.py"), "-"]
        done = subprocess.run(command, input=text, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{text}"
        text = done.stdout
    return text


if __name__ == "__main__":
    for path, text in written().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
