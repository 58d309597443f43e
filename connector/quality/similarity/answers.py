"""How alike two answers are that are not drawn: choices, taxonomies, numbers, texts, rankings.

Rows are pairs: `a[i]` is compared with `b[i]`. A set is a row of whole numbers that stand for labels,
ascending, none twice. Two empty answers are alike (1); an empty one is like no other (0).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Floats, Ints
from connector.quality.similarity.rows import (
    Ragged,
    blocks,
    equal_rows,
    offsets_of,
    part,
    place_in_row,
    ratio,
    row_of,
    take,
)


def same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """1 where two answers are equal and else 0: single choices, pairwise comparisons, relations.

    Args:
        a, b: (n,) of any type that can be compared. A relation is equal to another if its ends' units and its
            type are: give one number to each such triple.
    """
    return np.asarray(a == b, dtype=np.float64)


def same_set(a: Ragged, b: Ragged) -> Floats:
    """1 where two sets are equal and else 0."""
    return equal_rows(a, b).astype(np.float64)


def jaccard(a: Ragged, b: Ragged) -> Floats:
    """Labels in both sets over labels in either.

    Args:
        a, b: n sets of labels.

    Returns:
        (n,) in [0, 1].

    References:
        Jaccard, P. (1912). The distribution of the flora in the alpine zone. New Phytologist 11, 37-50.
    """
    both = _in_both(a, b)
    return ratio(both, np.diff(a[1]) + np.diff(b[1]) - both, equal_rows(a, b))


def masi(a: Ragged, b: Ragged) -> Floats:
    """Jaccard's index times 1 if the sets are equal, 2/3 if one holds the other, 1/3 if they overlap, else 0.

    Args:
        a, b: n sets of labels.

    Returns:
        (n,) in [0, 1]. Distance is 1 less this.

    References:
        Passonneau, R. (2006). Measuring agreement on set-valued items (MASI) for semantic and pragmatic
        annotation. LREC, section 3.
    """
    both = _in_both(a, b)
    size_a, size_b = np.diff(a[1]), np.diff(b[1])
    kind = np.full(len(both), 1 / 3)
    kind[both == np.minimum(size_a, size_b)] = 2 / 3
    kind[(both == size_a) & (both == size_b)] = 1
    alike: Floats = jaccard(a, b) * kind
    return alike


def taxonomy_similarity(a: Ragged, b: Ragged, paths: Ragged) -> Floats:
    """Sets of paths in a tree, compared like sets of labels, but with partial credit for a shared beginning.

    Two paths are alike by `path_similarity`. The paths of both sets are paired off one to one so that the
    total likeness M is greatest; the sets are as alike as M / (|a| + |b| - M). Where paths are either equal
    or share nothing, that is Jaccard's index.

    Args:
        a, b: n sets of rows of `paths`.
        paths: every path once: (steps,) from the root down, as whole numbers.

    Returns:
        (n,) in [0, 1].

    References:
        Wang, J., Li, G. & Feng, J. (2011). Fast-join: an efficient method for fuzzy token matching based
        string similarity join. ICDE (fuzzy overlap and fuzzy Jaccard, with the greatest weight matching).
    """
    found = np.empty(len(a[1]) - 1)
    for rows in blocks(offsets_of(np.diff(a[1]) * np.diff(b[1])), a[1], b[1], most=1 << 16):
        one, other = part(a, rows), part(b, rows)
        sizes = np.diff(one[1]), np.diff(other[1])
        cells = offsets_of(sizes[0] * sizes[1])
        row, cell = row_of(cells), place_in_row(cells)
        left = one[0][one[1][row] + cell // sizes[1][row]]
        right = other[0][other[1][row] + cell % sizes[1][row]]
        total = _matched(path_similarity(take(paths, left), take(paths, right)), cells, *sizes)
        found[rows] = ratio(total, sizes[0] + sizes[1] - total, equal_rows(one, other))
    return found


def path_similarity(a: Ragged, b: Ragged) -> Floats:
    """Steps that two paths begin with in common, over the steps of the longer one.

    Args:
        a, b: n paths, (steps,) from the root down.

    Returns:
        (n,) in [0, 1].
    """
    lengths = np.diff(a[1]), np.diff(b[1])
    short = offsets_of(np.minimum(*lengths))
    row, step = row_of(short), place_in_row(short)
    differs = a[0][a[1][row] + step] != b[0][b[1][row] + step]
    shared = np.diff(short)
    # The first step that differs ends what is shared; the last one written is the first, so go backwards.
    at = np.flatnonzero(differs)[::-1]
    shared[row[at]] = step[at]
    return ratio(shared.astype(np.float64), np.maximum(*lengths), equal_rows(a, b))


def interval_similarity(a: Floats, b: Floats, spread: npt.ArrayLike) -> Floats:
    """1 - |a - b| / spread: ratings, numbers, dates.

    The distance alone is |a - b|.

    Args:
        a, b: (n,) numbers; a date as days.
        spread: the greatest distance that counts, such as the highest less the lowest rating: one, or (n,).
            Without a spread, equal numbers are alike and others are not.

    Returns:
        (n,) in [0, 1].

    References:
        Gower, J. C. (1971). A general coefficient of similarity and some of its properties. Biometrics 27,
        857-871.
    """
    apart = np.abs(a - b)
    wide = np.broadcast_to(np.asarray(spread, dtype=np.float64), apart.shape)
    return ratio(wide - apart, wide, apart == 0)


def relative_similarity(a: Floats, b: Floats) -> Floats:
    """1 - |a - b| / max(|a|, |b|), not less than 0: numbers without a declared range.

    Numbers of different signs have nothing in common, and neither has 0 with any other number.

    Args:
        a, b: (n,) numbers.

    Returns:
        (n,) in [0, 1].
    """
    return interval_similarity(a, b, np.maximum(np.abs(a), np.abs(b)))


def normalized(texts: Sequence[str], fold_case: bool = True) -> list[str]:
    """Texts with differences taken away that nobody hears: how to compare transcriptions.

    Unicode compatibility composition (NFKC), full case folding, one space for every stretch of white space,
    and none at the ends. Punctuation and digits stay.

    References:
        Unicode Standard Annex 15 (NFKC) and Unicode Standard 3.13 (case folding).
    """
    composed = (unicodedata.normalize("NFKC", text) for text in texts)
    if fold_case:
        composed = (unicodedata.normalize("NFKC", text.casefold()) for text in composed)
    return [" ".join(text.split()) for text in composed]


def edit_similarity(a: Sequence[str], b: Sequence[str]) -> Floats:
    """1 - edits / length of the longer text. An edit puts in, takes out or replaces one character.

    Args:
        a, b: n texts, as they are; `normalized` takes away what shall not count.

    Returns:
        (n,) in [0, 1].

    References:
        Levenshtein, V. I. (1966). Binary codes capable of correcting deletions, insertions, and reversals.
        Soviet Physics Doklady 10, 707-710.
    """
    longer = np.maximum(_lengths(a), _lengths(b))
    return ratio(longer - _edits(a, b), longer, longer == 0)


def word_similarity(a: Sequence[str], b: Sequence[str]) -> Floats:
    """As `edit_similarity`, with words in place of characters; white space parts words."""
    return edit_similarity(*_as_words(a, b))


def character_error_rate(reference: Sequence[str], heard: Sequence[str]) -> Floats:
    """Edits that turn a reference into what was heard, over the reference's characters.

    Args:
        reference, heard: n texts, as they are.

    Returns:
        (n,) a distance: 0 for equal texts, more than 1 if much was put in, and 1 if the reference is empty
        and the other is not. Not symmetric.

    References:
        Levenshtein (1966), as in `edit_similarity`. Morris, A. C., Maier, V. & Green, P. (2004). From WER and
        RIL to MER and WIL: improved evaluation measures for connected speech recognition. Interspeech.
    """
    edits, length = _edits(reference, heard), _lengths(reference)
    rate: Floats = np.divide(edits, length, out=(edits > 0).astype(np.float64), where=length > 0)
    return rate


def word_error_rate(reference: Sequence[str], heard: Sequence[str]) -> Floats:
    """As `character_error_rate`, with words in place of characters; white space parts words."""
    return character_error_rate(*_as_words(reference, heard))


def kendall_tau_b(a: Ragged, b: Ragged) -> Floats:
    """Kendall's rank correlation with ties.

    tau-b = (C - D) / sqrt((P - T_a) (P - T_b)): of all P pairs of items, C are in the same order, D in
    opposite orders, and each side ties T.

    Args:
        a, b: n rankings, (items,) the rank of each item; the same items in the same order on both sides.

    Returns:
        (n,) in [-1, 1]. Two sides that both put nothing in order agree, 1; with one such side it is 0.

    References:
        Kendall, M. G. (1945). The treatment of ties in ranking problems. Biometrika 33, 239-251.
    """
    agree, differ, tied_a, tied_b, pairs = _pairs(a, b)
    ordered_a, ordered_b = pairs - tied_a, pairs - tied_b
    flat = ((ordered_a == 0) & (ordered_b == 0)).astype(np.float64)
    ordered = np.sqrt(ordered_a * ordered_b)
    tau: Floats = np.clip(np.divide(agree - differ, ordered, out=flat, where=ordered > 0), -1, 1)
    return tau


def ranking_similarity(a: Ragged, b: Ragged) -> Floats:
    """1 - Kendall's distance over the number of pairs of items.

    A pair in opposite orders counts 1, one tied on one side only 1/2. Without ties this is (1 + tau) / 2.

    Args:
        a, b: n rankings, as in `kendall_tau_b`.

    Returns:
        (n,) in [0, 1]; 1 for fewer than two items.

    References:
        Fagin, R., Kumar, R., Mahdian, M., Sivakumar, D. & Vee, E. (2004). Comparing and aggregating rankings
        with ties. PODS: K^(p) with p = 1/2.
    """
    agree, differ, tied_a, tied_b, pairs = _pairs(a, b)
    # Every pair is in the same order, in opposite orders, tied on both sides, or on one only.
    tied_both = tied_a + tied_b - (pairs - agree - differ)
    tied_once = tied_a + tied_b - 2 * tied_both
    return ratio(pairs - differ - tied_once / 2, pairs, pairs == 0)


def bucket_similarity(a: Ragged, b: Ragged, in_a: Ragged, in_b: Ragged) -> Floats:
    """How alike items are put into buckets: by which bucket each is in, and by the order of every two.

    The mean of the share of items in the same bucket, and of the share of pairs in the same order among
    those that either side puts in an order (a pair that only one side ties counts 1/2, as in
    `ranking_similarity`). Where neither side puts any two in an order, the buckets alone.

    Args:
        a, b: n rankings, as in `kendall_tau_b`.
        in_a, in_b: (items,) the number of the bucket of each item, in the same order.

    Returns:
        (n,) in [0, 1]; 1 where there are no items.
    """
    row, n = row_of(a[1]), len(a[1]) - 1
    items = np.diff(a[1]).astype(np.float64)
    held = ratio(np.bincount(row, in_a[0] == in_b[0], n).astype(np.float64), items, items == 0)
    agree, differ, tied_a, tied_b, pairs = _pairs(a, b)
    tied_both = tied_a + tied_b - (pairs - agree - differ)
    ordered = pairs - tied_both
    order = ratio(agree + (tied_a + tied_b - 2 * tied_both) / 2, ordered, np.ones(n))
    return np.where(ordered > 0, (held + order) / 2, held)


def _in_both(a: Ragged, b: Ragged) -> Floats:
    n = len(a[1]) - 1
    found = np.zeros(n)
    for rows in blocks(a[1], b[1]):
        sides = [part(side, rows) for side in (a, b)]
        row = np.concatenate([row_of(offsets) for _, offsets in sides])
        label = np.concatenate([values for values, _ in sides]).astype(np.int64)
        if len(label):
            low = label.min()
            key = np.sort(row * (label.max() - low + 1) + (label - low), kind="stable")
            twice = key[1:][key[1:] == key[:-1]] // (label.max() - low + 1)
            found[rows] = np.bincount(twice, minlength=rows.stop - rows.start)
    return found


def _matched(alike: Floats, cells: Ints, size_a: Ints, size_b: Ints) -> Floats:
    """(n,) the greatest total of a one-to-one matching in each of n matrices, laid end to end."""
    total = np.zeros(len(size_a))
    row = row_of(cells)
    single = (np.minimum(size_a, size_b) == 1)[row]
    np.maximum.at(total, row[single], alike[single])
    several = np.flatnonzero(np.minimum(size_a, size_b) > 1)
    if len(several):
        from scipy.optimize import linear_sum_assignment  # half a second, which most need not wait

        for i in several:
            matrix = alike[cells[i] : cells[i + 1]].reshape(size_a[i], size_b[i])
            total[i] = matrix[linear_sum_assignment(matrix, maximize=True)].sum()
    return total


def _lengths(texts: Sequence[str]) -> Floats:
    return np.fromiter(map(len, texts), dtype=np.float64, count=len(texts))


def _edits(a: Sequence[str], b: Sequence[str]) -> Floats:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    return cpdist(a, b, scorer=Levenshtein.distance, dtype=np.float64)


def _as_words(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts with one character for every different word."""
    number: dict[str, int] = {}
    texts = [[number.setdefault(word, len(number)) for word in text.split()] for text in (*a, *b)]
    # Not the half-characters (surrogates), which stand in the middle of the range.
    letter = [chr(one if one < 0xD800 else one + 0x800) for one in range(len(number))]
    written = ["".join([letter[word] for word in text]) for text in texts]
    return written[: len(a)], written[len(a) :]


def _pairs(a: Ragged, b: Ragged) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Pairs of items in the same order, in opposite orders, tied in a, tied in b, and all pairs."""
    items = np.diff(a[1])
    agree, differ, tied_a, tied_b = counted = np.zeros((4, len(items)))
    for rows in blocks(offsets_of(items * items)):
        (left, at), (right, _) = part(a, rows), part(b, rows)
        cells = offsets_of(np.diff(at) ** 2)
        row, cell = row_of(cells), place_in_row(cells)
        first, second = at[row] + cell // np.diff(at)[row], at[row] + cell % np.diff(at)[row]
        once = first < second
        row, first, second = row[once], first[once], second[once]
        in_a, in_b = np.sign(left[second] - left[first]), np.sign(right[second] - right[first])
        for count, holds in zip(
            counted, (in_a * in_b > 0, in_a * in_b < 0, in_a == 0, in_b == 0), strict=True
        ):
            count[rows] = np.bincount(row[holds], minlength=rows.stop - rows.start)
    return agree, differ, tied_a, tied_b, items * (items - 1) / 2
