"""Labels from files: long tables, and exports of Label Studio."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from connector.errors import BadRecord, Reject, UsageError
from connector.labels import GOLD, TASKS, Loaded, Tables, is_unicode, source_of
from connector.model import Ontology, Role
from connector.quality.answers import ABSENT
from connector.quality.kinds import CHOICE
from connector.quality.table import ANSWERS, REGIONS, Labels

REQUIRED = ("task", "annotator", "label")
OPTIONAL = ("control", "seconds", "created_at", "role")


def read_file(path: Path, gold: bool = False, ontology: Ontology | None = None) -> Loaded:
    """Labels from a long table (`.csv`, `.parquet`, `.jsonl`) or a Label Studio JSON export (`.json`).

    Args:
        gold: all of it is gold, and the annotator may be missing.
        ontology: of an export; what it does not allow is rejected.

    Raises:
        UsageError: if the file is not there, is of another kind, or lacks a column.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "name a .csv, .parquet, .jsonl or .json file")
    source = source_of(path)
    if path.suffix == ".json":
        return _read_export(path, source, gold, ontology)
    readers: dict[str, Callable[[Path, bool, list[Reject]], pl.DataFrame]] = {
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
    }
    if path.suffix not in readers:
        raise UsageError(f"{path} is no kind of file we read", "name a .csv, .parquet, .jsonl or .json file")
    rejects: list[Reject] = []
    rows = readers[path.suffix](path, gold, rejects)
    return Loaded(_labels_of(rows, path, rejects, gold), source, rejects, pl.DataFrame(schema=TASKS))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < math.inf if isinstance(value, float) else abs(value) < 2**63


def _read_export(path: Path, source: Mapping[str, Any], gold: bool, ontology: Ontology | None) -> Loaded:
    try:
        tasks = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", "export it again as JSON") from error
    if not isinstance(tasks, list):
        raise UsageError(f"{path} is no Label Studio export", "a JSON export is a list of tasks")
    tables = Tables(ontology)
    for number, task in enumerate(tasks):
        where = f"{path}: task {number}"
        name = _name(task.get("id")) if isinstance(task, dict) else None
        if name is None or not isinstance(task.get("annotations"), list):
            tables.rejects.append(Reject(where, "a task needs an id and its annotations"))
            continue
        for at, annotation in enumerate(task["annotations"]):
            # Named by its place: a task may stand in the file twice.
            place = f"{where}, annotation {at}"
            _add_exported(tables, name, f"{number}/{at}", annotation, place, gold, task.get("data"))
    return tables.done(source, pl.DataFrame(schema=TASKS))


def _name(value: object) -> str | None:
    """An id as text; None if it names nothing."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value) if str(value).strip() and is_unicode(str(value)) else None


def _add_exported(
    tables: Tables, task: str, id: str, annotation: object, where: str, gold: bool, data: object
) -> None:
    if not isinstance(annotation, dict):
        tables.rejects.append(Reject(where, "an annotation must be a JSON object"))
        return
    if annotation.get("was_cancelled"):
        return
    by = annotation.get("completed_by")
    name = _name(by.get("email") if isinstance(by, dict) else by)
    if name is None and not gold:
        tables.rejects.append(Reject(where, "nobody is named in completed_by"))
        return
    try:
        stamp = annotation.get("created_at")
        created_at = _utc(datetime.fromisoformat(stamp)) if stamp else None
    except (TypeError, ValueError, OverflowError) as error:
        tables.rejects.append(Reject(where, f"created_at cannot be read: {error}"))
        return
    took = annotation.get("lead_time")
    if took is not None and not (_is_number(took) and took >= 0):
        tables.rejects.append(Reject(where, f"lead_time must be a number from 0 on, found {took!r}"[:200]))
        return
    role = Role.GOLD if gold or annotation.get("ground_truth") else Role.PERSON
    head = (task, id, name or GOLD, role.value, None if took is None else float(took), created_at)
    tables.add(head, where, annotation.get("result"), lambda: data if isinstance(data, dict) else {})


def _utc(at: datetime) -> datetime:
    """A time without a zone is UTC, wherever the program runs."""
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


# Long tables: one row an answer to one question.


def _columns(found: Sequence[str], path: Path, gold: bool) -> list[str]:
    """The columns that we read, of those a file has.

    Raises:
        UsageError: if one is missing, or stands there twice.
    """
    missing = [name for name in REQUIRED if name not in found and not (gold and name == "annotator")]
    if missing:
        raise UsageError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(found) or 'none'}",
            f"name the columns {', '.join(REQUIRED)}; {', '.join(OPTIONAL)} are optional",
        )
    known = [name for name in (*REQUIRED, *OPTIONAL) if name in found]
    for name in known:
        if list(found).count(name) > 1:
            raise UsageError(f"{path} has the column {name} twice", "rename one of them")
    return known


def _read_csv(path: Path, gold: bool, rejects: list[Reject]) -> pl.DataFrame:
    data = path.read_bytes()
    first = data.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    names = next(csv.reader([first]), [])
    known = _columns(names, path, gold)
    try:
        frame = pl.read_csv(data, infer_schema=False)
        if not _ragged(data.decode(), len(names)):
            inside = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))
            line = pl.int_range(2, pl.len() + 2) + inside.cum_sum() - inside
            return frame.select(line.alias("row"), *known)
    except PolarsError:
        pass  # a quote or a byte is wrong somewhere: find it, and take the other lines
    rows = [(line, *row) for line, row in _whole_rows(data, len(names), path, rejects)]
    schema = pl.Schema({"row": pl.Int64} | {f"{at}": pl.String for at in range(len(names))})
    cells = {name: pl.col(f"{names.index(name)}") for name in known}
    return pl.DataFrame(rows, schema=schema, orient="row").select("row", **cells)


def _ragged(text: str, cells: int) -> bool:
    """Whether some line has fewer cells than the first; polars would fill it up with nulls."""
    bare = re.sub('"[^"]*"', "", text) if '"' in text else text
    lines = pl.Series([bare.rstrip("\r\n")]).str.split("\n").explode()
    return bool((lines.str.count_matches(",", literal=True) != cells - 1).any())


def _whole_rows(
    data: bytes, cells: int, path: Path, rejects: list[Reject]
) -> Iterator[tuple[int, list[str | None]]]:
    """The rows of a damaged CSV that are whole, with the line each begins on; an empty line is no row."""
    lines = io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline="").readlines()
    start = 1
    reader = csv.reader(lines[start:], strict=True)
    while True:
        begun = start + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            rejects.append(Reject(f"{path}:{begun}", f"the line is torn, or a quote never ends: {error}"))
            if start + reader.line_num == len(lines):  # its quote took all the rest in
                start = begun
                reader = csv.reader(lines[start:], strict=True)
            continue
        if row is None:
            return
        if row and len(row) != cells:
            rejects.append(Reject(f"{path}:{begun}", f"the line must have {cells} cells, found {len(row)}"))
        elif not is_unicode("".join(row)):
            rejects.append(Reject(f"{path}:{begun}", "the line is not UTF-8"))
        elif row:
            yield begun, [cell or None for cell in row]


def _read_jsonl(path: Path, gold: bool, rejects: list[Reject]) -> pl.DataFrame:
    rows: list[dict[str, int | str | None]] = []
    found: dict[str, None] = {}
    torn = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append({"row": number, **_json_row(line)})
                found |= dict.fromkeys(rows[-1])
            except BadRecord as error:
                torn += 1
                rejects.append(Reject(f"{path}:{number}", error.what))
    names = [name for name in found if name != "row"] if rows or not torn else REQUIRED
    schema = {"row": pl.Int64} | dict.fromkeys(_columns(names, path, gold), pl.String)
    return pl.DataFrame(rows, schema=schema)


def _json_row(line: bytes) -> dict[str, str | None]:
    """The columns that we read of one line, as text.

    Raises:
        BadRecord: if it is no JSON object, or a column is neither text nor a number.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadRecord(f"the line is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadRecord("the line is not a JSON object")
    made: dict[str, str | None] = {}
    for name, value in row.items():
        if name not in REQUIRED and name not in OPTIONAL:
            continue
        if isinstance(value, (list, dict)):
            raise BadRecord(f"{name} must be text or a number, found {json.dumps(value)}"[:200])
        made[name] = value if value is None or isinstance(value, str) else json.dumps(value)
        if not is_unicode(made[name] or ""):
            raise BadRecord(f"{name} is no Unicode text: {value!r}"[:200])
    return made


def _read_parquet(path: Path, gold: bool, rejects: list[Reject]) -> pl.DataFrame:  # noqa: ARG001
    try:
        known = _columns(list(pl.read_parquet_schema(path)), path, gold)
        frame = pl.read_parquet(path, columns=known)
        return frame.select(
            pl.col(name).dt.convert_time_zone("UTC").dt.to_string("iso:strict")
            if isinstance(frame.schema[name], pl.Datetime)
            else pl.col(name).cast(pl.String)
            for name in known
        ).with_row_index("row", 1)
    except PolarsError as error:
        raise UsageError(f"{path} is not a table we can read: {error}", "write it again") from error


def _labels_of(rows: pl.DataFrame, path: Path, rejects: list[Reject], gold: bool) -> Labels:
    absent = [pl.lit(None, pl.String).alias(name) for name in OPTIONAL if name not in rows.columns]
    if "annotator" not in rows.columns:
        absent.append(pl.lit(GOLD).alias("annotator"))
    read = (
        rows.with_columns(*absent)
        .with_columns(pl.when(pl.col(OPTIONAL).str.strip_chars() != "").then(pl.col(OPTIONAL)))
        .with_columns(
            pl.col("control").fill_null("label"),
            pl.lit(Role.GOLD.value).alias("role") if gold else pl.col("role").fill_null(Role.PERSON.value),
            pl.col("annotator").fill_null(GOLD) if gold else pl.col("annotator"),
            took=pl.col("seconds").cast(pl.Float64, strict=False),
            at=_instant(),
        )
        .with_columns(why=_why())
    )
    refused = read.filter(pl.col("why").is_not_null())
    rejects += [Reject(f"{path}:{n}", why) for n, why in refused.select("row", "why").iter_rows()]
    # Whoever answers the same question of a task again has answered twice. Sorted, so that the order of the
    # rows does not decide which answers to several questions belong together.
    who = ["task", "annotator", "role"]
    good = (
        read.filter(pl.col("why").is_null())
        .sort(*who, "control", "at", "took", "label")
        .with_columns(turn=pl.int_range(pl.len()).over(*who, "control"))
        .with_columns(annotation=pl.concat_str(*who, "turn", separator="\x1f"))
    )
    answers = good.group_by("annotation", maintain_order=True).agg(
        pl.col("task", "annotator", "role").first(),
        seconds=pl.col("took").drop_nulls().first(),
        created_at=pl.col("at").drop_nulls().first(),
    )
    regions = good.select(
        "task",
        "annotation",
        "control",
        "label",
        region=pl.lit("0"),
        **{name: pl.lit(None) for name in ("parent", "place", "shape", "picture_width", "picture_height")},
    )
    return Labels(
        answers.select(ANSWERS.names()).cast(ANSWERS),
        regions.select(REGIONS.names()).cast(REGIONS),
        dict.fromkeys(good["control"].unique().sort(), CHOICE),
    )


def _instant() -> pl.Expr:
    """ISO 8601; a time without a zone is UTC."""
    text = pl.col("created_at").str.replace("[zZ]$", "+00:00").str.replace(" ", "T")
    forms = ["%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f"]
    return pl.coalesce(
        text.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in forms
    )


def _why() -> pl.Expr:
    """Why a row is rejected; null for a good one."""

    def blank(name: str) -> pl.Expr:
        return pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")

    took, roles = pl.col("took"), [role.value for role in Role]
    return (
        pl.when(blank("task"))
        .then(pl.lit("the task is missing"))
        .when(blank("annotator"))
        .then(pl.lit("the annotator is missing"))
        .when(blank("label"))
        .then(pl.lit("the label is missing"))
        .when(pl.col("label") == ABSENT)
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
