"""The name of an ROI. It is validated before it becomes a folder name."""

import re
from dataclasses import dataclass

from gateway.errors import InvalidRequestError

_ID = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?", re.ASCII)
ID_PATTERN = f"^{_ID.pattern}$"
ID_RULE = "1 to 64 characters of A-Z, a-z, 0-9, space, '.', '_', '-', not starting or ending with a dot or a space"


@dataclass(frozen=True, slots=True, order=True)
class RoiKey:
    """A role (a part or a station) and one of its ROIs. Both ids are valid, so they are safe in a path."""

    role_id: str
    roi_id: str

    def __post_init__(self) -> None:
        """Refuse invalid ids.

        Raises:
            InvalidRequestError: the message names the id and the hint gives the rule.
        """
        for field in ("role_id", "roi_id"):
            value = getattr(self, field)
            if not is_valid_id(value):
                shown = value if len(value) <= 70 else f"{value[:70]}… ({len(value)} characters)"
                raise InvalidRequestError(f"{field}: {shown!r} is not a valid id", f"Use {ID_RULE}.")

    def __str__(self) -> str:
        return f"{self.role_id}/{self.roi_id}"


def is_valid_id(value: str) -> bool:
    """Return whether a string is a valid role or ROI id."""
    return _ID.fullmatch(value) is not None
