"""Tables in files, whatever program wrote them: every cell as text exactly as it stands there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from connector.errors import BadRecord, Reject, UsageError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx")
KINDS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, also as .gz or .zip"

_DELIMITERS = ",;\t|"

_TEXT_ENCODINGS = ["cp1252", "cp1251", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"]
"""What a text that is not UTF-8 may be; files are too short to tell more apart."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file.

    Attributes:
        names: of the columns, as the file has them.
        rows: `row` (the line or row of the file), then a column of text, or of lists of text, for each name
            that was asked for; named by its place in `names`: `0`, `1`, …
        types: of columns whose every value is a boolean, an integer or a number in the file: which.
        notices: how the file was understood, where that was a choice.
    """

    names: list[str]
    rows: pl.DataFrame
    types: Mapping[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Records:
    """The objects of a JSON file, and where each stands."""

    found: list[tuple[str, Any]]
    notices: list[str] = field(default_factory=list)


def is_unicode(text: str) -> bool:
    """Whether it can be stored: JSON may hold half a surrogate pair, and a bad byte is read as one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def unpack(path: Path) -> tuple[str, bytes]:
    """A file's suffix and content; of a `.gz` or a `.zip` of one file, those of the file in it.

    Raises:
        UsageError: if there is no such file, or its kind is not read.
    """
    if not path.is_file():
        raise UsageError(f"file not found: {path}", f"name a {KINDS} file")
    suffix, data = path.suffix.lower(), path.read_bytes()
    try:
        if suffix == ".gz":
            suffix, data = Path(path.stem).suffix.lower(), gzip.decompress(data)
        elif suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as files:
                names = [name for name in files.namelist() if not re.search(r"(^__MACOSX|/$|/\.)", name)]
                if len(names) != 1:
                    raise UsageError(
                        f"{path} holds {len(names)} files: {', '.join(names[:5])}", "zip one file at a time"
                    )
                suffix, data = Path(names[0]).suffix.lower(), files.read(names[0])
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}", "write it again") from error
    return suffix, data


def decode(data: bytes, path: Path, encoding: str | None = None) -> tuple[str, list[str]]:
    """A text file's text, and a notice where its encoding was not UTF-8.

    A byte that no encoding explains remains as half a surrogate pair, so that its line can be rejected.

    Raises:
        UsageError: if the encoding is unknown, or is not the file's.
    """
    if encoding is not None:
        try:
            return data.decode(encoding), []
        except (LookupError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{path} cannot be read as {encoding}: {error}", "name another --encoding"
            ) from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace"), [f"{path} is UTF-16"]
    head = data[:1000]
    if len(head) > 3 and 0 in head:
        # Without a mark: Latin letters have their zero byte at odd places in the little-endian form.
        guess = "utf-16-le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16-be"
        return data.decode(guess, "replace"), [f"{path} is {guess.upper()}"]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        pass
    damaged = data.decode("utf-8-sig", "surrogateescape")
    broken = sum(0xDC80 <= ord(letter) <= 0xDCFF for letter in damaged)
    if sum(ord(letter) > 127 for letter in damaged) >= 2 * broken:
        return damaged, []  # it is UTF-8, but for some bytes: their lines are rejected
    from charset_normalizer import from_bytes

    best = from_bytes(data[:1_000_000], cp_isolation=_TEXT_ENCODINGS).best()
    name = best.encoding if best else "latin_1"
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        name, text = "latin_1", data.decode("latin_1")
    if name == "latin_1" and re.search("[\x80-\x9f]", text):
        raise UsageError(f"{path} is not UTF-8, and its encoding cannot be told", "name it with --encoding")
    shown = {"cp1252": "Latin-1 (Windows-1252)", "latin_1": "Latin-1"}.get(name, name)
    return text, [f"{path} is not UTF-8 and was read as {shown}; if letters are wrong, name its --encoding"]


# Text with delimiters.


def header(text: str) -> tuple[list[str], str]:
    """The names in the first line, and the delimiter that gives the most of them; a comma at a tie."""
    first = text.split("\n", 1)[0].rstrip("\r")
    found = {sign: next(csv.reader([first], delimiter=sign), []) for sign in _DELIMITERS}
    best = max(found, key=lambda sign: len(found[sign]))
    return found[best], best


def read_delimited(text: str, path: Path, rejects: list[Reject], notices: list[str]) -> Table:
    """The rows of a text with a header. A line that is damaged is rejected, and the others are read."""
    names, sign = header(text)
    columns = [f"{at}" for at in range(len(names))]
    body = text.split("\n", 1)[1] if "\n" in text else ""
    schema = pl.Schema({"row": pl.Int64} | dict.fromkeys(columns, pl.String))
    if not body.strip():
        return Table(names, pl.DataFrame(schema=schema), notices=notices)
    with suppress(PolarsError):  # a wrong quote: each line is read by itself below
        # A lone surrogate cannot be encoded: the way of single lines rejects it by its place.
        data = body.encode() if is_unicode(body) else None
        if data is not None and not _ragged(body, len(names), sign):
            frame = pl.read_csv(
                data, has_header=False, infer_schema=False, separator=sign, new_columns=columns
            )
            if frame.width == len(names):
                inside = pl.sum_horizontal(pl.all().str.count_matches("\n", literal=True))
                line = pl.int_range(2, pl.len() + 2) + inside.cum_sum() - inside
                return Table(names, frame.select(line.alias("row"), *columns), notices=notices)
    rows = [(line, *row) for line, row in _whole_rows(text, len(names), sign, path, rejects)]
    return Table(names, pl.DataFrame(rows, schema=schema, orient="row"), notices=notices)


def _ragged(text: str, cells: int, sign: str) -> bool:
    """Whether some line has fewer cells than the first; polars would fill it up with nulls."""
    bare = re.sub('"[^"]*"', "", text) if '"' in text else text
    lines = pl.Series([bare.rstrip("\r\n")]).str.split("\n").explode()
    return bool((lines.str.count_matches(sign, literal=True) != cells - 1).any())


def _whole_rows(
    text: str, cells: int, sign: str, path: Path, rejects: list[Reject]
) -> Iterator[tuple[int, list[str | None]]]:
    """The rows of a damaged text that are whole, with the line each begins on; an empty line is no row."""
    lines = io.StringIO(text, newline="").readlines()
    start = 1
    reader = csv.reader(lines[start:], strict=True, delimiter=sign)
    while True:
        begun = start + reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            rejects.append(Reject(f"{path}:{begun}", f"the line is torn, or a quote never ends: {error}"))
            if start + reader.line_num == len(lines):  # its quote took all the rest in
                start = begun
                reader = csv.reader(lines[start:], strict=True, delimiter=sign)
            continue
        if row is None:
            return
        if row and len(row) != cells:
            rejects.append(Reject(f"{path}:{begun}", f"the line must have {cells} cells, found {len(row)}"))
        elif not is_unicode("".join(row)):
            rejects.append(Reject(f"{path}:{begun}", "the line is not UTF-8"))
        elif row:
            yield begun, [cell or None for cell in row]


# JSON.


def read_json(data: bytes, path: Path, rejects: list[Reject]) -> Records | None:
    """The records of a JSON document that is a list, or of lines of JSON; None if it is something else.

    Raises:
        UsageError: if it is not JSON.
    """
    try:
        found = json.loads(data)
    except ValueError as error:
        first = data.lstrip(b"\xef\xbb\xbf\r\n ").split(b"\n", 1)[0]
        if _is_object(first):
            return read_json_lines(data, path, rejects)
        raise UsageError(f"{path} is not JSON: {error}", "export it again as JSON") from error
    if isinstance(found, list):
        return Records([(f"{path}: record {at}", one) for at, one in enumerate(found)])
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def read_json_lines(data: bytes, path: Path, rejects: list[Reject]) -> Records:
    """The record of each line; a line that is none is rejected."""
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip(b" \t\r\xef\xbb\xbf"):
            continue
        where = f"{path}:{number}"
        try:
            one = json.loads(line)
        except ValueError as error:
            rejects.append(Reject(where, f"the line is not JSON: {error}"))
            continue
        if isinstance(one, dict):
            found.append((where, one))
        else:
            rejects.append(Reject(where, "the line is not a JSON object"))
    return Records(found)


def table_of(records: Records, rejects: list[Reject]) -> Table:
    """Plain records as a table; `row` is the place of a record among `records.found`.

    A record with a value that fits no cell is rejected.
    """
    names = list(dict.fromkeys(name for _, one in records.found if isinstance(one, dict) for name in one))
    column = {name: f"{at}" for at, name in enumerate(names)}
    lists = {
        name
        for _, one in records.found
        if isinstance(one, dict)
        for name, value in one.items()
        if isinstance(value, list)
    }
    rows: list[dict[str, Any]] = []
    kinds: dict[str, set[str]] = {}
    for at, (where, one) in enumerate(records.found):
        try:
            if not isinstance(one, dict):
                raise BadRecord("the record is not a JSON object")
            cells = {column[name]: _cell(name, value, name in lists) for name, value in one.items()}
        except BadRecord as error:
            rejects.append(Reject(where, error.what))
            continue
        rows.append({"row": at, **cells})
        for name, value in one.items():
            kinds.setdefault(column[name], set()).update(_types(value))
    schema = {"row": pl.Int64} | {
        column[name]: pl.List(pl.String) if name in lists else pl.String for name in names
    }
    types = {name: one for name, of in kinds.items() for one in [_one_type(of)] if one}
    return Table(names, pl.DataFrame(rows, schema=schema), types, records.notices)


def _cell(name: str, value: object, listed: bool) -> str | list[str] | None:
    """A value as a cell: text, or of a column with lists a list of texts. Objects stay JSON."""
    if listed:
        if value is None:
            return None
        parts = value if isinstance(value, list) else [value]
        return [str(_cell(name, part, listed=False)) for part in parts if part is not None]
    text = value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text is not None and not is_unicode(text):
        raise BadRecord(f"{name} is no Unicode text: {value!r}"[:200])
    return text


def _types(value: object) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, bool):
            yield "boolean"
        elif isinstance(one, int):
            yield "integer"
        elif isinstance(one, float):
            yield "number"
        elif one is not None:
            yield "text"


def _one_type(found: set[str]) -> str | None:
    if found == {"integer", "number"}:
        return "number"
    return next(iter(found)) if len(found) == 1 and found != {"text"} else None


# Tables that have types.


def read_parquet(data: bytes, path: Path) -> Table:
    """The rows of a Parquet file, numbered from 1.

    Raises:
        UsageError: if it is none.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(data))
    except (PolarsError, OSError) as error:
        raise UsageError(f"{path} is not a table we can read: {error}", "write it again") from error
    types = {f"{at}": kind for at, one in enumerate(frame.dtypes) if (kind := _type_of(one))}
    names = frame.columns
    cells = [
        _as_text(frame[name]).alias(f"{at}")
        for at, name in enumerate(names)
        if not isinstance(frame[name].dtype, (pl.Struct, pl.Binary, pl.Object))
    ]
    return Table(names, pl.DataFrame(cells).with_row_index("row", 1), types)


def _type_of(kind: pl.DataType) -> str | None:
    if kind == pl.Boolean:
        return "boolean"
    if kind.is_integer():
        return "integer"
    return "number" if kind.is_float() else None


def _as_text(cells: pl.Series) -> pl.Series:
    kind = cells.dtype
    if isinstance(kind, pl.Datetime):
        cells = cells.dt.replace_time_zone("UTC") if kind.time_zone is None else cells
        return cells.dt.convert_time_zone("UTC").dt.to_string("iso:strict")
    if isinstance(kind, (pl.List, pl.Array)):
        return cells.cast(pl.List(pl.String), strict=False)
    return cells.cast(pl.String)


def read_excel(data: bytes, path: Path) -> Table:
    """The rows of the first sheet of an Excel file that has any.

    Raises:
        UsageError: if it is no Excel file.
    """
    import fastexcel

    try:
        book = fastexcel.read_excel(data)
        sheets = {
            name: book.load_sheet(name, header_row=None, dtypes="string").to_polars()
            for name in book.sheet_names
        }
    except (fastexcel.FastExcelError, ValueError) as error:
        raise UsageError(f"{path} is not an Excel file we can read: {error}", "save it as .xlsx") from error
    filled = {name: sheet for name, sheet in sheets.items() if len(sheet)}
    name, sheet = next(iter(filled.items()), ("", pl.DataFrame()))
    notices = (
        [f"{path} has {len(filled)} sheets; only {name!r}, the first, was read"] if len(filled) > 1 else []
    )
    names: Sequence[str] = [
        "" if cell is None else str(cell) for cell in (sheet.row(0) if len(sheet) else ())
    ]
    rows = sheet[1:].rename({old: f"{at}" for at, old in enumerate(sheet.columns)})
    return Table(list(names), rows.with_row_index("row", 2), notices=notices)


def read_table(path: Path, encoding: str | None = None) -> tuple[Table, list[Reject]]:
    """Any file that holds a table.

    Raises:
        UsageError: if there is no such file, or it holds none.
    """
    suffix, data = unpack(path)
    rejects: list[Reject] = []
    if suffix in (".csv", ".tsv", ".txt"):
        text, notices = decode(data, path, encoding)
        return read_delimited(text, path, rejects, notices), rejects
    if suffix == ".parquet":
        return read_parquet(data, path), rejects
    if suffix == ".xlsx":
        return read_excel(data, path), rejects
    if suffix in (".jsonl", ".ndjson"):
        return table_of(read_json_lines(data, path, rejects), rejects), rejects
    records = read_json(data, path, rejects) if suffix == ".json" else None
    if records is None:
        raise UsageError(f"{path} is not a kind of file we read", f"name a {KINDS} file")
    return table_of(records, rejects), rejects
