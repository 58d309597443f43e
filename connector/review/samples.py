"""Review: draw a sample, make its queue in the tool, collect what the reviewers said, infer the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from connector.adapters.base import LabelingTool
from connector.errors import Unsupported, UsageError
from connector.io.tables import read_table
from connector.quality.answers import ABSENT
from connector.quality.interval import CONFIDENCE, Estimate
from connector.quality.kinds import CHOICE
from connector.quality.sampling import ALL, SAMPLE, draw, error_rate
from connector.quality.table import Labels

NO_ANSWER = "no answer"
"""The stratum of tasks whose first choice was left empty, or not given."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn for review.

    Attributes:
        tasks: schema `SAMPLE`.
        strata: how many tasks each stratum holds, drawn or not.
    """

    tasks: pl.DataFrame
    strata: dict[str, int]


def draw_sample(
    labels: Labels, consensus: pl.DataFrame, size: int | None, fraction: float | None, by: str, seed: int
) -> Sample:
    """Draw tasks for review among those that a person has answered.

    Args:
        consensus: `Consensus.units`; the strata are the merged answers to the first choice.
        size: how many; or
        fraction: of all, in (0, 1], rounded up.
        by: `random` or `stratified`.

    Raises:
        UsageError: if nothing was answered, or more is asked for than there is.
    """
    people = labels.answers.filter(pl.col("role") == "person").select("task").unique()
    if not len(people):
        raise UsageError("there is nothing to review: no person has answered yet", "run `connector pull`")
    if (size is None) == (fraction is None):
        raise UsageError("a sample has one size", "pass either --size or --fraction")
    wanted = size if size is not None else math.ceil(len(people) * (fraction or 0))
    choices = sorted(name for name, kind in labels.controls.items() if kind == CHOICE)
    merged = consensus.filter(pl.col("control") == (choices[0] if choices else ""))
    stratum = pl.col("label").replace(ABSENT, NO_ANSWER)
    tasks = people.join(merged.select("task", stratum=stratum), on="task", how="left").with_columns(
        pl.col("stratum").fill_null(NO_ANSWER if choices else ALL)
    )
    try:
        drawn = draw(tasks, wanted, by, seed)
    except ValueError as error:
        raise UsageError(str(error), f"{len(people)} tasks have answers") from error
    counted = tasks.group_by("stratum").len() if by == "stratified" else None
    strata = {ALL: len(people)} if counted is None else dict(counted.sort("stratum").iter_rows())
    return Sample(drawn, strata)


def queue(tool: LabelingTool, tasks: list[str], name: str) -> str:
    """Make the sample a list in the tool; returns its address there.

    Raises:
        Unsupported: if the tool has no such lists.
    """
    if not tool.capabilities.review_queue:
        raise Unsupported(f"{tool.capabilities.name} has no review queues", "share the sample file instead")
    return tool.review_queue(name, tasks)


def read_sample(path: Path) -> pl.DataFrame:
    """A sample as `review draw` wrote it: schema `SAMPLE`.

    Files of older versions have no population and stratum_population: both are null then, and `estimate`
    works them out from the probabilities.

    Raises:
        UsageError: if it is none.
    """
    sample = _read(path, ("task", "probability", "stratum"))
    probability = sample["probability"].cast(pl.Float64, strict=False)
    if probability.is_null().any() or ((probability <= 0) | (probability > 1)).any():
        raise UsageError(f"{path}: probability must be a number above 0 and up to 1", "draw the sample again")
    if not len(sample):
        raise UsageError(f"{path} holds no tasks", "draw the sample again")
    if sample["task"].is_duplicated().any():
        raise UsageError(f"{path}: a task occurs twice", "draw the sample again")
    counts = ("population", "stratum_population")
    given = [name for name in counts if name in sample.columns]
    if len(given) == 1:
        raise UsageError(
            f"{path} has {given[0]} but not both of {', '.join(counts)}", "draw the sample again"
        )
    if not given:
        sample = sample.with_columns(pl.lit(None, pl.String).alias(name) for name in counts)
    whole = sample.with_columns(
        pl.col(counts).cast(pl.Int64, strict=False),
        probability=probability,
        stratum=pl.col("stratum").fill_null(ALL),
    )
    if given:
        _check_counts(path, whole)
    return whole.select(SAMPLE.names())


def _check_counts(path: Path, sample: pl.DataFrame) -> None:
    """That the sizes of the strata and of the whole can be so."""
    strata = sample.group_by("stratum").agg(
        drawn=pl.len(),
        least=pl.col("stratum_population").min(),
        most=pl.col("stratum_population").max(),
        missing=(pl.col("stratum_population").is_null() | pl.col("population").is_null()).any(),
    )
    odd = strata.filter(
        pl.col("missing") | (pl.col("least") != pl.col("most")) | (pl.col("least") < pl.col("drawn"))
    )
    if len(odd):
        name = odd["stratum"].sort()[0]
        raise UsageError(
            f"{path}: stratum_population of stratum {name} must be one number in all its rows, and at least "
            "the number of its rows",
            "draw the sample again",
        )
    if sample["population"].n_unique() > 1 or sample["population"][0] < strata["least"].sum():
        raise UsageError(
            f"{path}: population must be one number in all rows, and at least the sum over its strata",
            "draw the sample again",
        )


def read_verdicts(path: Path) -> pl.DataFrame:
    """Verdicts: task, correct (1 or 0), control (null where the file has none).

    Raises:
        UsageError: naming what is no verdict.
    """
    found = _read(path, ("task", "correct"))
    if "control" not in found.columns:
        found = found.with_columns(control=pl.lit(None, pl.String))
    odd = found.filter(~pl.col("correct").is_in(["0", "1"]) | pl.col("correct").is_null())
    if len(odd):
        raise UsageError(
            f"{path}: correct must be 1 or 0; task {odd['task'][0]} has {odd['correct'][0]!r}",
            "fix that row",
        )
    return found.select("task", "control", pl.col("correct").cast(pl.Int64))


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    table, rejects = read_table(path)
    if rejects:
        raise UsageError(f"{rejects[0].where}: {rejects[0].why}", "fix the file")
    found = table.rows.select(
        pl.col(f"{at}").alias(name) for at, name in enumerate(table.names) if f"{at}" in table.rows.columns
    )
    missing = [name for name in columns if name not in found.columns]
    if missing:
        raise UsageError(f"{path} has no column {', '.join(missing)}", f"it needs {', '.join(columns)}")
    return found.with_columns(pl.all().cast(pl.String))


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """What a review says of the whole.

    Attributes:
        error_rate: of tasks; a task is wrong if any of its questions is.
        controls: the same for each question that the verdicts name.
        population: how many tasks there are; `drawn` were to be reviewed, `reviewed` were.
        uncovered: tasks in strata from which nothing was drawn.
        strata: of each stratum of the sample: stratum, population, drawn, reviewed, wrong.
        notice: what to know about the sample file, if anything.
    """

    error_rate: Estimate
    controls: dict[str, Estimate]
    population: int
    drawn: int
    reviewed: int
    uncovered: int
    strata: pl.DataFrame
    notice: str | None


OLD_SAMPLE = (
    "the sample file is of an older version and has no column population: the sizes of strata were worked "
    "out from the probabilities, and strata from which nothing was drawn are missing from the population"
)


def estimate(sample: pl.DataFrame, verdicts: pl.DataFrame, confidence: float = CONFIDENCE) -> ErrorRate:
    """Infer the error rate of all tasks from the reviewed ones of a sample.

    Drawn tasks without a verdict are taken to be missing at random within their stratum.

    Args:
        sample: schema `SAMPLE`; where population is null it is worked out from the probabilities.
        verdicts: task, control, correct.

    Raises:
        UsageError: if a verdict is of a task that was not drawn, or a task has two for one question.
    """
    old = bool(sample["population"].is_null().any())
    by_probability = (1 / pl.col("probability")).sum().round().cast(pl.Int64)
    per_stratum = by_probability if old else pl.col("stratum_population").first()
    sizes = sample.group_by("stratum").agg(population=per_stratum, drawn=pl.len()).sort("stratum")
    population = {str(name): int(n) for name, n in sizes.select("stratum", "population").iter_rows()}
    covered = sum(population.values())
    everything = covered if old else int(sample["population"][0])
    per_task = verdicts.group_by("task").agg(pl.col("correct").min(), pl.col("control").is_duplicated().any())
    twice = per_task.filter("control")["task"].sort()
    if len(twice):
        raise UsageError(f"task {twice[0]} has two verdicts for one question", "keep one of them")
    try:
        whole = error_rate(sample, per_task, population, confidence, everything)
        named = verdicts.drop_nulls("control").partition_by("control", as_dict=True)
        controls = {
            str(name): error_rate(sample, part, population, confidence, everything)
            for (name,), part in sorted(named.items())
        }
    except ValueError as error:
        raise UsageError(str(error), "use the sample that these verdicts were given for") from error
    seen = sample.join(per_task, on="task").group_by("stratum")
    counted = seen.agg(reviewed=pl.len(), wrong=(pl.col("correct") == 0).sum())
    return ErrorRate(
        whole,
        controls,
        everything,
        len(sample),
        len(per_task),
        everything - covered,
        sizes.join(counted, on="stratum", how="left").fill_null(0).sort("stratum"),
        OLD_SAMPLE if old else None,
    )
