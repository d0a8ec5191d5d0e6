import json

import pytest

from gateway.api.json_text import MAX_DEPTH, require_shallow
from gateway.errors import InvalidRequestError


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b"[" + b"[]," * 1000 + b"[]]",
        json.dumps({"a": "[" * 100, 'b"]]': "\\" + "{" * 100}).encode(),
        b'"' + b"[" * 100,  # a string that does not end
        b'"\\' + b'"' + b"[" * 100,
        b"]" * 1000 + b"[" * 100,
    ],
)
def test_shallow_json_is_accepted(text):
    require_shallow(text, "it")


@pytest.mark.parametrize("text", [b"[" * (MAX_DEPTH + 1), b'{"a":' * 100_000, b'["[",' * 100, b'["\\"",{"a":[' * 20])
def test_deep_json_is_refused_by_name(text):
    with pytest.raises(InvalidRequestError, match="shape is nested"):
        require_shallow(text, "shape")


def test_hostile_quotes_take_no_longer_than_their_length():
    # Ended by the test's own patience if it were quadratic: 2 MiB of quotes that never pair up.
    require_shallow(b'\\"' * 2**20, "it")
    require_shallow(b'"' + b'\\"' * 2**20, "it")
