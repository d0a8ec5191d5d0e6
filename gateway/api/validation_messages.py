"""Messages of validation errors, in the words of HTTP and JSON instead of Python's."""

import json
from collections.abc import Sequence
from typing import Any

_LONGEST = 80
_SHORT = 20

_REASONS = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected a JSON object",
    "model_type": "expected a JSON object",
    "model_attributes_type": "expected a JSON object",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "too_long": "expected at most {max_length} items",
    "too_short": "expected at least {min_length} items",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} characters",
    "string_unicode": "expected UTF-8 text",
}
"""Reasons by the type of pydantic's error."""


def message_of(problem: dict[str, Any]) -> str:
    """Return the message of one validation problem: field, value and reason.

    Args:
        problem: an error of pydantic, with ``type``, ``loc``, ``msg``, ``input`` and ``ctx``.
    """
    field = field_name(problem["loc"])
    if problem["type"] == "missing":
        return "the request has no body" if field == "body" else f"{field}: this field is missing"
    value = problem.get("input")
    if problem["type"] == "value_error" and isinstance(value, dict):  # about its keys
        return _reason(problem) if field == "body" else f"{field}: {_reason(problem)}"
    return f"{field}: {_shown(value)}{_reason(problem)}"


def field_name(location: Sequence[Any]) -> str:
    """Return the name of a field from the location of a pydantic error, such as ``ok_scores.3``."""
    names = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(names) or "body"


def _reason(problem: dict[str, Any]) -> str:
    if problem["type"] in ("value_error", "assertion_error"):
        return str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    template = _REASONS.get(problem["type"])
    return "this value is not valid" if template is None else template.format(**problem.get("ctx", {}))


def _shown(value: Any) -> str:
    """Return a value as a client knows it, followed by a colon. Empty for a file."""
    if isinstance(value, str):
        if len(value) > _SHORT and not value.isprintable():  # the bytes of a file in a text field
            return ""
        text = repr(value)
    elif value is None or isinstance(value, bool | int | float | list | dict):
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except ValueError:  # an integer with too many digits to print
            text = "a very large number"
    else:
        return ""
    return f"{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}: "
