"""Little drawn scenes whose truth is known, since we drew them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 480, 320
_SMOOTH = 3
"""Drawn so many times larger and scaled down, which makes soft edges."""

SCENES = ("field", "harbour", "street")
THINGS = {"field": ("tree", "car", "van"), "harbour": ("boat", "car"), "street": ("car", "van", "tree")}
LABELS = ("boat", "car", "tree", "van")

LABEL_CONFIG = f"""\
<View>
  <Image name="image" value="$image"/>
  <Choices name="scene" toName="image" choice="single" required="true">
{chr(10).join(f'    <Choice value="{scene}"/>' for scene in SCENES)}
  </Choices>
  <RectangleLabels name="objects" toName="image">
{chr(10).join(f'    <Label value="{label}"/>' for label in LABELS)}
  </RectangleLabels>
</View>
"""

_Colour = tuple[int, int, int]

_BODIES: tuple[_Colour, ...] = (
    *((196, 73, 60), (57, 106, 177), (226, 168, 43), (84, 133, 90)),
    *((120, 94, 140), (230, 226, 218), (70, 74, 82)),
)


@dataclass(frozen=True, slots=True)
class Box:
    """An object: its label, and its place in percent of the picture."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and its truth.

    Attributes:
        key: the file's name.
        ambiguous: it lies between two classes: at dusk, or with something between car and van.
    """

    key: str
    png: bytes
    scene: str
    boxes: tuple[Box, ...]
    ambiguous: bool


def scenes(n: int, seed: int) -> list[Scene]:
    """Draw pictures; the same number and seed give the same pictures, byte for byte."""
    return [_scene(number, np.random.default_rng([seed, number])) for number in range(1, n + 1)]


def _scene(number: int, rng: np.random.Generator) -> Scene:
    scene = SCENES[int(rng.integers(len(SCENES)))]
    ambiguous = bool(rng.random() < 0.12)
    image = Image.new("RGB", (WIDTH * _SMOOTH, HEIGHT * _SMOOTH))
    draw = ImageDraw.Draw(image)
    _background(draw, scene, rng)
    boxes = []
    for x, y, width in _places(rng):
        label = str(rng.choice(THINGS[scene]))
        box = _place(label, scene, x, y, width)
        colour = _BODIES[int(rng.integers(len(_BODIES)))]
        _DRAW[label](draw, box, colour, 0.5 if ambiguous and label in ("car", "van") else 0.0)
        boxes.append(Box(label, *(round(v, 3) for v in _percent(box))))
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    if ambiguous:
        dusk = Image.new("RGB", small.size, (38, 34, 74))
        small = Image.blend(small, dusk, 0.62).filter(ImageFilter.GaussianBlur(1.4))
    out = io.BytesIO()
    small.save(out, "PNG", optimize=False)
    return Scene(f"scene-{number:03}.png", out.getvalue(), scene, tuple(boxes), ambiguous)


_Rect = tuple[float, float, float, float]


def _percent(box: _Rect) -> _Rect:
    x, y, width, height = box
    return 100 * x / WIDTH, 100 * y / HEIGHT, 100 * width / WIDTH, 100 * height / HEIGHT


def _places(rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Where things stand, the far and small ones first; side by side, so that none hides another."""
    count = int(rng.integers(1, 6))
    lane = WIDTH / count
    found = []
    for at in rng.permutation(count):
        far = rng.random() < 0.4
        width = float(rng.uniform(20, 30) if far else rng.uniform(46, min(92, 0.86 * lane)))
        x = lane * int(at) + float(rng.uniform(0.04, 0.96)) * (lane - width)
        y = float(rng.uniform(176, 196) if far else rng.uniform(236, 292))
        found.append((x, y, width))
    return sorted(found, key=lambda place: place[1])


_SHAPE = {"car": 0.46, "van": 0.62, "boat": 0.72, "tree": 1.35}


def _place(label: str, scene: str, x: float, foot: float, width: float) -> _Rect:
    """A thing's rectangle: it stands on its foot; boats swim higher up than cars drive on the quay."""
    if label == "tree":
        width *= 0.72
    if scene == "harbour":
        foot = 208 + (foot - 176) * 0.22 if label == "boat" else max(foot, 262.0)
    return x, foot - _SHAPE[label] * width, width, _SHAPE[label] * width


def _background(draw: ImageDraw.ImageDraw, scene: str, rng: np.random.Generator) -> None:
    warm = float(rng.random())
    _gradient(
        draw,
        0,
        170,
        _mix((126, 178, 222), (244, 190, 150), warm),
        _mix((226, 238, 244), (252, 232, 206), warm),
    )
    sun = float(rng.uniform(40, WIDTH - 90))
    _ellipse(draw, (sun, float(rng.uniform(18, 60)), 40, 40), (255, 240, 190))
    for _ in range(int(rng.integers(1, 4))):
        x, y = float(rng.uniform(0, WIDTH - 80)), float(rng.uniform(20, 90))
        for dx, dy, w in ((0, 6, 40), (18, 0, 44), (40, 7, 36)):
            _ellipse(draw, (x + dx, y + dy, w, 18), (255, 255, 255))
    {"field": _field, "harbour": _harbour, "street": _street}[scene](draw, rng)


def _field(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for left in range(-80, WIDTH, 130):
        _ellipse(draw, (left + float(rng.uniform(-20, 20)), 130, 240, 110), (150, 184, 128))
    _gradient(draw, 168, HEIGHT, (164, 192, 106), (108, 150, 72))
    for at in range(6):
        y = 186 + 22 * at
        _line(draw, [(0, y + at), (WIDTH, y - at)], (140, 172, 90), 2)


def _harbour(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for left in range(-40, WIDTH, 120):
        _ellipse(draw, (left + float(rng.uniform(-20, 20)), 140, 180, 60), (150, 170, 188))
    _gradient(draw, 166, 236, (96, 156, 186), (58, 116, 152))
    for _ in range(26):
        x, y = float(rng.uniform(0, WIDTH - 24)), float(rng.uniform(172, 230))
        _line(draw, [(x, y), (x + 20, y)], (140, 190, 212), 1)
    _gradient(draw, 236, HEIGHT, (206, 196, 178), (176, 164, 146))
    _line(draw, [(0, 237), (WIDTH, 237)], (140, 130, 114), 4)


def _street(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    x = -10.0
    while x < WIDTH:
        width, height = float(rng.uniform(44, 84)), float(rng.uniform(54, 112))
        grey = int(rng.integers(168, 214))
        _box(draw, (x, 170 - height, width, height), (grey, grey - 10, grey - 22))
        for row in range(int(height // 22)):
            for column in range(int(width // 18)):
                _box(draw, (x + 6 + 18 * column, 178 - height + 22 * row, 9, 11), (238, 224, 170))
        x += width + 4
    _gradient(draw, 168, 214, (198, 194, 186), (182, 178, 170))
    _gradient(draw, 214, HEIGHT, (118, 120, 126), (92, 94, 100))
    for at in range(-20, WIDTH, 60):
        _box(draw, (at, 296, 34, 4), (232, 228, 214))


def _car(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour, between: float) -> None:
    x, y, w, h = box
    roof = 0.14 * w * (1 - between)
    shape = [(x + roof + 0.06 * w, y + 0.42 * h), (x + roof + 0.2 * w, y), (x + 0.84 * w - roof, y)]
    _polygon(draw, [*shape, (x + 0.95 * w, y + 0.42 * h)], colour)
    _round(draw, (x, y + 0.38 * h, w, 0.42 * h), colour, 0.1 * w)
    glass = [(x + roof + 0.14 * w, y + 0.4 * h), (x + roof + 0.24 * w, y + 0.09 * h)]
    _polygon(draw, [*glass, (x + 0.8 * w - roof, y + 0.09 * h), (x + 0.86 * w, y + 0.4 * h)], (206, 226, 236))
    _box(draw, (x + 0.5 * w, y + 0.06 * h, 0.035 * w, 0.36 * h), colour)
    _wheels(draw, x, y + h, w, 0.105 * w)


def _van(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour, between: float) -> None:
    x, y, w, h = box
    front = 0.16 * w + 0.14 * w * between
    _round(draw, (x, y, w - front, 0.84 * h), colour, 0.06 * w)
    nose = [(x + w - front - 0.06 * w, y), (x + w - front, y), (x + w, y + 0.42 * h), (x + w, y + 0.84 * h)]
    _polygon(draw, [*nose, (x + w - front - 0.06 * w, y + 0.84 * h)], colour)
    pane = [
        (x + w - front - 0.1 * w, y + 0.1 * h),
        (x + w - front, y + 0.1 * h),
        (x + 0.96 * w, y + 0.42 * h),
    ]
    _polygon(draw, [*pane, (x + w - front - 0.1 * w, y + 0.42 * h)], (206, 226, 236))
    if between:
        _box(draw, (x + 0.12 * w, y + 0.1 * h, 0.3 * w, 0.3 * h), (206, 226, 236))
    _wheels(draw, x, y + h, w, 0.1 * w)


def _boat(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour, between: float) -> None:  # noqa: ARG001
    x, y, w, h = box
    _box(draw, (x + 0.47 * w, y, 0.035 * w, 0.72 * h), (110, 86, 62))
    _polygon(
        draw,
        [(x + 0.53 * w, y + 0.04 * h), (x + 0.95 * w, y + 0.62 * h), (x + 0.53 * w, y + 0.62 * h)],
        (250, 248, 240),
    )
    _polygon(
        draw,
        [(x + 0.44 * w, y + 0.12 * h), (x + 0.44 * w, y + 0.62 * h), (x + 0.12 * w, y + 0.62 * h)],
        (238, 232, 216),
    )
    hull = [(x, y + 0.7 * h), (x + w, y + 0.7 * h), (x + 0.84 * w, y + h), (x + 0.14 * w, y + h)]
    _polygon(draw, hull, colour)


def _tree(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour, between: float) -> None:  # noqa: ARG001
    x, y, w, h = box
    _box(draw, (x + 0.43 * w, y + 0.55 * h, 0.14 * w, 0.45 * h), (116, 86, 60))
    for dx, dy, size in ((0.0, 0.22, 0.62), (0.38, 0.22, 0.62), (0.16, 0.0, 0.68)):
        _ellipse(draw, (x + dx * w, y + dy * h, size * w, 0.5 * h), (64, 124, 76))
    _ellipse(draw, (x + 0.26 * w, y + 0.08 * h, 0.34 * w, 0.22 * h), (92, 152, 96))


_DRAW: dict[str, Callable[[ImageDraw.ImageDraw, _Rect, _Colour, float], None]] = {
    "car": _car,
    "van": _van,
    "boat": _boat,
    "tree": _tree,
}


def _wheels(draw: ImageDraw.ImageDraw, x: float, foot: float, w: float, radius: float) -> None:
    for at in (0.22, 0.78):
        centre = x + at * w
        _ellipse(draw, (centre - radius, foot - 2 * radius, 2 * radius, 2 * radius), (44, 44, 48))
        _ellipse(draw, (centre - radius / 2, foot - 1.5 * radius, radius, radius), (190, 192, 196))


def _mix(a: _Colour, b: _Colour, share: float) -> _Colour:
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _gradient(draw: ImageDraw.ImageDraw, top: float, bottom: float, above: _Colour, below: _Colour) -> None:
    for y in range(round(top), round(bottom)):
        _box(draw, (0, y, WIDTH, 1), _mix(above, below, (y - top) / (bottom - top)))


def _scaled(box: _Rect) -> _Rect:
    x, y, w, h = (value * _SMOOTH for value in box)
    return x, y, x + w, y + h


def _box(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour) -> None:
    draw.rectangle(_scaled(box), fill=colour)


def _round(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour, radius: float) -> None:
    draw.rounded_rectangle(_scaled(box), radius=radius * _SMOOTH, fill=colour)


def _ellipse(draw: ImageDraw.ImageDraw, box: _Rect, colour: _Colour) -> None:
    draw.ellipse(_scaled(box), fill=colour)


def _polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: _Colour) -> None:
    draw.polygon([(x * _SMOOTH, y * _SMOOTH) for x, y in points], fill=colour)


def _line(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: _Colour, width: int) -> None:
    draw.line([(x * _SMOOTH, y * _SMOOTH) for x, y in points], fill=colour, width=width * _SMOOTH)


def result(scene: str, boxes: list[Box], name: str) -> list[dict[str, Any]]:
    """An answer as Label Studio keeps it.

    Args:
        name: begins the ids of its regions.
    """
    made: list[dict[str, Any]] = [
        {
            "id": f"{name}-scene",
            "from_name": "scene",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [scene]},
        }
    ]
    for number, box in enumerate(boxes):
        place = {"x": box.x, "y": box.y, "width": box.width, "height": box.height, "rotation": 0}
        made.append(
            {
                "id": f"{name}-{number}",
                "from_name": "objects",
                "to_name": "image",
                "type": "rectanglelabels",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {**place, "rectanglelabels": [box.label]},
            }
        )
    return made


def truth_result(scene: Scene) -> list[dict[str, Any]]:
    """The right answer to a scene."""
    return result(scene.scene, list(scene.boxes), "truth")
