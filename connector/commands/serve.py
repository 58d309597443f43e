"""serve: the receiver, and what follows from what it receives."""

from __future__ import annotations

import os
import sys
import threading

import click

from connector.commands.session import Command, Session, pass_session


@click.command(cls=Command)
@pass_session
def serve(session: Session) -> None:
    """Receive the tool's events, pull at once, and follow the rules.

    An event is answered when it is on the disk, and never makes an annotator wait. A pull follows within a
    second or so, and every minute even if nobody knocked. What the pull brings becomes events, such as
    task.completed, and the rules in connector.toml say what is done about them. People can be asked over
    HTTP where LABELING_ASK_SECRET is set. It goes on until SIGTERM, SIGHUP or
    Ctrl-C. One process serves from a folder; a second one ends with exit 6.

    \b
    Example:
        export LABELING_WEBHOOK_SECRET="$(openssl rand -hex 32)"
        connector serve
    """
    from connector.serve.live import abandoned
    from connector.serve.live import serve as run
    from connector.serve.watch import stopped_by_signals

    stop = threading.Event()
    with stopped_by_signals(stop):
        rounds = run(session.project, stop, session.note)
    session.say(f"{rounds} pulls")
    session.answer({"pulls": rounds, "source": session.source()})
    if abandoned():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # the interpreter would wait for the pull, and the pull for the bucket
