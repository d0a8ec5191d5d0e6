"""Request and answer bodies, for validation and for the OpenAPI document."""
