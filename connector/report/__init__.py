"""The picture: one HTML file that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from connector.quality.units import ABSENT
from connector.report import draw
from connector.report.data import (
    AgreementMatrix,
    AnnotatorRow,
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
        ValueError: if a time has no zone, a number is NaN or infinite, or a matrix is not square.
    """
    for matrix in data.agreement:
        _square(matrix.control, matrix.names, matrix.values)
        _square(matrix.control, matrix.names, matrix.n)
    for confusion in data.confusion:
        _square(confusion.control, confusion.labels, confusion.counts)
    style = _style(max((len(draw.people(data.cards, card)) for card in data.cards), default=0))
    return _template().render(report=data, style=Markup(style), style_hash=_hash(style))


def _square(control: str, names: object, rows: object) -> None:
    assert isinstance(names, (list, tuple))
