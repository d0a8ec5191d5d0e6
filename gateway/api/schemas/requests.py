"""What all JSON request bodies share."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from gateway.api.known_fields import IGNORED_FIELDS, known_hint, unknown_fields


class RequestBody(BaseModel):
    """A JSON object of a client. An unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        message = unknown_fields((str(name) for name in given), cls.model_fields)
        if message is not None:
            raise ValueError(f"{message}. {known_hint(cls.model_fields)}")
        return {name: value for name, value in given.items() if name not in IGNORED_FIELDS}
