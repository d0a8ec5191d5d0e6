"""Which names a new ROI may have. Models folders travel, also to Windows and to file systems that ignore case."""

from collections.abc import Callable, Collection
from dataclasses import asdict

from gateway.errors import InvalidRequestError
from gateway.store.ids import alike, is_reserved
from gateway.store.roi_key import DEFAULT_RECIPE, RoiKey


def require_new_name(key: RoiKey, others: Collection[RoiKey], is_in_use: Callable[[RoiKey], bool]) -> None:
    """Refuse the name of a new ROI that would not survive a copy of the models folder.

    Args:
        key: the new ROI.
        others: all other ROIs that have a folder.
        is_in_use: returns whether one of them counts; one that does not is left from an interrupted first fit.

    Raises:
        InvalidRequestError: the message names the id, and the id that it differs from only in case.
    """
    for field, value in asdict(key).items():
        if is_reserved(value):
            raise InvalidRequestError(
                f"{field}: Windows reserves the name {value!r} for a device, so the folder of a new ROI cannot have it",
                f"Use another {field}, for example {value.partition('.')[0] + '-1'!r}.",
            )
    if alike(key.recipe_id, DEFAULT_RECIPE):
        raise _alike("recipe_id", key.recipe_id, DEFAULT_RECIPE, f"recipe {DEFAULT_RECIPE!r}")
    for other in others:
        if alike(key.recipe_id, other.recipe_id) and is_in_use(other):
            raise _alike("recipe_id", key.recipe_id, other.recipe_id, f"recipe {other.recipe_id!r}")
        if key.recipe_id != other.recipe_id:
            continue
        if alike(key.role_id, other.role_id) and is_in_use(other):
            raise _alike("role_id", key.role_id, other.role_id, f"role {other.role_id!r}")
        if key.role_id == other.role_id and alike(key.roi_id, other.roi_id) and is_in_use(other):
            raise _alike("roi_id", key.roi_id, other.roi_id, f"ROI {str(other)!r}")


def _alike(field: str, value: str, other: str, existing: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field}: {value!r} differs only in case from the existing {existing}; file systems that ignore case mix "
        "them up",
        f"Use the {field} {other!r}, or one that differs in more than case.",
    )
