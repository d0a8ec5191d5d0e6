"""Unknown and repeated fields of a request."""

from collections import Counter
from collections.abc import Collection, Iterable
from difflib import get_close_matches

IGNORED_FIELDS = frozenset({"model_key"})
"""Fields that known clients send and that mean nothing here. The desktop GUI sends ``model_key``, a copy of roi_id."""

_MOST_SHOWN = 5
_LIKENESS = 0.6


def unknown_fields(names: Iterable[str], known: Collection[str], kind: str = "field") -> str | None:
    """Return a message about unknown names, with the nearest known name of each, or None.

    Args:
        names: the names in the request.
        known: the names that the endpoint knows.
        kind: what a name is, for the message.
    """
    unknown = [name for name in dict.fromkeys(names) if name not in known and name not in IGNORED_FIELDS]
    if not unknown:
        return None
    said = [_described(name, known) for name in unknown[:_MOST_SHOWN]]
    if len(unknown) > _MOST_SHOWN:
        said.append(f"and {len(unknown) - _MOST_SHOWN} more")
    return f"unknown {kind}{'s' if len(unknown) > 1 else ''} {', '.join(said)}"


def known_hint(known: Collection[str]) -> str:
    """Return a hint that lists the known names."""
    if not known:
        return "This endpoint has no such fields. Leave it out."
    return f"Correct the name or leave the field out. Known here: {', '.join(sorted(known))}."


def repeated_field(names: Iterable[str], lists: Collection[str] = ()) -> str | None:
    """Return the first name that occurs more than once and is not a list, or None.

    Args:
        names: the names in the request.
        lists: names that may occur more than once.
    """
    counts = Counter(names)
    return next((name for name, n in counts.items() if n > 1 and name not in lists), None)


def _described(name: str, known: Collection[str]) -> str:
    shown = repr(name if len(name) <= 64 else f"{name[:64]}…")
    # Case and separators first: "roiId" and "ROI-ID" mean "roi_id".
    plain = {_plain(each): each for each in known}
    if _plain(name) in plain:
        return f"{shown} (did you mean {plain[_plain(name)]!r}?)"
    near = get_close_matches(_plain(name[:64]), plain, 1, _LIKENESS)
    return f"{shown} (did you mean {plain[near[0]]!r}?)" if near else shown


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
