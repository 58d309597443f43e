"""What decides what is right: consensus, reviewers, gold, a change of the ontology, a file, a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from connector.corrections.merged import corrected_result, merged_result
from connector.corrections.plan import Proposal, Proposed
from connector.errors import BadRecord, Reject, UsageError
from connector.io.tables import is_unicode, read_json, read_json_lines, read_table, unpack
from connector.journal.renames import Renames, labels_of, renamed, uses
from connector.model import Annotation, Control, Ontology, Role, Task, dump_json
from connector.quality.answers import ABSENT
from connector.quality.kinds import ANSWERED, DRAWN, RELATION
from connector.quality.units import LAST, SHAPE, UNIT
from connector.regions import check_result
from connector.regions.answers import SEPARATOR
from connector.store.labels import Loaded

CONFIDENT = 0.6
"""A consensus is written back from this confidence on: two of three agree, one of two does not."""

Result = Sequence[Mapping[str, Any]]

Correcting = Callable[[Task], Iterable[Proposal]]
"""What a team writes: told a task, it says what is right of it."""


# The answers of people.


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered, and what most people say.

    Attributes:
        loaded: the labels of the store.
        units: schema `UNITS`, of `loaded`.
        merged: `Consensus.units` of the same.
    """

    loaded: Loaded
    units: pl.DataFrame
    merged: pl.DataFrame


def from_consensus(
    loaded: Loaded,
    units: pl.DataFrame,
    merged: pl.DataFrame,
    tasks: Iterable[Task],
    own: bool,
    confident: float = CONFIDENT,
) -> Proposed:
    """Where people differ from what a reviewer, or else the consensus, says.

    Tasks with gold answers are left alone. A consensus with a tie, or with less confidence than asked for in
    any of its units, decides nothing. Answers that are more or less alike, such as numbers and texts, only a
    person corrects: there most differ a little from the one in the middle.

    Args:
        units: schema `UNITS`, of `loaded`.
        merged: `Consensus.units` of the same.
        tasks: as the store holds them, with their annotations.
        own: propose for each annotation that is not right, rather than for the task.
        confident: the least confidence of a consensus that decides.
    """
    gold = units.filter("gold").select("task").unique()
    told = _told(units, Role.REVIEWER)
    rest = merged.join(told.select("task", "control").unique(), on=["task", "control"], how="anti")
    kinds = units.select("control", "kind").unique()
    agreed = (
        rest.join(kinds, on="control")
        .filter(~pl.col("kind").is_in(_MORE_OR_LESS))
        .with_columns(
            then="label", decided=~pl.col("tie") & (pl.col("confidence") >= confident), by=pl.lit("others")
        )
    )
    truth = pl.concat([told, agreed.select(told.columns)]).join(gold, on="task", how="anti")
    return _differing(loaded, units, truth, tasks, own, merged)


def from_role(
    loaded: Loaded,
    units: pl.DataFrame,
    role: Role,
    tasks: Iterable[Task],
    own: bool,
    merged: pl.DataFrame | None = None,
) -> Proposed:
    """Where people differ from what a reviewer, or the gold answer, says; all else is left alone.

    Args:
        role: whose answers decide.
        loaded, units, tasks, own, merged: as of `from_consensus`.
    """
    return _differing(loaded, units, _told(units, role), tasks, own, merged)


_MORE_OR_LESS = [kind for kind, how in ANSWERED.items() if how.level != "nominal"]


def _told(units: pl.DataFrame, role: Role) -> pl.DataFrame:
    """What those of a role say of each unit; of the role gold, what is gold, whoever gave it. Where they
    differ nothing is decided."""
    return (
        units.filter(pl.col("gold") if role is Role.GOLD else (pl.col("role") == role) & LAST)
        .sort([*UNIT, "annotator", "annotation"])
        .group_by(UNIT, maintain_order=True)
        .agg(
            pl.col("kind").first(),
            pl.col("label").first().alias("then"),
            (pl.col("label").n_unique() == 1).alias("decided"),
            *(pl.col(name).first() for name in SHAPE),
        )
        .with_columns(
            confidence=pl.lit(None, pl.Float64),
            votes=pl.lit(None, pl.Int64),
            annotators=pl.lit(None, pl.Int64),
            by=pl.lit(role.value),
        )
    )


def _differing(
    loaded: Loaded,
    units: pl.DataFrame,
    truth: pl.DataFrame,
    tasks: Iterable[Task],
    own: bool,
    merged: pl.DataFrame | None,
) -> Proposed:
    people = units.filter(pl.col("role") == Role.PERSON)
    # Of something that was drawn, no answer says that it is not there; of a question it says nothing.
    decided = truth.select(*UNIT, known=pl.lit(True))
    drawn = pl.col("kind").is_in([*DRAWN, RELATION]) | pl.col("parent_control").is_not_null()
    judged = (
        people.join(truth.select("task", "control").unique(), on=["task", "control"], how="semi")
        .join(decided, on=UNIT, how="left", maintain_order="left")
        .filter(drawn | pl.col("known").is_not_null())
        .drop("known")
    )
    wrong = (
        judged.join(truth, on=UNIT, how="left")
        .filter(pl.col("label") != pl.col("then").fill_null(ABSENT))
        .select("task")
        .unique()
    )
    undecided = set(truth.filter(~pl.col("decided")).join(wrong, on="task", how="semi")["task"])
    rest = _rest(units, truth, merged)
    of_task = [_by_task(frame, wrong) for frame in (truth, judged, units, rest, people)]
    found = Proposed([])
    for task in tasks:
        if task.id not in of_task[0]:
            continue
        right, said, everything = (frames[task.id] for frames in of_task[:3])
        why = "the answers do not decide it"
        if task.id not in undecided:
            why = "no annotator drew what is right there"
            if own:
                made = list(_of_annotations(task, right, said, everything, loaded.corrected))
            else:
                others = of_task[3].get(task.id, rest.clear())
                whole = _of_task(task, right, said, everything, others, of_task[4][task.id], loaded.corrected)
                made = [whole] if whole else []
            for one in made:
                _take_whole(found, one)
            if made:
                continue
        found.undecided.append(Proposal(task, why, changes=_changes(said, right)))
    return found


def _take_whole(found: Proposed, one: Proposal) -> None:
    """Take a proposal if its parts belong together; else a person must decide."""
    try:
        check_result(json.loads(dump_json(one.result)))
    except BadRecord as error:
        why = f"what is right cannot be put together: {error.what}"
        found.undecided.append(Proposal(one.task, why, changes=one.changes))
    else:
        found.proposals.append(one)


def _by_task(frame: pl.DataFrame, tasks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts = frame.join(tasks, on="task", how="semi").partition_by("task", as_dict=True, maintain_order=True)
    return {str(task): part for (task,), part in parts.items()}


def _rest(units: pl.DataFrame, truth: pl.DataFrame, merged: pl.DataFrame | None) -> pl.DataFrame:
    """What is right of the questions that the truth leaves open: a ground truth answers them all.

    That is what a reviewer says, or else what most people say.
    """
    told = _told(units, Role.REVIEWER)
    if merged is None:
        return told.clear()
    question = ["task", "control"]
    told = told.join(truth.select(question).unique(), on=question, how="anti")
    told = told.filter(pl.col("decided").all().over(question))
    answered = pl.concat([truth.select(question), told.select(question)]).unique()
    kinds = units.select("control", "kind").unique()
    more = {"then": pl.col("label"), "decided": pl.lit(True), "by": pl.lit("others")}
    rest = merged.join(answered, on=question, how="anti").join(kinds, on="control").with_columns(**more)
    return pl.concat([told, rest.select(told.columns)])


def _of_task(
    task: Task,
    right: pl.DataFrame,
    said: pl.DataFrame,
    units: pl.DataFrame,
    rest: pl.DataFrame,
    people: pl.DataFrame,
    ours: Mapping[str, str],
) -> Proposal | None:
    """The whole answer. Where people differ on the rest, the plan shows what was taken."""
    names = frozenset(rest["control"])
    result = merged_result(task, pl.concat([right, rest]), units, ours, names)
    if result is None:
        return None
    changes = _changes(said, right)
    taken, note = _taken(people, rest)
    return Proposal(task, _why(changes, right) + note, None, result, _least(right), [*changes, *taken])


def _taken(people: pl.DataFrame, rest: pl.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """Where people differ on the rest: what was taken, and a note on what nothing decides."""
    taken = _changes(people.join(rest.select("control").unique(), on="control", how="semi"), rest)
    merged = set(rest.filter(by="others")["control"])
    differ = ", ".join(dict.fromkeys(name for one in taken if (name := str(one["control"])) in merged))
    return taken, f"; not decided, the merged answer is taken: {differ}" if differ else ""


def _of_annotations(
    task: Task, right: pl.DataFrame, said: pl.DataFrame, units: pl.DataFrame, ours: Mapping[str, str]
) -> Iterator[Proposal]:
    """Each annotation that is not right, changed where it is not."""
    for annotation in sorted(task.annotations, key=lambda a: str(a.id)):
        mine = said.filter(pl.col("annotation") == annotation.id)
        changes = _changes(mine, right) if len(mine) else []
        if changes and annotation.id not in ours:
            changed = [(str(change["control"]), str(change["unit"])) for change in changes]
            result = corrected_result(task, annotation, changed, right, units, ours)
            if result is not None:
                yield Proposal(task, _why(changes, right), annotation, result, _least(right), changes)


def _least(right: pl.DataFrame) -> float | None:
    return min((float(c) for c in right["confidence"] if c is not None), default=None)


def _changes(answers: pl.DataFrame, right: pl.DataFrame) -> list[dict[str, Any]]:
    """Every unit in which one of these answers is not what shall stand there."""
    told = answers.group_by(UNIT).agg(now=pl.col("label").sort().str.join(", "), all=pl.col("label").unique())
    both = told.join(right, on=UNIT, how="left").with_columns(pl.col("then").fill_null(ABSENT)).sort(UNIT)
    differ = both.filter((pl.col("all").list.len() > 1) | (pl.col("all").list.first() != pl.col("then")))
    return differ.select("control", "unit", "now", "then", "confidence", "votes", "annotators").to_dicts()


_WHO = {"others": "most others answered otherwise", "reviewer": "a reviewer answered otherwise"}
_WHO |= {"gold": "the gold answer is another"}


def _why(changes: Sequence[Mapping[str, Any]], right: pl.DataFrame) -> str:
    """In words, with the numbers of the change that is least sure."""
    sides = [side for side in _WHO if side in set(right["by"])]
    told = [c for c in changes if c["votes"] is not None]
    if not told:
        return _WHO[sides[-1] if sides else "others"]
    least = min(told, key=lambda c: float(c["confidence"]))
    then = "not there" if least["then"] == ABSENT else least["then"]
    return (
        f"{_WHO['others']}: {least['control']} is {then} to {least['votes']} of "
        f"{least['annotators']}, confidence {least['confidence']:.2f}"
    )


# A change of the ontology.


def from_ontology(tasks: Iterable[Task], mapping: Renames, ontology: Ontology) -> Proposed:
    """Labels renamed, or removed, in every annotation that has them, also in a skipped one, which stays so.

    A region that is left without a label is removed, and with it what is about it.

    Args:
        mapping: by control, from each label to its new name, or to None.
        ontology: what the tool allows now; what it does not is rejected.
    """
    found = Proposed([], renames=mapping)
    for task in tasks:
        for annotation in task.annotations:
            regions = json.loads(annotation.result)
            used = set(uses(regions))
            changes = [
                {"control": control, "unit": "label", "now": old, "then": ABSENT if new is None else new}
                for control, names in mapping.items()
                for old, new in names.items()
                if (control, old) in used and old != new
            ]
            if not changes:
                continue
            try:
                result = renamed(regions, mapping)
            except BadRecord as error:
                found.rejects.append(Reject(f"annotation {annotation.id}", error.what))
                continue
            one = Proposal(
                task, "the ontology changed", annotation, result, None, changes, annotation.cancelled
            )
            _propose(found, one, ontology)
    return found


# A file of rows.

COLUMNS = ("task", "annotation", "control", "label", "result", "why")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a file, its cells by `COLUMNS`; None where one is empty.

    Attributes:
        where: the file and the line.
    """

    where: str
    task: str | None
    annotation: str | None
    control: str | None
    label: str | None
    result: str | None
    why: str | None


def from_file(
    path: Path,
    tasks: Iterable[Task],
    own: bool,
    ontology: Ontology,
    encoding: str | None = None,
    answers: Answers | None = None,
) -> Proposed:
    """Rows of a table: what is right of a task, or of an annotation.

    Columns: `task` (its id, or its item's key), and `label` with `control` (which may be missing where there
    is one question), or `result`, the whole in the tool's own JSON; `annotation` and `why` may be missing.
    Several rows of the same annotation, or task, are one correction. Every row that cannot be used is
    rejected with its line, and so is what belongs to the same correction: half of one is not what was meant.

    A ground truth answers every question: where the rows of a task leave a control open, what a reviewer says
    is taken, or else the merged answer. What names an annotation keeps all else that stands in it.

    Args:
        own: a row without `annotation` is about every annotation of its task that is neither ground truth
            nor skipped.
        encoding: of a text file; by default detected.
        answers: of the store; without them, what rows leave open stays unanswered.

    Raises:
        UsageError: if the file is no table with a column `task`.
    """
    found = Proposed([])
    by_task: dict[str, list[_Row]] = {}
    for row in _read(path, encoding, found.rejects):
        if row.task is None:
            found.rejects.append(Reject(row.where, "it names no task"))
        else:
            by_task.setdefault(row.task, []).append(row)
    rest = _Rest(answers, by_task)
    for task in tasks:
        for said in (by_task.pop(name, []) for name in dict.fromkeys((task.id, task.key))):
            _take_rows(found, task, said, own, ontology, path, rest)
    found.rejects.extend(
        Reject(row.where, f"no task of the store has the id or key {task}")
        for task, rows in by_task.items()
        for row in rows
    )
    return found


def _read(path: Path, encoding: str | None, rejects: list[Reject]) -> list[_Row]:
    """The rows of a file. A line that is none is rejected, and the others are read."""
    suffix, data = unpack(path)
    records: Sequence[tuple[str, Any]]
    if suffix in (".jsonl", ".ndjson", ".json"):
        read = read_json if suffix == ".json" else read_json_lines
        found = read(data, path, rejects)
        records = found.found if found else []
        names = {name for _, one in records if isinstance(one, dict) for name in one}
    else:
        table, torn = read_table(path, encoding)
        rejects.extend(torn)
        columns = [name for name in table.rows.columns if name != "row"]
        titles = [table.names[int(name)] for name in columns]
        names = set(titles)
        records = [
            (f"{path}:{line}", dict(zip(titles, cells, strict=True)))
            for line, *cells in table.rows.select("row", *columns).iter_rows()
        ]
    if "task" not in names and not (rejects and not records):
        raise UsageError(f"{path} has no column task", f"its columns may be {', '.join(COLUMNS)}")
    rows = []
    for where, record in records:
        try:
            rows.append(_Row(where, **_cells(record)))
        except BadRecord as error:
            rejects.append(Reject(where, error.what))
    return rows


def _cells(record: object) -> dict[str, str | None]:
    """What is no text is taken as its JSON: a result may stand there as it is."""
    if not isinstance(record, dict):
        raise BadRecord("it is not a JSON object")
    cells: dict[str, str | None] = {}
    for name in COLUMNS:
        value = record.get(name)
        cells[name] = value if value is None or isinstance(value, str) else dump_json(value)
        if not is_unicode(cells[name] or ""):
            raise BadRecord(f"its {name} is no Unicode text")
    return cells


class _Rest:
    """The answers to what the rows of a file leave open."""

    def __init__(self, answers: Answers | None, named: Collection[str]) -> None:
        """
        Args:
            named: the tasks of the rows, by id or key.
        """
        self._frames: list[dict[str, pl.DataFrame]] = [{}, {}, {}]
        self._corrected: Mapping[str, str] = {}
        if answers is not None:
            self._corrected = answers.loaded.corrected
            tasks = answers.loaded.tasks.filter(pl.any_horizontal(pl.col("task", "key").is_in(list(named))))
            units = answers.units.join(tasks, on="task", how="semi")
            rest = _rest(units, units.clear(), answers.merged.join(tasks, on="task", how="semi"))
            people = units.filter(role=Role.PERSON)
            self._frames = [_by_task(frame, tasks) for frame in (rest, units, people)]

    def of(self, task: Task, told: Collection[str]) -> tuple[Result, list[dict[str, Any]], str]:
        """The regions that answer the controls that are not told; as of `_taken`, what people differ on."""
        if task.id not in self._frames[0]:
            return [], [], ""
        rest, units, people = (frames.get(task.id, pl.DataFrame()) for frames in self._frames)
        rest = rest.filter(~pl.col("control").is_in(list(told)))
        result = merged_result(task, rest, units, self._corrected, frozenset(rest["control"]))
        return result or [], *(_taken(people, rest) if len(people) else ([], ""))


def _take_rows(
    found: Proposed,
    task: Task,
    rows: Sequence[_Row],
    own: bool,
    ontology: Ontology,
    path: Path,
    rest: _Rest,
) -> None:
    known = {str(a.id): a for a in task.annotations}
    people = [id for id, a in known.items() if not (a.ground_truth or a.cancelled)]
    groups: dict[str | None, list[_Row]] = {}
    rejects: list[Reject] = []
    for row in rows:
        if row.annotation is not None and row.annotation not in known:
            rejects.append(Reject(row.where, f"task {row.task} has no annotation {row.annotation}"))
            continue
        about = [row.annotation] if row.annotation or not own else people
        if not about:
            rejects.append(Reject(row.where, f"task {row.task} has no annotation that can be corrected"))
        for one in about:
            groups.setdefault(one, []).append(row)
    for one, said in groups.items():
        annotation = known[one] if one else None
        why = next((row.why for row in said if row.why), None) or f"{path.name} says so"
        wrong: list[Reject] = []
        result, changes = _told_by_rows(annotation, said, ontology, wrong)
        if annotation is None and changes and result is not None:
            others, taken, note = rest.of(task, {str(change["control"]) for change in changes})
            result, changes, why = [*others, *result], [*changes, *taken], why + note
        if wrong:
            bad = {reject.where for reject in wrong}
            with_it = f"it belongs to one correction with {wrong[0].where}, which is rejected"
            wrong += [Reject(row.where, with_it) for row in said if row.where not in bad]
            rejects += wrong
        else:
            where = ", ".join(row.where for row in said)
            _propose(found, Proposal(task, why, annotation, result, None, changes), ontology, where)
    found.rejects.extend(dict.fromkeys(rejects))  # a row may be about several annotations


def _told_by_rows(
    annotation: Annotation | None, rows: Sequence[_Row], ontology: Ontology, rejects: list[Reject]
) -> tuple[Result | None, list[dict[str, Any]]]:
    """The whole result, and what changes; no result where the rows name only what is wrong.

    Args:
        rejects: every row that cannot be used is added.
    """
    if whole := next((row for row in rows if row.result), None):
        more = (row for row in rows if row is not whole and (row.result or row.label is not None))
        rejects.extend(Reject(row.where, f"{whole.where} gives the whole result") for row in more)
        try:
            return _json(str(whole.result)), []
        except BadRecord as error:
            rejects.append(Reject(whole.where, error.what))
            return None, []
    held: list[Mapping[str, Any]] = json.loads(annotation.result) if annotation else []
    answers: dict[str, list[str]] = {}
    for row in rows:
        if row.label is None:
            continue
        try:
            control = _control(row.control, ontology)
            check_result([_answer(control, [row.label], _answered(control, held))], ontology)
        except BadRecord as error:
            rejects.append(Reject(row.where, error.what))
        else:
            answers.setdefault(control.name, []).append(row.label)
    if rejects or not answers:
        return None, []
    result, changes = list(held), []
    for name, said in answers.items():
        control = _control(name, ontology)
        before = _answered(control, held)
        now = ", ".join(str(label) for raw in before for label in labels_of(raw)) or ABSENT
        result = [raw for raw in result if raw.get("from_name") != name]
        result.append(_answer(control, said, before))
        changes.append({"control": name, "unit": "whole", "now": now, "then": ", ".join(said)})
    return result, changes


def _answered(control: Control, held: Result) -> Result:
    """What answers a question about the whole object now."""
    before = [raw for raw in held if raw.get("from_name") == control.name]
    if len(before) > 1 or control.per_region:
        raise BadRecord(
            f"{control.name} is answered for each region or item; a label does not say for which: "
            "give the whole `result`"
        )
    return before


def _json(text: str) -> Result:
    try:
        result = json.loads(text)
    except ValueError as error:
        raise BadRecord(f"its result is not JSON: {error}") from error
    if not isinstance(result, list):
        raise BadRecord("its result is no list of regions")
    return result


def _control(name: str | None, ontology: Ontology) -> Control:
    if name is None and len(ontology.controls) == 1:
        return ontology.controls[0]
    found = ontology.control(name) if name else None
    if found is None:
        raise BadRecord(f"it names no control of the ontology, but {name!r}")
    return found


def _answer(control: Control, labels: Sequence[str], before: Result) -> Mapping[str, Any]:
    """The region that answers a question with these labels."""
    answers: dict[str, Callable[[], Any]] = {
        "choices": lambda: list(labels),
        "rating": lambda: int(labels[0]),
        "number": lambda: float(labels[0]),
        "textarea": lambda: list(labels),
        "taxonomy": lambda: [label.split(SEPARATOR) for label in labels],
    }
    if control.kind not in answers:
        raise BadRecord(f"a label does not say what is drawn for {control.name}; give the whole `result`")
    try:
        value = {{"textarea": "text"}.get(control.kind, control.kind): answers[control.kind]()}
    except ValueError as error:
        raise BadRecord(f"{control.name} asks for a number, found {labels[0]!r}") from error
    head = {"from_name": control.name, "to_name": control.target, "type": control.kind, "id": control.name}
    return {**head, **(before[0] if before else {}), "value": value}


# A function of one's own.


def from_function(name: str, tasks: Iterable[Task], ontology: Ontology) -> Proposed:
    """What a function of the user's says: `module:function`, called with each task, gives its proposals.

    Raises:
        UsageError: if there is no such function, or it fails.
    """
    correct = _function(name)
    found = Proposed([])
    for task in tasks:
        try:
            proposals = list(correct(task))
        except Exception as error:
            # It is not ours: whatever it raises is told with the task that it was about.
            raise UsageError(
                f"{name} failed for task {task.id}: {type(error).__name__}: {error}", "fix it"
            ) from error
        for one in proposals:
            _propose(found, one, ontology)
    return found


def _function(name: str) -> Correcting:
    module, _, function = name.partition(":")
    try:
        found: Correcting = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"there is no function {name}: {error}",
            "name it as module:function; the module must be importable",
        ) from error
    return found


def _propose(found: Proposed, one: Proposal, ontology: Ontology, where: str = "") -> None:
    """Take a proposal if the ontology allows it. What stands in its annotation already need not be allowed.

    Args:
        where: what a reject names; by default the annotation or the task.
    """
    held = json.loads(one.annotation.result) if one.annotation else []
    try:
        check_result(json.loads(dump_json(one.result or [])), ontology, lambda: one.task.data, held)
    except (BadRecord, TypeError) as error:
        where = where or (f"annotation {one.annotation.id}" if one.annotation else f"task {one.task.id}")
        found.rejects.append(Reject(where, error.what if isinstance(error, BadRecord) else str(error)))
        return
    found.proposals.append(one)


# Verdicts without an answer.


def from_verdicts(verdicts: pl.DataFrame, tasks: Iterable[Task]) -> Proposed:
    """Tasks that a review found wrong, where the right answer is unknown.

    Args:
        verdicts: task, control, correct; see `review.read_verdicts`.
    """
    wrong = verdicts.filter(pl.col("correct") == 0).group_by("task").agg("control")
    controls = {task: sorted(filter(None, named)) for task, named in wrong.iter_rows()}
    found = Proposed([])
    for task in tasks:
        if task.id not in controls:
            continue
        about = ", ".join(controls.pop(task.id))
        say = partial(Proposal, task, f"a reviewer found it wrong{': ' if about else ''}{about}")
        found.proposals.extend(say(a) for a in task.annotations if not (a.ground_truth or a.cancelled))
        found.undecided.append(say())
    found.rejects.extend(Reject(f"task {task}", "it is not in the store") for task in sorted(controls))
    return found
