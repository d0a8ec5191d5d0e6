"""Who may do what: API keys, their scopes, and the ROIs that they are for.

A key is 256 random bits, shown once, when it is made. What is kept is its SHA-256, and that is enough: a slow, salted
hash defends what people choose against guessing, and nobody guesses 256 random bits. It would cost every request its
time instead.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from gateway.errors import ForbiddenError
from gateway.monitoring.masking import KEY_PREFIX
from gateway.monitoring.request_context import tell
from gateway.store.roi_key import RoiKey, is_valid_id

Scope = Literal["inspect", "teach"]
"""teach may do all that inspect may: whoever can teach a wrong part can also look at it."""


class KeyListError(ValueError):
    """API keys that cannot be used; names the entry and what is wrong with it, never a value of it."""


def _roi_pattern(pattern: str) -> str:
    role_id, slash, roi_id = pattern.partition("/")
    if pattern == "*" or (slash and is_valid_id(role_id) and (roi_id == "*" or is_valid_id(roi_id))):
        return pattern
    raise ValueError("expected role_id/roi_id, role_id/* or *")


RoiPattern = Annotated[str, AfterValidator(_roi_pattern)]


class Caller(BaseModel):
    """Somebody who asks, and what that one may do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    scope: Scope
    allow: tuple[RoiPattern, ...] = Field(min_length=1)
    """ROIs: ``role_id/roi_id``, ``role_id/*``, or ``*`` for all."""

    def may(self, scope: Scope) -> bool:
        """Whether what needs this scope is allowed, as far as the ROI does not matter."""
        return self.scope in (scope, "teach")

    def sees(self, key: RoiKey) -> bool:
        """Whether an ROI is this caller's, be it fitted or not."""
        return not {"*", f"{key.role_id}/*", str(key)}.isdisjoint(self.allow)

    def roi(self, role_id: str, roi_id: str) -> RoiKey:
        """The ROI that a request names. Looks at no disk, so that a refusal does not tell what is fitted.

        Raises:
            InvalidRequestError: an id that is none.
            ForbiddenError: not this caller's.
        """
        key = RoiKey(role_id, roi_id)
        tell(role_id=key.role_id, roi_id=key.roi_id)
        if not self.sees(key):
            raise ForbiddenError(f"the key {self.name!r} is not for {key}")
        return key


ANONYMOUS = Caller(name="anonymous", scope="teach", allow=("*",))
"""Everybody, where no keys are configured."""


class ApiKey(Caller):
    """An entry of the list of keys."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    """Of the key, in lower-case hexadecimal."""


# Never an empty one: that would open the gateway.
_KEYS = TypeAdapter(Annotated[list[ApiKey], Field(min_length=1)])


class KeyRing:
    """The keys that are valid."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """Take over keys.

        Raises:
            KeyListError: two of one name, or one that means everybody.
        """
        names = [key.name for key in keys]
        for name in names:
            if names.count(name) > 1 or name == ANONYMOUS.name:
                raise KeyListError(f"the name {name!r} is taken; give each key one of its own")
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._keys)

    def find(self, presented: str) -> ApiKey | None:
        """The entry of a key, or None. Takes as long for any key: all entries are compared, each in constant time."""
        digest = _digest(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def read_keys(inline: SecretStr | None, file: Path | None) -> KeyRing:
    """The keys of the settings: a JSON list of entries, given as text, in a file, or some in each.

    Raises:
        KeyListError: not such a list, or the file cannot be read.
    """
    keys: list[ApiKey] = []
    if inline is not None:
        keys += _parsed(inline.get_secret_value(), "GATEWAY_API_KEYS")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyListError(f"GATEWAY_API_KEYS_FILE: {file}: {error}") from None
        keys += _parsed(text, "GATEWAY_API_KEYS_FILE")
    return KeyRing(keys)


def _parsed(text: str, source: str) -> list[ApiKey]:
    try:
        return _KEYS.validate_json(text)
    except ValidationError as error:
        # Not its own text: that shows what was given, which may be a key.
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        expected = "expected a JSON list of entries as `python -m gateway key` prints them"
        raise KeyListError(f"{source}: {where + ': ' if where else ''}{problem['msg']}; {expected}") from None


def new_key(name: str, scope: Scope, allow: Sequence[str]) -> tuple[str, ApiKey]:
    """Make a key.

    Returns:
        The key itself, which is kept nowhere, and its entry.

    Raises:
        ValueError: a name or a pattern that is none.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, ApiKey(name=name, sha256=_digest(key), scope=scope, allow=tuple(allow))


def entry_text(key: ApiKey) -> str:
    """An entry as it stands in the settings."""
    return json.dumps(key.model_dump(mode="json"))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
