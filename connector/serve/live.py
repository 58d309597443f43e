"""What `connector serve` does: it receives, pulls when somebody knocked, and follows the rules.

The receiver, the deliveries and the pulls have a thread each; the caller's waits for the end. A pull is the
one that `connector pull` does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette

from connector.adapters.base import LabelingTool
from connector.config import ASK_SECRET, knock_secret, refuse_short, secret
from connector.errors import ConnectorError, Temporary
from connector.events.callbacks import Receivers
from connector.events.deliver import ABANDONED_AFTER_SECONDS, Sender
from connector.events.detect import gold_answers, note_events
from connector.events.log import STATES, EventLog, Planned
from connector.events.rules import check, planned_by
from connector.io.files import only_one
from connector.io.retry import elapsed
from connector.project import Project
from connector.serve import ask
from connector.serve.inbox import Inbox
from connector.serve.receiver import Metrics, Receiver, application, serving
from connector.serve.watch import Bell, notify_manager, watch
from connector.store.label_store import Store
from connector.sync.rounds import pull

INBOX, EVENTS, LOCK = "connector-inbox.sqlite", "connector-events.sqlite", "connector-serve.lock"

PULLS = "pulls"
"""The thread of the pulls."""

ABANDONED_SECONDS = 3.0
"""How long a stop waits for the pull in progress. It may wait for a bucket that does not answer."""

REST = 4
"""A pull is followed by a rest of so many times its length: the tool has annotators to serve."""


PRUNE_EVERY_SECONDS = 3600.0
"""How often old events are looked for."""


@dataclass
class Live:
    """The parts of the running service. Made by `opened`."""

    project: Project
    tool: LabelingTool
    inbox: Inbox
    log: EventLog
    asks: ask.Asks
    metrics: Metrics
    planned: Planned
    stop: threading.Event
    bell: Bell
    say: Callable[[str], None]
    _store: Store | None = field(default=None, repr=False)
    _took: float = 0
    _pruned: float | None = field(default=None, repr=False)

    def app(self) -> Starlette:
        """The ASGI app of the receiver.

        Raises:
            AuthError: if there is no secret by which the labeling tool is known.
            UsageError: if a secret is too short.
        """
        webhook_secret = knock_secret()
        settings = self.project.config.serve
        receiver = Receiver(
            self.tool.parse_event,
            webhook_secret,
            self.inbox,
            self.bell.ring,
            self.metrics,
            settings,
            self.tool.capabilities.signs_events,
        )
        asking = secret(ASK_SECRET)
        if not asking:
            return application(receiver)
        refuse_short(ASK_SECRET, asking.encode())
        reserved = self.tool.capabilities.reserved
        more = ask.routes(self.asks, asking, self.bell.ring, self.stop, receivers(self.project), reserved)
        return application(receiver, *more)

    def round(self) -> None:
        """Pull, note what happened, and what is to be done about it; then bring before people what was asked.

        What was asked comes last: whatever is wrong with a question, all else was done before.
        """
        begun = elapsed()
        try:
            knocked = self.inbox.last()
            # What a store knows of itself is good as long as nothing fails: it is not read anew each time.
            store, self._store = self._store or self.project.store(), None
            pull(self.tool, store)
            note_events(store, self.log, self.project.config, self.planned)
            self.asks.settle(self.tool, self.planned, elapsed() - begun)
            self.inbox.followed(knocked)
        except ConnectorError as error:
            self.metrics.pulled(error.what)
            raise
        self.metrics.pulled(None)
        self._store = store
        try:
            if self.asks.place(self.tool, store, self.planned):
                self.bell.ring()  # what is there already may be answered already
        except Temporary as error:
            # All else is done. It comes again with the next round, which is no later for it.
            self.say(error.what)
        self._took = elapsed() - begun
        self._prune()

    def _prune(self) -> None:
        """Now and then, delete what is older than it is to be kept."""
        if self._pruned is not None and time.monotonic() - self._pruned < PRUNE_EVERY_SECONDS:
            return
        self._pruned = time.monotonic()
        try:
            before = self.log.outdated(self.project.config.events.keep_days)
            self.log.prune(before)
            self.asks.prune(before)
        except ConnectorError as error:
            self.say(f"old events are not deleted yet: {error.what}")

    def pause(self, seconds: float) -> None:
        """Wait for the next round: until somebody knocks, a question expires, or the time is up."""
        settings = self.project.config.serve
        settle = min(max(settings.settle_seconds, REST * self._took), settings.pull_seconds)
        with suppress(ConnectorError):  # the next round reports it
            seconds = min(seconds, self.asks.seconds_left() + 0.01)
        self.bell.wait(seconds, settle)


@contextmanager
def opened(project: Project, stop: threading.Event, say: Callable[[str], None]) -> Iterator[Live]:
    """The parts of a project, ready to run.

    Args:
        say: told what goes wrong.

    Raises:
        UsageError: if a rule cannot be followed, or the file of gold answers cannot be read.
        AuthError: if a secret is missing.
    """
    tool = project.tool()
    check(project.config.rules, tool.capabilities, receivers(project))
    gold_answers(project.config)
    with (
        closing(Inbox(project.config.folder / INBOX, project.name)) as inbox,
        closing(event_log(project)) as log,
    ):
        planned, metrics = planned_by(project.config.rules, log), Metrics(inbox)
        for state in STATES:
            metrics.deliveries.labels(state).set_function(partial(log.count, state))
        yield Live(project, tool, inbox, log, ask.Asks(log), metrics, planned, stop, Bell(stop), say)


def event_log(project: Project) -> EventLog:
    """The events of a project."""
    return EventLog(project.config.folder / EVENTS, project.name)


def receivers(project: Project) -> Receivers:
    """Those that rules and questions may call."""
    return Receivers(project.config.callbacks.allow, project.config.tool.url)


def serve(project: Project, stop: threading.Event, say: Callable[[str], None]) -> int:
    """Receive, pull and follow the rules until `stop` is set; returns how many pulls went well.

    A pull that does not end soon after is left behind; see `abandoned`. The next one goes on from its last
    commit.

    Args:
        say: told where it listens, and what goes wrong.

    Raises:
        Temporary: if another process serves from the same folder.
        ConnectorError: what waiting does not fix.
        Exception: what broke the receiver or the deliveries.
    """
    settings, broken, rounds = project.config.serve, list[BaseException](), list[int]()

    def broke(error: BaseException) -> None:
        # A service that lacks a part must not look healthy. The service manager starts it again.
        broken.append(error)
        stop.set()

    def pull_until_stopped(live: Live) -> None:
        def counted() -> None:
            live.round()
            rounds.append(1)

        try:
            watch(counted, live.tool.count_tasks, settings.pull_seconds, stop, say, live.pause)
        except BaseException as error:  # a library that panics raises no `Exception`
            broke(error)

    with only_one(project.config.folder / LOCK, "`connector serve`"), opened(project, stop, say) as live:
        # An adapter is for one thread.
        sender = Sender(live.log, project.tool(), project.export, receivers(project))
        sending = threading.Thread(
            target=_send, args=(sender, live, say, broke), name="deliveries", daemon=True
        )
        pulling = threading.Thread(target=pull_until_stopped, args=(live,), name=PULLS, daemon=True)
        with serving(live.app(), settings.host, settings.port, broke) as url:
            say(f"listening on {url}; events go to {url}/events; SIGTERM or Ctrl-C ends it")
            sending.start()
            notify_manager("READY=1")
            pulling.start()
            try:
                stop.wait()  # not in this thread: signals are handled while it waits, and not in a library
            finally:
                stop.set()
                notify_manager("STOPPING=1")
                pulling.join(ABANDONED_SECONDS)
                sending.join(2 * ABANDONED_AFTER_SECONDS)
    if broken:
        raise broken[0]
    return sum(rounds)


def abandoned() -> bool:
    """Whether a pull was left behind, and still waits. Its threads hold up the end of the interpreter."""
    return any(thread.name == PULLS for thread in threading.enumerate())


SEND_EVERY_SECONDS = 0.5
"""How often it is checked which deliveries are due."""

LONGEST_PAUSE_SECONDS = 60.0
"""Between checks while the log of deliveries cannot be read or written: each pause is twice the last one."""


def _send(sender: Sender, live: Live, say: Callable[[str], None], broke: Callable[[Exception], None]) -> None:
    pause = SEND_EVERY_SECONDS
    try:
        while not live.stop.wait(pause):
            try:
                sender.send_due(live.stop, live.bell.ring)  # what was sent may have changed the tool
                pause = SEND_EVERY_SECONDS
            except ConnectorError as error:
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                say(f"{error}; again in {pause:.0f} s")
    except Exception as error:
        broke(error)
