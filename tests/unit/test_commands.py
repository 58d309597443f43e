"""What the command line promises: exit codes, one JSON object, rows in three forms, the same bytes again."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from statsmodels.stats.proportion import proportion_confint

from connector.commands import COMMANDS
from connector.review.samples import read_sample
from tests.conftest import run_command

ROOT = Path(__file__).parents[2]
ANIMALS = ["cat", "dog", "owl"]
PEOPLE = ["ann", "ben", "cleo", "dan"]
rng = np.random.default_rng(20)
TRUTH = rng.integers(3, size=50)
SAID = np.where(rng.random((50, 4)) < [0.95, 0.8, 0.7, 0.5], TRUTH[:, None], rng.integers(3, size=(50, 4)))
"""(50, 4) what four people said of fifty tasks."""

Answer = dict[str, Any]


def write_table(path: Path, people: Sequence[str] = PEOPLE) -> None:
    rows = [
        (f"{task:03}", who, ANIMALS[said], 3 + task % 5 + at)
        for task in range(50)
        for at, (who, said) in enumerate(zip(people, SAID[task], strict=True))
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("task", "annotator", "label", "seconds"), *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Labels, gold, a sample and verdicts, and files that leave little to compute or are in part broken."""
    write_table(tmp_path / "labels.csv")
    gold = [f"{task:03},{ANIMALS[TRUTH[task]]}" for task in range(0, 50, 2)]
    (tmp_path / "gold.csv").write_text("\n".join(["task,label", *gold]))
    sample = [f"{task:03},0.4,all,50,50" for task in range(20)]
    header = "task,probability,stratum,population,stratum_population"
    (tmp_path / "sample.csv").write_text("\n".join([header, *sample]))
    verdicts = [f"{task:03},{int(task > 2)}" for task in range(20)]
    (tmp_path / "verdicts.csv").write_text("\n".join(["task,correct", *verdicts]))
    (tmp_path / "unknown.csv").write_text("task,correct\n")
    (tmp_path / "new.toml").write_text("")
    (tmp_path / "lonely.csv").write_text("task,annotator,label\n1,ann,cat\n2,ann,dog\n")
    (tmp_path / "nothing.csv").write_text("task,annotator,label\n")
    note = {"from_name": "note", "to_name": "x", "type": "textarea", "value": {"text": ["hm"]}}
    notes = [{"id": 1, "annotations": [{"completed_by": 1, "result": [note]}]}]
    (tmp_path / "notes.json").write_text(json.dumps(notes))
    broken = (tmp_path / "labels.csv").read_text() + "050,ann,ABSENT,1\n051,,cat,1\n"
    (tmp_path / "broken.csv").write_text(broken)
    return tmp_path


def run(folder: Path, command: str, *words: str) -> tuple[int, str, str]:
    return run_command([*command.split(), *words], folder, {})


def one_object(out: str) -> Answer:
    """The one JSON object that is all of stdout, without NaN or infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: Answer = json.loads(out, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


def ask(folder: Path, command: str, *words: str, code: int = 0) -> Answer:
    found, out, err = run(folder, command, *words, "--json")
    assert found == code, err
    return one_object(out)


LABELS = "--labels labels.csv"
USES = {
    "quality consensus": f"quality consensus {LABELS}",
    "quality golden": f"quality golden {LABELS} --gold gold.csv",
    "quality annotators": f"quality annotators {LABELS}",
    "quality summary": f"quality summary {LABELS} --gold gold.csv",
    "review draw": f"review draw {LABELS} --size 10",
    "review estimate": "review estimate --sample sample.csv --verdicts verdicts.csv",
}
"""Each command as somebody would type it."""

ESTIMATE = dict.fromkeys(("value", "low", "high", "n"), "number") | {"method": "text"}
UNKNOWN = dict.fromkeys(("value", "low", "high")) | {"n": "number", "method": "text", "why": "text"}
CONTROL = {
    **dict.fromkeys(("control", "kind"), "text"),
    **dict.fromkeys(("tasks", "units", "annotations", "annotators", "empty"), "number"),
    "agreement": {
        "level": "text",
        **dict.fromkeys(("observed", "krippendorff_alpha", "fleiss_kappa", "gwet_ac1"), ESTIMATE),
        **dict.fromkeys(("gwet_ac2", "detection_f1", "relations_f1"), UNKNOWN),
    },
    "truth": {"method": "text", "ties": "number"},
    "labels": [
        {"label": "text", "n": "number", "positive_agreement": ESTIMATE, "krippendorff_alpha": ESTIMATE}
    ],
}
GOLDEN = {
    "overall": ESTIMATE,
    "controls": [
        {
            "control": "text",
            "kind": "text",
            "score": ESTIMATE,
            "gold_check": {"tasks": "number", "differ": [], "check_first": "number", "summary": "text"},
            "confusions": [{"gold": "text", "label": "text", "count": "number"}],
        }
    ],
    "annotators": [
        {
            **dict.fromkeys(("annotator", "control", "verdict", "why"), "text"),
            **dict.fromkeys(("tasks", "n", "more"), "number"),
            "score": ESTIMATE,
        }
    ],
}
ANNOTATOR = {
    **dict.fromkeys(("annotator", "role"), "text"),
    **dict.fromkeys(("tasks", "annotations", "seconds_median", "per_hour", "agreement"), "number"),
    "agreement_with_majority": ESTIMATE,
    "self_agreement": UNKNOWN,
}
FILE = {"file": "text", "sha256": "text"}
SOURCE = {"program": "text", "seed": "number"}
SHAPES = {
    "quality consensus": {"controls": [CONTROL], "not_counted": [], "source": {**FILE, **SOURCE}},
    "quality golden": {**GOLDEN, "not_counted": [], "source": {**FILE, **SOURCE, "gold": FILE}},
    "quality annotators": {"annotators": [ANNOTATOR], "not_counted": [], "source": {**FILE, **SOURCE}},
    "quality summary": {
        "consensus": {"controls": [CONTROL]},
        "golden": GOLDEN,
        "annotators": [ANNOTATOR],
        "not_counted": [],
        "source": {**FILE, **SOURCE, "gold": FILE},
    },
    "review draw": {
        "drawn": "number",
        "population": "number",
        "strata": [{"stratum": "text", "population": "number", "drawn": "number"}],
        "source": {**FILE, **SOURCE},
    },
    "review estimate": {
        "error_rate": ESTIMATE,
        **dict.fromkeys(("population", "drawn", "reviewed"), "number"),
        "method": "text",
        "controls": {},
        "uncovered": "number",
        "strata": [
            {"stratum": "text", **dict.fromkeys(("population", "drawn", "reviewed", "wrong"), "number")}
        ],
        "source": {**SOURCE, "sample": FILE, "verdicts": FILE},
    },
}


READ = {
    *("file", "rows", "tasks", "annotators", "labels", "repeats", "identical_repeats"),
    *("contradicting_repeats", "contradictions", "empty_answers", "near_identical_labels", "rejects"),
    *("ignored_columns", "notices"),
}


def shape(value: Any) -> Any:
    """A JSON value with its leaves replaced by their kinds; the items of a list are all alike."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        shapes = [shape(one) for one in value]
        assert all(one == shapes[0] for one in shapes)
        return shapes[:1]
    return None if value is None else "text" if isinstance(value, str) else "number"


@pytest.mark.parametrize("name", USES)
def test_json_is_one_object_with_every_promised_key_and_nothing_else_is_said(folder: Path, name: str) -> None:
    code, out, err = run(folder, USES[name], "--json")
    assert (code, err) == (0, "")
    answer = one_object(out)
    read = answer.pop("read", None)
    assert (read is None) == ("--labels" not in USES[name])
    if read:
        assert set(read) - {"gold"} == READ
        assert ("gold" in read) == ("--gold" in USES[name])
    assert shape(answer) == SHAPES[name]
    source = answer["source"]
    assert source["program"] == f"labeling-connector {version('labeling-connector')}"
    files = [one for one in (source, *source.values()) if isinstance(one, dict) and "file" in one]
    assert {one["file"] for one in files} == {word for word in USES[name].split() if word.endswith(".csv")}
    for one in files:
        assert one["sha256"] == hashlib.sha256((folder / one["file"]).read_bytes()).hexdigest()


def mappings(value: Any) -> Iterator[Answer]:
    if isinstance(value, dict):
        yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from mappings(one)


@pytest.mark.parametrize(
    "words",
    [
        "quality consensus --labels lonely.csv",
        "quality annotators --labels lonely.csv",
        "quality summary --labels lonely.csv",
        "quality summary --labels notes.json",
        "quality consensus --labels notes.json",
        "review estimate --sample sample.csv --verdicts unknown.csv",
    ],
)
def test_what_cannot_be_computed_is_null_with_a_reason(folder: Path, words: str) -> None:
    found = [one for one in mappings(ask(folder, words)) if None in one.values()]
    assert found
    assert [one for one in found if not one.get("why")] == []


@pytest.mark.parametrize("words", ["quality consensus", "quality annotators", "quality summary"])
def test_a_header_without_rows_is_an_error(folder: Path, words: str) -> None:
    code, _, err = run(folder, f"{words} --labels nothing.csv")
    assert code == 2
    assert "nothing.csv has no rows" in err


COLUMNS = {
    "quality consensus": "task control unit label confidence votes annotators agreement tie "
    "shape picture_width picture_height",
    "quality golden": "annotator control n score low high verdict more tasks why "
    "precision recall f1 label_accuracy similarity boundary",
    "quality annotators": "annotator role tasks annotations seconds_median per_hour agreement "
    "agreement_with_majority agreement_with_majority_low agreement_with_majority_high "
    "agreement_with_majority_n self_agreement self_agreement_low self_agreement_high self_agreement_n why",
    "review draw": "task probability stratum population stratum_population",
}
"""The promised columns first, and those that were added behind them."""


@pytest.mark.parametrize("name", COLUMNS)
def test_the_rows_are_the_same_in_three_forms(folder: Path, name: str) -> None:
    for form in ("csv", "parquet", "jsonl"):
        code, out, _ = run(folder, USES[name], "--out", f"rows.{form}")
        assert code == 0
        assert f"rows in rows.{form}" in out
    whole = pl.read_parquet(folder / "rows.parquet")
    assert " ".join(whole.columns) == COLUMNS[name]
    assert len(whole) == {"quality consensus": 50, "review draw": 10}.get(name, 4)
    assert pl.read_csv(folder / "rows.csv", schema=whole.schema).equals(whole)
    assert pl.read_ndjson(folder / "rows.jsonl", schema=whole.schema).equals(whole)


@pytest.mark.parametrize("name", [name for name in USES if name != "review estimate"])
def test_rejected_rows_are_counted_and_named_and_the_rest_is_computed(folder: Path, name: str) -> None:
    whole = ask(folder, USES[name])
    command = USES[name].replace("labels.csv", "broken.csv")
    code, out, err = run(folder, command, "--json", "--quiet")
    found = one_object(out)
    assert code == 4
    left_out = {"source": 0, "read": 0}
    assert {**found, **left_out} == {**whole, **left_out}
    told = folder / f"rejects-{name.replace(' ', '-')}.jsonl"
    assert [json.loads(line) for line in told.read_text().splitlines()] == [
        {"where": "broken.csv:202", "why": "the label ABSENT is kept for what nobody drew; rename it"},
        {"where": "broken.csv:203", "why": "the annotator is missing"},
    ]
    assert err.startswith(f"2 rejected, see {told.name}; the first: broken.csv:202: the label ABSENT")
    assert len(err.splitlines()) == 1


def test_gold_of_nothing_we_have_is_told_one_by_one(folder: Path) -> None:
    (folder / "gold.csv").write_text("task,label\nx1,cat\nx2,cat\n")
    code, _, err = run(folder, USES["quality golden"])
    assert code == 2
    assert "2 rejected" in err
    assert "there are no gold answers, or no other annotator answered those tasks\n  next: give --gold" in err
    assert len((folder / "rejects-quality-golden.jsonl").read_text().splitlines()) == 2


WRONG = [
    ("quality consensus --labels none.csv", "file not found: none.csv"),
    ("quality consensus --config new.toml", "is empty\n  next: run `connector pull`, or give --labels"),
    ("correct plan --config new.toml", "is empty\n  next: run `connector pull`\n"),  # it has no --labels
    (f"quality consensus {LABELS} --truth best", "'best' is not one of 'majority', 'dawid-skene'"),
    (f"quality consensus {LABELS} --confidence 1", "0<x<1"),
    (f"quality consensus {LABELS} --seed -1", "x>=0"),
    (f"quality consensus {LABELS} --out rows.txt", "name a .csv, .parquet, .jsonl or .xlsx file"),
    (f"quality consensus {LABELS} --out no/rows.csv", "no/rows.csv: there is no folder no"),
    (f"quality consensus {LABELS} --wrong", "No such option"),
    (f"quality golden {LABELS}", "there are no gold answers"),
    (f"quality golden {LABELS} --gold labels.csv", "has different gold answers for label"),
    (f"quality summary {LABELS} --gold sample.csv", "sample.csv has no column label"),
    (f"review draw {LABELS}", "pass either --size or --fraction"),
    (f"review draw {LABELS} --size 2 --fraction 0.5", "pass either --size or --fraction"),
    (f"review draw {LABELS} --size 51", "cannot draw 51 of 50 tasks"),
    (f"review draw {LABELS} --fraction 0", "0<x<=1"),
    ("review draw --labels nothing.csv --size 1", "nothing.csv has no rows"),
    ("review estimate --sample sample.csv", "Missing option '--verdicts'"),
    ("review estimate --sample gold.csv --verdicts verdicts.csv", "gold.csv has no column probability"),
    ("review estimate --sample verdicts.csv --verdicts verdicts.csv", "verdicts.csv has no column"),
    ("review estimate --sample sample.csv --verdicts none.csv", "file not found: none.csv"),
    *(
        (f"{words} --config no.toml", "there is no no.toml\n  next: run `connector init`")
        for words in USES.values()
    ),
    *((f"{words} --config no.toml --seed 1", "there is no no.toml") for words in USES.values()),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_wrong_use_ends_with_2_and_the_next_step(folder: Path, words: str, said: str) -> None:
    code, out, err = run(folder, words)
    assert code == 2
    assert said in err
    assert "\n  next: " in err or "Try 'connector" in err
    assert "Traceback" not in err
    code, out, err = run(folder, words, "--json")
    answer = one_object(out)
    assert (code, answer["exit"]) == (2, 2)
    assert answer["next"]
    assert answer["error"].splitlines()[0] in err


def test_a_fault_of_ours_ends_with_1_and_shows_its_traceback_to_who_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("never thought of")

    monkeypatch.setattr("connector.formats.label_files.read_file", fail)
    code, out, err = run(folder, USES["quality consensus"], "--json")
    assert (code, one_object(out)["exit"]) == (1, 1)
    assert "internal error: RuntimeError: never thought of\n  next: run it again with --debug" in err
    assert "Traceback" not in err
    assert "Traceback" in run(folder, USES["quality consensus"], "--debug")[2]


# chance, and what does not matter


@pytest.mark.parametrize("name", USES)
def test_the_same_input_and_seed_give_the_same_bytes(folder: Path, name: str) -> None:
    out = [] if name in ("quality summary", "review estimate") else ["--out", "rows.csv"]
    first = run(folder, USES[name], "--seed", "7", "--json", *out)[1]
    rows = (folder / "rows.csv").read_bytes() if out else b""
    assert run(folder, USES[name], "--seed", "7", "--json", *out)[1] == first
    assert rows == ((folder / "rows.csv").read_bytes() if out else b"")
    (folder / "connector.toml").write_text("[quality]\nseed = 7\n")
    assert run(folder, USES[name], "--json", *out)[1] == first


def test_another_seed_gives_another_sample(folder: Path) -> None:
    drawn = []
    for seed in (1, 2):
        run(folder, f"{USES['review draw']} --seed {seed} --out drawn{seed}.csv")
        drawn.append(set(pl.read_csv(folder / f"drawn{seed}.csv", infer_schema=False)["task"]))
    assert drawn[0] != drawn[1]
    assert drawn[0] | drawn[1] <= {f"{task:03}" for task in range(50)}


@pytest.mark.parametrize("name", ["quality consensus", "quality annotators", "quality golden"])
def test_less_confidence_is_a_narrower_interval_around_the_same_number(folder: Path, name: str) -> None:
    wide, narrow = (ask(folder, f"{USES[name]} --confidence {level}") for level in (0.99, 0.5))
    pairs = [
        (a, b)
        for a, b in zip(mappings(wide), mappings(narrow), strict=True)
        if ESTIMATE.keys() <= a.keys() and "why" not in a
    ]
    assert pairs
    for a, b in pairs:
        assert a["value"] == b["value"]
        assert a["low"] < b["low"] <= b["value"] <= b["high"] <= a["high"]


@pytest.mark.parametrize("truth", ["majority", "dawid-skene"])
def test_other_names_for_the_annotators_are_nothing_but_other_names(folder: Path, truth: str) -> None:
    renamed = dict(zip(PEOPLE, ["dan", "ann", "ben", "cleo"], strict=True))
    write_table(folder / "renamed.csv", [renamed[who] for who in PEOPLE])

    def rows(name: str, labels: str) -> pl.DataFrame:
        words = USES[name].replace("labels.csv", labels)
        more = ["--truth", truth] if name == "quality consensus" else []
        assert run(folder, words, "--out", "rows.parquet", *more)[0] == 0
        return pl.read_parquet(folder / "rows.parquet")

    here, there = (rows("quality consensus", name) for name in ("labels.csv", "renamed.csv"))
    assert here.drop("confidence").equals(there.drop("confidence"))
    assert here["confidence"].to_numpy() == pytest.approx(there["confidence"].to_numpy())
    for name in ("quality annotators", "quality golden"):
        here, there = (rows(name, labels) for labels in ("labels.csv", "renamed.csv"))
        assert here.with_columns(pl.col("annotator").replace_strict(renamed)).sort("annotator").equals(there)


# the numbers, beside other people's programs


def test_agreement_is_what_krippendorff_and_statsmodels_say(folder: Path) -> None:
    (control,) = ask(folder, USES["quality consensus"])["controls"]
    assert control["agreement"]["level"] == "nominal"
    found = {name: one["value"] for name, one in control["agreement"].items() if name != "level"}
    alpha = krippendorff.alpha(reliability_data=SAID.T, level_of_measurement="nominal")
    assert found["krippendorff_alpha"] == pytest.approx(alpha)
    assert found["fleiss_kappa"] == pytest.approx(fleiss_kappa(aggregate_raters(SAID)[0]))
    same = [(SAID[:, a] == SAID[:, b]).mean() for a in range(4) for b in range(a)]
    assert found["observed"] == pytest.approx(np.mean(same))
    assert [control[name] for name in ("tasks", "units", "annotations", "annotators")] == [50, 50, 200, 4]


def test_golden_scores_are_what_scikit_learn_and_statsmodels_say(folder: Path) -> None:
    (folder / "connector.toml").write_text("[quality]\ngold_limit = 0.7\n")
    answer = ask(folder, USES["quality golden"])
    assert [row["annotator"] for row in answer["annotators"]] == PEOPLE
    for row, said in zip(answer["annotators"], SAID[::2].T, strict=True):
        score = row["score"]
        low, high = proportion_confint((said == TRUTH[::2]).sum(), 25, method="wilson")
        assert score["value"] == accuracy_score(TRUTH[::2], said)
        assert (score["low"], score["high"], score["n"]) == (pytest.approx(low), pytest.approx(high), 25)
        assert row["verdict"] == ("pass" if low >= 0.7 else "fail" if high < 0.7 else "undecided")
    assert len({row["verdict"] for row in answer["annotators"]}) > 1
    (control,) = answer["controls"]
    assert control["score"]["value"] == accuracy_score(np.repeat(TRUTH[::2], 4), SAID[::2].ravel())
    wrong = [(TRUTH[t], said) for t in range(0, 50, 2) for said in SAID[t] if said != TRUTH[t]]
    told = {(row["gold"], row["label"]): row["count"] for row in control["confusions"]}
    assert told == {(ANIMALS[a], ANIMALS[b]): wrong.count((a, b)) for a, b in wrong}


def test_the_pace_of_annotators_is_counted_by_hand(folder: Path) -> None:
    for at, row in enumerate(ask(folder, USES["quality annotators"])["annotators"]):
        took = [3 + task % 5 + at for task in range(50)]
        assert (row["annotator"], row["tasks"], row["annotations"]) == (PEOPLE[at], 50, 50)
        assert row["seconds_median"] == np.median(took)
        assert row["per_hour"] == pytest.approx(3600 / np.mean(took))
        others = [(SAID[:, at] == SAID[:, other]).mean() for other in range(4) if other != at]
        assert row["agreement"] == pytest.approx(np.mean(others))


def test_a_review_of_everything_leaves_nothing_open(folder: Path) -> None:
    assert run(folder, f"review draw {LABELS} --fraction 1 --by stratified --out all.csv")[0] == 0
    wrong = ["003", "017", "030"]
    rows = [f"{task:03},{int(f'{task:03}' not in wrong)}" for task in range(50)]
    (folder / "all verdicts.csv").write_text("\n".join(["task,correct", *rows]))
    answer = ask(folder, "review estimate --sample all.csv --verdicts", "all verdicts.csv")
    rate = answer["error_rate"]
    assert (answer["population"], answer["drawn"], answer["reviewed"]) == (50, 50, 50)
    assert [rate["value"], rate["low"], rate["high"]] == pytest.approx([0.06] * 3)
    part = ask(folder, USES["review estimate"])
    assert (part["population"], part["error_rate"]["value"]) == (50, 3 / 20)
    assert part["error_rate"]["low"] >= 3 / 50
    strata = ask(folder, f"review draw {LABELS} --size 10 --by stratified")["strata"]
    assert sum(one["drawn"] for one in strata) == 10
    assert sum(one["population"] for one in strata) == 50


# quiet, help, and what the program loads


@pytest.mark.parametrize("name", USES)
def test_quiet_says_nothing_and_people_get_words(folder: Path, name: str) -> None:
    assert run(folder, USES[name], "--quiet") == (0, "", "")
    code, out, err = run(folder, USES[name])
    assert code == 0
    assert all(line.startswith(("read ", "  ")) for line in err.splitlines())
    assert len(out.splitlines()) >= 1
    assert not out.startswith("{")


@pytest.mark.parametrize("name", ["quality consensus", "quality annotators"])
def test_a_terminal_obeys_no_name_of_an_annotator_or_control(folder: Path, name: str) -> None:
    odd = ["[/b]", "[red]", "\x1b[2J", "\x9b2J"]
    write_table(folder / "labels.csv", odd)
    code, out, err = run(folder, USES[name])
    assert code == 0
    assert all(sign.isprintable() or sign == "\n" for sign in out + err)
    if name == "quality annotators":
        assert all(shown in out for shown in ("[/b]", "[red]", r"\x1b[2J", r"\x9b2J"))
        answer = run(folder, USES[name], "--json")[1]
        assert all(sign.isprintable() or sign == "\n" for sign in answer)
        assert sorted(row["annotator"] for row in json.loads(answer)["annotators"]) == sorted(odd)


@pytest.mark.parametrize("words", ["", *COMMANDS, *USES, "review queue", "review collect"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_on_stdout_and_ends_with_0(folder: Path, words: str, flag: str) -> None:
    code, out, err = run(folder, words, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: connector {words}".strip())
    assert list(folder.glob("rejects*")) == []


def test_a_checkout_is_the_same_program_and_help_loads_nothing_heavy() -> None:
    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )

    installed = python("-X", "importtime", "-m", "connector")
    assert python("cli.py").stdout == installed.stdout
    loaded = {
        line.rsplit("|", 1)[1].strip().split(".")[0] for line in installed.stderr.splitlines() if "|" in line
    }
    assert "click" in loaded
    assert not loaded & {"numpy", "polars", "scipy", "label_studio_sdk", "pydantic", "deltalake"}


def test_answers_that_an_import_marked_as_ground_truth_are_votes(folder: Path) -> None:
    """Label Studio marks what is imported, unless it says otherwise."""

    def said(who: int, label: str) -> dict[str, Any]:
        region = {"from_name": "kind", "to_name": "x", "type": "choices", "value": {"choices": [label]}}
        return {"completed_by": who, "ground_truth": True, "result": [region]}

    tasks = [{"id": 1, "annotations": [said(1, "cat"), said(2, "dog")]}]
    (folder / "imported.json").write_text(json.dumps(tasks))
    (control,) = ask(folder, "quality consensus --labels imported.json")["controls"]
    assert (control["annotators"], control["agreement"]["observed"]["value"]) == (2, 0.0)
    code, _, err = run(folder, "quality golden --labels imported.json")
    assert code == 2
    assert "task 1 has different gold answers for kind" in err
    assert '"ground_truth": false' in err
    assert 'says "ground_truth": false' not in run(folder, f"quality consensus {LABELS}")[2]


OLD_AND_UNCOVERED = "task,probability,stratum\n" + "".join(f"{n:03},0.01,s{n}\n" for n in range(12))


def test_a_sample_of_some_strata_stands_for_the_whole_and_says_so(folder: Path) -> None:
    rows = [f"{n:03},0.006,s{n},2000,100" for n in range(12)]
    header = "task,probability,stratum,population,stratum_population"
    (folder / "some.csv").write_text("\n".join([header, *rows]))
    (folder / "said.csv").write_text("task,correct\n" + "".join(f"{n:03},1\n" for n in range(12)))
    found = ask(folder, "review estimate --sample some.csv --verdicts said.csv")
    assert (found["population"], found["uncovered"], found["error_rate"]["value"]) == (2000, 800, 0)
    assert found["error_rate"]["high"] == pytest.approx(0.265, abs=0.01)  # of 12: 1 - 0.025 ** (1 / 12)
    _, out, _ = run(folder, "review estimate --sample some.csv --verdicts said.csv")
    assert "800 of 2000 tasks are in strata from which nothing was drawn" in out


def test_a_sample_file_of_an_older_version_is_read_with_a_notice(folder: Path) -> None:
    (folder / "old.csv").write_text(OLD_AND_UNCOVERED)
    (folder / "said.csv").write_text("task,correct\n" + "".join(f"{n:03},1\n" for n in range(12)))
    found = ask(folder, "review estimate --sample old.csv --verdicts said.csv")
    assert found["population"] == 1200
    assert "older version" in found["notice"]


@pytest.mark.parametrize(
    ("population", "stratum"), [("2000", "0"), ("100", "60"), ("", "60"), ("2000", "60\n1,1,s,2000,70")]
)
def test_a_sample_file_whose_sizes_cannot_be_is_refused(folder: Path, population: str, stratum: str) -> None:
    header = "task,probability,stratum,population,stratum_population"
    (folder / "odd.csv").write_text(
        f"{header}\n000,0.1,r,{population or 'x'},60\n001,0.1,s,{population},{stratum}\n"
    )
    code, _, err = run(folder, "review estimate --sample odd.csv --verdicts verdicts.csv")
    assert code == 2
    assert "population" in err
    assert "next: draw the sample again" in err


@pytest.mark.parametrize("name", ["quality consensus", "quality annotators", "quality golden", "review draw"])
def test_rows_are_written_to_excel_as_they_are(folder: Path, name: str) -> None:
    made = []
    for _ in range(2):
        code, _, err = run(folder, USES[name], "--out", "rows.xlsx")
        assert code == 0, err
        made.append((folder / "rows.xlsx").read_bytes())
    assert made[0] == made[1]
    run(folder, USES[name], "--out", "rows.parquet")
    told, whole = pl.read_excel(folder / "rows.xlsx"), pl.read_parquet(folder / "rows.parquet")
    assert told.columns == whole.columns
    first = whole.columns[0]
    assert told[first].cast(pl.String).to_list() == whole[first].to_list()  # 007 stays 007


STRATA: dict[str, tuple[list[str], list[str]]] = {
    "plain": (
        ["rain + snow", '"no"', "a, b", "x\ny", "NA", " pad", "7"],
        ["--multi-label", "", "--keep-missing"],
    ),
    "several": (["a|b", "b", "a", "c + d|a"], ["--multi-label", "|"]),
}


@pytest.mark.parametrize("name", sorted(STRATA))
@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl", "parquet"])
def test_strata_are_written_as_labels_are_and_estimated_so(folder: Path, name: str, ending: str) -> None:
    labels, flags = STRATA[name]
    said = [(f"{n:03}", who, labels[n % len(labels)]) for n in range(60) for who in ("ann", "bob")]
    with (folder / "odd.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("task", "annotator", "label"), *said])
    draw = f"review draw --labels odd.csv --by stratified --size 30 --seed 1 --out s.{ending}"
    drawn = ask(folder, draw, *flags)
    assert {one["stratum"] for one in drawn["strata"]} == set(labels)
    assert sum(one["drawn"] for one in drawn["strata"]) == 30
    sample = read_sample(folder / f"s.{ending}")
    assert set(sample["stratum"]) == set(labels)
    (folder / "v.csv").write_text("task,correct\n" + "".join(f"{task},1\n" for task in sample["task"]))
    found = ask(folder, f"review estimate --sample s.{ending} --verdicts v.csv")
    assert {one["stratum"]: one["population"] for one in found["strata"]} == {
        one["stratum"]: one["population"] for one in drawn["strata"]
    }
    assert (found["population"], found["uncovered"]) == (60, 0)


def test_a_hint_at_the_level_is_not_given_with_the_level(folder: Path) -> None:
    rows = [(f"{n}", who, n % 5) for n in range(30) for who in ("ann", "bob")]
    with (folder / "odd.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("task", "annotator", "label"), *rows])
    for level, hinted in ([], True), (["--level", "ordinal"], False):
        _, _, err = run(folder, "quality consensus --labels odd.csv", *level)
        assert ("look like numbers" in err) is hinted
        read = ask(folder, "quality consensus --labels odd.csv", *level)["read"]
        assert ("look like numbers" in " ".join(read["notices"])) is hinted


RISKY = ["=1+1", "+A1", "-A1", "@SUM(1)", "\tx", "\rx"]
HARMLESS = ["-1", "+2.5", "-1e-3", "a=b", "'x", "007"]


@pytest.mark.parametrize("ending", ["csv", "xlsx", "jsonl", "parquet"])
@pytest.mark.parametrize("safe", [True, False])
def test_formulas_are_made_harmless_on_request_and_in_spreadsheets_only(
    folder: Path, ending: str, safe: bool
) -> None:
    labels = [*RISKY, *HARMLESS]
    with (folder / "odd.csv").open("w", newline="") as file:
        rows = [(f"{n:02}", who, label) for n, label in enumerate(labels) for who in ("ann", "bob")]
        csv.writer(file).writerows([("task", "annotator", "label"), *rows])
    flags = ["--spreadsheet-safe"] if safe else []
    code, _, err = run(
        folder, "quality consensus --labels odd.csv", "--multi-label", "", "--out", f"o.{ending}", *flags
    )
    assert code == 0, err
    if ending == "csv":
        with (folder / "o.csv").open(newline="") as file:
            told = [row["label"] for row in csv.DictReader(file)]
    elif ending == "xlsx":
        told = pl.read_excel(folder / "o.xlsx")["label"].to_list()
    else:
        read = pl.read_ndjson if ending == "jsonl" else pl.read_parquet
        told = read(folder / f"o.{ending}")["label"].to_list()
    changed = safe and ending in ("csv", "xlsx")
    expected = [f"'{label}" for label in RISKY] + HARMLESS if changed else labels
    if ending == "xlsx":  # XML reads a lone carriage return as a line feed
        told, expected = (
            [text.replace("_x000D_", "\r").replace("\n", "\r") for text in t] for t in (told, expected)
        )
    assert told == expected
    scores = pl.read_csv(folder / "o.csv")["confidence"] if ending == "csv" else None
    assert scores is None or scores.dtype == pl.Float64


@pytest.mark.parametrize("words", [USES["quality golden"], "reconcile"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(folder: Path, words: str) -> None:
    (folder / "labels.csv").unlink()
    for place, said in [
        ("x.docx", ".csv, .parquet, .jsonl or .xlsx"),
        ("away/x.csv", "there is no folder away"),
    ]:
        code, _, err = run(folder, words, "--out", place)
        assert code == 2
        assert said in err


@pytest.mark.parametrize(
    ("command", "limit", "code", "holds"),
    [
        (USES["quality golden"], 0.05, 0, True),
        (USES["quality golden"], 0.99, 3, False),
        (f"quality golden {LABELS}", 0.1, 3, None),  # no gold answers
        (USES["quality consensus"], -0.5, 0, True),
        (USES["quality consensus"], 0.99, 3, False),
        ("quality consensus --labels lonely.csv", 0.1, 3, None),
    ],
)
def test_fail_under_compares_the_lower_limit_and_ends_with_3(
    folder: Path, command: str, limit: float, code: int, holds: bool | None
) -> None:
    found, out, err = run(folder, command, "--fail-under", str(limit), "--json")
    assert found == code, err
    gate = one_object(out)["fail_under"]
    assert (gate["limit"], gate["holds"]) == (limit, holds)
    assert gate["why"]
    assert ("--fail-under: " in err) == (code == 3)
    for check in gate["checks"]:
        assert check["holds"] == (None if check["low"] is None else check["low"] >= limit)


def test_fail_under_takes_the_lower_limit_and_not_the_value(folder: Path) -> None:
    score = ask(folder, USES["quality golden"])["overall"]
    between = (score["low"] + score["value"]) / 2
    assert run(folder, USES["quality golden"], "--fail-under", str(between))[0] == 3
    assert run(folder, USES["quality golden"], "--fail-under", str(score["low"]))[0] == 0


@pytest.mark.parametrize("name", ["quality golden", "quality summary"])
def test_gold_that_contradicts_the_majority_is_reported(folder: Path, name: str) -> None:
    wrong = {"cat": "dog", "dog": "owl", "owl": "cat"}
    rows = [f"{task:03},{wrong[ANIMALS[TRUTH[task]]]}" for task in range(0, 50, 2)]
    (folder / "gold.csv").write_text("\n".join(["task,label", *rows]))
    code, _, err = run(folder, USES[name])
    assert code == 0
    assert "gold disagrees with the majority on" in err
    assert "check the gold first" in err
    answer = ask(folder, USES[name])
    [control] = answer.get("golden", answer)["controls"]
    assert control["gold_check"]["check_first"] is True
    assert len(control["gold_check"]["differ"]) > 10
    run(folder, "report --labels labels.csv --gold gold.csv")
    assert "check the gold first" in (folder / "report.html").read_text()


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("correct plan --config new.toml", "run `connector pull`"),
        ("correct plan --gold short.json", "or use the full JSON export"),
        ("correct plan --gold sample.csv", "--columns label="),
    ],
)
def test_a_hint_names_only_options_that_the_command_has(folder: Path, words: str, hint: str) -> None:
    head = {"id": 1, "annotator": 1, "annotation_id": 1, "created_at": "2026-03-01T00:00:00Z", "lead_time": 1}
    short = [{**head, "text": "a", "mood": "b"}]
    (folder / "short.json").write_text(json.dumps(short))
    code, _, err = run(folder, words)
    _, _, next_step = err.partition("\n  next: ")
    assert code == 2
    assert hint in next_step
    options = set(OPTION.findall(run(folder, "correct plan --help")[1]))
    assert set(OPTION.findall(next_step)) <= options


def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    code, _, err = run_command(["qualty"], tmp_path, {})
    assert code == 2
    assert "Did you mean 'quality'?" in err


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "connector qual", "COMP_CWORD": "1", "_CONNECTOR_COMPLETE": "bash_complete"}
    program = "from connector.commands import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['connector']\n{program}"],
        cwd=ROOT,
        env={**words, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "plain,quality\n"
