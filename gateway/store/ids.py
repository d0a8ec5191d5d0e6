"""Ids: which texts are valid, and how an id becomes the name of a folder and back.

A-Z, a-z, 0-9, space, ``.``, ``_`` and ``-`` stand for themselves in a folder name. Every other character is
percent-encoded: its UTF-8 bytes as ``%XX`` with upper-case digits. No id contains ``%``, so two ids never have the same
folder. The names are ASCII, so a copy on another file system has the same names.
"""

import re
import unicodedata
from urllib.parse import quote, unquote

LONGEST_ID = 64
LONGEST_FOLDER_NAME = 249
"""In bytes: 255, the limit of common file systems, without the ``.jsonl`` of an audit trail."""

ID_PATTERN = rf"^[\p{{L}}\p{{Nd}}_-](?:[\p{{L}}\p{{M}}\p{{Nd}} ._-]{{0,{LONGEST_ID - 2}}}[\p{{L}}\p{{M}}\p{{Nd}}_-])?$"
"""For the OpenAPI document, in the syntax of ECMA-262 with the flag ``u``. `valid_id` also refuses `_INVISIBLE`."""
ID_RULE = (
    f"1 to {LONGEST_ID} characters: letters and digits of any script, space, '.', '_', '-', not starting or ending "
    "with a dot or a space"
)

_ASCII = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?", re.ASCII)
_LETTERS_AND_DIGITS = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"))
_MARKS = frozenset(("Mn", "Mc"))
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters and marks that are shown as nothing (Unicode's Default_Ignorable_Code_Point)."""
_LONGEST_TO_NORMALISE = 16 * LONGEST_ID
_FOLDER_NAME = re.compile(r"(?:[A-Za-z0-9 ._-]|%[0-9A-F]{2})+", re.ASCII)
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.ASCII)


def valid_id(value: str) -> str | None:
    """Return an id in Unicode's normalisation form C, or None if the text is not a valid id.

    Its folder name may still be too long.
    """
    if _ASCII.fullmatch(value):
        return value
    if len(value) > _LONGEST_TO_NORMALISE:
        return None
    value = unicodedata.normalize("NFC", value)
    if not 1 <= len(value) <= LONGEST_ID or value[0] in " ." or value[-1] in " ." or _INVISIBLE.search(value):
        return None
    kinds = [unicodedata.category(each) for each in value]
    if kinds[0] in _MARKS:  # it would combine with the character before the id
        return None
    is_valid = all(
        kind in _LETTERS_AND_DIGITS or kind in _MARKS or each in " ._-" for each, kind in zip(value, kinds, strict=True)
    )
    return value if is_valid else None


def folder_name(value: str) -> str:
    """Return the name of the folder of an id."""
    return quote(value, safe=" ._-")


def id_of_folder(name: str) -> str | None:
    """Return the id in the name of a folder, or None if it is not the folder of an id."""
    if not _FOLDER_NAME.fullmatch(name):
        return None
    try:
        value = valid_id(unquote(name, errors="strict"))
    except UnicodeDecodeError:
        return None
    return value if value is not None and folder_name(value) == name else None


def is_reserved(value: str) -> bool:
    """Return whether Windows refuses a folder with the name of an id: a device such as CON, with any extension.

    See "Naming Files, Paths, and Namespaces" in the documentation of Windows.
    """
    return _RESERVED.fullmatch(value.partition(".")[0].rstrip(" ").lower()) is not None


def alike(one: str, other: str) -> bool:
    """Return whether two different ids differ only in case. A file system that ignores case may mix them up."""
    return one != other and _folded(one) == _folded(other)


def _folded(value: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", value).casefold())
