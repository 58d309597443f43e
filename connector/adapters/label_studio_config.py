"""Label Studio's labeling configuration, read as an ontology."""

from __future__ import annotations

from xml.etree import ElementTree

from connector.errors import UsageError
from connector.model import Control, Ontology

# Tags that are questions, with the attribute or child tag that holds their labels. `type` in a result is the
# tag's name in lower case.
_LABEL_TAGS = {"Choice", "Label"}
_OBJECT_TAGS = {
    *("Audio", "Chat", "HyperText", "Image", "List", "Paragraphs", "Pdf"),
    *("Table", "Text", "TimeSeries", "Video"),
}


def parse_config(source: str) -> Ontology:
    """Read a labeling configuration.

    Args:
        source: Label Studio's XML.

    Raises:
        UsageError: if it is not XML.
    """
    try:
        root = ElementTree.fromstring(source)
    except ElementTree.ParseError as error:
        raise UsageError(
            f"the labeling configuration is not XML: {error}", "mend it in the file or the tool"
        ) from error
    controls = []
    objects = {}
    for tag in root.iter():
        name, target = tag.get("name"), tag.get("toName")
        if name and target and tag.tag not in _LABEL_TAGS:
            labels = tuple(
                str(child.get("value"))
                for child in tag.iter()
                if child.tag in _LABEL_TAGS and child.get("value")
            )
            controls.append(
                Control(
                    name=name,
                    kind=tag.tag.lower(),
                    target=target.split(",")[0],
                    labels=labels,
                    required=tag.get("required", "").lower() == "true",
                )
            )
        elif name and tag.tag in _OBJECT_TAGS:
            objects[name] = (tag.tag.lower(), (tag.get("value") or tag.get("valueList") or "").lstrip("$"))
    return Ontology(controls=tuple(controls), objects=objects, source=source)
