"""What an export can fail with."""


class ExportError(Exception):
    """An export that cannot go on; the message says why and what to do about it."""
