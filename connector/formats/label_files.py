"""Labels from files: long and wide tables in any form, and exports of Label Studio."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from connector.errors import Reject, UsageError
from connector.formats import foreign
from connector.formats.label_studio import is_export, is_short, read_export, read_short
from connector.io.reading import (
    DECIMAL_COMMA,
    DECIMAL_POINT,
    NUMERIC,
    Read,
    Reading,
    Written,
    counted,
    merged_spelling,
    similar_notices,
)
from connector.io.tables import (
    KINDS,
    Records,
    Table,
    decode,
    read_delimited,
    read_excel,
    read_json,
    read_json_lines,
    read_parquet,
    table_of,
    unpack,
)
from connector.model import Ontology, Role
from connector.quality.answers import ABSENT, SEVERAL
from connector.quality.kinds import CHOICE
from connector.quality.table import ANSWERS, REGIONS, UNCOUNTED, Labels
from connector.store.labels import GOLD, TASKS, Loaded, source_of

REQUIRED = ("task", "annotator", "label")
OPTIONAL = ("control", "seconds", "created_at", "role")

ALIASES: Mapping[str, Sequence[Sequence[str]]] = {
    "task": (
        ("task",),
        ("task_id", "item", "item_id", "instance", "instance_id"),
        (
            "image",
            "image_id",
            "document",
            "document_id",
            "doc_id",
            "text_id",
            "example_id",
            "file",
            "filename",
        ),
        ("file_name", "image_name", "key", "id"),
    ),
    "annotator": (
        ("annotator",),
        ("annotator_id", "annotator_name", "worker", "worker_id", "workerid", "performer", "performer_id"),
        ("rater", "rater_id", "labeler", "labeller", "coder", "judge", "user", "user_id", "username"),
    ),
    "label": (
        ("label",),
        ("labels", "rating", "response", "answer", "class", "category", "annotation", "choice", "class_name"),
        ("judgment", "judgement", "vote", "value"),
    ),
    "control": (("control",),),
    "seconds": (("seconds",), ("lead_time",)),
    "created_at": (("created_at",),),
    "role": (("role",),),
}
"""What a column may be called, in any case; the first group that fits decides."""

MISSING = ("NaN", "nan", "NA", "N/A", "n/a", "<NA>", "#N/A", "None", "null", "NULL")
"""What programs write where there is no value."""

_SETS = 0.2
"""If in this share of answers the rows differ and none is repeated, the rows are labels of one answer."""

_NUMERIC = r"^\s*[-+]?\d+([.,]\d+)?\s*$"

_WIDE = "read as a wide table: a column for each annotator"

_DATES = [
    (r"^\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}$", "%m/%d/%Y %H:%M"),
    (r"^\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2}$", "%m/%d/%Y %H:%M:%S"),
    (r"^\d{1,2}/\d{1,2}/\d{4}$", "%m/%d/%Y"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}$", "%d.%m.%Y %H:%M"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}:\d{2}$", "%d.%m.%Y %H:%M:%S"),
    (r"^\d{1,2}\.\d{1,2}\.\d{4}$", "%d.%m.%Y"),
]
"""Local forms of a date, and the --date-format to suggest."""


def read_file(
    path: Path, gold: bool = False, ontology: Ontology | None = None, reading: Reading | None = None
) -> Loaded:
    """Labels from a table or from an export of Label Studio; `Loaded.read` says what was found.

    Args:
        path: a `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json`, `.parquet` or `.xlsx` file, or one of these as
            `.gz` or `.zip`.
        gold: all of it is gold, and the annotator may be missing.
        ontology: of an export; what it does not allow is rejected.
        reading: what the file itself leaves open.

    Raises:
        UsageError: if the file is not there, is of another kind, lacks a column, has no rows or no answers,
            or can be read in several ways.
        Unsupported: if it is in the form of another tool; naming it.
    """
    reading = reading or Reading()
    suffix, data = unpack(path)
    source = source_of(path)
    rejects: list[Reject] = []
    if suffix in (".csv", ".tsv", ".txt"):
        text, notices = decode(data, path, reading.encoding)
        table = read_delimited(text, path, rejects, notices)
    elif suffix == ".parquet":
        table = read_parquet(data, path)
    elif suffix == ".xlsx":
        table = read_excel(data, path)
    elif suffix in (".jsonl", ".ndjson", ".json", ".manifest"):
        lines = suffix != ".json"
        records = read_json_lines(data, path, rejects) if lines else read_json(data, path, rejects)
        found = [one for _, one in records.found if isinstance(one, dict)] if records else []
        foreign.refuse_json(path, found[0] if found else json.loads(data) if not lines else None)
        if records is None:
            raise UsageError(f"{path} is neither a list of records nor a Label Studio export", _FORMS)
        if is_export(found) or (not lines and not _is_plain(found)):
            return read_export(records, path, source, rejects, gold, ontology, reading)
        if found and is_short(list(found[0])):
            names = list(dict.fromkeys(name for one in found for name in one))
            rows = [(where, one) for where, one in records.found if isinstance(one, dict)]
            return read_short(rows, names, path, source, rejects, gold, ontology, reading)
        return _long(table_of(records, rejects), path, source, rejects, gold, reading, records)
    elif suffix == ".xml":
        raise foreign.refuse_xml(path, decode(data, path)[0])
    else:
        raise UsageError(f"{path} is not a kind of file we read", f"name a {KINDS} file")
    if is_short(table.names):
        cells = {name: f"{at}" for at, name in enumerate(table.names)}
        rows = [
            (f"{path}:{row['row']}", {name: row.get(cell) for name, cell in cells.items()})
            for row in table.rows.iter_rows(named=True)
        ]
        return read_short(rows, table.names, path, source, rejects, gold, ontology, reading)
    return _long(table, path, source, rejects, gold, reading)


_FORMS = "give records with task, annotator and label, or a Label Studio JSON export"


def _is_plain(records: Sequence[Mapping[str, object]]) -> bool:
    """Whether these are rows of a table and not damaged tasks of an export."""
    return (
        not records
        or any("label" in str(name).lower() or name == "annotation_id" for name in records[0])
        or ("data" not in records[0] and len(records[0]) > 1)
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns (by their places) have which role."""

    of: Mapping[str, Sequence[int]]
    ignored: list[str]
    wide: bool


def _long(
    table: Table,
    path: Path,
    source: Mapping[str, object],
    rejects: list[Reject],
    gold: bool,
    reading: Reading,
    records: Records | None = None,
) -> Loaded:
    """Labels from a table."""
    if not table.names and not rejects:
        raise UsageError(f"{path} has no rows: it is empty", "give a table with task, annotator and label")
    if not table.names:
        return Loaded(_nothing(), source, rejects, pl.DataFrame(schema=TASKS), read=_unread(path, rejects))
    foreign.refuse_table(path, table.names, reading.columns)
    columns = _columns(table, path, gold, reading)
    if not len(table.rows) and not rejects:
        raise UsageError(f"{path} has no rows: only a header", "give the file that has the answers")
    rows, written = _cells(table, columns, path, reading)

    def where(row: int) -> str:
        return records.found[row][0] if records else f"{path}:{row}"

    read = _judged(rows, gold, reading)
    _refuse_local(read, where)
    refused = read.filter(pl.col("why").is_not_null() & (pl.col("why") != ""))
    rejects += [Reject(where(n), why) for n, why in refused.select("row", "why").iter_rows()]
    good = read.filter(pl.col("why").is_null()).drop("why", "label", "mark")
    empty = len(read.filter(pl.col("why") == ""))
    if not len(good) and empty:
        raise UsageError(
            f"{path} has no answers: all {empty} labels are empty",
            "name the column of the labels with --columns label=COLUMN; "
            "if NaN or None is a label, give --keep-missing",
        )
    marks = sorted(set(read.filter((pl.col("why") == "") & pl.col("mark").is_not_null())["mark"]))
    good, similar = merged_spelling(
        good.explode("labels").rename({"labels": "label"}),
        dict.fromkeys(good["control"].unique(), CHOICE),
        reading.merge_similar,
    )
    keys = [name for name in good.columns if name not in ("label", "row")]
    good = good.group_by("row", *keys, maintain_order=True).agg(labels=pl.col("label").unique().sort())
    good, told = _repeats(good, reading)
    found = Read(
        file=str(path),
        rows=len(table.rows),
        tasks=good["task"].n_unique(),
        annotators=good["annotator"].n_unique(),
        labels=good["labels"].explode().n_unique(),
        repeats=told.identical + told.contradicting,
        identical=told.identical,
        contradicting=told.shown,
        empty=empty,
        similar=similar,
        rejects=len(rejects),
        ignored=columns.ignored,
        notices=[
            *table.notices,
            *([_WIDE] if columns.wide and not reading.wide else []),
            *([f"{counted(empty, 'empty answer')} not counted{_marked(marks)}"] if empty else []),
            *told.notices,
            *similar_notices(similar, reading.merge_similar),
            *_alike_names(good),
            *_numeric(good, written),
            *([f"columns not read: {', '.join(columns.ignored)}"] if columns.ignored else []),
        ],
    )
    return Loaded(
        _labels(good, gold), source, rejects, pl.DataFrame(schema=TASKS), read=found, written=written
    )


def _marked(marks: Sequence[str]) -> str:
    return f" ({', '.join(marks)}; if that is a label, --keep-missing)" if marks else ""


def _nothing() -> Labels:
    return Labels(pl.DataFrame(schema=ANSWERS), pl.DataFrame(schema=REGIONS), {})


def _unread(path: Path, rejects: Sequence[Reject]) -> Read:
    return Read(str(path), 0, 0, 0, 0, rejects=len(rejects))


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().casefold())


def _columns(table: Table, path: Path, gold: bool, reading: Reading) -> _Columns:
    """Find each role's column.

    Raises:
        UsageError: if a role has none, or two columns may be it.
    """
    names, plain = table.names, [_plain(name) for name in table.names]
    has = ", ".join(name for name in names if name) or "none"
    found: dict[str, list[int]] = {}
    for role, columns in reading.columns.items():
        places = []
        for column in columns:
            at = [n for n, name in enumerate(names) if name == column]
            at = at or [n for n, name in enumerate(plain) if name == _plain(column)]
            if not at and not gold:
                raise UsageError(f"{path} has no column {column}; it has {has}", "see --columns")
            if len(at) > 1:
                raise UsageError(f"{path} has the column {column} twice", "rename one of them")
            places += at
        if places:
            found[role] = places
    taken = {at for places in found.values() for at in places}
    for role, groups in ALIASES.items():
        if role in found:
            continue
        for group in groups:
            at = [n for n, name in enumerate(plain) if name in group and n not in taken]
            if len(at) > 1 and len({plain[n] for n in at}) == 1:
                raise UsageError(f"{path} has the column {names[at[0]]} twice", "rename one of them")
            if len(at) > 1:
                either = ", ".join(names[n] for n in at)
                raise UsageError(
                    f"{path}: the {role} may be any of the columns {either}",
                    f"name it with --columns {role}={names[at[0]]}",
                )
            if at:
                found[role] = at
                taken |= set(at)
                break
    others = [n for n, name in enumerate(names) if n not in taken and name.strip()]
    wide = False
    if reading.wide and not (gold and "label" in found):
        wide = True
        found.setdefault("task", others[:1])
        rest = [n for n in others if n not in found["task"]]
        if "annotator" not in reading.columns:
            found["annotator"] = rest
        found.pop("label", None)
    elif (
        "task" in found
        and not {"annotator", "label"} & set(found)
        and not gold
        and _looks_wide(table, others)
    ):
        wide = True
        found["annotator"] = others
    elif len(found.get("annotator", ())) > 1:
        raise UsageError("--columns names annotator twice", "with --wide each annotator has a column")
    missing = [
        role
        for role in REQUIRED
        if role not in found and not (role == "annotator" and gold) and not (role == "label" and wide)
    ]
    if missing:
        example = ",".join(f"{role}=COLUMN" for role in missing)
        raise UsageError(
            f"{path} has no column {', '.join(missing)}; it has {has}",
            f"name it with --columns {example}; a table with a column for each annotator is read with --wide",
        )
    used = {at for places in found.values() for at in places}
    return _Columns(found, [n for at, n in enumerate(names) if at not in used and n.strip()], wide)


def _looks_wide(table: Table, others: Sequence[int]) -> bool:
    """Whether columns answer with the same few labels, as those of annotators do."""
    columns = [table.rows[f"{at}"].drop_nulls() for at in others if f"{at}" in table.rows.columns]
    if len(columns) < 2 or len(columns) != len(others) or any(one.dtype != pl.String for one in columns):
        return False
    said = [set(one) for one in columns]
    every = set().union(*said)
    few = len(every) <= max(2, sum(map(len, columns)) // 4)
    return few and all(
        one and len(one & set().union(*said[:n], *said[n + 1 :])) * 2 > len(one) for n, one in enumerate(said)
    )


def _cells(table: Table, columns: _Columns, path: Path, reading: Reading) -> tuple[pl.DataFrame, Written]:
    """A row for each answer, with its roles and `labels`, a list; and how these are written."""
    rows, written = _as_given(table, columns, path, reading)
    if reading.decimal == ".":
        return rows, written
    one = pl.element()
    dotted = rows["labels"].explode().str.contains(DECIMAL_POINT).any()
    if dotted:  # it would not be known any more which labels had a comma
        return rows, written
    number = one.str.contains(DECIMAL_COMMA)
    plain = pl.when(number).then(one.str.replace(",", ".", literal=True)).otherwise(one)
    return rows.with_columns(pl.col("labels").list.eval(plain)), replace(written, decimal=reading.decimal)


def _as_given(table: Table, columns: _Columns, path: Path, reading: Reading) -> tuple[pl.DataFrame, Written]:
    of = columns.of
    single = {
        role: pl.col(f"{of[role][0]}").cast(pl.String)
        for role in ("task", *OPTIONAL, *(() if columns.wide else ("annotator",)))
        if role in of
    }
    if columns.wide or len(of.get("label", ())) > 1:
        many = of["annotator"] if columns.wide else of["label"]
        role = "annotator" if columns.wide else "control"
        parts = [
            table.rows.select("row", **{**single, role: pl.lit(table.names[at])}, label=pl.col(f"{at}"))
            for at in many
        ]
        rows = pl.concat(parts, how="vertical_relaxed").sort("row", maintain_order=True)
    else:
        many = of["label"]
        rows = table.rows.select("row", **single, label=pl.col(f"{many[0]}"))
    types = {table.types.get(f"{at}", "text") for at in many}
    type = types.pop() if len(types) == 1 else "text"
    label = rows["label"]
    if isinstance(label.dtype, pl.List):
        return _listed(rows, label, None), Written("json", type)
    several, lists = _several(label, path, reading)
    if several in ("json", "python"):
        made = pl.Series(
            [None if text is None else lists.get(text, [text]) for text in label], dtype=pl.List(pl.String)
        )
        return _listed(rows, made, label), Written(several, type)
    if several:
        return _listed(rows, label.str.split(several), label), Written(several, type)
    whole = rows.select(pl.when(pl.col("label").is_not_null()).then(pl.concat_list("label"))).to_series()
    return rows.with_columns(labels=whole), Written(SEVERAL, type)


def _listed(rows: pl.DataFrame, labels: pl.Series, text: pl.Series | None) -> pl.DataFrame:
    """With `labels`, stripped and without empty ones; `label` is the cell's text."""
    plain = labels.list.eval(pl.element().str.strip_chars())
    plain = plain.list.eval(pl.element().filter(pl.element() != ""))
    shown = plain.list.join(", ") if text is None else text
    return rows.with_columns(labels=plain, label=shown)


def _several(label: pl.Series, path: Path, reading: Reading) -> tuple[str, dict[str, list[str]]]:
    """What separates several labels of a cell; of cells that are lists, the lists.

    Raises:
        UsageError: if it seems that something does, and nobody said so.
    """
    if reading.multi_label is not None:
        return reading.multi_label, {}
    texts = label.drop_nulls().unique().sort().to_list()
    filled = [text for text in texts if text.strip() and text not in MISSING]
    lists = {text: found for text in filled if (found := _list_in(text)) is not None}
    if lists and len(lists) == len(filled):
        return ("python" if any("'" in text for text in lists) else "json"), lists
    for sign in "|;":
        sets: dict[frozenset[str], str] = {}
        for text in filled:
            parts = frozenset(part.strip() for part in text.split(sign))
            if len(parts) > 1 and parts in sets:
                raise UsageError(
                    f"{path}: the labels {sets[parts]!r} and {text!r} look like several labels in one cell",
                    f"give --multi-label '{sign}'; or --multi-label '' if they are different labels",
                )
            sets[parts] = text
    return "", {}


def _list_in(text: str) -> list[str] | None:
    """The labels of a cell that is a list, as JSON or Python write it."""
    if not (text.strip().startswith("[") and text.strip().endswith("]")):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return list(found) if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _judged(rows: pl.DataFrame, gold: bool, reading: Reading) -> pl.DataFrame:
    """With all roles, `took`, `at`, and `why` a row is rejected: null for a good one, "" for no answer."""
    absent = [pl.lit(None, pl.String).alias(name) for name in OPTIONAL if name not in rows.columns]
    if "annotator" not in rows.columns:
        absent.append(pl.lit(GOLD).alias("annotator"))
    marks = pl.lit(False) if reading.keep_missing else pl.col("label").str.strip_chars().is_in(MISSING)
    took = pl.col("seconds")
    took = took if reading.decimal == "." else took.str.replace(reading.decimal, ".", literal=True)
    return (
        rows.with_columns(*absent)
        .with_columns(pl.when(pl.col(OPTIONAL).str.strip_chars() != "").then(pl.col(OPTIONAL)))
        .with_columns(
            pl.col("control").fill_null("label"),
            pl.lit(Role.GOLD.value).alias("role") if gold else pl.col("role").fill_null(Role.PERSON.value),
            pl.col("annotator").fill_null(GOLD) if gold else pl.col("annotator"),
            took=took.cast(pl.Float64, strict=False),
            at=_instant(reading.date_format),
            mark=pl.when(marks).then(pl.col("label")),
        )
        .with_columns(why=_why())
    )


def _instant(form: str | None) -> pl.Expr:
    """A time in the form that was named, or in ISO 8601; a time without a zone is UTC."""
    if form is not None:
        return (
            pl.col("created_at")
            .str.strip_chars()
            .str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        )
    text = pl.col("created_at").str.replace("[zZ]$", "+00:00").str.replace(" ", "T")
    forms = ["%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]
    return pl.coalesce(
        text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in forms
    )


def _why() -> pl.Expr:
    """Why a row is rejected; null for a good one, the empty text for one that answers nothing."""

    def blank(name: str) -> pl.Expr:
        return pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")

    took, roles = pl.col("took"), [role.value for role in Role]
    return (
        pl.when(blank("task"))
        .then(pl.lit("the task is missing"))
        .when(blank("annotator"))
        .then(pl.lit("the annotator is missing"))
        .when(blank("label") | pl.col("mark").is_not_null() | (pl.col("labels").list.len() == 0))
        .then(pl.lit(""))
        .when(pl.col("labels").list.contains(ABSENT))
        .then(pl.lit(f"the label {ABSENT} is kept for what nobody drew; rename it"))
        .when(~pl.col("role").is_in(roles))
        .then(pl.format(f"the role must be one of {', '.join(roles)}, found {{}}", "role"))
        .when(
            pl.col("seconds").is_not_null()
            & (took.is_null() | took.is_nan() | took.is_infinite() | (took < 0))
        )
        .then(pl.format("seconds must be a number from 0 on, found {}", "seconds"))
        .when(pl.col("created_at").is_not_null() & pl.col("at").is_null())
        .then(pl.format("created_at must be a time such as 2026-01-31T08:00:00Z, found {}", "created_at"))
    )


def _refuse_local(read: pl.DataFrame, where: Callable[[int], str]) -> None:
    """Raise if no value of a column can be read: it is written as another country does.

    Raises:
        UsageError: naming the first row, the column and the option that reads it.
    """
    what, hints = [], []
    for name, value, option in (("seconds", "took", "--decimal"), ("created_at", "at", "--date-format")):
        given = read.filter(pl.col(name).is_not_null())
        if not len(given) or given[value].null_count() < len(given):
            continue
        text = given[name][0]
        if option == "--decimal" and not re.match(_NUMERIC, text):
            continue
        what.append(f"{where(given['row'][0])}: {name} {text!r}")
        forms = [form for pattern, form in _DATES if re.match(pattern, text.strip())]
        fits = f"'{forms[0]}'" if forms else "FORMAT, such as '%d.%m.%Y %H:%M'"
        hints.append("--decimal ," if option == "--decimal" else f"--date-format {fits}")
    if what:
        raise UsageError(
            f"{'; '.join(what)} cannot be read, nor can any other value there",
            f"give {' '.join(hints)}",
        )


@dataclass(frozen=True, slots=True)
class _Repeats:
    identical: int
    contradicting: int
    shown: list[str]
    notices: list[str]


_WHO = ["task", "annotator", "role", "control"]


def _repeats(rows: pl.DataFrame, reading: Reading) -> tuple[pl.DataFrame, _Repeats]:
    """Rows of one annotator for one question, made what they are; with `turn`, the number of the answer."""
    said = rows.with_columns(text=pl.col("labels").list.join("\x1f"))
    groups = said.group_by(_WHO).agg(
        n=pl.len(), said=pl.col("text").n_unique(), times=pl.col("at").n_unique()
    )
    odd = groups.filter(pl.col("said") > 1)
    identical, contradicting = int((groups["n"] - groups["said"]).sum()), int((groups["said"] - 1).sum())
    mode, notices = reading.repeats, []
    if mode is None:
        sets = (
            not identical
            and len(odd) > 2
            and len(odd) >= _SETS * len(groups)
            and bool((odd["times"] == 1).all())
        )
        mode = "labels" if sets else "last"
        if sets:
            notices.append(
                f"{len(odd)} answers have several rows with different labels: read as several labels of one "
                "answer (--repeats last or all reads them otherwise)"
            )
    if mode == "labels":
        made = said.explode("labels").with_columns(turn=pl.lit(0))
        return _numbered(made), _Repeats(0, 0, [], notices)
    shown = [
        f"{task} of {annotator}: {', then '.join(texts).replace(chr(31), SEVERAL)}"
        for task, annotator, texts in said.join(odd, on=_WHO, how="semi")
        .sort("row")
        .group_by("task", "annotator", "role", "control", maintain_order=True)
        .agg("text")
        .select("task", "annotator", "text")
        .iter_rows()
    ]
    if mode == "last":
        # By time where every row has one, else by place in the file.
        kept = said.sort("at", "row", nulls_last=False).unique(_WHO, keep="last").sort("row")
        if identical:
            notices.append(
                f"{counted(identical, 'row')} with the same answer of an annotator again: counted once"
            )
        if contradicting:
            notices.append(
                f"{counted(contradicting, 'answer')} in contradiction to an earlier one, the last counts: "
                f"{'; '.join(shown[:3])}{'; …' if len(shown) > 3 else ''} (--repeats all keeps each)"
            )
        return _numbered(kept.with_columns(turn=pl.lit(0)).explode("labels")), _Repeats(
            identical, contradicting, shown, notices
        )
    # Numbered from the end, so that the last answers to several questions belong together, as they do above.
    made = said.sort(*_WHO, "at", "row", nulls_last=False).with_columns(
        turn=pl.len().over(_WHO) - 1 - pl.int_range(pl.len()).over(_WHO)
    )
    most = pl.col("turn").max().over("task", "annotator", "role")
    made = made.with_columns(turn=most - pl.col("turn"))
    if identical + contradicting:
        notices.append(
            f"{counted(identical + contradicting, 'repeated answer')} of an annotator: the last counts, "
            "and earlier ones show consistency"
        )
    return _numbered(made.explode("labels")), _Repeats(identical, contradicting, shown, notices)


def _numbered(rows: pl.DataFrame) -> pl.DataFrame:
    who = ["task", "annotator", "role"]
    return rows.with_columns(annotation=pl.concat_str(*who, "turn", separator="\x1f")).sort(
        *who, "control", "turn", "row", "labels"
    )


def _labels(good: pl.DataFrame, gold: bool) -> Labels:
    answers = good.group_by("annotation", maintain_order=True).agg(
        pl.col("task", "annotator", "role").first(),
        gold=(pl.col("role") == Role.GOLD).first(),
        seconds=pl.col("took").drop_nulls().first(),
        created_at=pl.col("at").drop_nulls().first(),
    )
    regions = good.select(
        "task",
        "annotation",
        "control",
        label="labels",
        region=pl.lit("0"),
        **{name: pl.lit(None) for name in ("parent", "place", "shape", "picture_width", "picture_height")},
    )
    return Labels(
        answers.select(ANSWERS.names()).cast(ANSWERS),
        regions.select(REGIONS.names()).cast(REGIONS),
        dict.fromkeys(good["control"].unique().sort(), CHOICE),
        # Gold of a table is about the controls that it names, and does not say that nothing is to be drawn.
        answers.filter(gold).select("annotation", control=None, why=None).cast(UNCOUNTED),
    )


def _alike_names(rows: pl.DataFrame) -> list[str]:
    """Annotators or tasks that differ only by case or spaces."""
    made = []
    for role in ("annotator", "task"):
        names = rows.select(control=pl.lit(role), label=role).unique()
        _, groups = merged_spelling(names, {role: CHOICE}, merge=False)
        if groups:
            shown = "; ".join(", ".join(group) for group in groups[:3])
            made.append(f"{role}s differ only by case or spaces, and count as different: {shown}")
    return made


def _numeric(rows: pl.DataFrame, written: Written) -> list[str]:
    labels = rows["labels"].unique()
    if written.type == "boolean" or len(labels) < 3 or not labels.str.contains(_NUMERIC).all():
        return []
    return [NUMERIC]
