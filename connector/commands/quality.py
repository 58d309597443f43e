"""quality consensus, golden, annotators, summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connector.commands.inputs import (
    answerable,
    as_written,
    chance_options,
    gold_option,
    labels_option,
    like_json,
    like_option,
    load,
    merge,
    seed_of,
    short,
    truth_option,
)
from connector.commands.session import Group, Session, pass_session, rows_option
from connector.errors import EXIT_GATE, UsageError

if TYPE_CHECKING:
    import polars as pl

    from connector.quality.consensus import Consensus, ControlSummary
    from connector.quality.golden import Golden
    from connector.quality.interval import Estimate
    from connector.store.labels import Loaded
    from connector.store.parts import Aligned

_MAJORITY = "agreement_with_majority"

NOT_MEASURED = "answers of this kind are not measured yet"
NO_GOLD = "there are no gold answers"
ONE_GOLD = (
    "keep one gold answer per task. Label Studio marks imported annotations as ground truth unless they say "
    '"ground_truth": false; --gold FILE replaces what is marked'
)
NO_CONTROLS = "every answer is empty, and the file does not name the controls"
NO_TIME = "no pace: it is not known how long the answers took"
ALL_DECIDED = "no annotator's answer is there: each is of the role gold, reviewer, model or code"
NOBODY_ELSE = "no agreement: nobody else answered the same"

CONSENSUS_ROWS = ("task", "control", "unit", "label", "confidence", "votes", "annotators", "agreement")
GOLDEN_ROWS = ("annotator", "control", "n", "score", "low", "high", "verdict", "more")
"""The columns of --out that were promised; others stand behind them."""


fail_under_option = click.option(
    "--fail-under",
    type=click.FloatRange(-1, 1),
    help="Exit with 3 unless the lower limit of the interval reaches this value.",
)


@click.group(cls=Group)
def quality() -> None:
    """How good the labels are."""


@quality.command("consensus")
@labels_option
@truth_option
@click.option(
    "--intervals",
    type=click.Choice(["jackknife", "analytic"]),
    default="jackknife",
    show_default=True,
    help="How they are made; analytic ones are of the nominal level only.",
)
@like_option
@fail_under_option
@chance_options
@rows_option
@pass_session
def consensus_command(
    session: Session,
    labels_file: Path | None,
    truth: str,
    intervals: str,
    like: str | None,
    fail_under: float | None,
    confidence: float,
    seed: int | None,
    out: Path | None,
) -> int | None:
    """How far annotators agree, and the answer most of them give.

    With --fail-under the lower limit of Krippendorff's alpha of every control must reach the value; where one
    does not, or is not known, the exit code is 3.

    \b
    Example:
        connector quality consensus --fail-under 0.667
        connector quality consensus --out consensus.csv
        connector quality consensus --labels labels.csv --truth dawid-skene --json
        connector quality consensus --like label-studio-enterprise
    """
    found = load(session, labels_file, keep_regions=like is not None)
    loaded = found.loaded
    with answerable("give --level CONTROL=LEVEL and --order as they suit the answers"):
        merged = merge(session, found, truth, seed, confidence, intervals == "analytic")
    controls = _agreement_json(loaded, merged)
    rows = [
        (
            c.control,
            c.tasks,
            c.units,
            c.annotators,
            short(c.agreement.headline[1]),
            c.agreement.headline[0],
            short(c.agreement.krippendorff_alpha),
        )
        for c in merged.controls
    ]
    session.table(
        f"Consensus ({truth})",
        ("control", "tasks", "units", "annotators", "agreement", "measure", "Krippendorff's alpha"),
        rows,
    )
    _explain_alpha(session, merged)
    for c in merged.controls:
        if c.converged is False:
            session.note(f"{c.control}: the model did not converge in {c.iterations} iterations")
    if not rows and (len(found.units) or _all_empty(loaded)):
        session.note(ALL_DECIDED if len(found.units) else f"{NO_CONTROLS}: give --ontology FILE")
    session.write_rows(_in_order(as_written(merged.units, loaded, "label"), CONSENSUS_ROWS), out)
    # A control that is left empty everywhere shows nothing about agreement on another answer.
    measured = [
        (f"Krippendorff's alpha of {c.control}", c.agreement.krippendorff_alpha)
        for c in merged.controls
        if c.empty < c.annotations
    ]
    gate = _gate(measured, fail_under, "no control has answers that could agree")
    answer = {"controls": controls, **like_json(session, loaded, like, False, confidence), **gate}
    session.answer({**answer, "not_counted": loaded.not_counted, "source": _source(session, loaded, seed)})
    return _exit_code(session, gate, session.rejected(loaded.rejects))


@quality.command("golden")
@labels_option
@gold_option
@like_option
@fail_under_option
@chance_options
@rows_option
@pass_session
def golden_command(
    session: Session,
    labels_file: Path | None,
    gold_file: Path | None,
    like: str | None,
    fail_under: float | None,
    confidence: float,
    seed: int | None,
    out: Path | None,
) -> int | None:
    """How near each annotator is to known answers.

    An annotator passes when the answers to gold tasks show that the score reaches quality.gold_limit of the
    configuration, and fails when they show that it does not. Each is wrong in at most 5 % of evaluations,
    whatever --confidence. With fewer than quality.gold_least gold tasks, or while the answers show neither,
    the verdict is undecided, and `more` estimates how many gold tasks are still needed.

    With --fail-under the lower limit of the overall score, of all annotators and controls, must reach the
    value; if it does not, or is not known, the exit code is 3.

    \b
    Example:
        connector quality golden --gold gold.csv --fail-under 0.8
        connector quality golden --gold gold.csv --out scores.csv
    """
    labels = load(session, labels_file, gold_file, like is not None)
    loaded, found = labels.loaded, _golden(session, labels, confidence)
    gate = _gate([("the overall score", found.overall)], fail_under)
    if not len(found.annotators) and fail_under is None:
        session.rejected(loaded.rejects)
        if _all_empty(loaded):
            raise UsageError(NO_CONTROLS, "give --ontology FILE, the labeling configuration")
        raise UsageError(
            f"{NO_GOLD}, or no other annotator answered those tasks",
            "give --gold FILE, or mark annotations as ground truth",
        )
    rows = [
        (*(r[name] for name in GOLDEN_ROWS[:-1]), r["why"]) for r in found.annotators.iter_rows(named=True)
    ]
    limit = session.settings.quality.gold_limit
    session.table(
        f"Golden scores, limit {limit}",
        ("annotator", "control", "n", "score", "low", "high", "verdict", ""),
        rows,
    )
    _check_first(session, found)
    session.write_rows(_in_order(found.annotators, GOLDEN_ROWS), out)
    answer = {**_golden_json(found, loaded), **like_json(session, loaded, like, True, confidence), **gate}
    session.answer({**answer, "not_counted": loaded.not_counted, "source": _source(session, loaded, seed)})
    return _exit_code(session, gate, session.rejected(loaded.rejects))


@quality.command("annotators")
@labels_option
@chance_options
@rows_option
@pass_session
def annotators_command(
    session: Session, labels_file: Path | None, confidence: float, seed: int | None, out: Path | None
) -> int | None:
    """Each annotator's pace, and agreement with the others.

    Agreement with the majority compares with what most of the others answered, never with a consensus that
    counts the annotator's own answer, and needs three annotators per task. It is not accuracy: the majority
    can be wrong. For accuracy, compare with known answers: `connector quality golden`.

    Where annotators answered a task several times, their last answer is compared with the others', and a
    second table shows how consistent they are: the share of repeated answers that are the same as before.

    \b
    Example:
        connector quality annotators --out annotators.csv
    """
    labels = load(session, labels_file)
    loaded, found = labels.loaded, _annotators(labels.units, labels.loaded, confidence)
    columns = ("annotator", "role", "tasks", "seconds_median", "per_hour", "agreement", _MAJORITY)
    bounds = (f"{_MAJORITY}_low", f"{_MAJORITY}_high")
    session.table(
        "Annotators",
        [name.replace("_", " ") for name in (*columns, *bounds)],
        list(found.select(*columns, *bounds).iter_rows()),
    )
    repeated = found.drop_nulls("self_agreement")
    if len(repeated):
        own = ("annotator", "role", *(f"self_agreement{part}" for part in ("_n", "", "_low", "_high")))
        heads = ("annotator", "role", "repeated answers", "same", "low", "high")
        session.table("Consistency of repeated answers", heads, list(repeated.select(own).iter_rows()))
    session.write_rows(found, out)
    session.answer(
        {
            "annotators": _annotators_json(found),
            "not_counted": loaded.not_counted,
            "source": _source(session, loaded, seed),
        }
    )
    return session.rejected(loaded.rejects)


@quality.command("summary")
@labels_option
@gold_option
@truth_option
@chance_options
@pass_session
def summary_command(
    session: Session,
    labels_file: Path | None,
    gold_file: Path | None,
    truth: str,
    confidence: float,
    seed: int | None,
) -> int | None:
    """Agreement, golden scores and annotators, in brief.

    \b
    Example:
        connector quality summary --gold gold.csv
    """
    labels = load(session, labels_file, gold_file)
    loaded, units = labels.loaded, labels.units
    merged = merge(session, labels, truth, seed, confidence)
    found = _golden(session, labels, confidence)
    people = _annotators(units, loaded, confidence).filter(role="person")
    agreed = {c.control: c.agreement for c in merged.controls}
    session.table(
        "Quality",
        ("control", "agreement", "measure", "Krippendorff's alpha", "golden score"),
        [
            (
                control,
                short(agreed[control].headline[1]) if control in agreed else None,
                agreed[control].headline[0] if control in agreed else None,
                short(agreed[control].krippendorff_alpha) if control in agreed else None,
                short(found.controls[control]) if control in found.controls else NO_GOLD,
            )
            for control in sorted(loaded.labels.controls)
        ],
    )
    verdicts = {(r["annotator"], r["control"]): r["verdict"] for r in found.annotators.iter_rows(named=True)}
    session.table(
        "Annotators",
        (
            "annotator",
            "tasks",
            "per hour",
            "agreement with majority",
            "low",
            "high",
            *(f"gold: {c}" for c in sorted(found.controls)),
        ),
        [
            (
                *(
                    r[name]
                    for name in (
                        "annotator",
                        "tasks",
                        "per_hour",
                        "agreement_with_majority",
                        "agreement_with_majority_low",
                        "agreement_with_majority_high",
                    )
                ),
                *(verdicts.get((r["annotator"], control)) for control in sorted(found.controls)),
            )
            for r in people.iter_rows(named=True)
        ],
    )
    _check_first(session, found)
    golden = _golden_json(found, loaded) if len(found.annotators) else None
    session.answer(
        {
            "consensus": {"controls": _agreement_json(loaded, merged)},
            "golden": golden,
            **({} if golden else {"why": NO_GOLD}),
            "annotators": _annotators_json(people),
            "not_counted": loaded.not_counted,
            "source": _source(session, loaded, seed),
        }
    )
    return session.rejected(loaded.rejects)


def _all_empty(loaded: Loaded) -> bool:
    """Whether there are answers, and no control that they could be of."""
    return bool(len(loaded.labels.answers)) and not {**loaded.labels.controls, **loaded.unmeasured}


def _explain_alpha(session: Session, merged: Consensus) -> None:
    from connector.quality.agreement import MISSES
    from connector.quality.kinds import DETECTED

    if any(c.kind in DETECTED and (c.agreement.krippendorff_alpha.value or 0) < 0 for c in merged.controls):
        session.note(f"Krippendorff's alpha of drawn answers: {MISSES}. Detection F1 does not need them.")


def _in_order(rows: pl.DataFrame, first: Sequence[str]) -> pl.DataFrame:
    return rows.select(*first, *(name for name in rows.columns if name not in first))


def _golden(session: Session, labels: Aligned, confidence: float) -> Golden:
    from connector.quality.golden import golden

    with answerable(ONE_GOLD):
        settings = session.settings.quality
        return golden(
            labels.units,
            settings.gold_limit,
            confidence,
            settings.gold_least,
            scales=labels.loaded.labels.scales,
        )


def _check_first(session: Session, found: Golden) -> None:
    """Say where gold answers contradict most people."""
    for control, check in sorted(found.checks.items()):
        if check.differ:
            tell = session.note if check.surprising else session.say
            tell(f"{control}: {check}")


def _gate(measured: Sequence[tuple[str, Estimate]], limit: float | None, nothing: str = "") -> dict[str, Any]:
    """What --fail-under says, as a part of the answer; nothing without it."""
    if limit is None:
        return {}
    checks = [
        {
            "name": name,
            **{part: getattr(found, part) for part in ("value", "low", "high")},
            "limit": limit,
            "holds": None if found.low is None else found.low >= limit,
            "why": f"the lower limit of {name} is not known: {found.why or 'there is too little to judge by'}"
            if found.low is None
            else f"the lower limit of {name} is {found.low:.3f}, and at least {limit:g} is demanded",
        }
        for name, found in measured
    ]
    holds = [check["holds"] for check in checks]
    verdict = False if False in holds else None if None in holds or not holds else True
    open_ = [str(check["why"]) for check in checks if check["holds"] is not True]
    why = "; ".join(open_) or (nothing if not checks else f"every lower limit reaches {limit:g}")
    return {"fail_under": {"limit": limit, "holds": verdict, "checks": checks, "why": why}}


def _exit_code(session: Session, gate: Mapping[str, Any], rejected: int | None) -> int | None:
    """3 where --fail-under does not hold, else what the rejects demand."""
    if not gate or gate["fail_under"]["holds"]:
        return rejected
    session.error(f"--fail-under: {gate['fail_under']['why']}")
    return EXIT_GATE


def _annotators(units: pl.DataFrame, loaded: Loaded, confidence: float) -> pl.DataFrame:
    from connector.quality.annotators import annotators

    return annotators(units, loaded.labels.answers, confidence)


def _source(session: Session, loaded: Loaded, seed: int | None) -> dict[str, Any]:
    return session.source(**loaded.source, seed=seed_of(session, seed))


def _agreement_json(loaded: Loaded, merged: Consensus) -> list[dict[str, Any]]:
    controls = [
        {
            "control": c.control,
            "kind": c.kind,
            "tasks": c.tasks,
            "units": c.units,
            "annotations": c.annotations,
            "annotators": c.annotators,
            "empty": c.empty,
            "agreement": c.agreement,
            "truth": {"method": c.truth, "ties": c.ties, **_model_json(c)},
            "labels": [
                {"label": label, "n": positive.n, "positive_agreement": positive, "krippendorff_alpha": alpha}
                for label, positive, alpha in c.labels
            ],
        }
        for c in merged.controls
    ]
    keys = ("tasks", "units", "annotations", "annotators", "empty", "agreement", "truth", "labels")
    nothing = dict.fromkeys(keys)
    return controls + [
        {"control": control, "kind": kind, **nothing, "why": NOT_MEASURED}
        for control, kind in sorted(loaded.unmeasured.items())
    ]


def _model_json(control: ControlSummary) -> dict[str, Any]:
    """How the fit of a model ended, and what its confidence is."""
    if control.iterations is None:
        return {}
    ended = {"iterations": control.iterations, "converged": control.converged}
    return {**ended, "confidence_is": "model score"}


def _detection_json(found: Golden, annotator: str, control: str) -> dict[str, Any]:
    """Of controls that draw: what was found, and how exactly."""
    parts = found.detection.get((annotator, control))
    return {"detection": parts} if parts else {}


def _golden_json(found: Golden, loaded: Loaded) -> dict[str, Any]:
    from connector.quality.golden import EVERYBODY

    confused = as_written(found.confusion.filter(pl_differs()), loaded, "gold", "label")
    return {
        "overall": found.overall,
        "controls": [
            {
                "control": control,
                "kind": loaded.labels.controls[control],
                "score": score,
                "gold_check": {
                    "tasks": found.checks[control].tasks,
                    "differ": list(found.checks[control].differ),
                    "check_first": found.checks[control].surprising,
                    "summary": str(found.checks[control]),
                },
                **_detection_json(found, EVERYBODY, control),
                "confusions": confused.filter(control=control).drop("control").to_dicts(),
            }
            for control, score in sorted(found.controls.items())
        ],
        "annotators": [
            {
                "annotator": row["annotator"],
                "control": row["control"],
                "tasks": row["tasks"],
                "n": row["n"],
                "score": _number(
                    row, "score", "low", "high", row["n"], found.controls[row["control"]].method
                ),
                "verdict": row["verdict"],
                "more": row["more"],
                "why": row["why"],
                **_detection_json(found, row["annotator"], row["control"]),
            }
            for row in found.annotators.iter_rows(named=True)
        ],
    }


def pl_differs() -> pl.Expr:
    """Gold and given label differ."""
    import polars as pl

    return pl.col("gold") != pl.col("label")


def _annotators_json(found: pl.DataFrame) -> list[dict[str, Any]]:
    from connector.quality.annotators import METHOD, NO_REPEATS, SELF_METHOD

    made = []
    for row in found.iter_rows(named=True):
        name = _MAJORITY
        own = "self_agreement"
        plain = {key: value for key, value in row.items() if key != "why" and not key.startswith((name, own))}
        same = _number(row, own, f"{own}_low", f"{own}_high", row[f"{own}_n"], SELF_METHOD)
        if row[own] is None:
            same["why"] = NO_REPEATS
        number = _number(row, name, f"{name}_low", f"{name}_high", row[f"{name}_n"], METHOD)
        if row[name] is None and row["why"]:
            number["why"] = row["why"]
        why = [
            *([NO_TIME] if row["seconds_median"] is None or row["per_hour"] is None else []),
            *([NOBODY_ELSE] if row["agreement"] is None else []),
        ]
        made.append({**plain, name: number, own: same, **({"why": "; ".join(why)} if why else {})})
    return made


def _number(
    row: Mapping[str, Any], value: str, low: str, high: str, n: int | None, method: str
) -> dict[str, Any]:
    """A number of a row, with its interval."""
    number = {"value": row[value], "low": row[low], "high": row[high], "n": n or 0, "method": method}
    return number if row[value] is not None else {**number, "why": "there is nothing to judge by"}
