"""The journal of corrections: what was meant to be sent, what stood there before, and what became of it.

It is a folder of segments `00000001.jsonl`, `00000002.jsonl`, … beside the label store. A segment is written
once and never changed: of two who write the same one, the second is refused, so two runs cannot go on at the
same time. Each line contains the SHA-256 of the line before, so whoever changes, drops or inserts one breaks
the chain; the last line of a segment is a seal (see `keys`), which only a holder of the key can make. What is
in a segment is on the disk, or in the bucket, when `append` returns.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, TypeAdapter, ValidationError

from connector.config import JOURNAL_KEY
from connector.errors import Conflict, UsageError
from connector.io.files import make_folder, write_new
from connector.io.objects import Objects
from connector.journal.actions import KINDS, Held, Sender
from connector.journal.correction import Action, Correction, Record
from connector.journal.keys import Keys, Seal
from connector.journal.renames import Renames
from connector.model import Annotation, dump_json
from connector.quality.answers import ABSENT

_NAME = re.compile(r"\d{8}\.jsonl")

_FIRST = "0" * 64
"""What the first line of all bears in the place of a hash."""


class State(StrEnum):
    """How far a correction has come. `sent` and `undoing` may or may not have arrived."""

    SENT = "sent"
    WRITTEN = "written"
    CONFLICT = "conflict"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    EDITED = "edited since"
    """It was to be undone, and had been edited."""


class Begun(Record):
    """A run, or its undoing, that was begun or gone on with.

    Attributes:
        session: tells two processes apart.
        by: in whose name it writes.
        renames, limited: as of `Plan`.
    """

    kind: Literal["begun"] = "begun"
    run: str
    at: datetime
    project: str
    by: str
    undo: bool = False
    source: Mapping[str, object] = {}
    renames: Renames = Field(default_factory=dict)
    limited: bool = False
    session: str = Field(default_factory=lambda: uuid.uuid4().hex)


class Intent(Record):
    """A correction that is about to be sent, and what stands there before."""

    kind: Literal["intent"] = "intent"
    run: str
    at: datetime
    number: int
    correction: Correction
    before: Held


class Undoing(Record):
    """A correction that is about to be taken back."""

    kind: Literal["undoing"] = "undoing"
    run: str
    at: datetime
    number: int


class Outcome(Record):
    """What became of it.

    Attributes:
        correction: where it was never to be sent, so that no intent tells it.
        after: what the tool holds then.
        made: annotations that an undoing wrote.
    """

    kind: Literal["outcome"] = "outcome"
    run: str
    at: datetime
    number: int
    state: State
    correction: Correction | None = None
    after: Held | None = None
    made: tuple[Annotation, ...] = ()
    why: str = ""


Entered = Begun | Intent | Undoing | Outcome

_LINE: TypeAdapter[Entered | Seal] = TypeAdapter(Annotated[Entered | Seal, Field(discriminator="kind")])


@dataclass(frozen=True, slots=True)
class Entry:
    """One correction of a run, and how far it has come.

    Attributes:
        before: what stood there; None if it was never to be sent.
        after: what we wrote; None as far as we know of nothing.
        made: what its undoing wrote.
        by: who sent it.
    """

    number: int
    correction: Correction
    state: State
    before: Held | None
    after: Held | None
    why: str
    at: datetime
    by: str
    made: tuple[Annotation, ...] = ()


@dataclass(frozen=True, slots=True)
class Renaming:
    """Labels that a run has renamed.

    Attributes:
        limited: whether only in the annotations that it wrote.
        holds: whether they still are: it was applied, and nothing of it was undone.
    """

    run: str
    names: Renames
    limited: bool
    holds: bool


@dataclass
class Run:
    """A plan that was applied, and perhaps undone.

    Attributes:
        source: what it was made from.
        renames, limited: as of `Plan`.
    """

    run: str
    project: str
    by: str
    at: datetime
    source: Mapping[str, object] = field(default_factory=dict)
    renames: Renames = field(default_factory=dict)
    limited: bool = False
    entries: dict[int, Entry] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, int]:
        """How many corrections there are of each state."""
        return dict(Counter(str(entry.state) for entry in self.entries.values()))

    def renaming(self) -> Renaming | None:
        """The labels that it has renamed, and whether they still are; None if it renames none."""
        names, limited = self.renames, self.limited
        if not names and self.source.get("from") == "ontology":
            names, limited = self._renamed_by_changes(), True
        if not names:
            return None
        states = {entry.state for entry in self.entries.values()}
        holds = bool(states & {State.SENT, State.WRITTEN}) and not states & {State.UNDOING, State.UNDONE}
        return Renaming(self.run, names, limited, holds)

    def _renamed_by_changes(self) -> Renames:
        """What the corrections of a run renamed that was begun before runs noted their renames."""
        names: dict[str, dict[str, str | None]] = {}
        for entry in self.entries.values():
            if entry.correction.action is Action.REPLACE:
                for one in entry.correction.changes:
                    names.setdefault(one.control, {})[one.now] = None if one.then == ABSENT else one.then
        return names


@dataclass(frozen=True, slots=True)
class Chain:
    """How long a journal is. Whoever keeps `head` can prove later that nothing was cut off.

    Attributes:
        proven: the number of lines, from the first, that are as noted earlier: by the label store, or by the
            hash that was given.
        authenticated: whether the seal of the last segment, which covers all lines, was checked: there were
            keys to do so.
    """

    segments: int
    lines: int
    head: str
    proven: int = 0
    authenticated: bool = False


class Mark(Record):
    """How far the label store has read a journal: the number of lines, and the hash of the last of them."""

    lines: int
    head: str


@dataclass
class Plans:
    """Which plan wrote what annotators did not.

    Attributes:
        known: the plan of each annotation's id and revision, and which correction of it.
        restored: ids and revisions of what an undoing wrote, and is its annotator's own.
        doubtful: the plan of each task and content that was sent, and may have arrived.
    """

    known: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    restored: set[tuple[str, str]] = field(default_factory=set)
    doubtful: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, task: str, annotation: str, revision: str) -> str | None:
        """The plan that wrote this version of an annotation; None if it is its annotator's."""
        if sure := self.known.get((annotation, revision)):
            return sure[0]
        if (annotation, revision) in self.restored:
            return None
        return self.doubtful.get((task, revision.rpartition("/")[2]))


_NO_KEYS = Keys(())


class Journal:
    """Every correction ever sent to one project.

    Args:
        url: its folder, here or in a bucket; it is made with the first run.
        options: `endpoint`, `region`, … of a bucket.
        scratch: keep what is new in memory and leave the folder as it is, for a dry run.
        keys: what authenticates it. Without any it can be read, unauthenticated, and not written.
        accept: take what is there at the first reading as it is, as versions before seals wrote it. The next
            segment seals it.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, str] | None = None,
        scratch: bool = False,
        keys: Keys = _NO_KEYS,
        accept: bool = False,
    ) -> None:
        self._place = Objects(url, options or {})
        self._scratch = scratch
        self._keys = keys
        self._unsealed: str | None = None
        self._accepted = None if accept else 0
        self._segments = self._lines = 0
        self._head = _FIRST
        self._ends = {0: _FIRST}
        self._noted = 0
        self._runs: dict[str, Run] = {}
        self._told: list[Entered] = []
        self._plans = Plans()

    @property
    def url(self) -> str:
        """Where it is."""
        return self._place.url

    # Reading.

    def _catch_up(self) -> None:
        """Read the segments that others, or we, have written since.

        Raises:
            UsageError: naming the first line that is not what was written; or, if there are keys, the newest
                segment where none of them sealed it.
        """
        if self._folder and not self._folder.is_dir():
            return
        names = sorted(one.path for one in self._place.list() if _NAME.fullmatch(one.path))
        if self._scratch and self._segments > len(names):
            return
        if len(names) < self._segments:
            raise self._broken(f"{_name(len(names) + 1)} is missing")
        for name in names[self._segments :]:
            if name != _name(self._segments + 1):
                raise self._broken(f"{_name(self._segments + 1)} is missing, and {name} is there")
            self._take(name, self._place.read(name))
        self._check_seal()

    def _check_seal(self) -> None:
        """Require that whoever wrote the newest segment has a key: its seal covers everything before it."""
        if self._accepted is None:
            self._accepted = self._segments
        if self._keys and self._unsealed and self._segments > self._accepted:
            raise UsageError(
                f"the journal {self.url} is not authenticated: {self._unsealed}",
                "if an earlier version wrote it, check it (`connector correct log`) and pass "
                "--unauthenticated once; if a machine with another key did, give all machines the same; else "
                "restore that folder from a copy",
            )

    @property
    def _folder(self) -> Path | None:
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def _take(self, name: str, data: bytes) -> None:
        """Read one segment, all of it or nothing."""
        lines = data.split(b"\n")
        if lines.pop() or not lines:
            raise self._broken(f"{name}:{len(lines) + 1} was cut off")
        head, entered, seal = self._head, list[Entered](), None
        for number, line in enumerate(lines, 1):
            where = f"{name}:{number}"
            if not line.startswith(_bearing(head)):
                raise self._broken(f"{where} does not follow from the line before it")
            if seal:
                raise self._broken(f"{where} follows the seal of its segment")
            try:
                one = _LINE.validate_json(b"{" + line.removeprefix(_bearing(head)))
            except ValidationError as error:
                raise self._broken(f"{where} cannot be read: {error.errors()[0]['msg']}") from error
            if isinstance(one, Seal):
                seal = self._keys.made(one, name, head), one.key
            else:
                entered.append(one)
            head = hashlib.sha256(line).hexdigest()
        self._unsealed = self._fault(name, seal)
        for one in entered:
            self._fold(one)
        self._told += entered
        self._head, self._segments, self._lines = head, self._segments + 1, self._lines + len(lines)
        self._ends[self._lines] = head

    def _fault(self, name: str, seal: tuple[bool | None, str] | None) -> str | None:
        """What keeps the seal of a segment from authenticating it; None if nothing does.

        Args:
            seal: whether one of the keys made it, and which key it names.
        """
        made, key = seal or (None, "")
        if made is False:
            raise self._broken(f"{name} bears a seal that the key {key} did not make")
        if seal is None:
            return f"{name} has no seal"
        return None if made else f"{name} is sealed with the key {key}, which {JOURNAL_KEY} does not hold"

    def _broken(self, what: str) -> UsageError:
        return UsageError(
            f"the journal {self.url} was tampered with or damaged: {what}",
            "restore that folder from a copy; nothing is applied, undone or stored meanwhile",
        )

    def _fold(self, one: Entered) -> None:
        if isinstance(one, Begun):
            begun = Run(one.run, one.project, one.by, one.at, one.source, one.renames, one.limited)
            run = self._runs.setdefault(one.run, begun)
            run.by = run.by if one.undo else one.by
            return
        run = self._runs[one.run]
        if isinstance(one, Intent):
            run.entries[one.number] = Entry(
                one.number, one.correction, State.SENT, one.before, None, "", one.at, run.by
            )
            self._fold_plans(run.run, run.entries[one.number], None)
            return
        was = run.entries.get(one.number)
        if isinstance(one, Outcome) and one.correction:
            run.entries[one.number] = Entry(
                one.number, one.correction, one.state, None, None, one.why, one.at, run.by
            )
        elif was and isinstance(one, Undoing):
            run.entries[one.number] = replace(was, state=State.UNDOING, why="", at=one.at)
        elif was and isinstance(one, Outcome):
            if was.state is State.UNDONE:
                was = replace(was, before=None, after=None)  # that is over: it was never sent again
            after = one.after or was.after
            self._fold_plans(run.run, was, one)
            run.entries[one.number] = replace(
                was, state=one.state, after=after, why=one.why, at=one.at, made=one.made
            )
            for new in one.made:
                self._fold_restored(run.entries[one.number], new)

    def _fold_plans(self, run: str, entry: Entry, outcome: Outcome | None) -> None:
        """Until it is known what became of a write, whatever has its content may be it."""
        by = Sender(entry.by, run)
        kind = KINDS[entry.correction.action]
        for one in kind.wanted(entry.correction, entry.before, by) if entry.before else ():
            if outcome is None or outcome.state is State.FAILED:
                self._plans.doubtful[one.task_id, one.content] = run
            else:
                self._plans.doubtful.pop((one.task_id, one.content), None)
        for one in outcome.after.annotations if outcome and outcome.after else ():
            self._plans.known[str(one.id), one.revision] = run, entry.number

    def _fold_restored(self, entry: Entry, new: Annotation) -> None:
        """What an undoing wrote is whose it was before: an annotator's, or an earlier plan's.

        That plan finds it as it left it, and can be undone too.
        """
        held = entry.before.annotations if entry.before else ()
        was = next((one for one in held if one.id == new.id), held[0])
        if writer := self._plans.known.get((str(was.id), was.revision)):
            self._plans.known[str(new.id), new.revision] = writer
            run, number = writer
            theirs = self._runs[run].entries[number]
            if theirs.after:
                left = tuple(new if one.id == was.id else one for one in theirs.after.annotations)
                after = theirs.after.model_copy(update={"annotations": left})
                self._runs[run].entries[number] = replace(theirs, after=after)
        else:
            self._plans.restored.add((str(new.id), new.revision))

    def entries(self, run: str) -> dict[int, Entry]:
        """The corrections of a run, by their place in the plan."""
        self._catch_up()
        return dict(self._runs[run].entries) if run in self._runs else {}

    def runs(self) -> list[Run]:
        """Every run, in the order in which they began."""
        self._catch_up()
        return list(self._runs.values())

    def renamings(self) -> list[Renaming]:
        """The labels that runs have renamed, in the order in which they began."""
        return [one for run in self.runs() if (one := run.renaming())]

    def told(self) -> Iterator[Entered]:
        """Everything that stands in it, in order."""
        self._catch_up()
        yield from self._told

    def chain(self, head: str | None = None) -> Chain:
        """Read all of it anew, and prove that it was not changed.

        Args:
            head: the hash of its last line at an earlier time: then nothing up to there was cut off.

        Raises:
            UsageError: naming the first line that is not what was written.
        """
        fresh = Journal(self.url, self._place.options, keys=self._keys)
        fresh._catch_up()
        lines = enumerate(fresh._hashes(), 1)
        proven = next((number for number, one in lines if one == head), 0) if head else 0
        if head is not None and not proven:
            raise self._broken(f"no line of it has the hash {head}")
        proven = max(proven, self._noted)
        return Chain(fresh._segments, fresh._lines, fresh._head, proven, bool(self._keys))

    def mark(self) -> Mark:
        """How long it is now, for whoever keeps that elsewhere and compares it later."""
        self._catch_up()
        return Mark(lines=self._lines, head=self._head)

    def confirm(self, seen: Mark | None, runs: Iterable[str] = ()) -> None:
        """Compare it with what the label store knows of it.

        Args:
            seen: how far the store has read it; None where that was not noted yet.
            runs: those that wrote annotations which the store holds.

        Raises:
            UsageError: if it is missing or shorter than it was, or was rewritten.
        """
        self._catch_up()
        lost = sorted(set(runs) - self._runs.keys())
        if not self._segments and (lost or (seen and seen.lines)):
            run = f"run {lost[0]}" if lost else "it"
            raise self._broken(f"it is missing, and the label store knows of {run}")
        if seen and seen.lines > self._lines:
            raise self._broken(
                f"it ends after {self._lines} lines, and the label store has read {seen.lines}"
            )
        if seen and self._ends.get(seen.lines) != seen.head:
            raise self._broken(f"its first {seen.lines} lines are not the ones that the label store has read")
        if lost:
            raise self._broken(f"it lacks run {lost[0]}, of which the label store holds corrections")
        self._noted = seen.lines if seen else 0

    def _hashes(self) -> Iterator[str]:
        for number in range(1, self._segments + 1):
            for line in self._place.read(_name(number)).splitlines():
                yield hashlib.sha256(line).hexdigest()

    def plans(self) -> Plans:
        """Which plan wrote what, for whoever keeps what the tool holds."""
        self._catch_up()
        return self._plans

    # Writing.

    def append(self, entered: Sequence[Entered]) -> None:
        """Write a segment, and seal it. It is kept for good when this returns.

        Raises:
            AuthError: if there is no key.
            UsageError: if what it continues is not authenticated.
            Conflict: if another writer has added one since this journal was read.
        """
        if not entered:
            return
        self._check_seal()
        name = _name(self._segments + 1)
        data = self._linked(name, entered)
        if not self._scratch:
            try:
                self._write_new(name, data)
            except Conflict as error:
                # After an answer that was lost, what is there is ours.
                if self._place.read(name) != data:
                    raise Conflict(
                        f"another run is writing to the journal {self.url}",
                        "wait until it has ended, then run this again",
                    ) from error
        self._take(name, data)

    def _linked(self, name: str, entered: Sequence[Entered]) -> bytes:
        head, lines = self._head, []

        def link(one: Record) -> None:
            nonlocal head
            line = _bearing(head) + dump_json(one.model_dump(mode="json")).encode()[1:]
            head = hashlib.sha256(line).hexdigest()
            lines.append(line + b"\n")

        for one in entered:
            link(one)
        link(self._keys.seal(name, head))
        return b"".join(lines)

    def _write_new(self, name: str, data: bytes) -> None:
        if self._folder is None:
            self._place.write_new(name, data)
            return
        make_folder(self._folder)
        write_new(self._folder / name, data)


def journal_of(store: str) -> str:
    """The URL of the journal of corrections: beside the label store of this URL, and not among its files.

    >>> journal_of("s3://bucket/labels")
    's3://bucket/labels-corrections'
    >>> journal_of("s3://bucket")
    's3://bucket/_corrections'
    """
    place = store.rstrip("/")
    _, found, below = place.partition("://")
    # Of a store that is a whole bucket: programs that tidy up such a table leave names that begin so.
    whole_bucket = found and "/" not in below
    return f"{place}/_corrections" if whole_bucket else f"{place}-corrections"


def _name(number: int) -> str:
    return f"{number:08}.jsonl"


def _bearing(head: str) -> bytes:
    """How a line begins that follows the line of this hash."""
    return b'{"prev":"' + head.encode() + b'",'
