"""Tools for the models folder that need no running gateway: list, verify, export, import, publish."""
