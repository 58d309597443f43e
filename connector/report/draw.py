"""How numbers become words and places in a drawing."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from PIL import Image, UnidentifiedImageError

from connector.errors import BadRecord
from connector.quality.answers import ABSENT
from connector.quality.interval import Estimate
from connector.report.data import BeforeAfter, Box, Card, Choice, ConfusionMatrix, Progress

COLOURS = 7
"""The palette of annotators: Okabe and Ito (2008), who chose it for colour-blind readers, without black."""

STEPS = 10
"""A heat map has so many steps above its lowest."""

ROWS = 30
"""So many corrections are shown; whoever wants all of them reads the plan."""

Axis = tuple[float, float]

_NARROW_SPACE = "\u202f"
_MINUS = "\u2212"
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
_HOUR = 3600


def percent(share: float) -> str:
    """A share as a percentage; only a whole is 100 %, only nothing is 0 %.

    >>> percent(0.9996), percent(1.0), percent(0.5)
    ('> 99.9\u202f%', '100\u202f%', '50.0\u202f%')

    Raises:
        ValueError: if it is not a number; what cannot be computed is an unknown `Estimate`.
    """
    _finite(share)
    if share in (0, 1):
        return f"{share * 100:z.0f}{_NARROW_SPACE}%"
    if 0.9995 <= share < 1:
        return f"> 99.9{_NARROW_SPACE}%"
    if 0 < share < 0.0005:
        return f"< 0.1{_NARROW_SPACE}%"
    return f"{share * 100:z.1f}{_NARROW_SPACE}%".replace("-", _MINUS)


def level(confidence: float) -> str:
    """The confidence of intervals, as one says it.

    >>> level(0.95), level(0.999)
    ('95\u202f%', '99.9\u202f%')
    """
    _finite(confidence)
    return f"{100 * confidence:.6g}{_NARROW_SPACE}%"


def decimal(value: float) -> str:
    """A coefficient, such as alpha.

    Raises:
        ValueError: if it is not a number.
    """
    _finite(value)
    return f"{value:z.3f}".replace("-", _MINUS)


def count(number: int) -> str:
    """A count, its thousands set apart.

    >>> count(1234567)
    '1\u202f234\u202f567'
    """
    return f"{number:,}".replace(",", _NARROW_SPACE)


def rate(per_hour: float) -> str:
    """A rate, with a decimal only where it is small."""
    _finite(per_hour)
    return f"{per_hour:.1f}" if per_hour < 9.95 else count(round(per_hour))


def duration(seconds: float) -> str:
    """A time span in the units one would say it in.

    >>> duration(8.44), duration(95), duration(4000)
    ('8.4 s', '1 min 35 s', '1 h 7 min')
    """
    _finite(seconds)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < _HOUR - 0.5:
        return "{} min {:02} s".format(*divmod(round(seconds), 60))
    return "{} h {} min".format(*divmod(round(seconds / 60), 60))


def moment(at: datetime) -> str:
    """A time, in UTC.

    Raises:
        ValueError: if it has no time zone.
    """
    return f"{_utc(at):%Y-%m-%d %H:%M} UTC"


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone; this project keeps UTC everywhere")
    return at.astimezone(UTC)


def spoken(label: str) -> str:
    """A label as people say it."""
    return "nothing" if label == ABSENT else label


def axis(estimates: Iterable[Estimate], limit: float | None = None) -> Axis:
    """The ends of a drawing that holds all of these: from a tenth at or below the lowest, up to 1.

    >>> axis([Estimate(0.9, 0.84, 0.95, 50, "wilson")])
    (0.8, 1.0)
    """
    seen = [number for one in estimates for number in (one.value, one.low) if number is not None]
    if limit is not None:
        seen.append(limit)
    _finite(*seen)
    lowest = min([0.9, *seen])
    return max(-1.0, math.floor(round(lowest * 10, 9)) / 10), 1.0


def whole_axis(estimate: Estimate) -> Axis:
    """0 to 1, or -1 to 1 where the value or its interval is below 0."""
    seen = [number for number in (estimate.value, estimate.low) if number is not None]
    return (-1.0 if min(seen, default=0.0) < 0 else 0.0), 1.0


def place(value: float, ends: Axis) -> str:
    """Where a value stands between the ends, in percent of the drawing."""
    _finite(value)
    low, high = ends
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"


def span(start: float, length: float) -> str:
    """A coordinate in percent, as SVG reads it."""
    _finite(start, length)
    return f"{start + length:.2f}%"


def step(value: float, ends: Axis = (0.0, 1.0)) -> int:
    """The step of a heat map, 0 to `STEPS`."""
    _finite(value)
    low, high = ends
    return round(STEPS * min(1.0, max(0.0, (value - low) / (high - low))))


def heat_axis(values: Sequence[Sequence[float | None]]) -> Axis:
    """The ends of a heat map's colours, which do not count the diagonal."""
    seen = [v for i, row in enumerate(values) for j, v in enumerate(row) if v is not None and i != j]
    _finite(*seen)
    lowest = min([0.9, *seen])
    return max(0.0, math.floor(round(lowest * 10, 9)) / 10), 1.0


def recall(matrix: ConfusionMatrix) -> list[list[float | None]]:
    """(L, L) the share each cell has of its gold label; None in a row without units."""
    return [
        [n / total if total else None for n in row]
        for row, total in zip(matrix.counts, matrix.totals, strict=True)
    ]


def picture(card: Card | BeforeAfter) -> tuple[str, int, int] | None:
    """The picture of a card as a data URI, with its width and height in pixels.

    Raises:
        BadRecord: if the bytes are no picture that a browser shows.
    """
    if card.image is None:
        return None
    try:
        with Image.open(io.BytesIO(card.image), formats=_FORMATS) as image:
            mime, (width, height) = Image.MIME[image.format or ""], image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadRecord(
            f"task {card.task!r}: its picture is {len(card.image)} bytes that are not {', '.join(_FORMATS)}",
            "give the card no image, or the item's own bytes",
        ) from error
    return f"data:{mime};base64,{base64.b64encode(card.image).decode()}", width, height


def people(cards: Sequence[Card], card: Card) -> list[str]:
    """Who stands on a card; their place in the list is their colour.

    As long as the palette reaches, an annotator has the same colour on all cards.
    """
    everyone = _names(cards)
    return everyone if len(everyone) <= COLOURS else _names([card])


def _names(cards: Sequence[Card]) -> list[str]:
    drew = {box.annotator for card in cards for box in card.boxes}
    chose = {choice.annotator for card in cards for choice in card.choices}
    return sorted(drew | chose)


def votes(choices: Sequence[Choice]) -> list[tuple[str, int | None, list[tuple[str, list[str]]]]]:
    """Who said what: of each control or object the labels, the most frequent first, with who gave them."""
    said: dict[tuple[str, int | None], dict[str, list[str]]] = {}
    for one in choices:
        said.setdefault((one.control, one.object), {}).setdefault(one.label, []).append(one.annotator)
    return [
        (control, number, sorted(labels.items(), key=lambda entry: (-len(entry[1]), entry[0])))
        for (control, number), labels in said.items()
    ]


def tags(card: Card) -> list[tuple[int, str, str]]:
    """The numbers on a picture: number, x, y. Each stands at its object's corner, never off the picture."""
    corners: dict[int, Box] = {}
    for box in (*card.consensus, *card.boxes):
        if box.object is not None:
            corners.setdefault(box.object, box)
    return [
        (number, span(min(96.0, max(6.0, box.x)), 0), span(min(96.0, max(8.0, box.y)), 0))
        for number, box in sorted(corners.items())
    ]


def curve(progress: Progress) -> str:
    """The points of progress as an SVG polyline over a square of 100 by 100, with 0 at its bottom.

    Raises:
        ValueError: if a time has no time zone.
    """
    times = [_utc(at).timestamp() for at, _ in progress.points]
    start, wide = times[0], max(times[-1] - times[0], 1.0)
    top = ceiling(progress)
    return " ".join(
        f"{100 * (at - start) / wide:.2f},{100 - 100 * done / top:.2f}"
        for at, (_, done) in zip(times, progress.points, strict=True)
    )


def ceiling(progress: Progress) -> int:
    """The count at the top of the drawing of progress."""
    return max(1, progress.total or 0, *(done for _, done in progress.points))


def _finite(*numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise ValueError(f"{number} is no number to show; say why it is unknown instead")
