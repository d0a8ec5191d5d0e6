"""Models that are stored as JSON files with a seal."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.store.checksummed import FORMAT, DamagedError, sealed, unsealed


class SealedModel(BaseModel):
    """A model that is stored as a JSON file with a seal."""

    model_config = ConfigDict(frozen=True)

    newest: ClassVar[int] = FORMAT
    """The newest format of such a file."""

    format: Literal[1, 2, 3, 4, 5] = 2

    def to_bytes(self) -> bytes:
        """Return the file's bytes in the present format."""
        return sealed(self.model_copy(update={"format": FORMAT}).model_dump_json(indent=1))

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Read a file.

        Raises:
            DamagedError: the file is damaged or is not such a file.
            NewerFormatError: the file is whole but has a later format.
        """
        try:
            return cls.model_validate(unsealed(data, name, cls.newest), strict=False)
        except ValidationError as error:
            raise DamagedError(f"{name} does not hold what it should") from error
