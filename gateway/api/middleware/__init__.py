"""ASGI middlewares around every request: log line and counters, request id, security headers, body limit."""
