"""One project: its configuration, and the tool, the bucket and the label store that it names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from connector.adapters import open_tool
from connector.adapters.base import Bucket, LabelingTool
from connector.adapters.dry_run import DryRun
from connector.config import Config, load, token
from connector.errors import Reject
from connector.formats.export import Exported, export
from connector.io.objects import Objects, placed
from connector.journal.journal import Journal, journal_of
from connector.journal.keys import Keys, configured_keys
from connector.store.label_store import Store, Version
from connector.store.labels import Loaded, read_store
from connector.store.parts import Aligned, align_store
from connector.sync import rounds as both_ways
from connector.sync.items import BucketItems, ManifestItems, Source
from connector.sync.ledger import Ledger
from connector.sync.rounds import Effects, Progress, Pulled, Pushed

LEDGER = "connector-sync.sqlite"


@dataclass(frozen=True)
class Project:
    """What a configuration names. Each call opens it anew, and reads secrets only then.

    Args:
        say: told who is waited for.
    """

    config: Config
    say: Callable[[str], None] = field(default=lambda _: None, repr=False, compare=False)

    @property
    def name(self) -> str:
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
        place, options = self.config.place(settings.url), self.config.storage_options(settings)
        return Store(place, self.name, options, self.say)

    def journal(self) -> Journal:
        """The corrections that were sent, kept beside the label store, to be read; not authenticated.

        Raises:
            UsageError: if it is not what the label store knows of it.
        """
        return self._journal(Keys(()))

    def authenticated_journal(self, scratch: bool = False, accept: bool = False) -> Journal:
        """The corrections that were sent, to be written to: only holders of a key can have written them.

        Args:
            scratch: keep what is new in memory only, for a dry run.
            accept: take what is there as it is, as versions before journals were authenticated wrote it.

        Raises:
            AuthError: if there is no key.
            UsageError: if it is not authenticated, or not what the label store knows of it.
        """
        keys = configured_keys()
        keys.need()
        return self._journal(keys, scratch, accept)

    def _journal(self, keys: Keys, scratch: bool = False, accept: bool = False) -> Journal:
        settings = self.config.store
        place, options = self.config.place(settings.url), self.config.storage_options(settings)
        journal = Journal(journal_of(place), options, scratch, keys, accept)
        self.store().confirm(journal)
        return journal

    def raw(self) -> Objects:
        """The bucket of raw data."""
        settings = self.config.raw
        return Objects(self.config.place(settings.url), self.config.storage_options(settings))

    def bucket(self) -> Bucket:
        """The bucket, as the tool needs to know it."""
        raw = self.raw()
        return Bucket(raw.url, raw.options)

    def items(
        self,
        rejects: list[Reject],
        manifest: str | None = None,
        image_fields: frozenset[str] = frozenset(),
        plain_fields: frozenset[str] = frozenset(),
    ) -> Source:
        """What should be in the tool: the objects of the bucket, or the rows of a manifest.

        Args:
            rejects: what is no item is added here.
            manifest: a path from the current folder, or a URL.
            image_fields: fields that are shown as pictures: what is none is refused.
            plain_fields: fields that hold what is shown itself, such as a text.
        """
        settings = self.config.raw
        if manifest:
            folder, name = placed(manifest, self.config.storage_options(settings, manifest))
            field = settings.field
            plain, pictures = field in plain_fields or settings.content != "url", field in image_fields
            return ManifestItems(folder, name, self.raw(), field, rejects, plain, pictures)
        return BucketItems(self.raw(), settings, rejects, image_fields)

    def ledger(self, scratch: bool = False) -> Ledger:
        """Batches in flight, rounds and rejects; for a dry run, a copy in memory."""
        path = self.config.folder / LEDGER
        if not scratch:
            return Ledger(path, self.name)
        if not path.exists():
            return Ledger(Path(":memory:"), self.name)
        with closing(Ledger(path, self.name)) as real:
            return real.copy()

    def pull(self, progress: Progress = lambda _: None) -> Pulled:
        """Bring what people labeled into the store."""
        return both_ways.pull(self.tool(), self.store(), progress)

    def sync(
        self,
        ledger: Ledger,
        manifest: str | None = None,
        effects: Effects | None = None,
        progress: Progress = lambda _: None,
        store: Store | None = None,
    ) -> tuple[Pulled, Pushed]:
        """Push and pull: afterwards bucket, tool and store agree.

        Args:
            ledger: where a batch stands before it is sent; see `ledger`.
            manifest: its rows instead of all objects of the bucket.
            effects: what changes of the raw data do to tasks.
            store: ours, where it is open already.
        """
        tool, raw, rejects = self.tool(), self.raw(), list[Reject]()
        source = self.items(rejects, manifest, both_ways.image_fields(tool), both_ways.plain_fields(tool))
        both_ways.connect(tool, raw.url, raw.options)
        return both_ways.sync(tool, store or self.store(), source, rejects, ledger, effects, progress)

    def dry_push(
        self,
        manifest: str | None = None,
        effects: Effects | None = None,
        progress: Progress = lambda _: None,
    ) -> Pushed:
        """What a sync would push. Nothing is written."""
        tool, rejects = self.tool(dry_run=True), list[Reject]()
        source = self.items(rejects, manifest, both_ways.image_fields(tool), both_ways.plain_fields(tool))
        with closing(self.ledger(scratch=True)) as ledger:
            return both_ways.push(
                tool, self.store(), source, rejects, ledger, effects, progress, dry_run=True
            )

    def export(self, target: str, version: Version | None = None, dry_run: bool = False) -> Exported:
        """Write the labels into one file, here or in a bucket.

        Args:
            target: a path, or a URL; it ends with .parquet, .jsonl or .json.
            version: of the store, or a snapshot's name; the newest by default.
        """
        place = self.config.place(target)
        options = self.config.storage_options(self.config.store, place)
        return export(self.store(), Objects(place, options), version, dry_run)

    def export_copies(self) -> None:
        """Write the copies that the configuration names."""
        for target in self.config.store.copies:
            self.export(target)

    def labels(self, version: Version | None = None) -> Loaded:
        """The labels in the store, as of a version or snapshot; by default the newest."""
        return read_store(self.store(), self.config.roles, version)

    def aligned(
        self,
        version: Version | None = None,
        gold: Loaded | None = None,
        engine: str | None = None,
        keep_regions: bool = True,
        progress: Progress = lambda _: None,
    ) -> Aligned:
        """The labels in the store, and their unit table.

        Args:
            version: as of that version or snapshot; by default the newest.
            gold: known answers, in the place of the store's own.
            engine: `local` or `dask://host:port`; by default the configuration's.
            keep_regions: whether what was drawn is wanted besides the units.
            progress: told of every part.
        """
        quality, store = self.config.quality, self.config.store
        return align_store(
            self.store(),
            store.model_copy(update={"url": self.config.place(store.url)}),
            self.config.roles,
            quality.thresholds,
            version,
            gold,
            engine or quality.engine,
            keep_regions,
            progress=progress,
        )


def open_project(config: Path | None = None) -> Project:
    """The project of a configuration.

    Args:
        config: the file; by default `connector.toml` in this folder or one above.

    Raises:
        UsageError: if there is none, or it is wrong.
    """
    return Project(load(config))
