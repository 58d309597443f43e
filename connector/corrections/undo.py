"""Undo a run: what is still as it was left becomes what it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from connector.adapters.base import LabelingTool, batches
from connector.corrections.apply import BATCH, Applied, Lost, Progress, make_queues
from connector.errors import AuthError, BadRecord, Conflict, Reject, Temporary, UsageError
from connector.io.retry import paced
from connector.journal.actions import KINDS, Back, Kind, Sender, Sent
from connector.journal.journal import Begun, Entered, Entry, Journal, Outcome, State, Undoing
from connector.model import Annotation, Task


def undo(
    tool: LabelingTool,
    run: str,
    project: str,
    journal: Journal,
    now: Callable[[], datetime],
    progress: Progress = lambda _: None,
    rate: float | None = None,
) -> Applied:
    """Take back a run, the last correction first, each only if it is still as we left it.

    What was edited since is a conflict, and stays. An annotation that was deleted is made again, with a
    new id. Whatever stops it, the same call goes on from there.

    Args:
        rate: at most so many corrections a second.

    Raises:
        UsageError: if the journal knows no such run, or it was of another project; or it is broken.
        Conflict: if another run is writing to the journal.
    """
    known = next((one for one in journal.runs() if one.run == run), None)
    if known is None or known.project != project:
        raise UsageError(f"the journal knows no run {run} of {project}", "see `connector correct log`")
    work = _Undo(tool, journal, now, run)
    entries = [known.entries[number] for number in sorted(known.entries, reverse=True)]
    todo = [entry for entry in entries if entry.state is not State.UNDONE and entry.before]
    work.done.already = sum(entry.state is State.UNDONE for entry in entries)
    progress(len(entries) - len(todo))
    work.made |= {str(one.id) for entry in entries for one in entry.made}
    if todo:
        work.pending.append(Begun(run=run, at=now(), project=project, by=tool.whoami().name, undo=True))
        work.run(todo, rate, progress)
    if not work.done.stopped:
        work.done.stopped = make_queues(tool, journal.entries(run), run)
    return work.done


class _Undo:
    """One call of `undo`."""

    def __init__(self, tool: LabelingTool, journal: Journal, now: Callable[[], datetime], run: str) -> None:
        self.tool, self.journal, self.now, self.name = tool, journal, now, run
        self.done = Applied(run)
        self.pending: list[Entered] = []
        self.made: set[str] = set()

    def run(self, todo: Sequence[Entry], rate: float | None, progress: Progress) -> None:
        try:
            for entry in paced(self._ready(todo, progress), rate):
                self._take_back(entry)
                progress(1)
        except (Temporary, AuthError) as error:
            self.done.stopped = error
        self.journal.append(self.pending)

    def _ready(self, todo: Sequence[Entry], progress: Progress) -> Iterator[Entry]:
        """What was written, each noted in the journal before it is given out."""
        for batch in batches(todo, BATCH):
            tasks = {t.id: t for t in self.tool.read_tasks(list({e.correction.task for e in batch}))}
            ready = [mine for entry in batch if (mine := self._ours(entry, tasks.get(entry.correction.task)))]
            progress(len(batch) - len(ready))
            intents = [Undoing(run=self.name, at=self.now(), number=entry.number) for entry in ready]
            self.journal.append([*self.pending, *intents])
            self.pending.clear()
            yield from ready

    def _ours(self, entry: Entry, task: Task | None) -> Entry | None:
        """What we wrote, also where we were interrupted before we knew; None where nothing was."""
        if entry.after or not entry.before:
            return entry if entry.after else None
        kind = KINDS[entry.correction.action]
        after = task and kind.arrived(task, entry.correction, entry.before, Sender(entry.by, self.name))
        return replace(entry, after=after) if after else None

    def _take_back(self, entry: Entry) -> None:
        assert entry.before is not None, "only what was sent is ready"
        assert entry.after is not None, "only what was written is ready"
        where = f"task {entry.correction.task}"
        try:
            # Read anew for each: another of this run may have been on the same task.
            task = self.tool.read_task(entry.correction.task)
            sent = Sent(entry.before, entry.after, self.made)
            back = self._taken_back(task, KINDS[entry.correction.action], sent)
        except Conflict as error:
            self._settle(entry, State.EDITED, error.what)
            self.done.conflicts.append(Reject(where, error.what))
        except (BadRecord, UsageError) as error:
            self._settle(entry, State.EDITED, error.what)
            self.done.failed.append(Reject(where, error.what))
        except Lost as error:
            self.done.failed.append(Reject(where, error.what))
        else:
            self.made |= {str(one.id) for one in back.made}
            self._settle(entry, State.UNDONE, back.told, back.made)
            self.done.written += 1
            self.done.notes += [Reject(where, back.told)] if back.told else []

    def _taken_back(self, task: Task, kind: Kind, sent: Sent) -> Back:
        try:
            return kind.take_back(self.tool, task, sent)
        except Temporary:
            # It is unknown whether it arrived: what did is not done again.
            task = self.tool.read_task(task.id)
        try:
            return kind.take_back(self.tool, task, sent)
        except Temporary as error:
            raise Lost(error.what) from error

    def _settle(self, entry: Entry, state: State, why: str, made: tuple[Annotation, ...] = ()) -> None:
        self.pending.append(
            Outcome(
                run=self.name,
                at=self.now(),
                number=entry.number,
                state=state,
                after=entry.after,
                made=made,
                why=why,
            )
        )
