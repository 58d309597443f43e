"""demo: the whole pipeline once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from connector.commands.session import Command, Session, pass_session


@click.command(cls=Command)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="What it leaves.",
)
@click.option("--items", type=click.IntRange(8), default=60, show_default=True, help="How many pictures.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Of pictures and people.")
@click.option("--keep", is_flag=True, help="Keep the server until Enter is pressed, to look around.")
@pass_session
def demo(session: Session, folder: Path, items: int, seed: int, keep: bool) -> None:
    """Run the whole pipeline once, on a throw-away Label Studio.

    Pictures in a bucket, a real server, five simulated annotators with accounts of their own, their labels
    pulled, measured, reviewed and corrected, and a report. Needs a Label Studio in a folder `.server`:
    `make demo` prepares it, and where it is missing the error names the commands.

    \b
    Example:
        connector demo --keep
    """
    from connector import commands
    from connector.demo.pipeline import run

    def wait(url: str) -> None:
        if keep:
            click.prompt(
                f"\nLabel Studio runs at {url} (olga@example.com, password labeling-1). Enter stops it",
                default="",
                show_default=False,
                err=True,
            )

    shown = run(folder.resolve(), items, seed, commands.run, session.say, wait)
    session.say("")
    session.table(
        "Measured scores, and the true skill",
        (
            "annotator",
            "simulated habit",
            "question",
            "golden score",
            "interval",
            "n",
            "verdict",
            "true skill",
        ),
        [
            (
                skill.annotator,
                skill.habit,
                skill.control,
                skill.score["value"],
                f"{skill.score['low']:.3f} – {skill.score['high']:.3f}",
                skill.score["n"],
                skill.verdict,
                skill.true,
            )
            for skill in shown.skills
        ],
    )
    inside = sum(skill.score["low"] <= skill.true <= skill.score["high"] for skill in shown.skills)
    session.say(
        f"{inside} of {len(shown.skills)} intervals hold the true skill (95 % are meant to).\n"
        f"Report: {shown.report}\n"
        f"Label Studio ran at {shown.url} and is stopped; `connector demo --keep` keeps it to look around.\n"
        f"{shown.seconds:.0f} s in all."
    )
    session.answer(
        {
            "skills": [asdict(skill) for skill in shown.skills],
            "report": str(shown.report),
            "url": shown.url,
            "seconds": shown.seconds,
            "source": session.source(seed=seed),
        }
    )
