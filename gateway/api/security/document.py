"""Access rules in the OpenAPI document."""

from typing import Any

from gateway.api.responses import documented
from gateway.api.security.scopes import OPEN_ON_LOOPBACK, is_page, needed_scope
from gateway.errors import ForbiddenError, UnauthorizedError


def document_access(openapi: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document which key each endpoint needs, and the errors of a wrong one."""
    openapi.setdefault("components", {})["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "API key, if the gateway has any"},
        "password": {"type": "http", "scheme": "basic", "description": "API key as the password, for a browser"},
    }
    refusals = {str(status): answer for status, answer in documented(UnauthorizedError, ForbiddenError).items()}
    for answer in refusals.values():
        del answer["model"]
        answer["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/ErrorEnvelope"}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            needed = needed_scope(method.upper(), path)
            if needed is not None:
                operation["security"] = [{"key": []}]
                if is_page(method.upper(), path):
                    operation["security"].append({"password": []})
                scope = f"Scope: `{needed}`{', and open on loopback' if path in OPEN_ON_LOOPBACK else ''}."
                operation["description"] = f"{operation.get('description', '')}\n\n{scope}".strip()
                operation["responses"] |= refusals
    return openapi
