"""What a control declares about its answers, as far as distances between them depend on it."""

from __future__ import annotations

from connector.model import Control
from connector.quality.answers import days
from connector.quality.table import Scale
from connector.regions import Kind


def scale_of(control: Control, kind: Kind) -> Scale:
    """The range, step or order that a control declares.

    A rating counts from 1 to the highest one. A number has its bounds and its step, a date its bounds.
    Choices are in the order of the configuration (which says nothing unless a level is given), or are numbers
    themselves. A ranking has the order of its buckets; the order inside one counts where there are none.
    """
    limits = control.limits
    if kind is Kind.RATING:
        return Scale(low=1.0, high=_number(limits.get("maxrating", "5")), step=1.0)
    if kind is Kind.NUMBER:
        low, high, step = (_number(limits.get(name, "")) for name in ("min", "max", "step"))
        return Scale(low=low, high=high, step=step)
    if kind is Kind.DATE:
        if limits.get("only") == "time":
            return Scale(low=0.0, high=1.0)
        return Scale(low=_day(limits.get("min", "")), high=_day(limits.get("max", "")))
    if kind is Kind.CHOICE and not control.dynamic:
        values = [_number(label) for label in control.labels]
        numbers = [value for value in values if value is not None]
        if numbers and len(numbers) == len(values):
            return Scale(low=min(numbers), high=max(numbers))
        return Scale(order=control.labels)
    if kind is Kind.RANKING:
        return Scale(order=tuple(option.value for option in control.options))
    return Scale()


def _number(text: str) -> float | None:
    """A bound; None where it is no number, as the editor ignores it too."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _day(text: str) -> float | None:
    """A bound of dates, which may be a year; None where it is none, or `current`."""
    try:
        return float(days([f"{text}-01-01" if text.isdecimal() else text])[0])
    except ValueError:
        return None
