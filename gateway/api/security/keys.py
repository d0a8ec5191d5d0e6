"""API keys, their scopes, and the ROIs that they allow.

A key has 256 random bits and is printed once, when it is made. The gateway stores its SHA-256 only. A slow, salted hash
protects passwords that people choose; 256 random bits cannot be guessed, and a slow hash would delay every request.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from gateway.errors import ForbiddenError
from gateway.monitoring.masking import KEY_PREFIX
from gateway.monitoring.request_context import tell
from gateway.store.ids import valid_id
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey

Scope = Literal["inspect", "teach"]
"""The scope teach includes inspect."""


class KeyListError(ValueError):
    """Unusable API keys. The message names the entry and what is wrong with it, and never contains a value of it."""


def _roi_pattern(pattern: str) -> str:
    """Return a pattern with its ids in normalisation form C, as those of requests are."""
    if pattern == "*":
        return pattern
    ids = ["*" if part == "*" else valid_id(part) for part in pattern.split("/")]
    valid = [each for each in ids if each is not None]
    is_known = len(valid) == len(ids) and len(ids) in (2, 3)
    if not is_known or (valid[-2] == "*" and (len(ids) == 2 or valid[-1] != "*")):
        raise ValueError(
            "expected role_id/roi_id, role_id/*, recipe_id/role_id/roi_id, recipe_id/role_id/*, recipe_id/*/* or *; "
            "recipe_id may be *"
        )
    return "/".join(valid)


RoiPattern = Annotated[str, AfterValidator(_roi_pattern)]


class Caller(BaseModel):
    """The sender of a request, and what it may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    scope: Scope
    allow: tuple[RoiPattern, ...] = Field(min_length=1)
    """Allowed ROIs: ``role_id/roi_id`` and ``role_id/*`` in the default recipe; ``recipe_id/role_id/roi_id``,
    ``recipe_id/role_id/*`` and ``recipe_id/*/*``, where ``recipe_id`` may be ``*``; ``*`` for all of all recipes."""

    def may(self, scope: Scope) -> bool:
        """Return whether the caller may use an endpoint that needs this scope, for some ROI."""
        return self.scope in (scope, "teach")

    def sees(self, key: RoiKey) -> bool:
        """Return whether the caller may use an ROI, whether it is fitted or not."""
        rois = [f"{key.role_id}/{key.roi_id}", f"{key.role_id}/*"]
        patterns = {"*"} | {f"{recipe}/{roi}" for recipe in (key.recipe_id, "*") for roi in (*rois, "*/*")}
        if key.recipe_id == DEFAULT_RECIPE:
            patterns |= set(rois)
        return not patterns.isdisjoint(self.allow)

    def roi(self, role_id: str, roi_id: str, recipe_id: str = DEFAULT_RECIPE) -> RoiKey:
        """Return the key of the ROI that a request names. Reads no file, so a refusal does not tell what is fitted.

        Raises:
            InvalidRequestError: an id is invalid.
            ForbiddenError: the caller may not use the ROI.
        """
        key = RoiKey(role_id, roi_id, recipe_id)
        tell(**asdict(key))
        if not self.sees(key):
            raise ForbiddenError(f"the key {self.name!r} does not allow {key}")
        return key


ANONYMOUS = Caller(name="anonymous", scope="teach", allow=("*",))
"""The caller of every request, if no keys are configured."""


class ApiKey(Caller):
    """An entry in the list of keys."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    """SHA-256 of the key, in lower-case hexadecimal."""


# An empty list would open the gateway to everybody.
_KEYS = TypeAdapter(Annotated[list[ApiKey], Field(min_length=1)])


class KeyRing:
    """The valid keys."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """Store the keys.

        Raises:
            KeyListError: two keys have the same name, or a key has the name of the anonymous caller.
        """
        names = [key.name for key in keys]
        for name in names:
            if names.count(name) > 1 or name == ANONYMOUS.name:
                raise KeyListError(f"the name {name!r} is used twice or reserved; give each key a name of its own")
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        """Return whether there is any key."""
        return bool(self._keys)

    def named(self, name: str) -> ApiKey | None:
        """Return the entry with a name, or None."""
        return next((key for key in self._keys if key.name == name), None)

    def find(self, presented: str) -> ApiKey | None:
        """Return the entry of a key, or None. It compares all entries, each in constant time."""
        digest = _digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def read_keys(inline: SecretStr | None, file: Path | None) -> KeyRing:
    """Return the keys of the settings, from JSON lists of entries in a text and in a file.

    Args:
        inline: JSON list of entries.
        file: file with a JSON list of entries.

    Raises:
        KeyListError: a list is invalid, or the file cannot be read.
    """
    keys: list[ApiKey] = []
    if inline is not None:
        keys += _parsed(inline.get_secret_value().removeprefix("\ufeff"), "GATEWAY_API_KEYS")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise KeyListError(f"GATEWAY_API_KEYS_FILE: {file}: {error}") from None
        except UnicodeDecodeError:
            raise KeyListError(f"GATEWAY_API_KEYS_FILE: {file}: not UTF-8 text (UTF-16?); save it as UTF-8") from None
        keys += _parsed(text, "GATEWAY_API_KEYS_FILE")
    return KeyRing(keys)


def _parsed(text: str, source: str) -> list[ApiKey]:
    try:
        return _KEYS.validate_json(text)
    except ValidationError as error:
        # The text of the error itself would show the input, which may be a key.
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        expected = "expected a JSON list of entries as `python -m gateway key` prints them"
        raise KeyListError(f"{source}: {where + ': ' if where else ''}{problem['msg']}; {expected}") from None


def new_key(name: str, scope: Scope, allow: Sequence[str]) -> tuple[str, ApiKey]:
    """Make a key.

    Returns:
        The key, which is stored nowhere, and its entry.

    Raises:
        ValueError: the name or a pattern is invalid.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, ApiKey(name=name, sha256=_digest(key), scope=scope, allow=tuple(allow))


def entry_text(key: ApiKey) -> str:
    """Return an entry as JSON, as the settings expect it."""
    return json.dumps(key.model_dump(mode="json"))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
