"""Builds what is served: needs torch and timm, and is never imported at serving time."""
