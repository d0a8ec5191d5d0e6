"""How deeply JSON is nested, told before a parser follows it down."""

import re

from gateway.errors import InvalidRequestError

MAX_DEPTH = 32  # the deepest that means anything here: a list of items with a shape, 3

# An unfinished string reaches to the end, so that no text is looked at twice.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def require_shallow(text: bytes, name: str) -> None:
    """Refuse JSON that is nested too deeply. Takes time by the byte; says nothing about whether it is JSON at all.

    Raises:
        InvalidRequestError: names what it was.
    """
    depth = 0
    for bracket in _STRINGS.sub(b"", text).translate(None, _ALL_BUT_BRACKETS):
        depth += _STEPS[bracket]
        if depth > MAX_DEPTH:
            raise InvalidRequestError(f"{name} is nested more than {MAX_DEPTH} deep")
