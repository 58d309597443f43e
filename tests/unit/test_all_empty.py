"""An empty answer is an answer, to every control that each annotator is shown and may leave empty."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import krippendorff
import polars as pl
import pytest

from connector.adapters.label_studio.ontology import parse_config
from connector.formats.label_files import read_file
from connector.quality.agreement import agreement, pairs
from connector.quality.answers import ABSENT
from connector.quality.consensus import consensus
from connector.quality.golden import golden
from connector.quality.units import units
from connector.store.labels import Loaded, declared, with_gold
from tests.conftest import run_command

CASES = Path(__file__).parent.parent / "cases"
EMPTY = ("--labels", str(CASES / "84_all_empty.json"))
WITH_ONTOLOGY = (*EMPTY, "--ontology", str(CASES / "84_all_empty.xml"))


def ask(folder: Path, command: str, *options: str, code: int = 0) -> Mapping[str, Any]:
    found, out, err = run_command(["quality", command, *options, "--json"], folder, {})
    assert found == code, err
    answer: Mapping[str, Any] = json.loads(out)
    return answer


def test_images_that_all_leave_empty_are_agreement(tmp_path: Path) -> None:
    (control,) = ask(tmp_path, "consensus", *WITH_ONTOLOGY)["controls"]
    assert (control["control"], control["tasks"], control["annotators"]) == ("box", 8, 3)
    assert (control["annotations"], control["empty"]) == (24, 24)
    assert control["agreement"]["observed"]["value"] == 1.0
    assert control["agreement"]["krippendorff_alpha"]["value"] is None
    assert "only one label" in control["agreement"]["krippendorff_alpha"]["why"]
    code, out, _ = run_command(["quality", "consensus", *WITH_ONTOLOGY], tmp_path, {})
    assert code == 0
    assert "1.000 [0.568, 1.000]" in out
    rows = tmp_path / "out.csv"
    ask(tmp_path, "consensus", *WITH_ONTOLOGY, "--out", str(rows))
    assert pl.read_csv(rows)["label"].to_list() == [ABSENT] * 8


def test_an_empty_gold_answer_is_gold(tmp_path: Path) -> None:
    found = ask(tmp_path, "golden", *WITH_ONTOLOGY)
    assert found["controls"][0]["score"]["value"] == 1.0
    assert {row["annotator"]: (row["tasks"], row["score"]["value"]) for row in found["annotators"]} == {
        "ann@example.com": (8, 1.0),
        "bob@example.com": (8, 1.0),
    }


def test_without_an_ontology_empty_answers_are_counted_and_the_way_out_is_named(tmp_path: Path) -> None:
    assert ask(tmp_path, "consensus", *EMPTY)["read"]["empty_answers"] == 24
    _, _, err = run_command(["quality", "consensus", *EMPTY], tmp_path, {})
    assert "8 tasks, 3 annotators, 0 labels, 24 empty answers not counted" in err
    assert "the file does not name the controls: give --ontology FILE" in err
    code, _, err = run_command(["quality", "golden", *EMPTY], tmp_path, {})
    assert code == 2
    assert "give --ontology FILE" in err


def test_a_control_that_is_left_empty_everywhere_lacks_evidence_for_a_gate(tmp_path: Path) -> None:
    answer = ask(tmp_path, "consensus", *WITH_ONTOLOGY, "--fail-under", "0.5", code=3)
    assert answer["fail_under"]["holds"] is None


CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image"><Label value="pore"/></RectangleLabels>
{}</View>"""
KIND = '<Choices name="kind" toName="image" {}><Choice value="cat"/><Choice value="dog"/></Choices>'


def chosen(*labels: str) -> list[dict[str, Any]]:
    if not labels:
        return []
    return [{"from_name": "kind", "to_name": "image", "type": "choices", "value": {"choices": list(labels)}}]


def read(folder: Path, config: str, *tasks: Sequence[Sequence[dict[str, Any]]], gold: bool = False) -> Loaded:
    """The answers of annotators a, b, … to each task."""
    rows = [
        {
            "id": n,
            "data": {"image": "s3://x/1.png"},
            "annotations": [
                {
                    "id": 10 * n + at,
                    "completed_by": {"email": ("wxyz" if gold else "abcd")[at]},
                    "result": result,
                }
                for at, result in enumerate(results)
            ],
        }
        for n, results in enumerate(tasks)
    ]
    (folder / "a.json").write_text(json.dumps(rows))
    return read_file(folder / "a.json", gold, ontology=parse_config(CONFIG.format(config)))


def said(loaded: Loaded, control: str = "kind") -> list[tuple[str, str]]:
    return units(loaded.labels).filter(control=control).select("annotator", "label").rows()


@pytest.mark.parametrize(
    "attributes",
    [
        'required="true"',  # the tool lets no annotator leave it empty
        'perRegion="true"',  # it was asked of nothing, as nothing was drawn
        'perItem="true"',
        'visibleWhen="choice-selected" whenTagName="other" whenChoiceValue="x"',  # perhaps not shown
    ],
)
def test_where_the_tool_allows_no_empty_answer_none_is_made(tmp_path: Path, attributes: str) -> None:
    loaded = read(tmp_path, KIND.format(attributes), [[], []])
    assert said(loaded) == []
    assert "kind" not in loaded.labels.controls


@pytest.mark.parametrize(
    "tag",
    [
        '<TextArea name="kind" toName="image"/>',
        '<Number name="kind" toName="image"/>',
        '<Rating name="kind" toName="image"/>',
        '<DateTime name="kind" toName="image"/>',
    ],
)
def test_a_number_or_text_that_was_not_given_says_nothing(tmp_path: Path, tag: str) -> None:
    assert said(read(tmp_path, tag, [[], []])) == []


def test_a_choice_that_was_left_empty_is_an_answer_like_any_other(tmp_path: Path) -> None:
    """Alpha and the share of pairs are those of a library that is given the empty answer as a third label."""
    given = [["cat", "", ""], ["", "", ""], ["dog", "dog", ""], ["cat", "cat", "cat"], ["", "cat", "dog"]]
    tasks = [[chosen(label) if label else [] for label in task] for task in given]
    loaded = read(tmp_path, KIND.format(""), *tasks)
    table = units(loaded.labels).filter(control="kind")
    assert table["label"].to_list() == [label or ABSENT for task in given for label in task]
    found = agreement(table, seed=0)
    of_pairs = [sum(t[i] == t[j] for i in range(3) for j in range(i)) / 3 for t in given]
    assert found.observed.value == pytest.approx(sum(of_pairs) / 5)
    codes = {"": 0, "cat": 1, "dog": 2}
    data = [[codes[task[who]] for task in given] for who in range(3)]
    alpha = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
    assert found.krippendorff_alpha.value == pytest.approx(alpha)
    shares = {
        (a, b): share for a, b, share in pairs(table).select("annotator_a", "annotator_b", "agreement").rows()
    }
    assert shares["a", "b"] == pytest.approx(3 / 5)
    merged = consensus(table, seed=0).units
    assert merged["label"].to_list() == [ABSENT, ABSENT, "dog", "cat", merged["label"][4]]
    assert merged["tie"].to_list() == [False, False, False, False, True]


@pytest.mark.parametrize("level", ["ordinal", None])
def test_an_empty_choice_has_no_place_in_an_order(tmp_path: Path, level: str | None) -> None:
    loaded = read(tmp_path, KIND.format(""), [chosen("cat"), []], [chosen("dog"), chosen("dog")])
    labels = declared(loaded.labels, {}, {"kind": level} if level else {}, {"kind": ["cat", "dog"]})
    table = units(labels).filter(control="kind")
    found = agreement(table, seed=0, scale=labels.scales["kind"])
    assert (found.level, found.observed.n, found.observed.value) == ("ordinal", 1, 1.0)


def test_gold_that_is_empty_judges_an_answer_and_the_other_way_round(tmp_path: Path) -> None:
    people = read(tmp_path, KIND.format(""), [chosen("cat"), []], [[], chosen("dog")])
    gold = read(tmp_path, KIND.format(""), [[]], [chosen("dog")], gold=True)
    found = golden(units(with_gold(people, gold).labels), 0.8).annotators.filter(control="kind")
    assert found.select("annotator", "n", "score").rows() == [("a", 2, 0.0), ("b", 2, 1.0)]


def test_gold_of_a_table_does_not_say_that_nothing_is_to_be_drawn(tmp_path: Path) -> None:
    shape = {"x": 1, "y": 1, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["pore"]}
    box = {"id": "b", "from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": shape}
    people = read(tmp_path, KIND.format(""), [[box, *chosen("cat")]], [chosen("cat")])
    (tmp_path / "gold.csv").write_text("task,control,label\n0,kind,cat\n1,kind,dog\n")
    loaded = with_gold(people, read_file(tmp_path / "gold.csv", gold=True))
    found = golden(units(loaded.labels), 0.8).annotators
    assert found.select("annotator", "control", "n", "score").rows() == [("a", "kind", 2, 0.5)]
    assert loaded.not_counted == []


def test_a_prediction_was_not_asked_every_question(tmp_path: Path) -> None:
    """Only people are shown every control; a model may answer one of them."""
    from connector.store.labels import Tables

    tables = Tables(parse_config(CONFIG.format(KIND.format(""))))
    for role in ("person", "model", "code"):
        tables.add(("t", role, role, role, False, None, None), role, [], dict)
    table = units(tables.done({}, pl.DataFrame()).labels)
    assert table.filter(control="kind")["role"].to_list() == ["person"]
