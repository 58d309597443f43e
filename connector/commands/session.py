"""What all commands have in common: their options, how they print, and how an error becomes an exit code."""

from __future__ import annotations

import json
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from connector.errors import EXIT_REJECTS, ConnectorError, Reject

if TYPE_CHECKING:
    import polars as pl

    from connector.config import Config
    from connector.project import Project

F = TypeVar("F", bound=Callable[..., Any])

COMMON: list[click.Parameter] = [
    click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        help="The configuration; by default connector.toml here or in a folder above.",
    ),
    click.Option(
        ["--json", "as_json"], is_flag=True, help="One JSON object on stdout, and nothing else there."
    ),
    click.Option(["--quiet"], is_flag=True, help="Only errors."),
    click.Option(["--verbose"], is_flag=True, help="Say more on the way."),
    click.Option(["--debug"], is_flag=True, help="Show tracebacks."),
]

_KEPT = ("config", "as_json", "quiet", "verbose", "debug")


@dataclass
class Session:
    """One run of a command: its common options, what it works with, and where it prints.

    Attributes:
        name: the command, such as `quality consensus`.
        read: what was found in the files of labels, for the answer.
    """

    name: str
    config_path: Path | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    printed: bool = False
    read: Mapping[str, Any] | None = None

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            UsageError: if there is none, or it is wrong.
        """
        from connector.config import load

        return load(self.config_path)

    @cached_property
    def settings(self) -> Config:
        """The configuration, or the defaults where there is none: for work on files alone.

        Raises:
            UsageError: if it is wrong, or one that is named is missing.
        """
        from connector.config import FILE, NoConfiguration, parse

        try:
            return self.config
        except NoConfiguration:
            return parse("", Path(FILE))

    @cached_property
    def project(self) -> Project:
        """What the configuration names."""
        from connector.project import Project

        return Project(self.config, self.note)

    def say(self, text: str) -> None:
        """A line for people; nothing with --json or --quiet."""
        if not (self.as_json or self.quiet):
            click.echo(harmless(text))

    def note(self, text: str) -> None:
        """A hint, on stderr."""
        if not self.quiet:
            click.echo(harmless(text), err=True)

    def error(self, text: str) -> None:
        """Why the exit code is not 0, on stderr, also with --quiet."""
        click.echo(harmless(text), err=True)

    def detail(self, text: str) -> None:
        """What only --verbose asks for, on stderr."""
        if self.verbose or self.debug:
            click.echo(harmless(text), err=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = ""
    ) -> None:
        """A table for people.

        Args:
            empty: the sentence that is printed where there are no rows; by default one made of the title.
        """
        if self.as_json or self.quiet:
            return
        if not rows:
            click.echo(harmless(empty or f"{title}: none"))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        # A pipe has no width: let the table be as wide as it is.
        console = Console(width=None if sys.stdout.isatty() else 160)
        table = Table(
            *columns, title=Text(title), title_justify="left", title_style="bold", show_header=any(columns)
        )
        for row in rows:
            # A plain string would be read as markup.
            table.add_row(*(Text(harmless(_cell(value), keep="")) for value in row))
        console.print(table)

    def answer(self, found: Mapping[str, Any]) -> None:
        """The one JSON object of --json."""
        if self.as_json:
            self.printed = True
            found = found if self.read is None else {**found, "read": self.read}
            text = json.dumps(plain(found), ensure_ascii=False, indent=2, allow_nan=False)
            # JSON escapes only some of what a terminal obeys.
            click.echo(
                _UNSEEN.sub(lambda sign: sign[0] if sign[0] == "\n" else f"\\u{ord(sign[0]):04x}", text)
            )

    def source(self, **more: Any) -> dict[str, Any]:
        """What an answer says of where it comes from."""
        return {**more, "program": f"labeling-connector {version('labeling-connector')}"}

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar on stderr, on a terminal only; call what it gives with how many more are done."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(what, total=total)
            yield lambda n: bars.advance(bar, n)

    def rejected(self, rejects: Sequence[Reject]) -> int | None:
        """Write the rejects to their file; returns the exit code if there were any."""
        if not rejects:
            return None
        from connector.io.files import write_atomic

        path = Path(f"rejects-{self.name.replace(' ', '-')}.jsonl")
        write_atomic(
            path, "".join(json.dumps(r.to_json(), ensure_ascii=False) + "\n" for r in rejects).encode()
        )
        first = rejects[0]
        self.error(f"{len(rejects)} rejected, see {path}; the first: {first.where}: {first.why}")
        return EXIT_REJECTS

    def write_rows(self, frame: pl.DataFrame, path: Path | None) -> None:
        """Write the rows of --out, in the form its name asks for."""
        if path is None:
            return
        import polars as pl

        from connector.io.files import write_atomic

        # A table of text cells has no lists.
        frame = frame.with_columns(
            pl.format("[{}]", pl.col(name).cast(pl.List(pl.String)).list.join(",")).alias(name)
            for name, kind in frame.schema.items()
            if isinstance(kind, pl.List)
        )
        if path.suffix in _SPREADSHEETS and click.get_current_context().meta.get(_SAFE):
            frame = frame.with_columns(_without_formulas(pl.col(pl.String)))
        out = BytesIO()
        _WRITERS[path.suffix](frame, out)
        write_atomic(path, out.getvalue())
        self.say(f"{len(frame)} rows in {path}")


def _without_formulas(text: pl.Expr) -> pl.Expr:
    """Cells that a spreadsheet would run as a formula, with an apostrophe before them; numbers as they are.

    The characters are those that OWASP names under "CSV Injection".
    """
    import polars as pl

    risky = text.str.contains(r"^[=+\-@\t\r]") & ~text.str.contains(r"^[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?$")
    return pl.when(risky).then("'" + text).otherwise(text).name.keep()


def _write_excel(frame: pl.DataFrame, out: BytesIO) -> None:
    """One sheet. Text stays text, and the same rows give the same bytes."""
    import polars as pl
    from xlsxwriter import Workbook  # type: ignore[import-untyped]

    # Excel knows no time zones.
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    frame = frame.with_columns(pl.col(times).dt.to_string("iso:strict"))
    kept = {f"strings_to_{kind}": False for kind in ("numbers", "formulas", "urls")}
    with Workbook(out, {"in_memory": True, "nan_inf_to_errors": True, **kept}) as book:
        book.set_properties({"created": datetime(2000, 1, 1, tzinfo=UTC)})
        frame.write_excel(book)


_WRITERS: Mapping[str, Callable[[pl.DataFrame, BytesIO], object]] = {
    ".csv": lambda frame, out: frame.write_csv(out),
    ".parquet": lambda frame, out: frame.write_parquet(out),
    ".jsonl": lambda frame, out: frame.write_ndjson(out),
    ".xlsx": _write_excel,
}
"""How rows are written, by the ending of the file's name."""


_SPREADSHEETS = (".csv", ".xlsx")

_SAFE = "connector.spreadsheet-safe"


def out_option(help: str) -> Callable[[F], F]:
    """--out, and --spreadsheet-safe, which `Session.write_rows` finds in the context."""

    def decorated(function: F) -> F:
        function = click.option(
            "--spreadsheet-safe",
            is_flag=True,
            expose_value=False,
            callback=_remember_safe,
            help="In .csv and .xlsx, put ' before text that a spreadsheet would run as a formula.",
        )(function)
        return click.option("--out", type=click.Path(path_type=Path), callback=rows_path, help=help)(function)

    return decorated


rows_option = out_option("Write the rows to a .csv, .parquet, .jsonl or .xlsx file.")
"""--out, of most commands."""


def _remember_safe(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_SAFE] = value


def rows_path(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """The file of --out, checked before anything is computed."""
    if value is None:
        return None
    if value.suffix not in _WRITERS:
        raise click.BadParameter(f"{value}: name a .csv, .parquet, .jsonl or .xlsx file", ctx, param)
    if not value.parent.is_dir():
        raise click.BadParameter(f"{value}: there is no folder {value.parent}", ctx, param)
    return value


pass_session = click.make_pass_decorator(Session)


class Command(click.Command):
    """A command with the common options. Its function may return an exit code; errors become one here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += COMMON

    def invoke(self, ctx: click.Context) -> Any:
        config, as_json, quiet, verbose, debug = (ctx.params.pop(name) for name in _KEPT)
        name = " ".join(parent.info_name or "" for parent in _chain(ctx)[1:])
        session = Session(name, config, as_json, quiet, verbose, debug)
        ctx.obj = session
        try:
            return super().invoke(ctx) or 0
        except ConnectorError as error:
            return _failed(session, error, error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.exceptions.Abort, KeyboardInterrupt):
            raise
        except BrokenPipeError:
            sys.stderr.close()  # whoever read us has left; there is nobody to tell
            return 0
        except Exception as error:
            # The one place where unexpected errors are reported to people who cannot fix them.
            hint = "" if debug else "run it again with --debug, and report what it shows"
            ours = ConnectorError(f"internal error: {type(error).__name__}: {error}", hint)
            return _failed(session, ours, ours.exit_code)


def _chain(ctx: click.Context) -> list[click.Context]:
    """The contexts from the program down to the command."""
    return [*(_chain(ctx.parent) if ctx.parent else []), ctx]


def _failed(session: Session, error: ConnectorError, code: int) -> int:
    if session.debug:
        session.error(traceback.format_exc())
    session.error(f"Error: {error}")
    if not session.printed:
        session.answer({"error": error.what, "next": error.hint or None, "exit": code})
    return code


class Group(click.Group):
    """Commands that belong together."""

    command_class = Command


def plain(value: Any) -> Any:
    """A value as JSON has it. What is not a number is null."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    return value


_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
"""Control characters, and those that reorder the text around them."""


def harmless(text: str, keep: str = "\n\t") -> str:
    """A text that shows what a terminal would obey: escape sequences, bells, and marks that reorder text.

    Args:
        keep: control characters that stay.
    """
    return _UNSEEN.sub(lambda sign: sign[0] if sign[0] in keep else ascii(sign[0])[1:-1], text)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
