"""The one form of every error."""

from pydantic import BaseModel


class ErrorBody(BaseModel):
    """What is wrong with which value, and what to do."""

    code: str
    message: str
    hint: str


class ErrorEnvelope(BaseModel):
    """The one form of every error."""

    error: ErrorBody
