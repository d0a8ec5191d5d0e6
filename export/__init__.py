"""Builds what is served: needs torch and timm, and is never imported at serving time."""

from export.errors import ExportError
from export.publish import ExportOptions, publish

__all__ = ["ExportError", "ExportOptions", "publish"]
