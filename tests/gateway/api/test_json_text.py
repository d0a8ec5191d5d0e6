import json

import pytest

from gateway.api.json_text import MAX_DEPTH, parse_json, require_shallow
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_bytes_are_read_in_every_encoding_of_unicode(encoding):
    assert parse_json('{"a": "\u00fc"}'.encode(encoding), "it") == {"a": "\u00fc"}


def test_a_byte_order_mark_is_skipped():
    assert parse_json('\ufeff{"a": 1}', "it") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (r'"\ud83d"', "shape:"),
        (r'[{"role_id": "a"}, {"role_id": ["\uDC00"]}]', "shape.1.role_id.0:"),
        (r'{"kind": {"\ud800": 1}}', "a key of shape.kind:"),
        ('{"kind": "\ud800"}', "shape.kind:"),
        (b'{"kind": "\xed\xa0\x80"}', "shape.kind:"),
        ('{"kind": "\ud800"}'.encode("utf-16", "surrogatepass"), "shape.kind:"),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_with_its_place(text, at):
    with pytest.raises(InvalidRequestError, match=f"^{at} expected Unicode text"):
        parse_json(text, "shape")


def test_a_character_written_as_a_surrogate_pair_is_accepted():
    assert parse_json(r'["\ud83d\ude00", "\\ud83d"]', "it") == ["\U0001f600", r"\ud83d"]


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_a_repeated_key_is_refused_by_name(text):
    with pytest.raises(InvalidRequestError, match="shape: the key 'a' occurs twice"):
        parse_json(text, "shape")


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "line 1, column 1"), ("{\n1}", "line 2, column 1"), (b"\xff\x00\xff", "UTF-8"), ("[" * 100_000, "deep")],
)
def test_a_text_that_is_not_json_is_refused_with_the_place(text, says):
    with pytest.raises(InvalidRequestError, match=says):
        parse_json(text, "it")


def test_a_huge_integer_is_a_number_that_its_field_refuses():
    assert parse_json("9" * 10_000, "it") == float("inf")
