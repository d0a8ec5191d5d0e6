"""What is stored, looked at and moved without a gateway: list, verify, export, import."""
