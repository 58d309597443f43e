"""Labeling tools and object storage. A labeling tool is found by the name of its entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from connector.adapters.base import LabelingTool
from connector.errors import UsageError

GROUP = "labeling_connector.adapters"


def open_tool(kind: str, url: str, token: str, project: int, options: Mapping[str, str]) -> LabelingTool:
    """One project of a labeling tool.

    Args:
        kind: the entry point's name, such as `label-studio`; any package may register one in `GROUP`, for
            something callable as (url, token, project, **options) that gives a `LabelingTool`.

    Raises:
        UsageError: if no adapter of that name is installed.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in known:
        raise UsageError(
            f"there is no adapter {kind!r}", f"set tool.kind to one of {', '.join(sorted(known))}"
        )
    adapter: Callable[..., LabelingTool] = known[kind].load()
    return adapter(url, token, project, **options)
