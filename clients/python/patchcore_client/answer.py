"""What all answers share."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ValidationError


class Answer(BaseModel):
    """An answer of the gateway. Keys that this version of the client does not know are kept as attributes."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


def _as_sent(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
    try:
        return known(value)
    except ValidationError:
        if isinstance(value, str):
            return value
        raise


OPEN = WrapValidator(_as_sent)
"""For an enum: a value that a newer gateway added is kept as text."""
