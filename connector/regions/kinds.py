"""What sorts of answers there are, and which sort each control of Label Studio asks for."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from connector.model import Control, Ontology


class Kind(StrEnum):
    """What sort of thing an answer is, whatever the tag that asked for it."""

    CHOICE = "choice"
    TAXONOMY = "taxonomy"
    RATING = "rating"
    NUMBER = "number"
    DATE = "date"
    TEXT = "text"
    PAIRWISE = "pairwise"
    RANKING = "ranking"
    BOX = "box"
    ELLIPSE = "ellipse"
    POLYGON = "polygon"
    MASK = "mask"
    KEYPOINT = "keypoint"
    LINE = "line"
    SPAN = "span"
    HTML_SPAN = "html-span"
    PARAGRAPH_SPAN = "paragraph-span"
    SEGMENT = "segment"
    TRACK = "track"
    RELATION = "relation"
    NAMING = "naming"
    """Labels that name what another control draws: `Labels` next to `Rectangle`. `areas` joins the two."""
    UNMEASURED = "unmeasured"


ORDERED = frozenset({Kind.RATING, Kind.NUMBER, Kind.DATE, Kind.RANKING})
"""Kinds whose answers have an order, so that a near miss is less than a miss."""

KINDS: Mapping[str, Kind] = {
    "choices": Kind.CHOICE,
    "taxonomy": Kind.TAXONOMY,
    "rating": Kind.RATING,
    "number": Kind.NUMBER,
    "datetime": Kind.DATE,
    "textarea": Kind.TEXT,
    "pairwise": Kind.PAIRWISE,
    "ranker": Kind.RANKING,
    "rectangle": Kind.BOX,
    "rectanglelabels": Kind.BOX,
    "ocrlabels": Kind.BOX,
    "ellipse": Kind.ELLIPSE,
    "ellipselabels": Kind.ELLIPSE,
    "polygon": Kind.POLYGON,
    "polygonlabels": Kind.POLYGON,
    "brush": Kind.MASK,
    "brushlabels": Kind.MASK,
    "magicwand": Kind.MASK,
    "bitmask": Kind.MASK,
    "bitmasklabels": Kind.MASK,
    "keypoint": Kind.KEYPOINT,
    "keypointlabels": Kind.KEYPOINT,
    "vector": Kind.LINE,
    "vectorlabels": Kind.LINE,
    "hypertextlabels": Kind.HTML_SPAN,
    "htmllabels": Kind.HTML_SPAN,
    "paragraphlabels": Kind.PARAGRAPH_SPAN,
    "timeserieslabels": Kind.SEGMENT,
    "timelinelabels": Kind.SEGMENT,
    "videorectangle": Kind.TRACK,
    "relations": Kind.RELATION,
    "relation": Kind.RELATION,
}
"""From the type of a control, in lower case, to our kind of answer. `labels` are in `LABELS_ON`."""

LABELS_ON: Mapping[str, Kind] = {
    "text": Kind.SPAN,
    "hypertext": Kind.HTML_SPAN,
    "paragraphs": Kind.PARAGRAPH_SPAN,
    "audio": Kind.SEGMENT,
    "audioplus": Kind.SEGMENT,
    "timeseries": Kind.SEGMENT,
}
"""What `labels` draw, by the type of the object. On any other they name what another control draws."""

NOT_MEASURED: Mapping[str, str] = {
    "chatmessage": "a conversation is written, and no two are about the same thing",
    "reactcode": "its answers have whatever form the page's author gave them",
    "videovector": "outlines that move are not compared yet",
    "videovectorlabels": "outlines that move are not compared yet",
}
"""Controls whose answers are kept and not measured, and why. So is any type that we do not know."""


def kind_of(control: Control, ontology: Ontology) -> Kind:
    """What kind of answer a control asks for."""
    if control.kind == "labels":
        shown = ontology.object(control.target)
        return LABELS_ON.get(shown[0], Kind.NAMING) if shown else Kind.NAMING
    if control.kind == "choices" and control.limits.get("allownested") == "true":
        return Kind.TAXONOMY
    return KINDS.get(control.kind, Kind.UNMEASURED)
