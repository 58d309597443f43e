"""The documentation says what the program does. `make docs` writes docs/commands.md anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from connector.commands import COMMANDS, line
from connector.commands.session import COMMON
from connector.config import parse

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "commands.md"


def commands(group: click.Group, *words: str) -> Iterator[tuple[str, click.Command]]:
    """Every command and group below one, with the words that call it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield " ".join((*words, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


ALL = dict(commands(line))


def reference() -> str:
    """docs/commands.md, from the commands themselves."""
    text = "# Commands\n\nMade by `make docs` from the program's own help.\n"
    program = click.Context(line, info_name="connector", **line.context_settings)
    for words, command in ALL.items():
        with click.Context(command, program, info_name=words, terminal_width=100) as ctx:
            shown = "\n".join(row.rstrip() for row in command.get_help(ctx).splitlines())
        text += f"\n## connector {words}\n\n```\n{shown}\n```\n"
    return text


def test_the_reference_is_what_the_commands_say() -> None:
    assert REFERENCE.read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("words", ALL)
def test_every_command_has_help_with_a_worked_example_and_the_common_options(words: str) -> None:
    command = ALL[words]
    assert command.help
    if not isinstance(command, click.Group):
        assert f"connector {words.split()[0]}" in command.help.split("Example:")[1]
        assert {option.name for option in COMMON} <= {option.name for option in command.params}
        assert all(option.help for option in command.params if isinstance(option, click.Option))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_command_says(name: str) -> None:
    assert COMMANDS[name][1] == str(ALL[name].help).strip().splitlines()[0]


def test_what_writes_can_be_tried_dry() -> None:
    for words in ("init", "push", "ontology push", "review queue", "correct apply", "correct undo"):
        assert "dry_run" in {option.name for option in ALL[words].params}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_every_command_in_the_documents_exists(page: Path) -> None:
    for words in re.findall(r"(?:^|`|\$ |&& |    )connector ((?:[a-z]+ ?)+)", page.read_text(), re.M):
        first, *rest = words.split()
        assert first in ALL, f"{page.name} names `connector {words}`"
        if isinstance(ALL[first], click.Group) and rest:
            assert f"{first} {rest[0]}" in ALL, f"{page.name} names `connector {words}`"


def test_documents_link_to_files_that_are_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_the_settings_that_a_page_shows_load(page: Path) -> None:
    for settings in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL):
        parse(settings, page)


if __name__ == "__main__":
    REFERENCE.write_text(reference())
