"""The API document: OpenAPI 3.1 as FastAPI makes it, completed, and the same as 3.0.3 for code generators."""
