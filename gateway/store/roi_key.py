"""The name of an ROI, and its place in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self
from urllib.parse import quote

from gateway.errors import InvalidRequestError
from gateway.store.ids import ID_RULE, LONGEST_FOLDER_NAME, folder_name, id_of_folder, valid_id

DEFAULT_RECIPE = "default"
"""Recipe of a request that names none."""
_RECIPES = ".recipes"
"""Folder of all other recipes, beside the roles of the default recipe: no id starts with a dot."""


@dataclass(frozen=True, slots=True, order=True)
class RoiKey:
    """A role (a part or a station) and one of its ROIs, in a recipe (a variant of the product).

    All ids are valid and in Unicode's normalisation form C. Two recipes share nothing.
    """

    role_id: str
    roi_id: str
    recipe_id: str = DEFAULT_RECIPE

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` gives: ``role_id/roi_id`` in the default recipe, or ``recipe_id/role_id/roi_id``.

        Raises:
            InvalidRequestError: the text has another form, or an id is invalid.
        """
        ids = text.split("/")
        if len(ids) not in (2, 3):
            raise InvalidRequestError(f"{text[:200]!r} is not an ROI", "Use ROLE/ROI, or RECIPE/ROLE/ROI.")
        return cls(ids[-2], ids[-1], *ids[:-2])

    def __post_init__(self) -> None:
        """Normalise the ids, and refuse invalid ones.

        Raises:
            InvalidRequestError: the message names the id and the hint gives the rule.
        """
        for field in ("role_id", "roi_id", "recipe_id"):
            object.__setattr__(self, field, _checked(field, getattr(self, field)))

    def __str__(self) -> str:
        roi = f"{self.role_id}/{self.roi_id}"
        return roi if self.recipe_id == DEFAULT_RECIPE else f"{self.recipe_id}/{roi}"

    @property
    def path(self) -> PurePath:
        """The relative path of everything that is stored of the ROI. It is safe in any folder."""
        path = PurePath(folder_name(self.role_id), folder_name(self.roi_id))
        return path if self.recipe_id == DEFAULT_RECIPE else PurePath(_RECIPES, folder_name(self.recipe_id)) / path

    def url(self, rest: str = "") -> str:
        """Return the path of an endpoint of the ROI, for messages.

        Args:
            rest: what follows the ROI in the path, such as ``/ok/…``.
        """
        query = "" if self.recipe_id == DEFAULT_RECIPE else f"?recipe_id={quote(self.recipe_id, safe='')}"
        return f"/rois/{quote(self.role_id, safe='')}/{quote(self.roi_id, safe='')}{rest}{query}"


def stored_keys(root: Path) -> Iterator[RoiKey]:
    """Yield the ROIs that have a folder `RoiKey.path` in a folder, in any order."""
    for folder in (*root.glob("*/*"), *root.glob(f"{_RECIPES}/*/*/*")):
        key = key_of(folder.relative_to(root))
        if key is not None and folder.is_dir():
            yield key


def key_of(path: PurePath) -> RoiKey | None:
    """Return the ROI that has a path, or None for a path of no ROI."""
    names = path.parts
    if len(names) not in (2, 4):
        return None
    role_id, roi_id = id_of_folder(names[-2]), id_of_folder(names[-1])
    recipe_id = DEFAULT_RECIPE if len(names) == 2 else id_of_folder(names[1])
    if role_id is None or roi_id is None or recipe_id is None:
        return None
    key = RoiKey(role_id, roi_id, recipe_id)
    return key if key.path == path else None  # else a folder "default" among the other recipes


def file_of(root: Path, key: RoiKey, extension: str) -> Path:
    """Return the file of an ROI in a folder with one file for each ROI."""
    path = root / key.path
    return path.with_name(f"{path.name}.{extension}")


def _checked(field: str, given: str) -> str:
    value = valid_id(given)
    if value is None:
        shown = given if len(given) <= 70 else f"{given[:70]}… ({len(given)} characters)"
        raise InvalidRequestError(f"{field}: {shown!r} is not a valid id", f"Use {ID_RULE}.")
    n_bytes = len(folder_name(value))
    if n_bytes > LONGEST_FOLDER_NAME:
        raise InvalidRequestError(
            f"{field}: {value!r} is too long: its folder name has {n_bytes} bytes; the limit is {LONGEST_FOLDER_NAME}",
            "Use fewer characters. A character outside A-Z, a-z and 0-9 counts 3 for each of its bytes in UTF-8: a "
            "Cyrillic letter 6, a Chinese one 9.",
        )
    return value
