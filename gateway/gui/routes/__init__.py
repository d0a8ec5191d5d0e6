"""The endpoints that the desktop GUI calls."""
