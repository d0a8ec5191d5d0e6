"""API keys are masked in whatever is logged."""

import re

KEY_PREFIX = "pcg_"
"""Every API key starts with it, so that people and secret scanners recognise a leaked key."""
_KEY = re.compile(KEY_PREFIX + r"[A-Za-z0-9_-]+")


def masked(text: str) -> str:
    """Return a text for the log with every API key in it masked: a client may have put one into a URL."""
    return _KEY.sub(f"{KEY_PREFIX}…", text)
