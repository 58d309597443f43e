"""Masks as they are stored: Label Studio's brush strokes, COCO's run lengths, pixels; from and to runs.

Runs are those of `masks`: along the rows of the picture, whatever order the format has. Each function takes
one mask, so that a broken one is refused alone; `ragged(list, np.int64, 2)` puts many together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from connector.quality.interval import Ints
from connector.quality.similarity.cover import covered, intervals, levels
from connector.quality.similarity.rows import Bools, offsets_of, place_in_row, row_of

HEADER = 53
"""Bits before the first block of a brush stroke: number of values, bits of a value, bits of four lengths."""


def from_pixels(mask: npt.NDArray[Any]) -> Ints:
    """The runs (k, 2) of a mask of pixels (height, width); what is not 0 is set."""
    flat = np.append(mask.ravel() != 0, False)
    return intervals(np.arange(len(flat)), flat)


def to_pixels(runs: Ints, width: int, height: int) -> Bools:
    """The pixels (height, width) of a mask."""
    turns = np.zeros(width * height + 1, dtype=np.int8)
    turns[runs[:, 0]] += 1
    turns[runs[:, 1]] -= 1
    return np.cumsum(turns[:-1], dtype=np.int8).astype(bool).reshape(height, width)


def decode_brush(rle: bytes | Sequence[int], width: int, height: int, above: int = 0) -> Ints:
    """The runs of a mask drawn with Label Studio's brush.

    Args:
        rle: the bytes under `rle` in a result: red, green, blue and alpha of every pixel, packed.
        width, height: `original_width` and `original_height` of the result.
        above: a pixel is set if its alpha, 0 to 255, is more. Label Studio paints every pixel above 0; the
            soft edge of a stroke is in between.

    Returns:
        (k, 2)

    Raises:
        ValueError: if these are not the bytes of such a picture.

    References:
        Package rle-pack of thi.ng/umbrella, which Label Studio packs with: 32 bits number of values, 5 bits
        word size less 1, four times 4 bits length size less 1; then blocks of 1 bit (repeated or not), 2 bits
        (which length size), length less 1, and one value or as many as the length says.
    """
    data = _bytes(rle)
    if len(data) < 7:
        raise ValueError(f"a brush mask has 7 bytes at least, this one {len(data)}")
    head = int.from_bytes(data[:7], "big") >> 3
    number, word = head >> 21, (head >> 16 & 31) + 1
    if (number, word) != (4 * width * height, 8):
        raise ValueError(
            f"the brush mask has {number} values of {word} bits, a picture of {width} x {height} has "
            f"{4 * width * height} of 8"
        )
    sizes = np.array([(head >> shift & 15) + 1 for shift in (12, 8, 4, 0)])
    at = _blocks(data, sizes)
    repeated, length, value_at = _read(data, at, sizes)
    ends = np.cumsum(length)
    if not len(ends) or ends[-1] < number:
        raise ValueError(f"the brush mask ends after {int(ends[-1]) if len(ends) else 0} of {number} values")
    stated = offsets_of(np.where(repeated, 1, length))
    block = row_of(stated)
    step = place_in_row(stated)
    value = _bits(data, value_at[block] + 8 * step, 8)
    first = (ends - length)[block] + step
    last = np.minimum(np.where(repeated[block], ends[block], first + 1), number)
    # Alpha is the fourth of each pixel's values: number 4 p + 3.
    runs = np.stack([first // 4, last // 4], axis=1)[value > above]
    return covered([(runs[runs[:, 0] < runs[:, 1]], 1)], 1)


def encode_brush(runs: Ints, width: int, height: int) -> list[int]:
    """A mask as Label Studio stores what its brush draws: the reverse of `decode_brush`.

    Every pixel set has 255 in all four values, which is how Label Studio itself writes masks.
    """
    counts, begins_set = _counts(runs, width * height)
    value = np.where((np.arange(len(counts)) % 2 == 0) == begins_set, 255, 0)
    pieces = offsets_of(-(-4 * counts // 65536))
    piece = row_of(pieces)
    length = np.minimum(4 * counts[piece] - 65536 * place_in_row(pieces), 65536) - 1
    size = np.searchsorted([8, 16, 256], length, side="right")
    bits = np.array([3, 4, 8, 16])[size]
    code = ((4 + size) << (bits + 8)) | (length << 8) | value[piece]
    head = (4 * width * height << 21) | (7 << 16) | 0x237F
    # The code of each block, its highest bit first.
    long = offsets_of(3 + bits + 8)
    block = row_of(long)
    stream = code[block] >> (long[1:][block] - 1 - np.arange(long[-1])) & 1
    header = np.unpackbits(np.frombuffer((head << 3).to_bytes(7, "big"), dtype=np.uint8))[:HEADER]
    return [int(byte) for byte in np.packbits(np.concatenate([header, stream.astype(np.uint8)]))]


def decode_coco(counts: str | bytes | Sequence[int], width: int, height: int) -> Ints:
    """The runs of a mask in COCO's format.

    Args:
        counts: lengths of unset and set runs in turn, beginning with unset, down the columns of the picture;
            or the compressed string of them.
        width, height: of the picture; COCO's `size` is [height, width].

    Returns:
        (k, 2)

    Raises:
        ValueError: if these are not the counts of such a picture.

    References:
        COCO API, maskApi.c: `rleFrString`, `rleDecode`.
    """
    if isinstance(counts, (str, bytes)):
        lengths = _decompressed(counts.encode() if isinstance(counts, str) else counts)
    else:
        lengths = _lengths(counts)
    # A run longer than the picture is refused first: with such ones the sum could overflow.
    wrong = lengths[(lengths < 0) | (lengths > width * height)]
    if len(wrong):
        raise ValueError(f"a COCO mask of {width} x {height} pixels has a run of {wrong[0]}")
    if lengths.sum() != width * height:
        raise ValueError(
            f"the COCO mask has {lengths.sum()} pixels, a picture of {width} x {height} has {width * height}"
        )
    ends = np.cumsum(lengths)
    runs = np.stack([ends - lengths, ends], axis=1)[1::2]
    return _turned(covered([(runs[runs[:, 0] < runs[:, 1]], 1)], 1), height, width)


def encode_coco_counts(runs: Ints, width: int, height: int) -> list[int]:
    """A mask in COCO's uncompressed format: the reverse of `decode_coco`."""
    counts, begins_set = _counts(_turned(runs, width, height), width * height)
    return ([0] if begins_set else []) + [int(count) for count in counts]


def encode_coco(runs: Ints, width: int, height: int) -> str:
    """A mask in COCO's compressed format: the reverse of `decode_coco`.

    References:
        COCO API, maskApi.c, `rleToString`: each count from the fourth on less the one two before; five bits
        to a character, lowest first, the sixth bit for "more follows", 48 added.
    """
    value = np.array(encode_coco_counts(runs, width, height), dtype=np.int64)
    value[3:] -= value[1:-2].copy()
    # How many times five bits hold the number and its sign.
    groups = np.ones(len(value), dtype=np.int64)
    for shift in range(4, 60, 5):
        groups += (value >> shift != 0) & (value >> shift != -1)
    held = offsets_of(groups)
    index, place = row_of(held), place_in_row(held)
    five = value[index] >> (5 * place) & 31
    more = place < groups[index] - 1
    return (five + 32 * more + 48).astype(np.uint8).tobytes().decode("ascii")


def _bytes(rle: bytes | Sequence[int]) -> bytes:
    try:
        return bytes(iter(rle))  # of a number, `bytes` would make as many zeros
    except (TypeError, ValueError) as wrong:
        raise ValueError(f"a brush mask is a list of whole numbers from 0 to 255: {wrong}") from wrong


def _lengths(counts: Sequence[int]) -> Ints:
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or not (lengths.dtype.kind in "iu" or lengths.size == 0):
        raise ValueError("a COCO mask is a list of whole numbers, or the compressed string of it")
    return lengths.astype(np.int64)


def _counts(runs: Ints, pixels: int) -> tuple[Ints, bool]:
    """Lengths of the runs and of what is between them, in turn, and whether the first is of set pixels."""
    turns = np.concatenate([[0], runs.ravel(), [pixels]])
    counts = np.diff(turns)
    begins_set = bool(len(runs)) and bool(runs[0, 0] == 0)
    return counts[counts > 0], begins_set


def _blocks(data: bytes, sizes: Ints) -> Ints:
    """(k,) the bit that each block of a brush stroke begins with.

    Where a block begins is only known once those before it are read, so this one loop runs block by block.
    It has little to do: the first three bits tell how long a repeated block is, and are cut out beforehand.
    """
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    kinds = (bits[:-2] << 2 | bits[1:-1] << 1 | bits[2:]).tobytes()
    long = [0, 0, 0, 0, *(3 + int(size) + 8 for size in sizes)]
    short = [int(size) for size in sizes]
    at, found = HEADER, []
    # What is shorter than a block at the end only fills the last byte.
    end = len(bits) - min(short) - 3 - 8
    while at <= end:
        found.append(at)
        kind = kinds[at]
        if kind < 4:
            size = short[kind]
            window = int.from_bytes(data[at >> 3 : (at >> 3) + 4].ljust(4, b"\0"), "big")
            at += 3 + size + 8 * ((window >> (29 - (at & 7) - size) & (1 << size) - 1) + 1)
        else:
            at += long[kind]
    if at > len(bits):
        raise ValueError("the brush mask ends within a block")
    return np.array(found, dtype=np.int64)


def _read(data: bytes, at: Ints, sizes: Ints) -> tuple[Bools, Ints, Ints]:
    """Whether each block repeats a value, its length, and the bit that its values begin with."""
    kind = _bits(data, at, 3)
    size = sizes[kind % 4]
    length = (_bits(data, at + 3, 16) >> (16 - size)) + 1
    return kind >= 4, length, at + 3 + size


def _bits(data: bytes, at: Ints, count: int) -> Ints:
    """The number that `count` (at most 16) bits from each place on make; what is past the end is 0."""
    padded = np.frombuffer(data + bytes(4), dtype=np.uint8).astype(np.int64)
    byte = np.minimum(at >> 3, len(data))
    window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
    found: Ints = window >> (24 - (at & 7) - count) & ((1 << count) - 1)
    return found


def _decompressed(text: bytes) -> Ints:
    symbol = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(symbol) or symbol.min() < 0 or symbol.max() > 63 or symbol[-1] & 32:
        raise ValueError("a COCO mask is not a string of run lengths")
    last = symbol & 32 == 0
    held = offsets_of(np.diff(np.flatnonzero(last), prepend=-1))
    place = place_in_row(held)
    if place.max() > 10:
        raise ValueError("a COCO mask has a run of more than 55 bits")
    value = np.add.reduceat((symbol & 31) << (5 * place), held[:-1])
    negative = symbol[last] & 16 != 0
    value -= np.where(negative, np.int64(1) << 5 * np.diff(held), 0)
    # From the fourth on each is the difference to the one two before.
    for parity in (1, 2):
        value[parity::2] = np.cumsum(value[parity::2])
    return value


def _turned(runs: Ints, across: int, along: int) -> Ints:
    """Runs along one axis as runs along the other, with work in proportion to both, not to the pixels.

    Args:
        runs: (k, 2); pixels are counted along lines of `across` pixels.
        across: pixels of a line.
        along: number of lines.

    Returns:
        (m, 2); pixels are counted the other way: along the `across` lines of `along` pixels.
    """
    # A pixel begins a run the other way if it is set and the one before it, in the line before, is not.
    begins = _each(covered([(runs, 1), (runs + across, -1)], 1))
    ends = _each(covered([(runs + across, 1), (runs, -1)], 1))
    pixel = np.concatenate([begins, ends])
    change = np.repeat([1, -1], [len(begins), len(ends)])
    place, level = levels(pixel % across * along + pixel // across, change)
    return intervals(place, level > 0)


def _each(runs: Ints) -> Ints:
    """Every pixel of some runs."""
    held = offsets_of(runs[:, 1] - runs[:, 0])
    each: Ints = runs[row_of(held), 0] + place_in_row(held)
    return each
