"""JSON texts of clients: limited nesting, no repeated keys, with or without a byte order mark."""

import json
import re
from typing import Any

import numpy as np

from gateway.errors import InvalidRequestError

MAX_DEPTH = 32
"""The deepest valid request body has depth 3: a list of items with a shape."""

# An unterminated string matches up to the end of the text, so no byte is scanned twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
_BOM = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAYBE_SURROGATE = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")
_MAX_DIGITS = 400
_LONGEST_KEY = 64


def require_shallow(text: bytes, name: str) -> None:
    """Refuse JSON that is nested too deeply. Takes linear time and does not check that the text is valid JSON.

    Args:
        text: the JSON text.
        name: what the text is, for the message.

    Raises:
        InvalidRequestError: the text is nested more than `MAX_DEPTH` deep.
    """
    depths = np.cumsum(_STEPS[np.frombuffer(_STRINGS.sub(b"", text), np.uint8)])
    if depths.max(initial=0) > MAX_DEPTH:
        raise InvalidRequestError(f"{name} is nested more than {MAX_DEPTH} deep")


def without_bom(text: str) -> str:
    """Return a text without a byte order mark at its start. Windows programs write one into UTF-8 files."""
    return text.removeprefix(_BOM)


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse a JSON text.

    Args:
        text: a text, or bytes in UTF-8, UTF-16 or UTF-32, each with or without a byte order mark.
        name: what the text is, for the message.

    Raises:
        InvalidRequestError: the text is not JSON, an object has a key twice, or a string is not Unicode: JSON can
            write half of a surrogate pair, which no answer and no file can hold.
    """
    try:
        given = without_bom(text) if isinstance(text, str) else text.decode(json.detect_encoding(text), "surrogatepass")
        parsed = json.loads(given, object_pairs_hook=_without_repeats, parse_int=_integer)
    except RecursionError:
        raise InvalidRequestError(f"{name} is nested too deeply") from None
    except _RepeatedKeyError as error:
        raise InvalidRequestError(f"{name}: the key {error.key!r} occurs twice in one object") from None
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"{name} is not JSON: {error.msg} at {at}", "Send valid JSON.") from None
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{name} is not JSON: it is not UTF-8 text", "Send valid JSON.") from None
    if _MAYBE_SURROGATE.search(given) and (where := _half_pair(parsed, name)) is not None:
        raise InvalidRequestError(
            f"{where.removeprefix('the body.')}: expected Unicode text, but it has half of a surrogate pair",
            r"Send whole characters: \ud83d\ude00 is one, \ud83d alone is none.",
        )
    return parsed


def _half_pair(value: Any, at: str) -> str | None:
    """Return where the first string is that has half of a surrogate pair, such as ``items.0.role_id``."""
    if isinstance(value, str):
        return at if _SURROGATE.search(value) else None
    if isinstance(value, dict) and any(map(_SURROGATE.search, value)):
        return f"a key of {at}"
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next(filter(None, (_half_pair(each, f"{at}.{str(name)[:_LONGEST_KEY]}") for name, each in parts)), None)


def _integer(digits: str) -> int | float:
    """Return an integer. One with very many digits becomes a float, often infinite, which the field then refuses."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


class _RepeatedKeyError(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(key)
        found[key] = value
    return found
