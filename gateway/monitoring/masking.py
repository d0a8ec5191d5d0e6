"""Masking of API keys in logs."""

import re

KEY_PREFIX = "pcg_"
"""Every API key starts with it, so that people and secret scanners recognise a leaked key."""
_KEY = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]+")


def masked(text: str) -> str:
    """Return a text with every API key masked. A client may put a key into a URL, which is logged."""
    return _KEY.sub(f"{KEY_PREFIX}…", text)
