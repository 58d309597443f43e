"""What a report shows: plain things, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from connector.quality.interval import CONFIDENCE, Estimate


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure.

    Attributes:
        estimate: a share from 0 to 1, or a coefficient such as alpha from -1 to 1.
        percent: whether it reads as a percentage.
        limit: the quality gate it is held against, if any; drawn as a mark.
        not_counted: answers that it leaves out, and why.
    """

    name: str
    estimate: Estimate
    comment: str = ""
    percent: bool = True
    limit: float | None = None
    not_counted: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AnnotatorRow:
    """One annotator.

    Attributes:
        seconds_median: per annotation; None where the tool did not measure.
        per_hour: annotations in an hour of work.
        agreement: the share of the others' answers that agree with this annotator's; `n` counts those.
        agreement_with_majority: how often the answer was that of most others; no accuracy.
        verdict: `fail` where the golden score of one control fails, `pass` where all pass, else `undecided`;
            empty where there is no score.
        verdict_why: the reason, of each control that the verdict is due to.
    """

    name: str
    role: str
    tasks: int
    annotations: int
    seconds_median: float | None
    per_hour: float | None
    agreement: Estimate
    agreement_with_majority: Estimate
    golden: Estimate
    verdict: str = ""
    verdict_why: str = ""


@dataclass(frozen=True, slots=True)
class AgreementMatrix:
    """How often each two annotators agree, of one control. A few dozen names are readable; choose them.

    Attributes:
        control: the question.
        names: (A,) the annotators.
        values: (A, A) shares from 0 to 1; None where the two share no task. The diagonal is not shown.
        n: (A, A) the units both answered.
        people: how many annotators there are, the `names` among them.
    """

    control: str
    names: Sequence[str]
    values: Sequence[Sequence[float | None]]
    n: Sequence[Sequence[int]]
    people: int


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """What was given where gold says something, of one control.

    Attributes:
        control: the question.
        labels: (L,) the labels, `ABSENT` among them where things are drawn.
        counts: (L, L) units; rows are gold, columns what was given.
        totals: (L,) units of each gold label, whatever was given, also labels that are not among these.
        kinds: how many labels there are, the `labels` among them.
    """

    control: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    totals: Sequence[int]
    kinds: int


@dataclass(frozen=True, slots=True)
class Choice:
    """One annotator's answer to what is in dispute.

    Attributes:
        label: `ABSENT` where others drew something.
        object: its number on the picture; None for a question about the whole item.
    """

    control: str
    annotator: str
    label: str
    object: int | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """One annotator's upright box, in percent of the picture.

    Attributes:
        object: its number on the picture, the same for all boxes of one object; None where all agree.
    """

    annotator: str
    label: str
    x: float
    y: float
    width: float
    height: float
    object: int | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """One disagreement to look at.

    Attributes:
        task: the item's key, or the task's id.
        why: in one sentence, what is in dispute.
        image: PNG, JPEG, GIF or WebP; None where there is no picture.
        choices: who said what, of all that is in dispute.
        consensus: the merged boxes; their `annotator` is not shown.
    """

    task: str
    why: str
    image: bytes | None = None
    choices: Sequence[Choice] = ()
    boxes: Sequence[Box] = ()
    consensus: Sequence[Box] = ()


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """One change that is proposed.

    Attributes:
        action: what is to be done about it.
        control: empty where it is about the whole answer.
        now: what people said, in words.
        then: what is right; of what is given back and nobody decides, the note.
        confidence: in the proposal, from 0 to 1; None where an expert said so.
    """

    task: str
    action: str
    control: str
    now: str
    then: str
    why: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """A correction on its picture.

    Attributes:
        task: the item's key, or the task's id.
        image: PNG, JPEG, GIF or WebP.
        before: the boxes that stand there; of everybody, where nobody's own is changed.
        after: those that shall stand there; their `annotator` is not shown.
    """

    task: str
    why: str
    image: bytes
    before: Sequence[Box]
    after: Sequence[Box]


@dataclass(frozen=True, slots=True)
class Progress:
    """Tasks labeled over time: those with at least one answer.

    Attributes:
        points: (time, tasks labeled by then), in the order of time.
        total: tasks there are to label, if known.
    """

    points: Sequence[tuple[datetime, int]]
    total: int | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
    """A whole report. A part that is left out is shown as missing, with the command that fills it.

    Attributes:
        made_at: with a time zone; shown in UTC.
        source: (name, value): what was read, its version, the program's version, the seed.
        confidence: of all intervals.
        golden_limit: the golden score an annotator must reach; drawn as a mark.
        notices: what to know before trusting a number, such as gold that contradicts the majority.
    """

    title: str
    made_at: datetime
    source: Sequence[tuple[str, str]]
    confidence: float = CONFIDENCE
    figures: Sequence[Figure] = ()
    progress: Progress | None = None
    annotators: Sequence[AnnotatorRow] = ()
    golden_limit: float | None = None
    notices: Sequence[str] = ()
    agreement: Sequence[AgreementMatrix] = ()
    confusion: Sequence[ConfusionMatrix] = ()
    cards: Sequence[Card] = ()
    corrections: Sequence[CorrectionRow] = ()
    changes: Sequence[BeforeAfter] = ()
