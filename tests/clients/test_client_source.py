"""The Python client has what the API document has, and its two halves are one source."""

import inspect
import re
import tomllib

import httpx
import patchcore_client
import pytest
from patchcore_client import AsyncPatchcoreClient, BatchItem, PatchcoreClient
from patchcore_client.calls import DEFAULT_URL
from patchcore_client.errors import BY_CODE

from gateway.errors import ERRORS
from gateway.settings import Settings
from tests.clients.client_sources import PACKAGE, document, synchronous, written

# Of the client alone.
OWN = {"report_page", "wait_until_ready", "close", "aclose", "recipe"}
OF_THE_CLIENT = {"recipe_id"}
# Operations whose parameters have another form: one page or figures by method, one item an image.
OTHER_FORM = {"report": {"format"}, "inferBatch": {"images"}}


def snake(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


@pytest.fixture(scope="module")
def operations():
    found = document()
    schemas = found["components"]["schemas"]

    def names(operation):
        given = {parameter["name"] for parameter in operation.get("parameters", ())}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            given |= schemas[content["schema"]["$ref"].rpartition("/")[2]]["properties"].keys()
        return given

    methods = [operation for each in found["paths"].values() for operation in each.values()]
    return {operation["operationId"]: names(operation) for operation in methods}


def test_the_written_files_are_those_of_the_document_and_of_the_asynchronous_source():
    for path, text in written().items():
        assert path.read_text() == text, f"{path.name}: write it: python -m tests.clients.client_sources"
    assert {path.name for path in PACKAGE.glob("models/*.py")} == {
        path.name for path in written() if path.parent.name == "models"
    }


def test_the_synchronous_source_has_no_await():
    """The generated source of a short example is legible."""
    source = (
        '"""The asynchronous one."""\n\nasync def get(self):\n    async with a:\n        return await self.aclose()\n'
    )
    text = synchronous(source)
    assert text.startswith('"""The synchronous one."""\n\n# Written by')
    assert text.endswith("def get(self):\n    with a:\n        return self.close()\n")


def test_there_is_a_method_for_every_operation_with_a_keyword_for_every_field(operations):
    methods = dict(inspect.getmembers(PatchcoreClient, inspect.isfunction))
    public = {name for name in methods if not name.startswith("_")}
    assert public - OWN == {snake(name) for name in operations}
    for name, fields in operations.items():
        taken = set(inspect.signature(methods[snake(name)]).parameters) - {"self"}
        assert taken == fields - OF_THE_CLIENT - OTHER_FORM.get(name, set()), name


def test_an_item_of_a_batch_has_the_fields_of_an_inspection(operations):
    assert set(BatchItem.__dataclass_fields__) == operations["infer"]


def test_both_clients_have_the_same_methods():
    def signatures(kind):
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: str(inspect.signature(each)) for name, each in found if not name.startswith("__")}

    plain, concurrent = signatures(PatchcoreClient), signatures(AsyncPatchcoreClient)
    concurrent["close"] = concurrent.pop("aclose")
    assert plain == concurrent


def test_there_is_a_class_for_every_error_code():
    assert BY_CODE.keys() == {error.code for error in ERRORS}
    for error in ERRORS:
        mine = BY_CODE[error.code]
        assert mine.__name__ == error.__name__
        assert getattr(patchcore_client, mine.__name__) is mine
        assert mine.__doc__


def test_the_client_needs_httpx_and_pydantic_alone():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]} == {"httpx", "pydantic"}
    assert project["version"] == patchcore_client.__version__
    assert (PACKAGE / "py.typed").is_file()
    folders = {path.parent.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.py")}
    packages = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert {each.replace(".", "/") for each in packages} == folders


def test_the_default_url_is_where_a_gateway_listens_by_default():
    assert httpx.URL(DEFAULT_URL).port == Settings.model_fields["port"].default
    csharp = (PACKAGE.parent.parent / "csharp" / "PatchcoreClient.cs").read_text()
    assert f'Environment.GetEnvironmentVariable("PATCHCORE_URL"), "{DEFAULT_URL}")' in csharp
