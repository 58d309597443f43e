"""The report in a real browser, opened as a file: what it asks for, shows, hides, and where things stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By

from connector.quality.interval import wilson
from connector.report import (
    AgreementMatrix,
    AnnotatorRow,
    Box,
    Card,
    Choice,
    ConfusionMatrix,
    ReportData,
    draw,
    render,
)
from tests.unit.test_report import AT, HOSTILE, SECTIONS, encoded, full

pytestmark = pytest.mark.browser

Show = Callable[[ReportData], Chrome]


@pytest.fixture
def show(browser: Chrome, tmp_path: Path) -> Show:
    def opened(data: ReportData) -> Chrome:
        path = tmp_path / "report.html"
        path.write_text(render(data), encoding="utf-8")
        browser.get(path.as_uri())
        return browser

    return opened


def resize(browser: Chrome, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def emulate(browser: Chrome, scheme: str, media: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def crowd(people: int = 300, kinds: int = 40) -> ReportData:
    """As much as a report may have to hold."""
    names = [f"annotator-number-{n:03}@a-long-name-of-a-company.example.com" for n in range(people)]
    labels = [f"label-{n:02}-with-a-long-name" for n in range(kinds)]
    rows = [AnnotatorRow(name, "person", 9, 9, 5, 9, *[wilson(46, 50)] * 3, "pass") for name in names]
    square = [[1] * kinds] * kinds
    choices = [Choice("c" * 90, name, labels[n % kinds]) for n, name in enumerate(names)]
    boxes = [Box(name, "car", n % 90, n % 80, 9, 9, n) for n, name in enumerate(names)]
    return ReportData(
        "Crowd" * 20,
        AT,
        [("labels", "s3://bucket/" + "folder/" * 40)],
        annotators=rows,
        agreement=[AgreementMatrix("c", names[:kinds], square, square, people)],
        confusion=[ConfusionMatrix("c", labels, square, [kinds] * kinds, kinds)],
        cards=[Card("pictures/" * 30, "In dispute.", choices=choices, boxes=boxes)],
    )


def test_the_page_asks_for_nothing_but_itself_and_the_console_stays_empty(show: Show) -> None:
    browser = show(full())
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert {url for url in sent if not url.startswith("data:")} == {browser.current_url}
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelector('img').naturalWidth") == 300


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE)
def test_no_text_becomes_a_part_of_the_page(show: Show, word: str) -> None:
    tags = "return [...document.querySelectorAll('*')].map(one => one.localName)"
    plain = show(full()).execute_script(tags)
    browser = show(full(word))
    assert browser.execute_script(tags) == plain
    assert browser.execute_script("return document.querySelector('h1').textContent") == word
    assert browser.get_log("browser") == []


def test_a_name_written_from_right_to_left_does_not_turn_the_words_of_the_page(show: Show) -> None:
    places = """
        const text = document.querySelector('#agreement figcaption strong').nextSibling;
        return [...': how'].map((_, n) => {
          const letter = new Range(); letter.setStart(text, n); letter.setEnd(text, n + 1);
          return letter.getBoundingClientRect().x; })"""
    found = show(full("\u202eשלום")).execute_script(places)
    assert found == sorted(found)
    assert len({*found}) == len(": how")


@pytest.mark.parametrize("width", [1280, 768, 375])
@pytest.mark.parametrize(
    "word", ["qqq", "x" * 300, "\u202eשלום" * 60, None], ids=["plain", "long", "rtl", "crowd"]
)
def test_the_body_never_scrolls_sideways(show: Show, word: str | None, width: int) -> None:
    browser = show(full(word) if word else crowd())
    resize(browser, width)
    sizes = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    wide, seen = browser.execute_script(sizes)
    assert wide <= seen <= width


CONTRASTS = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const rgba = colour => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const luminance = colour => {
  const [r, g, b] = rgba(colour).map(c => c / 255 <= .04045 ? c / 3294.6 : ((c / 255 + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const ground = one => {
  const colour = getComputedStyle(one).backgroundColor;
  return rgba(colour)[3] ? colour : ground(one.parentElement);
};
return [...document.querySelectorAll('body *:not(svg *)')]
  .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .filter(one => one.getClientRects().length)
  .map(one => {
    const pair = [getComputedStyle(one).color, ground(one)].map(luminance).sort((a, b) => a - b);
    return [(pair[1] + .05) / (pair[0] + .05), one.className, one.textContent.trim()];
  })
"""
"""Of every piece of text its contrast as WCAG 2 defines it, and what it is."""


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(show: Show, scheme: str, media: str) -> None:
    data, n = full(), draw.STEPS + 2
    rows = [replace(data.annotators[0], verdict=verdict) for verdict in ("pass", "fail", "undecided")]
    values = [[(i + j) % n / (n - 1) for j in range(n)] for i in range(n)]
    heated = AgreementMatrix("c", [f"p{i:02}" for i in range(n)], values, [[9] * n] * n, n)
    browser = show(replace(data, annotators=rows, agreement=[heated]))
    emulate(browser, scheme, media)
    found = browser.execute_script(CONTRASTS)
    seen = {name for _, names, _ in found for name in names.split()}
    assert {*(f"h{step}" for step in range(draw.STEPS + 1)), "pass", "fail", "undecided", "unknown"} <= seen
    assert [one for one in found if one[0] < 4.5] == []


def test_dark_mode_is_dark_and_paper_is_white(show: Show) -> None:
    browser = show(full())
    colours = (
        "const {backgroundColor, color} = getComputedStyle(document.body); return [backgroundColor, color]"
    )
    back, ink = [], []
    for scheme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        emulate(browser, scheme, media)
        for kept, colour in zip((back, ink), browser.execute_script(colours), strict=True):
            kept.append(sum(map(int, re.findall(r"\d+", colour))) / 3)
    assert back[1] < 50 < 200 < back[0] < back[2] == 255
    assert ink[2] < ink[0] < 50 < 200 < ink[1]


def test_paper_shows_every_number_that_the_screen_shows(show: Show) -> None:
    browser = show(full())
    screen, paper = [], []
    for media, numbers in (("screen", screen), ("print", paper)):
        emulate(browser, "light", media)
        numbers += re.findall(r"\d[\d.\u202f]*", browser.find_element(By.TAG_NAME, "main").text)
    assert paper == screen
    assert {"92.0\u202f", "50", "1\u202f234", "75.0\u202f", "11"} <= {*paper}


def shown_boxes(browser: Chrome) -> list[list[str]]:
    """Of each card, whose boxes are seen."""
    script = """
        const seen = rect => rect.getClientRects().length;
        const whose = rect => rect.parentElement.querySelector('title').textContent.split(':')[0];
        return [...document.querySelectorAll('.card')]
          .map(card => [...card.querySelectorAll('rect.line')].filter(seen).map(whose))"""
    found: list[list[str]] = browser.execute_script(script)
    return found


def test_an_unticked_name_takes_exactly_its_boxes_off_its_card(show: Show) -> None:
    # Two more than there are colours: who shares a colour is still told apart.
    names = [f"p{n}" for n in range(draw.COLOURS + 2)]
    boxes = [Box(name, "car", 5 * n, y, 5, 5) for n, name in enumerate(names) for y in (10, 50)]
    card = Card("t", "", boxes=boxes, consensus=[Box("consensus", "car", 1, 1, 5, 5)])
    browser = show(ReportData("", AT, [], cards=[card, replace(card, task="u")]))
    whole = ["consensus", *(box.annotator for box in boxes)]
    labels = browser.find_elements(By.CSS_SELECTOR, ".card:first-child fieldset label")
    assert [label.text.strip() for label in labels] == [*names, "consensus"]
    for label in labels:
        browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", label)
        label.click()
        assert shown_boxes(browser) == [[name for name in whole if name != label.text.strip()], whole]
        label.click()
        assert shown_boxes(browser) == [whole, whole]


TURNED = Image.Exif()
TURNED[0x0112] = 6
FLAT = Image.new("RGB", (300, 200))


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize(
    ("picture", "shape"),
    [(encoded(FLAT, "PNG"), 3 / 2), (encoded(FLAT, "JPEG", exif=TURNED), 2 / 3), (None, 3 / 2)],
    ids=["png", "turned", "none"],
)
def test_boxes_are_drawn_where_the_data_says(
    show: Show, picture: bytes | None, shape: float, width: int
) -> None:
    boxes = [Box("ann", "car", 12.5, 20, 30, 45.5), Box("ben", "car", 0, 0, 100, 100)]
    browser = show(ReportData("", AT, [], cards=[Card("t", "", picture, boxes=boxes)]))
    resize(browser, width)
    places = """
        const place = one => { const r = one.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; };
        const seen = name => [...document.querySelectorAll(`.picture ${name}`)].map(place);
        return [...seen('img'), place(document.querySelector('.picture')), ...seen('rect.line')]"""
    left, top, wide, high = (found := browser.execute_script(places))[0]
    assert wide / high == pytest.approx(shape, abs=0.02)
    for box, rect in zip(boxes, found[-2:], strict=True):
        corner = [left + box.x * wide / 100, top + box.y * high / 100]
        assert rect == pytest.approx([*corner, box.width * wide / 100, box.height * high / 100], abs=1)


@pytest.mark.parametrize("width", [1280, 375])
def test_a_screen_reader_finds_landmarks_headings_tables_and_names(show: Show, width: int) -> None:
    browser = show(full())
    resize(browser, width)
    nodes: list[dict[str, Any]] = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [
        (one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]
    ]
    by_role = {role: [name for kind, name in told if kind == role] for role, _ in told}
    assert [len(by_role[landmark]) for landmark in ("banner", "navigation", "main")] == [1, 1, 1]
    assert by_role["heading"][0] == "qqq"
    assert [name for name in by_role["heading"] if name.lower() in SECTIONS] == [
        *map(str.capitalize, SECTIONS)
    ]
    assert {"Annotator", "Golden score", "Given by", "Should be", "nothing"} <= {*by_role["columnheader"]}
    assert by_role["checkbox"] == ["qqq", "qqq2", "consensus", "qqq"]
    assert "The picture of qqq" in by_role["image"]
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


def test_every_link_of_the_contents_leads_to_its_section_and_the_first_key_skips_them(show: Show) -> None:
    browser = show(full())
    browser.switch_to.active_element.send_keys(Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the report"
    assert skip.rect["x"] >= 0
    for link, section in zip(browser.find_elements(By.CSS_SELECTOR, "nav a"), SECTIONS, strict=True):
        assert (link.get_attribute("href") or "").endswith(f"#{section}")
        assert link.text.split()[0] == browser.find_element(By.CSS_SELECTOR, f"#{section} h2").text
