"""What is wrong with a region that can be read: what the ontology, the task or its own mask do not allow."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from connector.model import Control, Ontology
from connector.regions.answers import SEPARATOR, Answer, Date, Numeric, Ranking, Rating, Taxonomy
from connector.regions.base import Region, Relation
from connector.regions.drawn import Bitmask, Drawn, Mask, ParagraphSpan, Span


def check(region: Region, ontology: Ontology, data: Mapping[str, Any] | None = None) -> None:
    """Refuse a region that its ontology does not allow, or that cannot be true of its task.

    Args:
        data: the task's data; with it, spans past the end of their text are found.

    Raises:
        BadRecord: for a control, an object, a type or a label that the ontology does not have, for more
            labels than one where one is asked for, for an answer out of bounds, for a span past the end of
            its text, and for a mask that cannot be decoded.
    """
    if isinstance(region, Relation):
        _check_relation(region, ontology)
        return
    control = ontology.control(region.control)
    if control is None:
        raise region.refuse("the ontology has no such control")
    if region.type not in (control.kind, _OLD_NAMES.get(control.kind)):
        raise region.refuse(f"the control answers with {control.kind}, found {region.type}")
    if region.target not in (*control.targets, control.name):  # a comparison is about itself
        raise region.refuse(
            f"the control is about {', '.join(control.targets)}, and the region about {region.target}"
        )
    _check_labels(region, control, ontology)
    if isinstance(region, Answer):
        _check_limits(region, control)
    if isinstance(region, Drawn) and data is not None:
        _check_end(region, ontology, data)
    if isinstance(region, Mask):
        _check_runs(region)
    if isinstance(region, Bitmask):
        _check_png(region)


_OLD_NAMES = {"hypertextlabels": "htmllabels"}


def _check_relation(region: Relation, ontology: Ontology) -> None:
    known = {label for c in ontology.controls if c.kind == "relations" for label in c.labels}
    for label in region.labels:
        if label not in known:
            raise region.refuse(f"no relation is called {label!r}")


def _check_labels(region: Region, control: Control, ontology: Ontology) -> None:
    given = region.labels
    askers = [control]
    if isinstance(region, Drawn) and not control.options and not control.dynamic:
        # What only draws takes its labels from the controls next to it.
        askers = [c for c in ontology.controls if c.kind.endswith("labels") and control.target in c.targets]
    if len(given) > 1 and not any(asker.multiple for asker in askers):
        raise region.refuse(f"the control takes one label, found {', '.join(given)}")
    if any(asker.dynamic or asker.limits.get("legacy") == "true" for asker in askers):
        return
    if isinstance(region, Taxonomy):
        unknown = [SEPARATOR.join(path) for path in region.answer() if control.path_to(path) is None]
    else:
        known = {label for asker in askers for label in asker.labels}
        unknown = [label for label in given if label not in known]
    if unknown:
        raise region.refuse(f"label {unknown[0]!r} is not in the ontology")


def _check_limits(region: Answer, control: Control) -> None:
    limits, found = control.limits, region.answer(control)
    low, high = limits.get("min"), limits.get("max")
    if isinstance(region, Rating):
        low, high = "0", limits.get("maxrating", "5")
    if isinstance(region, Rating | Numeric):
        inside = not (found < _bound(low) or found > _bound(high))
    elif isinstance(region, Date):
        # A bound may be a year or a day; `current` is whatever year it was then.
        high = None if high == "current" else high
        inside = (low or "") <= found and (high is None or found[: len(high)] <= high)
    else:
        inside = True
    if not inside:
        bounds = " and ".join(filter(None, [low and f"at least {low}", high and f"at most {high}"]))
        raise region.refuse(f"the answer must be {bounds}, found {found}")
    if isinstance(region, Ranking):
        _check_buckets(region, control)


def _bound(text: str | None) -> float:
    """A bound that is no number bounds nothing, as in the editor: nothing is less or more than NaN."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _check_buckets(region: Ranking, control: Control) -> None:
    """Without buckets all items are in one that has the control's name; `_` holds those left in the list."""
    buckets = {"_", *(option.value for option in control.options)} if control.options else {control.name}
    for bucket in region.answer():
        if bucket not in buckets:
            raise region.refuse(f"there is no bucket {bucket!r}")


def _check_end(region: Drawn, ontology: Ontology, data: Mapping[str, Any]) -> None:
    kind, field = ontology.object(region.target) or ("", "")
    attributes = ontology.object_attributes.get(region.target, {})
    shown = data.get(field)
    if isinstance(region, Span) and kind == "text" and isinstance(shown, str):
        if attributes.get("valuetype") != "url" and region.value.end > units(shown):
            raise region.refuse(f"it ends at {region.value.end}, and the text at {units(shown)}")
    elif isinstance(region, ParagraphSpan) and isinstance(shown, list):
        value = region.value
        for place, offset in ((int(value.start), value.startOffset), (int(value.end), value.endOffset)):
            if place >= len(shown):
                raise region.refuse(f"there is no paragraph {place}, only {len(shown)} from 0 on")
            said = shown[place] if isinstance(shown[place], Mapping) else {}
            length = units(str(said.get(attributes.get("textkey", "text"), "")))
            if offset > length:
                raise region.refuse(f"it reaches {offset} in paragraph {place}, which ends at {length}")


def units(text: str) -> int:
    """The length of a text in UTF-16 units, as browsers count offsets."""
    return len(text) + sum(character > "\uffff" for character in text)


_HEADER = 53
"""Bits before the first run: the number of values (32), the bits of a value (5), of four lengths (4 each)."""


def check_size(mask: Mask) -> None:
    """Refuse a mask whose code does not say as many values as its picture has, four for each pixel.

    Raises:
        BadRecord: with both numbers.
    """
    values = int.from_bytes(bytes(mask.rle[:4]))
    picture = mask.picture
    if picture and values != 4 * picture[0] * picture[1]:
        raise mask.refuse(
            f"bad RLE: it holds {values} values, and the picture of {picture[0]:g}×{picture[1]:g} "
            f"pixels has {4 * picture[0] * picture[1]:g}"
        )


def _check_runs(mask: Mask) -> None:
    """Walk the run-length code without decoding it: a flag (1 bit: one value repeated, or as many values as
    the length says), which of the four widths the length has (2 bits), the length less one, the values."""
    bits = bin(int.from_bytes(b"\1" + bytes(mask.rle)))[3:]
    values, width = int(bits[:32], 2), int(bits[32:37], 2) + 1
    widths = [int(bits[at : at + 4], 2) + 1 for at in range(37, _HEADER, 4)]
    at, done = _HEADER, 0
    while done < values:
        if at + 3 > len(bits):
            raise mask.refuse(f"bad RLE: it ends after {done} of {values} values")
        length_at = at + 3
        at = length_at + widths[int(bits[at + 1 : length_at], 2)]
        length = int(bits[length_at:at] or "0", 2) + 1
        at += width * (1 if bits[length_at - 3] == "1" else length)
        done += length
    if at > len(bits) or done != values:
        raise mask.refuse(f"bad RLE: its runs hold {done} values instead of {values}, or end too soon")


def _check_png(mask: Bitmask) -> None:
    try:
        png = base64.b64decode(mask.png, validate=True)
    except ValueError as error:
        raise mask.refuse(f"the picture is not base64: {error}") from error
    # PNG specification, 5.2 and 11.2.2: a signature, then the header chunk with width and height.
    if png[:8] != b"\x89PNG\r\n\x1a\n" or png[12:16] != b"IHDR" or len(png) < 24:
        raise mask.refuse("the picture is not a PNG")
    size = (int.from_bytes(png[16:20]), int.from_bytes(png[20:24]))
    if mask.picture and mask.picture != size:
        width, height = mask.picture
        raise mask.refuse(f"the mask has {size[0]}×{size[1]} pixels, its picture {width:g}×{height:g}")
