"""How deeply JSON is nested, told before a parser follows it down."""

import re

import numpy as np

from gateway.errors import InvalidRequestError

MAX_DEPTH = 32  # the deepest that means anything here: a list of items with a shape, 3

# An unfinished string reaches to the end, so that no text is looked at twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def require_shallow(text: bytes, name: str) -> None:
    """Refuse JSON that is nested too deeply. Takes time by the byte; says nothing about whether it is JSON at all.

    Raises:
        InvalidRequestError: names what it was.
    """
    depths = np.cumsum(_STEPS[np.frombuffer(_STRINGS.sub(b"", text), np.uint8)])
    if depths.max(initial=0) > MAX_DEPTH:
        raise InvalidRequestError(f"{name} is nested more than {MAX_DEPTH} deep")
