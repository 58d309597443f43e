"""Labeling configurations: one for every control tag, and a few more ways to ask."""

from __future__ import annotations


def _view(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


_LABEL = '<Label value="cat"/><Label value="dog" background="#ff0000" hotkey="2"/>'
_IMAGE = '<Image name="image" value="$image"/>'
_VIDEO = '<Video name="video" value="$video"/>'
_TEXT = '<Text name="text" value="$text"/>'


def _drawing(tag: str, shown: str = _IMAGE, target: str = "image") -> dict[str, str]:
    """The tag that only draws, next to labels, and the tag that has labels of its own."""
    labels = f'<Labels name="label" toName="{target}">{_LABEL}</Labels>'
    return {
        tag: _view(shown, f'<{tag} name="answer" toName="{target}"/>', labels),
        f"{tag}Labels": _view(shown, f'<{tag}Labels name="answer" toName="{target}">{_LABEL}</{tag}Labels>'),
    }


def _labels(tag: str, shown: str, target: str) -> str:
    return _view(shown, f'<{tag} name="answer" toName="{target}">{_LABEL}</{tag}>')


def _asking(tag: str, attributes: str = "", inside: str = "") -> str:
    return _view(_TEXT, f'<{tag} name="answer" toName="text" {attributes}>{inside}</{tag}>')


_TREE = (
    '<Choice value="animal"><Choice value="cat" alias="felis"/><Choice value="dog"/></Choice>'
    '<Choice value="plant"><Choice value="tree"/></Choice>'
)
_HYPERTEXT = '<HyperText name="html" value="$html"/>'
_PARAGRAPHS = '<Paragraphs name="dialogue" value="$dialogue" layout="dialogue"/>'
_AUDIO_TAG = '<Audio name="audio" value="$audio"/>'
_SERIES_TAG = (
    '<TimeSeries name="series" value="$series" valueType="json" timeColumn="time">'
    '<Channel column="value"/></TimeSeries>'
)
_LIST = '<List name="items" value="$items"/>'

CONFIGS: dict[str, str] = {
    "Choices": _asking("Choices", "", '<Choice value="yes"/><Choice value="no" alias="n"/>'),
    "Taxonomy": _asking("Taxonomy", "", _TREE),
    "Rating": _asking("Rating", 'maxRating="7"'),
    "Number": _asking("Number", 'min="0" max="20" step="0.5"'),
    "DateTime": _asking("DateTime", 'only="date" format="%d.%m.%Y"'),
    "TextArea": _asking("TextArea", 'maxSubmissions="1"'),
    "Pairwise": _view(
        '<Pairwise name="answer" toName="left,right"/>',
        '<Text name="left" value="$left"/><Text name="right" value="$right"/>',
    ),
    "Ranker": _view(
        _LIST, '<Ranker name="answer" toName="items"><Bucket name="best"/><Bucket name="rest"/></Ranker>'
    ),
    "Labels": _labels("Labels", _TEXT, "text"),
    "HyperTextLabels": _labels("HyperTextLabels", _HYPERTEXT, "html"),
    "ParagraphLabels": _labels("ParagraphLabels", _PARAGRAPHS, "dialogue"),
    "TimeSeriesLabels": _labels("TimeSeriesLabels", _SERIES_TAG, "series"),
    "TimelineLabels": _labels("TimelineLabels", _VIDEO, "video"),
    "OcrLabels": _labels("OcrLabels", _IMAGE, "image"),
    **_drawing("Rectangle"),
    **_drawing("Ellipse"),
    **_drawing("Polygon"),
    **_drawing("Brush"),
    **_drawing("Bitmask"),
    **_drawing("KeyPoint"),
    **_drawing("Vector"),
    "MagicWand": _drawing("MagicWand")["MagicWand"],
    "VideoRectangle": _drawing("VideoRectangle", _VIDEO, "video")["VideoRectangle"],
    **_drawing("VideoVector", _VIDEO, "video"),
    "Relations": _view(
        _TEXT,
        f'<Labels name="answer" toName="text">{_LABEL}</Labels>',
        '<Relations><Relation value="likes"/><Relation value="fears"/></Relations>',
    ),
    "ChatMessage": _view('<Chat name="answer" value="$chat"/>'),
    "ReactCode": _view('<ReactCode name="answer" toName="answer" data="$page" outputs="note"/>'),
}
"""A configuration for every control tag that label-studio-sdk 2.1.2 knows; the control is called `answer`."""

MORE: dict[str, str] = {
    "audio": _labels("Labels", _AUDIO_TAG, "audio"),
    "several choices": _asking("Choices", 'choice="multiple"', '<Choice value="a"/><Choice value="b"/>'),
    "nested choices": _asking("Choices", 'allowNested="true"', _TREE),
    "plain ranking": _view(_LIST, '<Ranker name="answer" toName="items"/>'),
    "time of day": _asking("DateTime", 'only="time"'),
    "moment": _asking("DateTime"),
    "questions of regions": _view(
        _IMAGE,
        f'<RectangleLabels name="answer" toName="image">{_LABEL}</RectangleLabels>',
        '<Choices name="occluded" toName="image" perRegion="true" whenLabelValue="cat">'
        '<Choice value="yes"/><Choice value="no"/></Choices>',
        '<TextArea name="plate" toName="image" perRegion="true"/>',
        '<Number name="legs" toName="image" perRegion="true"/>',
    ),
}
"""More ways to ask, by what they show."""
