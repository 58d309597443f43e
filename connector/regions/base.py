"""What the fields of a region may hold. An integer stays an integer, and a float a float."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    InstanceOf,
    Strict,
)
from pydantic_core import CoreSchema, core_schema

from connector.errors import BadRecord
from connector.regions.kinds import Kind


class Expect:
    """Replaces whatever went wrong within a field by what the field must be."""

    def __init__(self, expected: str) -> None:
        self.expected = expected

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source), custom_error_type="expected", custom_error_message=self.expected
        )


class _NoInt:
    """Keeps an integer that is too large from coming back as a float, which strictness alone allows."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.chain_schema([core_schema.is_instance_schema(float), handler(source)])


_Int = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]  # larger ones have no place in a column
_Float = Annotated[float, Strict(), AllowInfNan(False)]
Number = Annotated[_Int | Annotated[_Float, _NoInt()], Expect("a finite number")]
Size = Annotated[
    Annotated[_Int, Field(ge=0)] | Annotated[_Float, Field(ge=0), _NoInt()],
    Expect("a finite number from 0 on"),
]
Pixels = Annotated[
    Annotated[_Int, Field(gt=0)] | Annotated[_Float, Field(gt=0), _NoInt()], Expect("a number over 0")
]
Count = Annotated[_Int, Field(ge=0), Expect("a whole number from 0 on")]
Id = Annotated[Annotated[str, Strict()] | _Int, Expect("text or a whole number")]
Index = Annotated[
    Annotated[str, Strict(), Field(pattern=r"^\d{1,18}$")] | Annotated[_Int, Field(ge=0)],
    Expect("the number of a paragraph"),
]
Name = Annotated[str, Strict(), Field(min_length=1), Expect("text")]
Names = Annotated[list[Name], Expect("a list of texts that are not empty")] | None
Paths = Annotated[
    list[Annotated[list[Name], Field(min_length=1)]], Expect("a list of paths, each a list of texts")
]
# Any string: the editor cuts characters of two halves in two, and half a character is no valid text.
Text = Annotated[InstanceOf[str], Expect("text")]
Rle = Annotated[
    list[Annotated[int, Strict(), Field(ge=0, le=255)]],
    Field(min_length=7),
    Expect("a list of whole numbers from 0 to 255"),
]
Point = Annotated[list[Number], Field(min_length=2, max_length=2), Expect("a pair of finite numbers")]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Region(Part):
    """One piece of an annotation.

    `id` is shared by all answers about the same drawn thing; `control` and `target` are the tool's
    `from_name` and `to_name`, empty where there are none; `item` counts pictures or entries of a list that
    are shown by one object.
    """

    kind: ClassVar[Kind]

    id: Id | None = None
    type: Name
    # Called as the tool calls them: by another name, a field of the tool of that name would be taken for it.
    from_name: Annotated[str, Expect("text")] = ""
    to_name: Annotated[str, Expect("text")] = ""
    item_index: Count | None = None

    @property
    def control(self) -> str:
        return self.from_name

    @property
    def target(self) -> str:
        return self.to_name

    @property
    def item(self) -> int | None:
        return self.item_index

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that were given; none for a thing that was drawn without."""
        return ()

    def dump(self) -> dict[str, Any]:
        """The region as the tool knows it: the same keys and values that were read."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def refuse(self, why: str) -> BadRecord:
        """The error that says what is wrong with this region."""
        where = f" of control {self.control!r}" if self.control else ""
        return BadRecord(f"region {self.id!r}{where}: {why}", why=why)


class Other(Region):
    """An answer that is kept and not read, such as one of a type that we do not know."""

    kind = Kind.UNMEASURED


RELATIONS = "relations"
"""The control that relations answer: they name none."""


class Relation(Region):
    """A link between two regions, named by their ids."""

    kind = Kind.RELATION

    type: Literal["relation"]
    from_id: Id
    to_id: Id
    direction: Annotated[Literal["left", "right", "bi"], Expect("left, right or bi")] = "right"
    given: Names = Field(default=None, alias="labels")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.given or ())

    @property
    def ends(self) -> tuple[str, str]:
        """The ids of the region it leaves and of the one it comes to; a link to the left is turned round."""
        ends = (str(self.from_id), str(self.to_id))
        return ends[::-1] if self.direction == "left" else ends


class Answered(Region):
    """A region that answers a control about an object."""

    from_name: Name
    to_name: Name
    value: Part
