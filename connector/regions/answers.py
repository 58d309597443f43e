"""Regions that answer a question, about the whole object or about one drawn region."""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from connector.model import Control
from connector.regions.base import Answered, Expect, Name, Number, Part, Paths, Size, Text
from connector.regions.drawn import PLACE
from connector.regions.kinds import Kind


class Answer(Answered):
    """A region that is an answer, of the whole object or of one drawn region."""

    @property
    def parent(self) -> str | None:
        """The id of the drawn region that this answer is about, if it carries that region's place.

        An answer written by a program may leave the place out: `areas` joins by the id alone.
        """
        about = any(key in PLACE for key in self.value.model_extra or ())
        return str(self.id) if about and self.id is not None else None

    @abstractmethod
    def answer(self, control: Control | None = None) -> Any:
        """What was answered, in one form that JSON can hold.

        choice: a list of labels · taxonomy: a list of paths · rating, number: a number · date: ISO 8601 ·
        text: the texts, one a line · pairwise: left or right · ranking: the items of every bucket.

        Args:
            control: the question, whose `format` tells how a date is written.

        Raises:
            BadRecord: if a date is not written in that form.
        """


class _ChoicesValue(Part):
    choices: Annotated[list[Name], Field(min_length=1), Expect("a list of texts that are not empty")]


class Choices(Answer):
    kind = Kind.CHOICE
    value: _ChoicesValue

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.value.choices)

    def answer(self, control: Control | None = None) -> list[str]:  # noqa: ARG002
        return list(self.value.choices)


SEPARATOR = " / "
"""Between the steps of a path where it is told as one label."""


class _PathsValue(Part):
    taxonomy: Paths | None = None
    choices: Paths | None = None


class Taxonomy(Answer):
    """Paths in a tree, from its root; also the answers of `Choices` that may be nested."""

    kind = Kind.TAXONOMY
    value: _PathsValue

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(SEPARATOR.join(path) for path in self.answer())

    def answer(self, control: Control | None = None) -> list[list[str]]:  # noqa: ARG002
        return self.value.taxonomy or self.value.choices or []

    def by_alias(self, control: Control) -> Taxonomy:
        """The same answer in the labels of its control, whether it was given by values or by aliases."""
        known = (tuple(control.path_to(path) or path) for path in self.answer())
        paths = [list(path) for path in dict.fromkeys(known)]
        if paths == self.answer():
            return self
        name = "taxonomy" if self.value.taxonomy else "choices"
        return self.model_copy(update={"value": self.value.model_copy(update={name: paths})})


class _RatingValue(Part):
    rating: Size


class Rating(Answer):
    kind = Kind.RATING
    value: _RatingValue

    def answer(self, control: Control | None = None) -> float:  # noqa: ARG002
        return self.value.rating


class _NumericValue(Part):
    number: Number


class Numeric(Answer):
    kind = Kind.NUMBER
    value: _NumericValue

    def answer(self, control: Control | None = None) -> float:  # noqa: ARG002
        return self.value.number


class _DateValue(Part):
    datetime: Name


class Date(Answer):
    kind = Kind.DATE
    value: _DateValue

    def answer(self, control: Control | None = None) -> str:
        text = self.value.datetime
        limits = control.limits if control else {}
        only = limits.get("only", "date,time")
        form = "" if only == "time" else limits.get("format", "")  # the editor leaves a time as it is
        try:
            if form:
                moment = datetime.strptime(text, _python_form(form))  # noqa: DTZ007 - the editor keeps no zone
                return moment.isoformat() if "time" in only else str(moment.date())
            return (
                str(date.fromisoformat(text)) if len(text) == 10 else datetime.fromisoformat(text).isoformat()
            )
        except (ValueError, re.error) as error:  # the latter for a form that has a part twice
            if form:
                raise self.refuse(f"the date {text!r} is not of the form {form!r}") from error
            return text


def _python_form(form: str) -> str:
    """The editor's form of a date as Python writes it, which reads numbers with and without padding."""
    return re.sub("%[-_0]", "%", form).replace("%e", "%d")


class _TextValue(Part):
    text: Annotated[Text | list[Text], Expect("text or a list of texts")]


class TextAnswer(Answer):
    kind = Kind.TEXT
    value: _TextValue

    def answer(self, control: Control | None = None) -> str:  # noqa: ARG002
        text = self.value.text
        return text if isinstance(text, str) else "\n".join(text)


class _PairwiseValue(Part):
    selected: Annotated[Literal["left", "right"], Expect("left or right")]


class Pairwise(Answer):
    kind = Kind.PAIRWISE
    value: _PairwiseValue

    def answer(self, control: Control | None = None) -> str:  # noqa: ARG002
        return self.value.selected


class _RankingValue(Part):
    ranker: Annotated[dict[str, list[Name]] | list[Name], Expect("lists of items, by bucket")]


class Ranking(Answer):
    kind = Kind.RANKING
    value: _RankingValue

    def answer(self, control: Control | None = None) -> dict[str, list[str]]:  # noqa: ARG002
        found = self.value.ranker
        return found if isinstance(found, dict) else {self.control: found}
