"""The line of one project: its configuration, and the tool, the bucket and the store it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from connector import sync
from connector.adapters import open_tool
from connector.adapters.base import Bucket, LabelingTool
from connector.adapters.dry_run import DryRun
from connector.adapters.objects import Objects
from connector.config import Config, load, token
from connector.labels import Loaded, read_store
from connector.store import Store, Version


@dataclass(frozen=True)
class Line:
    """What a configuration names. Each call opens it anew, and reads secrets only then."""

    config: Config

    @property
    def project(self) -> str:
        """Which project of which tool; it names the cursor in the store and the plans."""
        tool = self.config.tool
        return f"{tool.kind}:{tool.url.rstrip('/')}#{tool.project}"

    def tool(self, dry_run: bool = False) -> LabelingTool:
        """The labeling tool; one that is only looked at, for a dry run."""
        settings = self.config.tool
        real = open_tool(settings.kind, settings.url, token(settings.url), settings.project, settings.options)
        return DryRun(real) if dry_run else real

    def store(self) -> Store:
        """The label store."""
        settings = self.config.store
        return Store(self.config.place(settings.url), self.project, self.config.storage_options(settings))

    def raw(self) -> Objects:
        """The bucket of raw data."""
        settings = self.config.raw
        return Objects(self.config.place(settings.url), self.config.storage_options(settings))

    def bucket(self) -> Bucket:
        """The bucket, as the tool needs to know it."""
        raw = self.raw()
        return Bucket(raw.url, raw.options)

    def pull(self, progress: Callable[[int], None] = lambda _: None) -> sync.Pulled:
        """Bring what people labeled into the store."""
        return sync.pull(self.tool(), self.store(), progress)

    def labels(self, version: Version | None = None) -> Loaded:
        """The labels in the store, as of a version or snapshot; by default the newest."""
        return read_store(self.store(), self.config.roles, version)


def open_line(config: Path | None = None) -> Line:
    """The line of a configuration.

    Args:
        config: the file; by default `connector.toml` in this folder or one above.

    Raises:
        UsageError: if there is none, or it is wrong.
    """
    return Line(load(config))
