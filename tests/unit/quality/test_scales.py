"""Distances between answers come from what is declared, never from what others answered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import krippendorff
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.label_studio.ontology import parse_config
from connector.formats.label_files import read_file
from connector.quality.answers import deepest, rankings
from connector.quality.consensus import consensus
from connector.quality.golden import golden
from connector.quality.kinds import ANSWERED, comparer, values_of
from connector.quality.table import Scale
from connector.quality.units import units
from connector.regions import Kind
from connector.regions.scales import scale_of
from connector.store.labels import declared
from tests.unit.quality.tables import choices

CASES = Path(__file__).parents[2] / "cases"


def case(name: str) -> tuple[pl.DataFrame, dict[str, Scale]]:
    ontology = parse_config((CASES / name).with_suffix(".xml").read_text())
    labels = read_file((CASES / name).with_suffix(".json"), ontology=ontology).labels
    return units(labels), dict(labels.scales)


def alike(kind: str, a: str, b: str, scale: Scale) -> float:
    said = sorted({a, b})
    return float(comparer(kind, said, scale)(np.array([said.index(a)]), np.array([said.index(b)]))[0])


def test_one_step_of_a_rating_from_1_to_5_costs_a_quarter() -> None:
    table, scales = case("81_rating")
    found = golden(table, limit=0.5, scales=scales)
    assert found.controls["stars"].value == pytest.approx(0.75)


NUMBERS = st.floats(-1000, 1000).map(lambda x: f"{x:.3f}")
LABELS = st.sampled_from("abcd")
PATHS = st.lists(LABELS, min_size=1, max_size=3).map(" / ".join)
SAID: dict[str, st.SearchStrategy[str]] = {
    "choice": st.sets(LABELS, min_size=1).map(lambda s: " + ".join(sorted(s))),
    "taxonomy": st.sets(PATHS, min_size=1, max_size=3).map(lambda s: " + ".join(sorted(s))),
    "rating": st.integers(1, 5).map(str),
    "number": NUMBERS,
    "date": st.dates().map(str),
    "text": st.text("ab c", min_size=1),
    "pairwise": st.sampled_from(["left", "right"]),
    "ranking": st.permutations("pqrs").map(lambda p: json.dumps({"high": p[:1], "low": p[1:3], "_": p[3:]})),
}
DECLARED = {"ranking": Scale(order=("high", "low"))}


def test_the_strategies_know_every_kind() -> None:
    assert set(SAID) == set(ANSWERED)


@pytest.mark.parametrize("kind", sorted(ANSWERED))
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_golden_score_depends_on_the_answers_of_others(kind: str, data: st.DataObject) -> None:
    column = st.lists(SAID[kind], min_size=3, max_size=3)
    said = {who: data.draw(column) for who in ("gold", "ann", "bob")}

    def score(*people: str) -> tuple[object, ...]:
        rows = [(f"t{n}", who, label) for who in ("gold", *people) for n, label in enumerate(said[who])]
        table = choices(rows, {"gold": "gold"}).with_columns(kind=pl.lit(kind))
        found = golden(table, 0.5, scales={"c": DECLARED.get(kind, Scale())})
        return found.annotators.filter(annotator="ann").row(0)

    assert score("ann") == score("ann", "bob")


def test_a_typo_of_another_does_not_make_answers_alike() -> None:
    said = ["10", "5", "5000"]
    near = comparer("number", said)
    assert near(np.array([0]), np.array([1])) == pytest.approx(0.5)
    assert alike("number", "10", "5", Scale(low=0, high=20)) == pytest.approx(0.75)
    assert alike("number", "10", "5", Scale(low=0, high=20, tolerance=10)) == pytest.approx(0.5)
    assert alike("number", "10", "-5", Scale()) == 0


SOURCE = """<View><Text name="t" value="$t"/><Rating name="stars" toName="t" maxRating="7"/>
<Number name="legs" toName="t" min="0" max="8" step="2"/><Number name="free" toName="t" min="0"/>
<DateTime name="day" toName="t" min="2020-01-01" max="2020-01-31"/>
<DateTime name="hour" toName="t" only="time"/>
<Choices name="size" toName="t"><Choice value="small"/><Choice value="big"/></Choices>
<Choices name="count" toName="t"><Choice value="10"/><Choice value="5"/></Choices>
<List name="l" value="$l"/><Ranker name="rank" toName="l"><Bucket name="x"/><Bucket name="b"/></Ranker>
</View>"""


def test_what_the_configuration_declares_is_the_scale() -> None:
    ontology = parse_config(SOURCE)
    kinds = {"stars": "rating", "legs": "number", "free": "number", "day": "date", "hour": "date"}
    kinds["rank"] = "ranking"
    found = {c.name: scale_of(c, Kind(kinds.get(c.name, "choice"))) for c in ontology.controls}
    assert found["stars"] == Scale(low=1, high=7, step=1)
    assert found["legs"] == Scale(low=0, high=8, step=2)
    assert found["free"].span is None
    assert found["day"].span == 30
    assert found["hour"].span == 1
    assert found["size"].order == ("small", "big")
    assert found["count"].span == 5
    assert found["rank"].order == ("x", "b")


BUCKETS = Scale(order=("high", "medium", "low"))


def ranked(**buckets: str) -> str:
    return json.dumps({name: list(items) for name, items in buckets.items()})


@pytest.mark.parametrize(
    ("a", "b", "scale", "expected"),
    [
        # The order agrees in the one pair; no item is in the same bucket.
        (ranked(high="p", medium="q", low=""), ranked(high="", medium="p", low="q"), BUCKETS, 1 / 2),
        # Everything moved: nothing is in an order, and nothing in the same bucket.
        (ranked(high="pqr"), ranked(low="pqr"), BUCKETS, 0),
        # The order inside a bucket counts only where it is declared.
        (ranked(high="pq"), ranked(high="qp"), BUCKETS, 1),
        (ranked(high="pq"), ranked(high="qp"), Scale(order=BUCKETS.order, inside=True), 1 / 2),
        (ranked(high="p", low="q"), ranked(high="q", low="p"), BUCKETS, 0),
        # One list: the share of pairs in the same order.
        (ranked(rank="pqr"), ranked(rank="qpr"), Scale(), 2 / 3),
        # Buckets without a declared order: which bucket each item is in.
        (ranked(b="p", a="q"), ranked(b="p", a="q"), Scale(), 1),
        (ranked(b="p", a="q"), ranked(b="q", a="p"), Scale(), 0),
    ],
)
def test_buckets_are_compared_by_what_is_in_them_and_in_their_declared_order(
    a: str, b: str, scale: Scale, expected: float
) -> None:
    assert rankings([a, b], scale)(np.array([0]), np.array([1]))[0] == pytest.approx(expected)


def test_the_order_of_buckets_is_the_configurations() -> None:
    table, scales = case("82_buckets")
    (row,) = consensus(table, seed=0, scales=scales).units.rows(named=True)
    assert row["agreement"] == pytest.approx(1 / 2)
    assert row["tie"], "each bucket of p and q was given once"


def test_rankings_are_merged_in_the_declared_order_of_buckets() -> None:
    said = [ranked(high="p", medium="q"), ranked(high="p", medium="q"), ranked(medium="p", high="q")]
    table = choices([("t", f"r{n}", one) for n, one in enumerate(said)]).with_columns(kind=pl.lit("ranking"))
    (row,) = consensus(table, seed=0, scales={"c": BUCKETS}).units.rows(named=True)
    assert json.loads(row["label"]) == {"high": ["p"], "medium": ["q"], "low": []}
    assert (row["votes"], row["tie"]) == (2, False)


def test_ticking_what_leads_to_a_path_says_nothing_more() -> None:
    dog, all_ticked = "Animal / Mammal / Dog", "Animal + Animal / Mammal + Animal / Mammal / Dog"
    assert deepest(all_ticked) == dog
    assert deepest("Animal + Animals / Dog") == "Animal + Animals / Dog"
    assert alike("taxonomy", dog, all_ticked, Scale()) == 1
    assert alike("taxonomy", dog, "Animal / Mammal / Cat", Scale()) == pytest.approx((2 / 3) / (2 - 2 / 3))


def merged(said: Sequence[object], scale: Scale, kind: str = "choice") -> tuple[str, bool]:
    rows = [("t", f"r{n}", str(one)) for n, one in enumerate(said)]
    table = choices(rows).with_columns(kind=pl.lit(kind))
    (row,) = consensus(table, seed=0, scales={"c": scale}).units.rows(named=True)
    return row["label"], row["tie"]


WORDS = ("low", "medium", "high")


@pytest.mark.parametrize(
    ("said", "kind", "scale", "label", "tie"),
    [
        ((1, 1, 3, 4, 5), "choice", Scale(level="ordinal"), "3", False),
        ((1, 1, 3, 4, 5), "choice", Scale(), "1", False),
        ((1, 2), "choice", Scale(level="ordinal"), "1", True),
        ((1, 2), "choice", Scale(level="interval"), "1.5", False),
        ((1, 2, 4, 9), "number", Scale(), "3", False),
        ((2, 4), "number", Scale(low=0, high=8, step=2), "2", True),
        ((2, 6), "number", Scale(low=0, high=8, step=2), "4", False),
        (("high", "low", "medium"), "choice", Scale(level="ordinal", order=WORDS), "medium", False),
        (("high", "low", "low"), "choice", Scale(level="ordinal", order=WORDS), "low", False),
    ],
)
def test_answers_in_an_order_are_merged_by_their_median(
    said: Sequence[object], kind: str, scale: Scale, label: str, tie: bool
) -> None:
    assert merged(said, scale, kind) == (label, tie)


def test_an_order_of_words_gives_krippendorffs_alpha() -> None:
    frame = pl.read_csv(CASES / "86_words.csv")
    place = frame.with_columns(
        pl.col("label").replace_strict({word: n for n, word in enumerate(WORDS)}, return_dtype=pl.Float64)
    )
    coders = place.pivot("task", index="annotator", values="label").drop("annotator").to_numpy()
    expected = krippendorff.alpha(reliability_data=coders.astype(float), level_of_measurement="ordinal")
    labels = declared(read_file(CASES / "86_words.csv").labels, {}, {"": "ordinal"}, {"": WORDS})
    (found,) = consensus(units(labels), seed=0, scales=labels.scales).controls
    assert found.agreement.krippendorff_alpha.value == pytest.approx(expected)
    assert round(expected, 4) == 0.7636


def test_words_take_their_order_from_the_configuration() -> None:
    size = parse_config(SOURCE).control("size")
    assert size is not None
    scale = scale_of(size, Kind.CHOICE)
    assert values_of("choice", ["big", "small"], scale).tolist() == [1, 0]


def run(*words: str) -> tuple[int, str]:
    found = subprocess.run(
        [sys.executable, "-m", "connector", *words, "--json"], capture_output=True, text=True, check=False
    )
    return found.returncode, found.stdout + found.stderr


def test_a_level_is_of_one_control_and_words_need_an_order(tmp_path: Path) -> None:
    rows = [f"{n},{who},{c},{x}" for n in range(4) for who in "ab" for c, x in (("stars", n), ("note", "ok"))]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["task,annotator,control,label", *rows]))
    start = ["quality", "consensus", "--labels", str(file)]
    code, output = run(*start, "--level", "stars=ordinal")
    levels = {c["control"]: c["agreement"]["level"] for c in json.loads(output)["controls"]}
    assert (code, levels) == (0, {"stars": "ordinal", "note": "nominal"})
    code, output = run(*start, "--level", "ordinal")
    assert code == 2
    assert "--order" in output
    assert "note" in output
    assert run(*start, "--level", "moons=ordinal")[0] == 2
    assert run(*start, "--level", "stars=orderly")[0] == 2
