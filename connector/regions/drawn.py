"""Regions with a place of their own: boxes, outlines, masks, spans, segments, tracks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Strict

from connector.regions.base import (
    Answered,
    Count,
    Expect,
    Id,
    Index,
    Name,
    Names,
    Number,
    Part,
    Pixels,
    Point,
    Rle,
    Size,
    Text,
)
from connector.regions.kinds import Kind


class Drawn(Answered):
    """A region with a place of its own.

    Coordinates in the value are percent of the picture's sides.
    """

    original_width: Pixels | None = None
    original_height: Pixels | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        for name in (self.type, "labels", "hypertextlabels", "htmllabels"):
            if name in type(self.value).model_fields and (found := getattr(self.value, name)) is not None:
                return tuple(found)
        return ()

    @property
    def picture(self) -> tuple[float, float] | None:
        """Width and height of the original picture in pixels, where the region says them."""
        if self.original_width is None or self.original_height is None:
            return None
        return float(self.original_width), float(self.original_height)

    @abstractmethod
    def geometry(self) -> list[float]:
        """Where it is, as a flat list by kind; on pictures in percent of their sides.

        box: x, y, width, height, rotation (degrees clockwise about the top left corner) ·
        ellipse: centre x, y, radius x, y, rotation (about the centre) · polygon, line: x, y of every point ·
        keypoint: x, y · span, html span: start, end in the text's UTF-16 units, as browsers count ·
        paragraph span: first paragraph, offset in it, last paragraph, offset in it ·
        segment: start, end in seconds, time stamps (seconds since 1970, UTC) or steps of a series; of a
        video in frames, the last one not included; with several ranges, one after the other ·
        track: frame, enabled (1 or 0), x, y, width, height, rotation of every keyframe ·
        mask: nothing; see `Mask.rle` and `Bitmask.png`.

        Raises:
            BadRecord: if the place cannot be told in numbers.
        """


class _Plain(Part):
    labels: Names = None


def _forward(value: Any) -> Any:
    """Whatever has a start and an end has them in this order."""
    if value.end < value.start:
        raise ValueError(f"ends at {value.end}, before it starts at {value.start}")
    return value


class _BoxValue(_Plain):
    x: Number
    y: Number
    width: Size
    height: Size
    rotation: Number | None = None
    rectanglelabels: Names = None
    ocrlabels: Names = None


class Box(Drawn):
    kind = Kind.BOX
    value: _BoxValue

    def geometry(self) -> list[float]:
        v = self.value
        return [float(side) for side in (v.x, v.y, v.width, v.height, v.rotation or 0)]


class _EllipseValue(_Plain):
    x: Number
    y: Number
    radiusX: Size
    radiusY: Size
    rotation: Number | None = None
    ellipselabels: Names = None


class Ellipse(Drawn):
    kind = Kind.ELLIPSE
    value: _EllipseValue

    def geometry(self) -> list[float]:
        v = self.value
        return [float(side) for side in (v.x, v.y, v.radiusX, v.radiusY, v.rotation or 0)]


class _PolygonValue(_Plain):
    points: Annotated[list[Point], Field(min_length=3), Expect("a list of three or more pairs of numbers")]
    polygonlabels: Names = None


class Polygon(Drawn):
    kind = Kind.POLYGON
    value: _PolygonValue

    def geometry(self) -> list[float]:
        return [float(side) for point in self.value.points for side in point]


class _KeyPointValue(_Plain):
    x: Number
    y: Number
    width: Size | None = None
    keypointlabels: Names = None


class KeyPoint(Drawn):
    kind = Kind.KEYPOINT
    value: _KeyPointValue

    def geometry(self) -> list[float]:
        return [float(self.value.x), float(self.value.y)]


class _Vertex(Part):
    x: Number
    y: Number
    id: Id | None = None
    prevPointId: Id | None = None


class _LineValue(_Plain):
    vertices: Annotated[list[_Vertex], Field(min_length=1)]
    closed: bool | None = None
    vectorlabels: Names = None


class Line(Drawn):
    """A chain of points. The bends between them are kept, and are no part of the geometry."""

    kind = Kind.LINE
    value: _LineValue

    def geometry(self) -> list[float]:
        before = [v.prevPointId for v in self.value.vertices if v.prevPointId is not None]
        if len(set(before)) < len(before):
            raise self.refuse("the line branches, and only chains of points are measured")
        chain = self.value.vertices + (self.value.vertices[:1] if self.value.closed else [])
        return [side for v in chain for side in (float(v.x), float(v.y))]


class _MaskValue(_Plain):
    rle: Rle
    format: Annotated[Literal["rle"], Expect("rle")] = "rle"
    brushlabels: Names = None


class Mask(Drawn):
    """A brushed area. `rle` is Label Studio's own run-length code of an RGBA picture, one byte a number."""

    kind = Kind.MASK
    value: _MaskValue

    @property
    def rle(self) -> list[int]:
        return self.value.rle

    def geometry(self) -> list[float]:
        return []


class _BitmaskValue(_Plain):
    imageDataURL: Annotated[
        str, Strict(), Field(pattern="^data:image/png;base64,"), Expect("a PNG as a data URL")
    ]
    bitmasklabels: Names = None


class Bitmask(Drawn):
    """An area as a picture: what is not transparent belongs to it."""

    kind = Kind.MASK
    value: _BitmaskValue

    @property
    def png(self) -> str:
        """The picture, base64."""
        return self.value.imageDataURL.partition(",")[2]

    def geometry(self) -> list[float]:
        return []


class _SpanValue(_Plain):
    start: Count
    end: Count
    text: Text | None = None
    hypertextlabels: Names = None
    htmllabels: Names = None


class Span(Drawn):
    """A piece of plain text, from one offset to another."""

    kind = Kind.SPAN
    value: Annotated[_SpanValue, AfterValidator(_forward)]

    def geometry(self) -> list[float]:
        return [float(self.value.start), float(self.value.end)]


class _Offsets(Part):
    start: Count
    end: Count


class _HtmlSpanValue(_Plain):
    start: Text
    end: Text
    startOffset: Count
    endOffset: Count
    globalOffsets: Annotated[_Offsets, AfterValidator(_forward)] | None = None
    text: Text | None = None
    hypertextlabels: Names = None
    htmllabels: Names = None


class HtmlSpan(Drawn):
    """A piece of a page. `start` and `end` are XPaths of elements, with an offset in each."""

    kind = Kind.HTML_SPAN
    value: _HtmlSpanValue

    def geometry(self) -> list[float]:
        offsets = self.value.globalOffsets
        if offsets is None:
            raise self.refuse("it has no globalOffsets, so its place in the whole text is unknown")
        return [float(offsets.start), float(offsets.end)]


class _ParagraphSpanValue(_Plain):
    start: Index
    end: Index
    startOffset: Count
    endOffset: Count
    text: Text | None = None
    paragraphlabels: Names = None


def _forward_in_paragraphs(value: _ParagraphSpanValue) -> _ParagraphSpanValue:
    if (int(value.end), value.endOffset) < (int(value.start), value.startOffset):
        raise ValueError(f"ends at {value.end}:{value.endOffset}, before {value.start}:{value.startOffset}")
    return value


class ParagraphSpan(Drawn):
    """A piece of a dialogue, from an offset in one paragraph to an offset in another."""

    kind = Kind.PARAGRAPH_SPAN
    value: Annotated[_ParagraphSpanValue, AfterValidator(_forward_in_paragraphs)]

    def geometry(self) -> list[float]:
        v = self.value
        return [float(v.start), float(v.startOffset), float(v.end), float(v.endOffset)]


class _AudioValue(_Plain):
    start: Size
    end: Size
    channel: Count | None = None


class AudioSegment(Drawn):
    """A piece of a recording, in seconds."""

    kind = Kind.SEGMENT
    value: Annotated[_AudioValue, AfterValidator(_forward)]

    def geometry(self) -> list[float]:
        return [float(self.value.start), float(self.value.end)]


class _SeriesValue(_Plain):
    start: Annotated[Number | Name, Expect("a finite number or text")]
    end: Annotated[Number | Name, Expect("a finite number or text")]
    instant: bool | None = None
    timeserieslabels: Names = None


class SeriesSegment(Drawn):
    """A piece of a time series; where it starts and ends is told as the series tells its time."""

    kind = Kind.SEGMENT
    value: _SeriesValue

    def geometry(self) -> list[float]:
        ends = [self._moment(end) for end in (self.value.start, self.value.end)]
        if ends[1] < ends[0]:
            raise self.refuse(f"it ends at {self.value.end}, before it starts at {self.value.start}")
        return ends

    def _moment(self, at: float | str) -> float:
        if not isinstance(at, str):
            return float(at)
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            raise self.refuse(f"the time {at!r} is not ISO 8601, and no other form is measured") from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class _Range(Part):
    start: Count
    end: Count


class _TimelineValue(_Plain):
    ranges: Annotated[list[Annotated[_Range, AfterValidator(_forward)]], Field(min_length=1)]
    timelinelabels: Names = None


class Timeline(Drawn):
    """Frames of a video, the first and the last of each range included."""

    kind = Kind.SEGMENT
    value: _TimelineValue

    def geometry(self) -> list[float]:
        return [end for one in self.value.ranges for end in (float(one.start), one.end + 1.0)]


class _KeyFrame(Part):
    frame: Count
    x: Number
    y: Number
    width: Size
    height: Size
    enabled: bool | None = None
    rotation: Number | None = None


def _frames_in_order(value: list[_KeyFrame]) -> list[_KeyFrame]:
    for one, other in pairwise(value):
        if other.frame <= one.frame:
            raise ValueError(f"frame {other.frame} comes after frame {one.frame}")
    return value


class _TrackValue(_Plain):
    sequence: Annotated[list[_KeyFrame], Field(min_length=1), AfterValidator(_frames_in_order)]
    framesCount: Size | None = None
    duration: Size | None = None


class Track(Drawn):
    """A box that moves: its keyframes. Between two of them it moves evenly; after one that is not enabled
    it is out of sight until the next."""

    kind = Kind.TRACK
    value: _TrackValue

    def geometry(self) -> list[float]:
        flat: list[float] = []
        for k in self.value.sequence:
            seen = float(k.enabled is not False)
            flat += [float(k.frame), seen, float(k.x), float(k.y), float(k.width), float(k.height)]
            flat.append(float(k.rotation or 0))
        return flat


class Naming(Drawn):
    """Labels without a place of their own: they name the region that has the same id."""

    kind = Kind.NAMING
    value: _Plain

    def geometry(self) -> list[float]:
        return []


PLACE: dict[str, type[Drawn]] = {
    "radiusX": Ellipse,
    "points": Polygon,
    "vertices": Line,
    "rle": Mask,
    "imageDataURL": Bitmask,
    "sequence": Track,
    "ranges": Timeline,
    "globalOffsets": HtmlSpan,
    "startOffset": HtmlSpan,
    "instant": SeriesSegment,
    "channel": AudioSegment,
    "start": Span,
    "height": Box,
    "x": KeyPoint,
}
"""The field that gives away how something was drawn, where `labels` do not say it. The first one decides."""


def drawn_as(raw: Mapping[str, Any], value: Mapping[str, Any]) -> type[Drawn]:
    """The model of a region whose type does not tell how it was drawn, by what its value holds."""
    model = next((PLACE[key] for key in PLACE if key in value), Naming)
    start = value.get("start")
    if model is HtmlSpan and raw["type"] == "labels" and str(start).isdigit():
        return ParagraphSpan
    if model is Span and ("original_length" in raw or isinstance(start, float)):
        return AudioSegment
    return model
