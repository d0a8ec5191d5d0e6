"""The error of an export."""


class ExportError(Exception):
    """An export that cannot continue. The message says why and names a remedy."""
