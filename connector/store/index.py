"""What a writer of the label store remembers of it: the last version of everything, by task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import polars as pl

LONGEST = 1 << 18
"""Parts of so many rows are not merged any more: merging takes thrice their memory."""

IDENTITY = ["record", "task", "id", "created_at"]


class Index:
    """Identity and hash of the last version of everything that is not deleted.

    It is kept in parts, each sorted by task, and each at least twice as long as the next unless it is very
    long. So looking something up and adding to it cost little however much is known. A part knows all of each
    of its tasks: where several have a task, the newest counts.

    Args:
        parts: `IDENTITY` and `hash`, a number; each of other tasks, and at least one.
    """

    def __init__(self, parts: Iterable[pl.DataFrame]) -> None:
        self._parts: list[pl.DataFrame] = []
        self._counts: Counter[str] = Counter()
        for rows in parts:
            self._counts.update(_by_record(rows))
            self._parts.append(rows.sort("task"))

    def of(self, tasks: Sequence[str]) -> pl.DataFrame:
        """What is known of some tasks."""
        wanted = pl.Series("task", list(set(tasks)), pl.String)
        found = []
        for part in reversed(self._parts):
            starts = part["task"].search_sorted(wanted, side="left")
            ends = part["task"].search_sorted(wanted, side="right")
            found.append(part[pl.int_ranges(starts, ends, eager=True).explode(empty_as_null=False)])
            wanted = wanted.filter(starts == ends)
        return pl.concat(found).filter(pl.col("record").is_not_null())

    def put(self, tasks: Sequence[str], rows: pl.DataFrame) -> None:
        """Remember these rows as all there is of these tasks."""
        self._counts.subtract(_by_record(self.of(tasks)))
        self._counts.update(_by_record(rows))
        # A task of which nothing is left needs a row too, to hide what an older part knows of it.
        bare = pl.DataFrame({"task": list(set(tasks))}, {"task": pl.String}).join(rows, on="task", how="anti")
        self._parts.append(pl.concat([rows, bare], how="diagonal").select(rows.columns).sort("task"))
        while len(self._parts) > 1 and len(self._parts[-2]) < min(LONGEST, 2 * len(self._parts[-1])):
            newer, older = self._parts.pop(), self._parts.pop()
            others = older.join(newer.select("task").unique(), on="task", how="anti")
            self._parts.append(pl.concat([others, newer]).sort("task"))

    def count(self, record: str) -> int:
        """How many there are of a kind."""
        return self._counts[record]


def _by_record(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows["record"].value_counts().iter_rows())
