"""The command line. Every command parses, calls one function, prints.

This file imports nothing heavier than click: a command's own file is imported when it is asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module

import click

COMMANDS = {
    "demo": ("demo:demo", "Run the whole pipeline once, on a throw-away Label Studio."),
    "init": ("setup:init", "Write a configuration, connector.toml."),
    "doctor": ("setup:doctor", "Check every connection, and say how to fix it."),
    "status": ("setup:status", "Show the state of the project."),
    "push": ("sync:push", "Make a task of every object of the bucket."),
    "pull": ("sync:pull", "Bring what people labeled into the label store."),
    "sync": ("sync:sync", "Push and pull, once or as long as it runs."),
    "reconcile": ("sync:reconcile", "Prove that bucket, tool and store agree, item by item."),
    "ontology": ("ontology:ontology", "The questions people are asked, and their labels."),
    "quality": ("quality:quality", "How good the labels are."),
    "review": ("review:review", "An expert looks at a sample; the rest is inferred."),
    "correct": ("correct:correct", "Write corrections back, and take them back."),
    "webhook": ("webhook:webhook", "Let the labeling tool tell the receiver what happens."),
    "serve": ("serve:serve", "Receive the tool's events, pull at once, and follow the rules."),
    "rules": ("rules:rules", "What is done when something happens, and what became of it."),
    "export": ("export:export", "Write the labels into one file: .parquet, .jsonl or .json."),
    "store": ("store:store", "The label store: its versions, and its care."),
    "report": ("report:report", "Write the report, one HTML file."),
}
"""The commands in the order of the pipeline: where each is, and its one line of help."""


class Line(click.Group):
    """The commands, imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command: click.Command = getattr(import_module(f"connector.commands.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # click compares with the commands that it knows, and these are not imported yet.
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=COMMANDS, ctx=ctx
            ) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=Line, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labeling-connector", prog_name="connector")
def line() -> None:
    """The connector around a labeling tool.

    \b
    bucket --push--> labeling tool --pull--> label store --quality--> plan --apply--> labeling tool

    \b
    Example:
        connector init --url http://localhost:8080 --project 1 --raw s3://pictures/raw
        connector doctor && connector push
        connector pull && connector quality summary && connector report

    Exit codes: 0 done, 1 internal error, 2 wrong use or configuration, 3 a quality gate did not hold, 4 rows
    were rejected, 5 authentication failed, 6 the tool or bucket is temporarily unavailable (run the same
    command again), 7 the tool changed meanwhile (pull, then plan again), 130 interrupted (run again, it
    continues).
    """


def run(words: Sequence[str]) -> int:
    """Run a command; returns its exit code.

    Args:
        words: what stands behind `connector` on the command line.
    """
    try:
        code = line.main(list(words), prog_name="connector", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted; run the same command again, it continues", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        if "--json" in words:
            said = {"error": error.format_message(), "next": "see --help", "exit": error.exit_code}
            click.echo(json.dumps(said, ensure_ascii=False, indent=2))
        return error.exit_code
    return code if isinstance(code, int) else 0


def main() -> None:
    """The command line."""
    sys.exit(run(sys.argv[1:]))
