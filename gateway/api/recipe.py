"""The recipe that a request names: in a field, in the query, or in a header."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from gateway.api.security.keys import Caller
from gateway.errors import InvalidRequestError
from gateway.store.ids import ID_RULE, valid_id
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey


@dataclass(frozen=True, slots=True)
class RoiCaller:
    """The sender of a request, with the recipe that its query and header name."""

    caller: Caller
    query: str | None
    header: str | None

    def only(self) -> str | None:
        """Return the recipe that a list is restricted to: that of the query, else of the header; None for all.

        Raises:
            InvalidRequestError: it is not a valid id.
        """
        named = self.named(None)
        recipe_id = None if named is None else valid_id(named)
        if named is not None and recipe_id is None:
            raise InvalidRequestError(f"recipe_id: {named[:70]!r} is not a valid id", f"Use {ID_RULE}.")
        return recipe_id

    def sees(self, key: RoiKey) -> bool:
        """Return whether the caller may use an ROI, whether it is fitted or not."""
        return self.caller.sees(key)

    def roi(self, role_id: str, roi_id: str, recipe_id: str | None = None) -> RoiKey:
        """Return the key of the ROI that a request names. Reads no file, so a refusal does not tell what is fitted.

        Args:
            role_id: as sent.
            roi_id: as sent.
            recipe_id: the field of a form or of JSON. Field and query take precedence over the header.

        Raises:
            InvalidRequestError: an id is invalid, or field and query name different recipes.
            ForbiddenError: the caller may not use the ROI.
        """
        named = self.named(recipe_id)
        return self.caller.roi(role_id, roi_id, DEFAULT_RECIPE if named is None else named)

    def named(self, field: str | None) -> str | None:
        """Return the recipe that a request names, unchecked: in a field of its body, else in its query or header.

        Raises:
            InvalidRequestError: field and query name different recipes.
        """
        if field is None:
            return self.header if self.query is None else self.query
        if self.query is not None and valid_id(field) != valid_id(self.query):
            raise InvalidRequestError(
                f"recipe_id: {field[:70]!r} in the body and {self.query[:70]!r} in the query",
                "Send it once, in the body or in the query.",
            )
        return field


def header_recipe(values: Sequence[str]) -> str | None:
    """Return the recipe in the header ``X-Recipe-Id``, or None if it is empty or not sent.

    Args:
        values: each value of the header, as Starlette decodes it: by Latin-1. The bytes may be UTF-8 or Latin-1, and
            any of them may be percent-encoded, since some clients send only ASCII. No id contains ``%``.

    Raises:
        InvalidRequestError: the header occurs with different values.
    """
    found = dict.fromkeys(_decoded(value) for value in values)
    if len(found) > 1:
        raise InvalidRequestError(
            f"X-Recipe-Id: the request has this header {len(values)} times, with different values", "Send it once."
        )
    recipe_id = next(iter(found), "")
    return None if recipe_id in ("", "null") else recipe_id


def _decoded(value: str) -> str:
    value = value.strip()
    try:
        return unquote(value.encode("latin-1").decode(), errors="strict")
    except UnicodeError:
        return value
