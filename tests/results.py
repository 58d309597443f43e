"""Results as annotators would draw them: seeded, geometrically sensible, with a shared truth and noise.

`annotate` makes the data of one task and the results of several annotators for any ontology. All look at the
same true things; each overlooks some, mistakes some labels and draws a little beside. With `noise=0` all draw
the truth.
"""

from __future__ import annotations

import base64
import io
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from math import cos, pi, sin
from random import Random
from typing import Any, NamedTuple

from PIL import Image

from connector.model import Control, Ontology

WIDTH, HEIGHT = 120, 80
FRAMES, SECONDS = 200, 8.0
NEW_YEAR = datetime(2024, 1, 1, 8, tzinfo=UTC)
TEXT = (
    "Ada Lovelace wrote the first program in 1843, long before any machine could run it. "
    "She worked with Charles Babbage in London and corresponded with Michael Faraday. 🎈 Nobody "
    "read her notes with care until Alan Turing did, a century later."
)
PARAGRAPHS = [
    {"author": "Ada", "text": "The engine weaves patterns as a loom weaves flowers."},
    {"author": "Charles", "text": "It will be built as soon as the money is there."},
    {"author": "Ada", "text": "Then we had better write the programs first."},
]
ITEMS = [{"id": name, "title": name.title(), "body": "…"} for name in ("loom", "engine", "notes", "cards")]
DATA: Mapping[str, Any] = {
    "image": "/static/samples/sample.jpg",
    "text": TEXT,
    "hypertext": f"<div><p>{TEXT}</p></div>",
    "paragraphs": PARAGRAPHS,
    "audio": "/static/samples/game.wav",
    "audioplus": "/static/samples/game.wav",
    "video": "/static/samples/opossum_snow.mp4",
    "timeseries": {"time": list(range(100)), "value": [n % 7 for n in range(100)]},
    "list": ITEMS,
    "table": {"name": "engine", "year": 1837},
    "chat": [{"role": "user", "content": "Who wrote the first program?"}],
    "pdf": "/static/samples/sample.pdf",
    "reactcode": {"note": "…"},
}
"""What each type of object shows."""

Value = dict[str, Any]


def annotate(
    ontology: Ontology, seed: int = 0, annotators: int = 3, things: int = 3, noise: float = 1.0
) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """A task and what its annotators say.

    Args:
        things: how many true things there are for each control that draws.
        noise: how badly the annotators do; 1 is about 1 % of the picture beside, and one label in ten wrong.

    Returns:
        the task's data, and one result for each annotator.
    """
    data = {field: DATA[kind] for kind, field in ontology.objects.values() if field}
    truth = _Truth(ontology, Random(f"truth {seed}"), things)
    return data, [_Person(truth, Random(f"{seed} {n}"), noise).result() for n in range(annotators)]


# Shapes: how a true one is made, how an annotator misses it, and how the editor writes it.


class _Shape(NamedTuple):
    make: Callable[[Random], Value]
    move: Callable[[Random, Value, float], Value]
    write: Callable[[Value], Value] = dict


def _near(rng: Random, at: float, noise: float, low: float = 0, high: float = 100) -> float:
    return round(min(max(at + rng.gauss(0, noise), low), high), 6)


def _shift(rng: Random, value: Value, noise: float) -> Value:
    """All numbers but the rotation a little beside."""
    return {k: v if k in ("rotation", "closed") else _near(rng, v, noise, 0.5) for k, v in value.items()}


def _box(rng: Random) -> Value:
    width, height = rng.uniform(8, 25), rng.uniform(8, 25)
    corner = {"x": rng.uniform(2, 95 - width), "y": rng.uniform(2, 95 - height)}
    # As the editor writes it: whole numbers come without a point.
    return {**corner, "width": width, "height": height, "rotation": rng.choice([0, 0, 0, 12.5])}


def _ellipse(rng: Random) -> Value:
    middle = {"x": rng.uniform(25, 75), "y": rng.uniform(25, 75)}
    return {**middle, "radiusX": rng.uniform(5, 20), "radiusY": rng.uniform(5, 20), "rotation": 0}


def _outline(rng: Random) -> list[list[float]]:
    """Corners around a middle, so that no side crosses another."""
    x, y, corners = rng.uniform(30, 70), rng.uniform(30, 70), rng.randint(4, 9)
    spokes = [(2 * pi * n / corners, rng.uniform(8, 25)) for n in range(corners)]
    return [[round(x + r * cos(a), 6), round(y + r * sin(a), 6)] for a, r in spokes]


def _vertices(points: list[list[float]]) -> list[Value]:
    ids = [None, *(f"point-{n}" for n in range(len(points)))]
    return [
        {"id": ids[n + 1], "x": x, "y": y, "prevPointId": ids[n], "isBezier": False}
        for n, (x, y) in enumerate(points)
    ]


def _move_points(rng: Random, value: Value, noise: float) -> Value:
    return {**value, "points": [[_near(rng, side, noise) for side in point] for point in value["points"]]}


def _raster(value: Value) -> list[bool]:
    """The pixels inside an ellipse, row by row."""
    return [
        ((100 * (x + 0.5) / WIDTH - value["x"]) / value["radiusX"]) ** 2
        + ((100 * (y + 0.5) / HEIGHT - value["y"]) / value["radiusY"]) ** 2
        <= 1
        for y in range(HEIGHT)
        for x in range(WIDTH)
    ]


def encode_rle(pixels: list[bool]) -> list[int]:
    """Label Studio's run-length code of an RGBA picture, as `label_studio_sdk.converter.brush` decodes it."""
    bits = f"{4 * len(pixels):032b}" + f"{8 - 1:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    at = 0
    while at < len(pixels):
        end = at
        while end < len(pixels) and pixels[end] == pixels[at] and 4 * (end - at) < 2**16 - 4:
            end += 1
        bits += "111" + f"{4 * (end - at) - 1:016b}" + f"{255 * pixels[at]:08b}"
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[n : n + 8], 2) for n in range(0, len(bits), 8)]


def _png(value: Value) -> Value:
    picture = Image.new("RGBA", (WIDTH, HEIGHT))
    picture.putdata([(0, 0, 0, 255 * inside) for inside in _raster(value)])
    file = io.BytesIO()
    picture.save(file, "png")
    return {"imageDataURL": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _words(text: str) -> list[tuple[int, int]]:
    """Where each word starts and ends, in UTF-16 units."""
    ends, at = [], 0
    for word in text.split(" "):
        ends.append((at, at + _utf16(word)))
        at += _utf16(word) + 1
    return ends


def _span(text: str) -> Callable[[Random], Value]:
    def make(rng: Random) -> Value:
        words = _words(text)
        first = rng.randrange(len(words))
        last = min(first + rng.randrange(3), len(words) - 1)
        return {"start": words[first][0], "end": words[last][1]}

    return make


def _move_span(text: str) -> Callable[[Random, Value, float], Value]:
    def move(rng: Random, value: Value, noise: float) -> Value:
        """One word more at the end, now and then."""
        later = [end for _, end in _words(text) if end > value["end"]]
        return {**value, "end": later[0]} if later and rng.random() < 0.2 * noise else value

    return move


def _cut(text: str, value: Value) -> str:
    return text.encode("utf-16-le")[2 * value["start"] : 2 * value["end"]].decode("utf-16-le")


def _write_html(value: Value) -> Value:
    place = "/div[1]/p[1]/text()[1]"
    offsets = {"startOffset": value["start"], "endOffset": value["end"], "globalOffsets": dict(value)}
    return {"start": place, "end": place, **offsets, "text": _cut(TEXT, value)}


def _paragraph(rng: Random) -> Value:
    number = rng.randrange(len(PARAGRAPHS))
    return {"paragraph": number, **_span(PARAGRAPHS[number]["text"])(rng)}


def _move_paragraph(rng: Random, value: Value, noise: float) -> Value:
    return _move_span(PARAGRAPHS[value["paragraph"]]["text"])(rng, value, noise)


def _write_paragraph(value: Value) -> Value:
    number = str(value["paragraph"])
    said = _cut(PARAGRAPHS[value["paragraph"]]["text"], value)
    ends = {"startOffset": value["start"], "endOffset": value["end"]}
    return {"start": number, "end": number, **ends, "text": said}


def _interval(length: float) -> Callable[[Random], Value]:
    def make(rng: Random) -> Value:
        start = rng.uniform(0, 0.7 * length)
        return {"start": start, "end": start + rng.uniform(0.05, 0.25) * length}

    return make


def _move_interval(length: float) -> Callable[[Random, Value, float], Value]:
    def move(rng: Random, value: Value, noise: float) -> Value:
        ends = [_near(rng, value[end], noise * length / 100, 0, length) for end in ("start", "end")]
        return dict(zip(("start", "end"), sorted(ends), strict=True))

    return move


def _track(rng: Random) -> Value:
    box = {**_box(rng), "rotation": 0}
    to = _shift(rng, box, 5)
    frames = (1, 60, 120)
    return {
        "sequence": [{**(to if n else box), "frame": f, "enabled": f != 120} for n, f in enumerate(frames)]
    }


def _move_track(rng: Random, value: Value, noise: float) -> Value:
    fixed = ("frame", "enabled", "closed", "rotation", "vertices")
    return {
        "sequence": [
            {k: v if k in fixed else _near(rng, v, noise, 0.5) for k, v in key.items()}
            for key in value["sequence"]
        ]
    }


def _write_track(value: Value) -> Value:
    keys = [{**key, "time": key["frame"] / (FRAMES / SECONDS)} for key in value["sequence"]]
    return {"framesCount": FRAMES, "duration": SECONDS, "sequence": keys}


def _vector_track(rng: Random) -> Value:
    corners = _vertices(_outline(rng))
    return {
        "sequence": [{"frame": f, "enabled": True, "closed": False, "vertices": corners} for f in (1, 60)]
    }


_BOX = _Shape(_box, _shift)
_ELLIPSE = _Shape(_ellipse, _shift)
_POLYGON = _Shape(lambda rng: {"points": _outline(rng)}, _move_points, lambda v: {**v, "closed": True})
_MASK = _Shape(_ellipse, _shift, lambda v: {"format": "rle", "rle": encode_rle(_raster(v))})
_BITMASK = _Shape(_ellipse, _shift, _png)
_KEYPOINT = _Shape(
    lambda rng: {"x": rng.uniform(5, 95), "y": rng.uniform(5, 95)}, _shift, lambda v: {**v, "width": 0.5}
)
_LINE = _Shape(
    lambda rng: {"points": _outline(rng)},
    _move_points,
    lambda v: {"vertices": _vertices(v["points"]), "closed": False},
)
_SPAN = _Shape(_span(TEXT), _move_span(TEXT), lambda v: {**v, "text": _cut(TEXT, v)})
_HTML = _Shape(_span(TEXT), _move_span(TEXT), _write_html)
_PARAGRAPH = _Shape(_paragraph, _move_paragraph, _write_paragraph)
_AUDIO = _Shape(_interval(SECONDS), _move_interval(SECONDS), lambda v: {**v, "channel": 0})
_SERIES = _Shape(
    _interval(99), _move_interval(99), lambda v: {k: round(end) for k, end in v.items()} | {"instant": False}
)
_TIMELINE = _Shape(
    _interval(FRAMES),
    _move_interval(FRAMES),
    lambda v: {"ranges": [{k: round(end) + 1 for k, end in v.items()}]},
)
_TRACK = _Shape(_track, _move_track, _write_track)
_VECTOR_TRACK = _Shape(_vector_track, _move_track, _write_track)

_SHAPES = {
    **dict.fromkeys(("rectangle", "rectanglelabels", "ocrlabels"), _BOX),
    **dict.fromkeys(("ellipse", "ellipselabels"), _ELLIPSE),
    **dict.fromkeys(("polygon", "polygonlabels"), _POLYGON),
    **dict.fromkeys(("brush", "brushlabels", "magicwand"), _MASK),
    **dict.fromkeys(("bitmask", "bitmasklabels"), _BITMASK),
    **dict.fromkeys(("keypoint", "keypointlabels"), _KEYPOINT),
    **dict.fromkeys(("vector", "vectorlabels"), _LINE),
    **dict.fromkeys(("videovector", "videovectorlabels"), _VECTOR_TRACK),
    "hypertextlabels": _HTML,
    "paragraphlabels": _PARAGRAPH,
    "timeserieslabels": _SERIES,
    "timelinelabels": _TIMELINE,
    "videorectangle": _TRACK,
}
_LABELS_ON = {
    "text": _SPAN,
    "hypertext": _HTML,
    "paragraphs": _PARAGRAPH,
    "audio": _AUDIO,
    "audioplus": _AUDIO,
    "timeseries": _SERIES,
}
_ONLY_DRAWS = ("rectangle", "ellipse", "polygon", "brush", "magicwand", "bitmask", "keypoint", "vector")
_MERGED = ("videorectangle", "videovector", "videovectorlabels")
"""On a video the labels stand in the region itself."""


def _shape_of(control: Control, ontology: Ontology) -> _Shape | None:
    if control.kind == "labels":
        return _LABELS_ON.get(ontology.objects[control.target][0])
    return _SHAPES.get(control.kind)


# Answers: what is said of an object or of a region.


def _answer(control: Control, rng: Random) -> Value | None:
    limits, kind = control.limits, control.kind
    paths = [list(option.path) for option in control.options]
    if kind in ("choices", "taxonomy"):
        n = rng.randint(1, min(2, len(paths))) if control.multiple else 1
        chosen = sorted(rng.sample(paths, n))
        nested = kind == "taxonomy" or limits.get("allownested") == "true"
        return {kind: chosen if nested else [path[-1] for path in chosen]}
    if kind == "rating":
        return {kind: rng.randint(1, int(limits.get("maxrating", 5)))}
    if kind == "number":
        low, high = float(limits.get("min", 0)), float(limits.get("max", 10))
        step = float(limits.get("step", 1))
        number = low + step * rng.randint(0, int((high - low) / step))
        return {kind: int(number) if number.is_integer() else number}
    if kind == "datetime":
        moment = NEW_YEAR + timedelta(days=rng.randrange(300), minutes=rng.randrange(999))
        form = {"date": "%Y-%m-%d", "time": "%H:%M"}.get(limits.get("only", ""), "%Y-%m-%dT%H:%M")
        return {kind: moment.strftime(limits.get("format", form))}
    if kind == "textarea":
        words = TEXT.split()
        at = rng.randrange(len(words) - 6)
        return {"text": [" ".join(words[at : at + 6])]}
    if kind == "pairwise":
        return {"selected": rng.choice(["left", "right"])}
    if kind == "ranker":
        return {"ranker": _ranking(control, rng)}
    if kind == "chatmessage":
        return {
            kind: {"role": "assistant", "content": rng.choice(["Ada.", "Lovelace."]), "createdAt": 1706688000}
        }
    return {kind: {"note": rng.choice("abc")}} if kind == "reactcode" else None


def _ranking(control: Control, rng: Random) -> dict[str, list[str]]:
    items = [item["id"] for item in ITEMS]
    rng.shuffle(items)
    buckets = [option.value for option in control.options]
    if not buckets:
        return {control.name: items}
    at = rng.randrange(1, len(items))
    return {"_": items[at:], buckets[0]: items[:at], **{bucket: [] for bucket in buckets[1:]}}


# The truth of a task, and the people who look for it.


class _Thing(NamedTuple):
    control: Control
    shape: _Shape
    place: Value
    label: tuple[str, ...]
    answers: dict[str, Value]


class _Truth:
    def __init__(self, ontology: Ontology, rng: Random, things: int) -> None:
        self.ontology = ontology
        self.naming = {  # what only draws, with what names it
            c.name: next((n for n in ontology.controls if n.kind == "labels" and n.target == c.target), None)
            for c in ontology.controls
            if c.kind in (*_ONLY_DRAWS, *_MERGED)
        }
        self.about = [c for c in ontology.controls if c.per_region]
        self.things = [
            self._thing(c, rng) for c in ontology.controls if self._shape(c) for _ in range(things)
        ]
        whole = [c for c in ontology.controls if not c.per_region]
        self.answers = {c.name: value for c in whole if (value := _answer(c, rng))}
        self.relations = [c for c in ontology.controls if c.kind == "relations"]
        self.links = [
            (n, n + 1, rng.choice([*c.labels])) for c in self.relations for n in range(len(self.things) - 1)
        ]

    def _shape(self, control: Control) -> _Shape | None:
        return _shape_of(control, self.ontology)

    def _thing(self, control: Control, rng: Random) -> _Thing:
        shape = self._shape(control)
        assert shape
        place = shape.make(rng)
        labels = self.labels_for(control)
        label = (rng.choice(labels),) if labels else ()
        about = [c for c in self.about if c.target == control.target]
        answers = {c.name: value for c in about if (value := _answer(c, rng))}
        return _Thing(control, shape, place, label, answers)

    def labels_for(self, control: Control) -> tuple[str, ...]:
        naming = self.naming.get(control.name)
        return control.labels or (naming.labels if naming else ())


class _Person:
    def __init__(self, truth: _Truth, rng: Random, noise: float) -> None:
        self.truth, self.rng, self.noise = truth, rng, noise

    def _slips(self) -> bool:
        return self.rng.random() < 0.1 * self.noise

    def _id(self) -> str:
        return "".join(self.rng.choices(string.ascii_letters + string.digits, k=10))

    def result(self) -> list[dict[str, Any]]:
        ids = {n: self._id() for n in range(len(self.truth.things)) if not self._slips()}
        result = [one for n, id in ids.items() for one in self._draw(self.truth.things[n], id)]
        for name, value in self.truth.answers.items():
            control = self._control(name)
            said = (_answer(control, self.rng) if self._slips() else None) or value
            result.append(self._region(control, self._id(), said))
        for start, end, label in self.truth.links:
            if start in ids and end in ids:
                ends = {"from_id": ids[start], "to_id": ids[end]}
                result.append({**ends, "type": "relation", "direction": "right", "labels": [label]})
        return result

    def _control(self, name: str) -> Control:
        return next(c for c in self.truth.ontology.controls if c.name == name)

    def _draw(self, thing: _Thing, id: str) -> list[dict[str, Any]]:
        place = thing.shape.write(thing.shape.move(self.rng, thing.place, self.noise))
        control, label = thing.control, list(thing.label)
        if label and self._slips():
            label = [self.rng.choice(self.truth.labels_for(control))]
        naming = self.truth.naming.get(control.name)
        key = "labels" if control.kind in _MERGED else control.kind
        only_draws = control.kind in _ONLY_DRAWS or not label
        regions = [self._region(control, id, place if only_draws else {**place, key: label})]
        if naming and control.kind not in _MERGED:
            regions.append(self._region(naming, id, {**place, "labels": label}))
        for name, value in thing.answers.items():
            asked = self._control(name)
            if any(when.labels and not set(when.labels) & set(label) for when in asked.conditions):
                continue
            said = (_answer(asked, self.rng) if self._slips() else None) or value
            regions.append(self._region(asked, id, {**place, **said}))
        return regions

    def _region(self, control: Control, id: str, value: Value) -> dict[str, Any]:
        # A comparison of several objects is about itself.
        target = control.name if control.kind == "pairwise" else control.target
        head: Value = {
            "id": id,
            "from_name": control.name,
            "to_name": target,
            "type": control.kind,
            "origin": "manual",
        }
        kind = self.truth.ontology.objects.get(control.target, ("", ""))[0]
        drawn = any(key in value for key in ("x", "points", "vertices", "rle", "imageDataURL", "start"))
        if drawn and kind == "image":
            head |= {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        if drawn and kind in ("audio", "audioplus"):
            head |= {"original_length": SECONDS}
        return {**head, "value": value}
