"""The labels of a store, read and aligned part by part.

A part is some tasks. What is done to it depends on nothing but the part, so it can be done anywhere and in
any order, and many parts put together are what one part of all tasks would be. What a number is computed
from afterwards, the unit table, is small beside the annotations that it was made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from connector.config import Config, StoreSettings
from connector.io.engine import run
from connector.model import Control, Ontology, Role
from connector.quality.kinds import DRAWN
from connector.quality.table import REGIONS, Labels
from connector.quality.units import UNITS, units
from connector.regions import kind_of
from connector.store.label_store import TASK, Store, Version
from connector.store.labels import Loaded, add_gold, named, newest, read_store

TASKS = 20_000
"""So many tasks are a part. Fewer make each part's own cost felt, more make it large in memory."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some tasks of a store, and all that it takes to align their annotations.

    Attributes:
        store: where it is. The keys of a bucket are not told: who works on the part has them in its own
            environment.
        source: whose labels the store holds.
        between: the first and the last task.
        gold: with the ids of the tasks; None where the store's own is gold.
        drawn: the kind of every control that may have drawn something, in this part or another.
        keep_regions: whether what was drawn is wanted afterwards.
    """

    store: StoreSettings
    source: str
    version: Version
    between: tuple[str, str] | None
    roles: Mapping[str, Role]
    gold: Loaded | None
    thresholds: Mapping[str, float]
    drawn: Mapping[str, str]
    keep_regions: bool


@dataclass(frozen=True, slots=True)
class Aligned:
    """Labels, and the unit table made of them; without what was drawn, where that was not asked for."""

    loaded: Loaded
    units: pl.DataFrame


def align(loaded: Loaded, thresholds: Mapping[str, float], keep_regions: bool = True) -> Aligned:
    """Labels and their unit table.

    Args:
        thresholds: by kind; see `quality.units`.
    """
    return Aligned(loaded if keep_regions else _bare(loaded), units(loaded.labels, thresholds))


def _bare(loaded: Loaded) -> Loaded:
    return replace(loaded, labels=replace(loaded.labels, regions=pl.DataFrame(schema=REGIONS)))


def align_store(
    store: Store,
    settings: StoreSettings,
    roles: Mapping[str, Role],
    thresholds: Mapping[str, float],
    version: Version | None = None,
    gold: Loaded | None = None,
    engine: str = "local",
    keep_regions: bool = True,
    tasks_in_part: int = TASKS,
    progress: Callable[[int], None] = lambda _: None,
) -> Aligned:
    """The labels of a store and their unit table; whatever the engine and the parts, the same.

    Args:
        settings: where the store is, with a URL that holds everywhere.
        roles: of annotators who are no ordinary persons.
        version: as of that version of the store; the newest by default.
        gold: known answers, in the place of the store's own.
        engine: see `engine.run`.
        progress: told of every part.

    Raises:
        UsageError: if nothing was pulled yet, or there is no such engine.
        Temporary: if the engine's cluster does not answer, or lost its workers.
    """
    version = newest(store) if version is None else version
    ontology = store.ontology(version)
    tasks = store.current(TASK, version).select("task", "key")
    gold = gold and named(gold, tasks)
    drawn = _drawn(ontology)
    bounds = _bounds(tasks["task"], tasks_in_part) if drawn is not None else [None]
    parts = [
        Part(
            settings,
            store.source,
            version,
            between,
            roles,
            gold and _gold_of(gold, between),
            thresholds,
            drawn or {},
            keep_regions,
        )
        for between in bounds
    ]
    found = run(engine, aligned, parts, progress)
    return _together(found, gold)


def aligned(part: Part) -> Aligned:
    """Read a part and align it."""
    store = Store(part.store.url, part.source, Config().storage_options(part.store))
    loaded = read_store(store, part.roles, part.version, part.between)
    loaded = add_gold(loaded, part.gold) if part.gold else loaded
    labels = replace(loaded.labels, controls={**part.drawn, **loaded.labels.controls})
    return Aligned(loaded if part.keep_regions else _bare(loaded), units(labels, part.thresholds))


def _drawn(ontology: Ontology | None) -> Mapping[str, str] | None:
    """The kind of every control that draws; None where the ontology does not name them all beforehand."""
    if ontology is None or any(control.repeats for control in ontology.controls):
        return None

    def kinds() -> Iterator[tuple[Control, str]]:
        return ((control, kind_of(control, ontology)) for control in ontology.controls)

    return {control.name: kind for control, kind in kinds() if kind in DRAWN}


def _bounds(tasks: pl.Series, size: int) -> list[tuple[str, str] | None]:
    """The first and last task of each part."""
    ordered = tasks.sort()
    starts = range(0, len(ordered), size)
    whole: list[tuple[str, str] | None] = [None]
    return [(ordered[at], ordered[min(at + size, len(ordered)) - 1]) for at in starts] or whole


def _gold_of(gold: Loaded, between: tuple[str, str] | None) -> Loaded:
    """The gold answers of a part. What is wrong with all of them is told once, elsewhere."""
    if between is None:
        return replace(gold, rejects=[])
    first, last = map(pl.lit, between)
    here, labels = pl.col("task").is_between(first, last), gold.labels
    answers = labels.answers.filter(here)
    part = replace(
        labels,
        answers=answers,
        regions=labels.regions.filter(here),
        uncounted=labels.uncounted.join(answers, on="annotation", how="semi"),
    )
    return replace(gold, labels=part, rejects=[])


def _together(found: Sequence[Aligned], gold: Loaded | None) -> Aligned:
    """Parts as if they had been one."""
    loaded = [one.loaded for one in found]
    controls = {name: kind for one in loaded for name, kind in one.labels.controls.items()}
    labels = Labels(
        pl.concat([one.labels.answers for one in loaded]).sort("task", "annotator", "annotation"),
        pl.concat([one.labels.regions for one in loaded]),
        dict(sorted(controls.items())),
        pl.concat([one.labels.uncounted for one in loaded]).unique().sort(pl.all()),
        {name: scale for one in loaded for name, scale in one.labels.scales.items()},
    )
    rejects = sorted((reject for one in loaded for reject in one.rejects), key=lambda r: (r.where, r.why))
    table = pl.concat([one.units for one in found])
    return Aligned(
        Loaded(
            labels,
            loaded[0].source,
            [*rejects, *(gold.rejects if gold else [])],
            pl.concat([one.tasks for one in loaded]).sort("task"),
            {name: kind for one in loaded for name, kind in one.unmeasured.items()},
            {id: result for one in loaded for id, result in one.corrected.items()},
            answered=dict(sum((Counter(one.answered) for one in loaded), Counter[str]())),
        ),
        # Where nobody at all drew, nobody agreed on drawing nothing.
        table.filter(pl.col("control").is_in(list(controls))).cast(UNITS),
    )
