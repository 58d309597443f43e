"""The report: numbers in words by hand, what is chosen from small tables, and a page that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from connector import commands
from connector import report as page
from connector.errors import BadRecord
from connector.journal.correction import Correction
from connector.quality.consensus import consensus
from connector.quality.golden import golden
from connector.quality.interval import Estimate, unknown, wilson
from connector.quality.kinds import BOX, CHOICE
from connector.quality.table import REGIONS, Labels
from connector.quality.units import ABSENT, units
from connector.report import Box, Card, Choice, ConfusionMatrix, Figure, Progress, ReportData, draw, render
from connector.report.content import (
    PICTURE_BYTES,
    PIXELS,
    POINTS,
    READABLE,
    TRIED_FOR_EACH,
    Pictures,
    content,
    shrunk,
)
from tests.unit.quality.tables import Drawn, boxes

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECTIONS = ["figures", "progress", "annotators", "agreement", "confusion", "disagreements"]
SECTIONS += ["corrections", "source"]


def about(value: float, low: float | None = None) -> Estimate:
    return Estimate(value, low, value if low is not None else None, 7, "by hand")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def text(html: str) -> str:
    """The words of a page, with plain spaces between them."""
    return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL)).split())


def sections(html: str) -> dict[str, str]:
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', html, flags=re.DOTALL))


@pytest.mark.parametrize(
    ("show", "said"),
    [
        (draw.percent, [(0, "0~%"), (-0.0, "0~%"), (0.0004, "< 0.1~%"), (0.0006, "0.1~%"), (1, "100~%")]),
        (draw.percent, [(1 / 3, "33.3~%"), (0.5, "50.0~%"), (0.9994, "99.9~%"), (0.9996, "> 99.9~%")]),
        (draw.percent, [(-0.25, "−25.0~%"), (-0.0004, "0.0~%")]),
        (draw.decimal, [(0.8164, "0.816"), (1, "1.000"), (-0.5, "−0.500"), (-0.0004, "0.000")]),
        (draw.count, [(0, "0"), (999, "999"), (1000, "1~000"), (1234567, "1~234~567")]),
        (draw.rate, [(2.34, "2.3"), (9.94, "9.9"), (9.96, "10"), (119.6, "120"), (1234.4, "1~234")]),
        (draw.duration, [(0, "0.0 s"), (8.44, "8.4 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s")]),
        (draw.duration, [(95, "1 min 35 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min")]),
        (draw.spoken, [("car", "car"), (ABSENT, "nothing")]),
    ],
)
def test_numbers_and_labels_are_said_in_words(show: Callable[[Any], str], said: list[Any]) -> None:
    assert [show(one).replace("\u202f", "~") for one, _ in said] == [words for _, words in said]


def test_a_time_is_said_in_utc_and_one_without_a_zone_is_refused() -> None:
    east = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert draw.moment(east) == "2026-02-28 23:30 UTC"
    for show in (draw.moment, lambda at: draw.curve(Progress([(at, 1)]))):
        with pytest.raises(ValueError, match="2026-03-01T01:30:00 has no time zone"):
            show(east.replace(tzinfo=None))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "show",
    [
        *(draw.percent, draw.decimal, draw.rate, draw.duration, draw.step),
        lambda number: draw.axis([about(number)]),
        lambda number: draw.axis([], number),
        lambda number: draw.heat_axis([[None, number]]),
        lambda number: draw.place(number, (0, 1)),
        lambda number: draw.span(10, number),
    ],
)
def test_what_is_no_number_is_never_shown(show: Callable[[float], object], number: float) -> None:
    with pytest.raises(ValueError, match="is no number to show"):
        show(number)


def test_axes_hold_all_that_is_known_and_begin_at_a_tenth() -> None:
    nothing = unknown(0, "", "why")
    assert draw.axis([about(0.9, 0.84), nothing]) == (0.8, 1)
    assert draw.axis([]) == draw.axis([about(0.99)]) == (0.9, 1)
    assert draw.axis([about(0.7 - 0.4)]) == (0.3, 1)  # 0.29999999999999993
    assert draw.axis([about(0.95)], limit=0.65) == (0.6, 1)
    assert draw.whole_axis(about(0.4)) == draw.whole_axis(nothing) == (0, 1)
    assert draw.whole_axis(about(0.4, -0.1)) == draw.whole_axis(about(-0.4)) == (-1, 1)
    assert draw.heat_axis([[0.1, 0.74], [0.98, None]]) == (0.7, 1)  # the diagonal does not count
    assert draw.heat_axis([[None]]) == (0.9, 1)


def test_values_stand_between_the_ends_of_their_axis() -> None:
    found = [draw.place(value, (0.8, 1.0)) for value in (0.5, 0.8, 0.85, 1, 1.2)]
    assert found == ["0.00%", "0.00%", "25.00%", "100.00%", "100.00%"]
    assert draw.place(0, (-1, 1)) == "50.00%"
    assert draw.span(12.5, 30) == "42.50%"
    assert [draw.step(value) for value in (-1, 0, 0.04, 0.06, 0.5, 1, 2)] == [0, 0, 0, 1, 5, 10, 10]
    assert draw.step(0.92, (0.9, 1.0)) == 2
    matrix = ConfusionMatrix("c", ["a", "b"], [[3, 1], [0, 0]], [5, 0], 9)
    assert draw.recall(matrix) == [[0.6, 0.2], [None, None]]


def test_progress_is_drawn_from_its_first_time_to_its_last_and_up_to_all_tasks() -> None:
    points = [(AT + timedelta(hours=hours), done) for hours, done in ((0, 1), (1, 2), (4, 4))]
    assert draw.curve(Progress(points, total=8)) == "0.00,87.50 25.00,75.00 100.00,50.00"
    assert draw.curve(Progress(points)) == "0.00,75.00 25.00,50.00 100.00,0.00"
    assert draw.curve(Progress(points[:1])) == "0.00,0.00"
    assert [draw.ceiling(Progress(points, total)) for total in (None, 2, 8)] == [4, 4, 8]


def test_a_card_tells_its_objects_its_answers_and_its_people_apart() -> None:
    places = [("ann", 40, 50, 3), ("ben", 0, 0, 1), ("cleo", 99, 99, 2), ("ann", 5, 5, None)]
    drawn = [Box(who, "car", x, y, 1, 1, number) for who, x, y, number in places]
    card = Card("t", "", boxes=drawn, consensus=[Box("consensus", "car", 41, 51, 1, 1, 3)])
    # Each number stands at its object's corner, the consensus' where there is one, but inside the picture.
    assert draw.tags(card) == [(1, "6.00%", "8.00%"), (2, "96.00%", "96.00%"), (3, "41.00%", "51.00%")]

    said = [Choice("b", "ann", "van", 2), Choice("b", "ben", "car", 2), Choice("b", "cleo", "car", 2)]
    found = draw.votes([Choice("c", "ben", "sun"), Choice("c", "ann", "rain"), *said])
    assert found[0] == ("c", None, [("rain", ["ann"]), ("sun", ["ben"])])
    assert found[1] == ("b", 2, [("car", ["ben", "cleo"]), ("van", ["ann"])])

    other = Card("u", "", choices=[Choice("c", "dan", "x")])
    assert draw.people([card, other], other) == ["ann", "ben", "cleo", "dan"]
    crowd = Card("v", "", choices=[Choice("c", name, "x") for name in "hgfedcba"])
    assert draw.people([crowd, other], other) == ["dan"]


def full(word: str = "qqq") -> ReportData:
    """A report with every part, and a word wherever there is text."""
    score, none, other = wilson(46, 50, method=word), unknown(0, word, word), word + "2"
    figures = [Figure(word, score, word, limit=0.8), Figure(word, about(-0.4), percent=False)]
    ann = page.AnnotatorRow(word, word, 1234, 5678, 95, 37.6, about(0.75), score, score, "pass")
    ben = page.AnnotatorRow(other, word, 1, 1, None, None, none, none, none)
    half = page.AgreementMatrix(word, [word, other], [[None, 0.5], [0.5, None]], [[0, 6], [6, 0]], 9)
    card = Card(
        word,
        word,
        encoded(Image.new("RGB", (300, 200), "gray"), "PNG"),
        [Choice(word, word, word), Choice(word, other, ABSENT, 1)],
        [Box(word, word, 10, 20, 30, 40, 1), Box(other, word, 50, 60, 30, 30)],
        [Box("consensus", word, 12, 20, 30, 40, 1)],
    )
    expert = page.CorrectionRow(word, word, word, word, ABSENT, word)
    return ReportData(
        word,
        AT,
        [(word, word)],
        figures=[*figures, Figure(word, none, word)],
        progress=Progress([(AT, 1), (AT + timedelta(days=1), 12)], 40),
        annotators=[ann, ben],
        golden_limit=0.8,
        agreement=[half],
        confusion=[ConfusionMatrix(word, [word, ABSENT], [[11, 1], [3, 0]], [12, 3], 9)],
        cards=[card, Card(word, word, boxes=[Box(word, word, 0, 0, 5, 5)])],
        corrections=[replace(expert, then=word, confidence=0.9), expert],
    )


class Tags(HTMLParser):
    """The tags of a page with their attributes, and all text between and in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.said = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.said += "\n".join(value or "" for _, value in attrs)

    def handle_data(self, data: str) -> None:
        self.said += data


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "quotes": "\"'><img src=x onerror=alert(1)>",
    "ends": "</style></title></svg></table><b>",
    "template": "<!-- ]]> {{ 7 * 7 }} {% raw %}",
    "entities": "&lt;b&gt; &amp;quot;",
    "long": "x" * 5000,
    "right to left": "\u202eשלום عالم\u202c",
    "emoji": "🦊👩\u200d🚀",
}


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE)
def test_no_text_changes_the_page_and_all_of_it_is_shown_as_it_is(word: str) -> None:
    plain, found = Tags(render(full())), Tags(render(full(word)))
    assert [(tag, [*attrs]) for tag, attrs in found.tags] == [(tag, [*attrs]) for tag, attrs in plain.tags]
    assert found.said.count(word) == plain.said.count("qqq") > 50


def test_the_page_loads_nothing_and_runs_nothing_and_forbids_itself_to() -> None:
    html = render(full())
    tags = Tags(html).tags
    assert not {tag for tag, _ in tags} & {"script", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, attrs in tags for name in attrs if name.startswith("on") or name == "style"]
    links = [value for _, attrs in tags for name, value in attrs.items() if name in ("href", "src", "srcset")]
    assert len(links) > len(SECTIONS)
    assert all(link.startswith(("#", "data:")) for link in links)
    (style,) = re.findall("<style>(.*?)</style>", html, flags=re.DOTALL)
    assert not re.search(r"url\(|@import|//", style)
    (policy,) = (one["content"] for _, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert {"default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'"} < {*policy.split("; ")}


def test_every_number_carries_its_n_and_every_unknown_one_its_reason() -> None:
    shown = sections(render(full("nobody answered")))
    assert "81.2 % to 96.8 %, n = 50" in text(shown["figures"])
    assert "−0.400" in text(shown["figures"])
    for part, known in (("figures", 2), ("annotators", 3)):
        assert shown[part].count('class="value"') == text(shown[part]).count("n = ") == known
    (figure,) = (one for one in shown["figures"].split("<article") if "not known" in one)
    assert '<p class="behind">nobody answered</p>' in figure
    assert shown["annotators"].count("<small>nobody answered</small>") == 3
    cells = re.findall(r'<td class="h\d+">(.*?)</td>', shown["agreement"])
    assert [text(cell) for cell in cells] == ["50.0 % n = 6"] * 2
    heads = re.findall(r'<th scope="row">(.*?)</th>', shown["confusion"])
    assert [text(head) for head in heads] == ["nobody answered n = 12", "nothing n = 3"]
    assert "12 of 40 tasks have at least one answer" in text(shown["progress"])


def test_what_is_left_out_is_said() -> None:
    rows = [page.CorrectionRow(f"t{n}", "add", "c", "a", "b", "why") for n in range(draw.ROWS + 5)]
    shown = {name: text(part) for name, part in sections(render(replace(full(), corrections=rows))).items()}
    assert "the 2 with the most answers, of 9" in shown["agreement"]
    assert "the 2 labels with the most mistakes, of 9" in shown["confusion"]
    assert f"Shown are the first {draw.ROWS} of {draw.ROWS + 5}" in shown["corrections"]
    assert re.findall(r"\bt\d+", shown["corrections"]) == [f"t{n}" for n in range(draw.ROWS)]


@pytest.mark.parametrize(
    "matrix",
    [
        page.AgreementMatrix("c", ["a", "b"], [[None, 1], [1]], [[0, 1], [1, 0]], 2),
        page.AgreementMatrix("c", ["a", "b"], [[None, 1], [1, None]], [[0, 1]], 2),
        page.AgreementMatrix("c", ["a"], [[None, 1], [1, None]], [[0, 1], [1, 0]], 2),
        ConfusionMatrix("c", ["a", "b"], [[1], [1, 0]], [1, 1], 2),
        ConfusionMatrix("c", ["a", "b"], [[1, 0], [1]], [1, 1], 2),
        ConfusionMatrix("c", ["a", "b"], [[1, 0], [1, 0]], [1], 2),
    ],
)
def test_a_matrix_with_uneven_sides_is_refused(matrix: page.AgreementMatrix | ConfusionMatrix) -> None:
    part = "confusion" if isinstance(matrix, ConfusionMatrix) else "agreement"
    with pytest.raises(ValueError, match="the matrix of 'c' has"):
        render(ReportData("", AT, [], **{part: [matrix]}))


BOMB = PngInfo()
BOMB.add_text("comment", "x" * 2_000_000, zip=True)
NO_PICTURES = {
    "empty": b"",
    "words": b"no picture",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "header": b"P6\n3 x\n255\n",
    "bomb": encoded(Image.new("RGB", (3, 3)), "PNG", pnginfo=BOMB),
}
STRANGE = {**NO_PICTURES, "bmp": encoded(Image.new("RGB", (3, 3)), "BMP")}


@pytest.mark.parametrize("image", STRANGE.values(), ids=STRANGE)
def test_a_picture_that_no_browser_shows_is_a_broken_record_of_its_task(image: bytes) -> None:
    with pytest.raises(BadRecord, match=f"'t7': its picture is {len(image)} bytes"):
        render(ReportData("", AT, [], cards=[Card("t7", "", image)]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_picture_stands_in_the_page_byte_for_byte(kind: str) -> None:
    raw = encoded(Image.new("RGB", (30, 20)), kind)
    found = Tags(render(ReportData("", AT, [], cards=[Card("t", "", raw)])))
    (image,) = (attrs for tag, attrs in found.tags if tag == "img")
    assert image["src"] == f"data:image/{kind.lower()};base64,{base64.b64encode(raw).decode()}"
    assert (image["width"], image["height"]) == ("30", "20")


def test_an_empty_report_names_a_command_for_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    shown = sections(render(ReportData("", AT, [])))
    assert [*shown] == SECTIONS
    for part in shown.values():
        (command,) = re.findall(r'class="empty">.*<code>connector (.*)</code>', part)
        assert commands.run([*command.split(), "--help"]) == 0
        assert f"Usage: connector {command.split(' --')[0]} [OPTIONS]" in capsys.readouterr().out


Told = Sequence[tuple[str, str, str, Sequence[Drawn]]]
"""task, annotator, choice, boxes."""


def labels(told: Told) -> Labels:
    """An answer a row, one every hour; whoever is called gold is gold. Nobody draws any face."""
    made = boxes({(task, who): drawn for task, who, _, drawn in told}, {"gold": "gold"})
    chosen = [
        (task, f"{task}/{who}", "c", "r", None, None, label, None, None, None) for task, who, label, _ in told
    ]
    times = pl.Series([AT + timedelta(hours=n) for n in range(len(told))], dtype=pl.Datetime("us", "UTC"))
    answers = made.answers.with_columns(created_at=times)
    regions = pl.concat([made.regions, pl.DataFrame(chosen, schema=REGIONS, orient="row")])
    return Labels(answers, regions, {"b": BOX, "c": CHOICE, "faces": BOX})


def tasks(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"task": names, "key": [f"s3://raw/deep/{name}.png" for name in names]})


def report_of(
    found: Labels,
    known: pl.DataFrame | None = None,
    pictures: Pictures = lambda task: None,
    plan: Sequence[Correction] = (),
    cards: int = 8,
) -> ReportData:
    table = units(found)
    merged = consensus(table, seed=0)
    known = pl.DataFrame({"task": [], "key": []}) if known is None else known
    return content("Title", AT, [], found, table, merged, 0.8, 0.95, known, pictures, None, plan, cards)


CAR: Drawn = ("car", 10, 10, 20, 20)
TREE: Drawn = ("tree", 60, 10, 10, 30)
TOLD: Told = [
    *[("t2", who, "sun", [CAR]) for who in ("gold", "ann", "ben", "cleo")],
    ("t1", "ann", "rain", [CAR, TREE]),
    *[("t1", who, "sun", [CAR, TREE]) for who in ("ben", "cleo", "gold")],
    ("t3", "ann", "sun", [CAR]),
    ("t3", "ben", "rain", [CAR]),
    ("t3", "cleo", "snow", []),
]


def test_the_figures_are_those_of_the_statistics() -> None:
    found = {figure.name: figure.estimate for figure in report_of(labels(TOLD)).figures}
    by_hand = {
        "Golden score, b": (1, 9),
        "Golden score, c": (5 / 6, 6),
        "Golden score, faces": (1, 6),
        # All three drew three of the objects and two the fourth; nobody drew a face.
        "Detection agreement, b": (20 / 22, 22),
        "Agreement, c": ((1 + 1 / 3 + 0) / 3, 3),
        "Agreement, faces": (1, 3),  # that there is none
    }
    for name, (value, n) in by_hand.items():
        assert (found[name].value, found[name].n) == (value if value is None else pytest.approx(value), n)
    table = units(labels(TOLD))
    for control, score in golden(table, 0.8).controls.items():
        assert found.pop(f"Golden score, {control}") == score
    for one in consensus(table, seed=0).controls:
        name = "Detection agreement" if one.control == "b" else "Agreement"
        assert found.pop(f"{name}, {one.control}") == one.agreement.headline[1]
        assert found.pop(f"Krippendorff's alpha, {one.control}") == one.agreement.krippendorff_alpha
    assert [(name, one.value) for name, one in found.items()] == [("Error rate", None)]


def test_a_person_is_judged_on_all_questions_together_also_on_what_is_rightly_empty() -> None:
    ann, ben, _, gold = report_of(labels(TOLD)).annotators
    assert (ann.name, ann.tasks, ann.annotations) == ("ann", 3, 3)
    # Right: 1 of 2 scenes, 3 of 3 objects, 2 times no face.
    assert (ann.golden.value, ann.golden.n) == (pytest.approx(6 / 7), 7)
    assert (ben.golden.value, ben.golden.n) == (1, 7)
    # Of the answers of others: 2 of 6 scenes, 6 of 6 times no face; of 15 boxes beside each other
    # 14 have a partner.
    assert (ann.agreement.value, ann.agreement.n) == (pytest.approx((2 + 6 + 14) / (6 + 6 + 15)), 20)
    assert (gold.golden.value, gold.golden.why) == (None, "only persons are judged")


def test_the_verdict_in_the_report_is_that_of_the_worst_control() -> None:
    told: Told = [
        (f"t{n}", who, "sun", drawn) for n in range(40) for who, drawn in (("gold", [CAR]), ("ann", []))
    ]
    table = units(labels(told))
    by_control = golden(table, 0.8).annotators.select("control", "verdict").sort("control").rows()
    assert by_control == [("b", "fail"), ("c", "pass"), ("faces", "pass")]
    [ann, _] = report_of(labels(told)).annotators
    assert (ann.verdict, ann.verdict_why) == ("fail", "b: the score lies below the limit")
    assert "b: the score lies below the limit" in text(render(report_of(labels(told))))


def test_matrices_count_what_was_said() -> None:
    found = report_of(labels(TOLD))
    matrix = {one.control: one for one in found.agreement}["c"]
    assert (matrix.names, matrix.people) == (["ann", "ben", "cleo"], 3)
    assert matrix.values == [[None, 1 / 3, 1 / 3], [1 / 3, None, 2 / 3], [1 / 3, 2 / 3, None]]
    assert matrix.n == [[0, 3, 3], [3, 0, 3], [3, 3, 0]]
    confusion = {one.control: one for one in found.confusion}
    assert confusion["c"] == ConfusionMatrix("c", ["rain", "sun"], [[0, 0], [1, 5]], [0, 6], 2)
    assert confusion["b"] == ConfusionMatrix("b", ["car", "tree"], [[6, 0], [0, 3]], [6, 3], 2)


def test_of_too_many_a_matrix_shows_those_with_the_most_answers_or_mistakes() -> None:
    told = [(f"{n}", f"w{who:02}", "sun", []) for who in range(READABLE + 6) for n in range(who + 1)]
    (matrix,) = (one for one in report_of(labels(told)).agreement if one.control == "c")
    assert matrix.people == READABLE + 6
    assert matrix.names == [f"w{who:02}" for who in range(6, READABLE + 6)]
    assert matrix.n[0][1:] == [7] * (READABLE - 1)

    # Ann answers y to everything, and ben z, once: z is not shown, but counts.
    told = [(f"{n:02}", "gold", f"x{n:02}", []) for n in range(READABLE + 6)]
    told += [(task, "ann", "y", []) for task, *_ in told] + [("00", "ben", "z", [])]
    (confusion,) = (one for one in report_of(labels(told)).confusion if one.control == "c")
    assert confusion.kinds == READABLE + 8
    assert confusion.labels == [*(f"x{n:02}" for n in range(READABLE - 1)), "y"]
    assert confusion.counts[0] == [*[0] * (READABLE - 1), 1]
    assert confusion.totals == [2, *[1] * (READABLE - 2), 0]


def test_the_worst_disagreements_come_first_each_with_what_was_said_of_its_task() -> None:
    first, second = report_of(labels(TOLD), tasks("t1", "t2", "t3")).cards
    scenes = [("ann", "sun"), ("ben", "rain"), ("cleo", "snow")]
    objects = [("ann", "car"), ("ben", "car"), ("cleo", ABSENT)]
    assert first == Card(
        "t3.png (task t3)",
        "In dispute: c, 1 of 1 objects.",
        None,
        [*(Choice("c", *said) for said in scenes), *(Choice("b", *said, 1) for said in objects)],
        [Box("ann", *CAR, 1), Box("ben", *CAR, 1)],
        [Box("consensus", *CAR, 1)],
    )
    assert (second.task, second.why) == ("t1.png (task t1)", "In dispute: c.")
    scenes = [("ann", "rain"), ("ben", "sun"), ("cleo", "sun")]
    assert second.choices == [Choice("c", *said) for said in scenes]
    assert second.boxes == [Box(who, *drawn) for drawn in (CAR, TREE) for who in ("ann", "ben", "cleo")]
    assert [card.task for card in report_of(labels(TOLD), cards=1).cards] == ["t3"]


def test_progress_counts_each_task_at_its_first_answer() -> None:
    found = report_of(labels(TOLD), tasks("t1", "t2", "t3", "t4")).progress
    assert found == Progress([(AT + timedelta(hours=n), k) for n, k in ((1, 1), (4, 2), (8, 3))], 4)
    n = POINTS * 5 // 2
    many = report_of(labels([(f"{task}", "ann", "sun", []) for task in range(n)])).progress
    assert many is not None
    assert len(many.points) < POINTS * 2
    assert many.points[-1] == (AT + timedelta(hours=n - 1), n)


def test_a_correction_counts_what_people_said() -> None:
    told = [("ABSENT, car, car", "car 2, nothing 1"), ("ABSENT", "nothing"), ("one, label", "one, label")]
    changes = [{"control": "b", "unit": "1", "now": now, "then": "car"} for now, _ in told]
    plan = {"task": "t1", "key": "", "action": "add", "expect": "", "then": "[]", "why": "w"}
    one = Correction.model_validate({**plan, "changes": changes, "confidence": 0.9})
    found = report_of(labels(TOLD), tasks("t1"), plan=[one]).corrections
    assert found == [page.CorrectionRow("t1.png", "add", "b", now, "car", "w", 0.9) for _, now in told]


def test_a_correction_is_shown_before_and_after_on_its_picture() -> None:
    png = encoded(Image.new("RGB", (30, 20)), "PNG")
    region = {"id": "r", "from_name": "b", "to_name": "i", "type": "rectanglelabels"}
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
    car, van = (
        json.dumps([{**region, "value": {**value, "rectanglelabels": [label]}}]) for label in ("car", "van")
    )
    head = {"key": "", "expect": "", "why": "w", "then": van}
    own = {**head, "task": "t1", "action": "replace", "annotation": "1", "annotator": "ann", "now": car}
    plan = [
        Correction.model_validate(one)
        for one in (own, {**head, "task": "t3", "action": "add"}, {**own, "task": "no picture"})
    ]
    pictures = {"t1": png, "t3": png}.get
    found = report_of(labels(TOLD), tasks("t1", "t3"), pictures, plan)
    people = [Box(who, *CAR) for who in ("ann", "ben")]
    assert found.changes == [
        page.BeforeAfter("t1.png", "w", png, [Box("", *CAR)], [Box("", "van", *CAR[1:])]),
        page.BeforeAfter("t3.png", "w", png, people, [Box("", "van", *CAR[1:])]),
    ]
    shown = text(sections(render(replace(full(), changes=found.changes)))["corrections"])
    assert shown.count("Before") == shown.count("After") == 4  # as a heading, and for who cannot see it
    assert len(report_of(labels(TOLD), tasks("t1", "t3"), pictures, plan, cards=1).changes) == 1


def test_a_correction_without_changes_is_shown_as_a_whole() -> None:
    region = {"id": "r", "from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": ["car"]}}
    head = {"task": "t1", "key": "", "expect": "", "why": "w", "annotation": "1", "now": json.dumps([region])}
    plan = [
        Correction.model_validate({**head, **more})
        for more in ({"action": "delete"}, {"action": "return", "note": "look again"})
    ]
    found = report_of(labels(TOLD), tasks("t1"), plan=plan)
    assert [(row.action, row.now, row.then) for row in found.corrections] == [
        ("delete", "car", ""),
        ("return", "car", "look again"),
    ]


def test_a_bucket_that_is_away_is_not_asked_for_every_correction() -> None:
    region = {"id": "r", "from_name": "b", "to_name": "i", "type": "rectanglelabels"}
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["car"]}
    head = {
        "key": "",
        "action": "add",
        "expect": "",
        "why": "w",
        "then": json.dumps([{**region, "value": value}]),
    }
    plan = [Correction.model_validate({**head, "task": f"t{n}"}) for n in range(100)]
    asked: list[str] = []
    assert report_of(labels(TOLD), pictures=asked.append, plan=plan, cards=2).changes == []
    assert len([task for task in asked if int(task[1:]) > 3]) <= TRIED_FOR_EACH * 2


def test_a_large_picture_is_shrunk_and_stands_upright_and_a_small_one_stays() -> None:
    wide = Image.new("RGB", (2000, 1000), "red")
    wide.paste("blue", (1000, 0, 2000, 1000))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's left is the picture's top
    turned, strange = (
        Image.open(io.BytesIO(shrunk(raw) or b""))
        for raw in (encoded(wide, "JPEG", exif=exif), encoded(wide.resize((30, 10)), "BMP"))
    )
    assert turned.size == (PIXELS // 2, PIXELS)
    top, foot = (turned.getpixel((PIXELS // 4, PIXELS * n // 4)) for n in (1, 3))
    assert (top, foot) == (pytest.approx((255, 0, 0), abs=5), pytest.approx((0, 0, 255), abs=5))
    assert (strange.format, strange.size) == ("JPEG", (30, 10))
    small = wide.resize((PIXELS, 10))
    assert Image.open(io.BytesIO(shrunk(encoded(small, "PNG")) or b"")).tobytes() == small.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("side", [30, 2 * PIXELS])
def test_nothing_of_a_picture_but_its_pixels_reaches_the_page(kind: str, side: int) -> None:
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E] = "taken at home"
    text.add_text("comment", "taken at home")
    options = {"exif": exif} if kind != "GIF" else {"comment": b"taken at home"}
    options |= {"comment": b"taken at home"} if kind == "JPEG" else {"pnginfo": text} if kind == "PNG" else {}
    raw = encoded(Image.new("RGB", (side, side), "red"), kind, icc_profile=b"taken at home", **options)
    made = shrunk(raw + b"taken at home")
    assert b"taken at home" in raw
    assert made
    assert b"taken at home" not in made
    assert not Image.open(io.BytesIO(made)).getexif()


def test_a_picture_that_is_too_large_to_be_decoded_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(huge) < 1_000_000
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    assert shrunk(huge) is None
    assert shrunk(b" " * (PICTURE_BYTES + 1)) is None


def test_formats_that_run_programs_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(eps)).format == "EPS"
    assert shrunk(eps) is None


def test_a_file_that_is_no_picture_gives_none() -> None:
    noise = Image.effect_noise((1200, 900), 50)
    broken = [
        *NO_PICTURES.values(),
        *(encoded(noise, kind)[:5000] for kind in ("PNG", "JPEG", "TIFF", "WEBP")),
    ]
    assert [shrunk(raw) for raw in (None, *broken)] == [None] * (1 + len(broken))
    assert [card.image for card in report_of(labels(TOLD), pictures=lambda task: b"no").cards] == [None] * 2


def untidy(seed: int) -> tuple[Labels, pl.DataFrame]:
    """Many answers that differ, in any order."""
    rng = np.random.default_rng(7)
    told: list[tuple[str, str, str, list[Drawn]]] = []
    for n in range(12):
        for who in ("ann", "ben", "cleo", "dan", *(["gold"] if n % 2 else [])):
            x, y = map(float, rng.integers(10, 16, 2))
            told.append((f"t{n}", who, str(rng.choice(["sun", "rain"])), [("car", x, y, 20, 20)]))
    found = labels(told)
    known = tasks(*(f"t{n}" for n in range(12)))
    mixed = [one.sample(fraction=1, shuffle=True, seed=seed) for one in (found.answers, found.regions, known)]
    return Labels(mixed[0], mixed[1], found.controls), mixed[2]


def test_neither_the_order_of_rows_nor_the_process_changes_a_byte() -> None:
    whole = report_of(*untidy(0))
    assert len(whole.cards) == 8
    assert all(report_of(*untidy(seed)) == whole for seed in range(1, 5))
    code = (
        "import sys; from tests.unit.test_report import *;"
        "sys.stdout.buffer.write((render(report_of(*untidy(9))) + render(full())).encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    words = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    other = subprocess.run(words, capture_output=True, check=True, cwd=root, env=environment).stdout
    assert other.decode() == render(whole) + render(full())
