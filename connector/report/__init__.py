"""The picture: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence, Sized
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from connector.quality.answers import ABSENT
from connector.report import draw
from connector.report.data import (
    AgreementMatrix,
    AnnotatorRow,
    BeforeAfter,
    Box,
    Card,
    Choice,
    ConfusionMatrix,
    CorrectionRow,
    Figure,
    Progress,
    ReportData,
)

__all__ = [
    "AgreementMatrix",
    "AnnotatorRow",
    "BeforeAfter",
    "Box",
    "Card",
    "Choice",
    "ConfusionMatrix",
    "CorrectionRow",
    "Figure",
    "Progress",
    "ReportData",
    "render",
]


def render(data: ReportData) -> str:
    """Write the report. The same data gives the same bytes.

    All text in the data is escaped, and the page's own policy forbids it to load or run anything.

    Args:
        data: what to show.

    Returns:
        An HTML page; encode it as UTF-8.

    Raises:
        BadRecord: if a picture's bytes are no picture.
        ValueError: if a time has no zone, a number is NaN or infinite, or the sides of a matrix differ.
    """
    for matrix in data.agreement:
        _check_square(matrix.control, matrix.names, matrix.values)
        _check_square(matrix.control, matrix.names, matrix.n)
    for confusion in data.confusion:
        _check_square(confusion.control, confusion.labels, confusion.counts)
        _check_square(confusion.control, confusion.labels, [confusion.totals] * len(confusion.labels))
    style = _style(max((len(draw.people(data.cards, card)) for card in data.cards), default=0))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template().render(report=data, style=Markup(style), style_hash=digest)


def _check_square(control: str, names: Sized, rows: Sequence[Sized]) -> None:
    sizes = {len(row) for row in rows} | {len(rows)}
    if sizes != {len(names)}:
        raise ValueError(
            f"the matrix of {control!r} has {len(names)} names, but its sides are {sorted(sizes)}"
        )


def _style(people: int) -> str:
    """The style sheet, with one rule an annotator that hides the boxes when their box is not ticked."""
    sheet = (resources.files("connector.report") / "page.css").read_text(encoding="utf-8")
    rules = (f".card:has(.t{i}:not(:checked)) .a{i} {{ display: none; }}\n" for i in range(people))
    return sheet + "".join(rules)


@cache
def _template() -> jinja2.Template:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("connector.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.globals.update(draw=draw, absent=ABSENT)
    return env.get_template("page.html.j2")
