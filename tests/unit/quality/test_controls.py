"""Of several controls in one unit table each is answered by itself, or the table is refused."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from connector.quality.agreement import agreement, pairs
from connector.quality.consensus import consensus, merged_answers
from connector.quality.counts import counts, label_counts
from connector.quality.golden import golden
from connector.quality.merge import merged_shapes
from connector.quality.review import verdicts
from connector.quality.truth import borda, dawid_skene, majority, usual, votes
from connector.quality.units import keep_roles
from tests.unit.quality.tables import choices


def control(name: str, *labels: str) -> pl.DataFrame:
    """Two people, gold and a reviewer, who all give one task the same label."""
    rows = [(str(n), who, label) for n, label in enumerate(labels) for who in ("ann", "ben", "gold", "rev")]
    table = choices(rows, {"gold": "gold", "rev": "reviewer"})
    return table.with_columns(control=pl.lit(name), unit=pl.lit("whole"))


WEATHER, ANIMAL = control("weather", "rain", "snow", "rain"), control("animal", "cat", "dog", "owl")
BOTH = pl.concat([WEATHER, ANIMAL])


@pytest.mark.parametrize(
    "of_one",
    [lambda table: agreement(table, seed=0), counts, label_counts, usual, dawid_skene, merged_shapes],
    ids=["agreement", "counts", "label_counts", "usual", "dawid_skene", "merged_shapes"],
)
def test_what_answers_one_control_refuses_several_and_names_them(
    of_one: Callable[[pl.DataFrame], object],
) -> None:
    with pytest.raises(ValueError, match=r"2 controls \('animal', 'weather'\).*consensus"):
        of_one(BOTH)


def _verdicts(table: pl.DataFrame) -> pl.DataFrame:
    return verdicts(table, consensus(table, seed=0).units)


@pytest.mark.parametrize(
    "of_each",
    [
        votes,
        majority,
        pairs,
        borda,
        merged_answers,
        lambda table: consensus(table, seed=0).units,
        lambda table: golden(table, 0.8).annotators,
        lambda table: keep_roles(table, ["person"]),
        _verdicts,
    ],
    ids=[
        "votes",
        "majority",
        "pairs",
        "borda",
        "merged_answers",
        "consensus",
        "golden",
        "keep_roles",
        "verdicts",
    ],
)
def test_several_controls_give_what_each_gives_alone(of_each: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    if of_each is borda:
        ranked = pl.lit('{"r":["a","b"]}')
        weather, animal = (table.with_columns(label=ranked) for table in (WEATHER, ANIMAL))
    else:
        weather, animal = WEATHER, ANIMAL
    alone = pl.concat([of_each(weather), of_each(animal)])
    together = of_each(pl.concat([weather, animal]))
    assert len(together)
    assert together.sort(pl.all()).equals(alone.sort(pl.all()))


def test_perfect_agreement_on_two_controls_is_perfect_on_each() -> None:
    values = [one.agreement.krippendorff_alpha.value for one in consensus(BOTH, seed=0).controls]
    assert values == pytest.approx([1.0, 1.0])
