"""The name of an ROI, and its place in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from gateway.errors import InvalidRequestError
from gateway.store.ids import ID_RULE, LONGEST_FOLDER_NAME, folder_name, id_of_folder, valid_id


@dataclass(frozen=True, slots=True, order=True)
class RoiKey:
    """A role (a part or a station) and one of its ROIs. Both ids are valid and in Unicode's normalisation form C."""

    role_id: str
    roi_id: str

    def __post_init__(self) -> None:
        """Normalise the ids, and refuse invalid ones.

        Raises:
            InvalidRequestError: the message names the id and the hint gives the rule.
        """
        for field in ("role_id", "roi_id"):
            object.__setattr__(self, field, _checked(field, getattr(self, field)))

    def __str__(self) -> str:
        return f"{self.role_id}/{self.roi_id}"

    @property
    def path(self) -> PurePath:
        """The relative path of everything that is stored of the ROI. It is safe in any folder."""
        return PurePath(folder_name(self.role_id), folder_name(self.roi_id))


def stored_keys(root: Path) -> Iterator[RoiKey]:
    """Yield the ROIs that have a folder `RoiKey.path` in a folder, in any order."""
    for folder in root.glob("*/*"):
        role_id, roi_id = id_of_folder(folder.parent.name), id_of_folder(folder.name)
        if role_id is not None and roi_id is not None and folder.is_dir():
            yield RoiKey(role_id, roi_id)


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
