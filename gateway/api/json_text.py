"""Limit on the nesting of JSON, checked before a recursive parser reads it."""

import re

import numpy as np

from gateway.errors import InvalidRequestError

MAX_DEPTH = 32
"""The deepest valid request body has depth 3: a list of items with a shape."""

# An unterminated string matches up to the end of the text, so no byte is scanned twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


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
