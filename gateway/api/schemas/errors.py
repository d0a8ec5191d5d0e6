"""Body of every error."""

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """What is wrong with which value, and what to do about it."""

    code: str
    message: str
    hint: str


class ErrorEnvelope(BaseModel):
    """Body of every error answer."""

    error: ErrorBody
