"""The application class that has the API document in both versions."""

from functools import cached_property
from typing import Any

from fastapi import FastAPI

from gateway.api.openapi.document import completed, operation_id
from gateway.api.openapi.version_3_0 import as_3_0


class DocumentedApp(FastAPI):
    """A FastAPI application. `gateway/api/routes/docs.py` serves its documents."""

    def __init__(self, **options: Any) -> None:
        super().__init__(openapi_url=None, generate_unique_id_function=operation_id, **options)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document."""
        if self.openapi_schema is None:
            self.openapi_schema = completed(super().openapi())
        return self.openapi_schema

    @cached_property
    def openapi_3_0(self) -> dict[str, Any]:
        """The OpenAPI 3.0.3 document."""
        return as_3_0(self.openapi())
