"""What a section of the settings is made of: its base classes and the types of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator

from flight_server.layers import masked, nearest

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[ByteSize, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
#: Of a whole, without zero: nothing at all would be more than none.
Share = Annotated[float, Field(gt=0, le=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the settings: frozen, unknown keys refused, secrets masked in its repr."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class PassThrough(Section):
    """A section that hands the names it does not know itself to a library."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)
    #: Whose names pass through, for messages.
    owner: ClassVar[str] = ""

    @model_validator(mode="after")
    def _extras_are_names_of_the_library(self) -> PassThrough:
        for key, value in self.extras().items():
            own, first = type(self).model_fields, key.partition(".")[0]
            near = first if first in own else nearest(key, own)
            if near is not None:
                raise ValueError(f"unknown key {key!r}: did you mean {near!r}?")
            if isinstance(value, (dict, list)):
                raise ValueError(  # noqa: TRY004  # pydantic turns a ValueError into a report
                    f"{key!r} must be one value: a text, a number or a boolean"
                )
        return self

    def extras(self) -> Mapping[str, object]:
        """What passes through, as it was given."""
        return dict(self.__pydantic_extra__ or {})

    def properties(self) -> dict[str, str]:
        """What passes through, as texts (booleans as ``true`` and ``false``)."""
        return {key: _as_text(value) for key, value in self.extras().items()}

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        return [(key, masked(key, value)) for key, value in self]


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
