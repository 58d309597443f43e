"""Masks as they are stored, against Label Studio's own converter, pycocotools and a writer of the format."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from label_studio_sdk.converter.brush import decode_rle, mask2rle
from numpy.typing import NDArray
from pycocotools import mask as coco

from connector.quality.similarity import (
    decode_brush,
    decode_coco,
    encode_brush,
    encode_coco,
    encode_coco_counts,
    from_pixels,
    to_pixels,
)

Pixels = NDArray[np.bool_]

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))

# Long runs, on both sides of every length at which a format takes the next size.
LONG = [1, 2, 3, 4, 5, 15, 16, 63, 64, 65, 511, 512, 16383, 16384, 16385, 32769]


def one_row(length: int) -> Pixels:
    return np.repeat([False, True, False], [length, length, 1])[None]


def runs_by_hand(mask: Pixels) -> list[list[int]]:
    runs: list[list[int]] = []
    for pixel in np.flatnonzero(mask).tolist():
        if runs and runs[-1][1] == pixel:
            runs[-1][1] += 1
        else:
            runs.append([pixel, pixel + 1])
    return runs


def written(number: int, word: int, sizes: list[int], blocks: list[tuple[bool, int, list[int]]]) -> bytes:
    """A brush stroke bit by bit: repeated or not, which length size, and the values."""
    bits = f"{number:032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for repeated, size, values in blocks:
        bits += f"{repeated:b}{size:02b}{len(values) - 1:0{sizes[size]}b}"
        bits += "".join(f"{value:08b}" for value in (values[:1] if repeated else values))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def coco_encoded(mask: Pixels) -> str:
    counts = coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return counts.decode()


@given(masks)
def test_runs_are_the_pixels_that_follow_one_another(mask: Pixels) -> None:
    height, width = mask.shape
    runs = from_pixels(mask)
    assert runs.tolist() == runs_by_hand(mask)
    assert (to_pixels(runs, width, height) == mask).all()
    assert (from_pixels(np.asfortranarray(mask) * 7.5) == runs).all()


@given(masks)
def test_a_brush_mask_is_written_as_label_studio_writes_it(mask: Pixels) -> None:
    height, width = mask.shape
    theirs = mask2rle(mask * np.uint8(255))
    ours = encode_brush(from_pixels(mask), width, height)
    # Label Studio's converter fills a full last byte up with one more.
    assert ours == theirs[: len(ours)]
    assert theirs[len(ours) :] in ([], [0])
    assert (decode_brush(theirs, width, height) == from_pixels(mask)).all()
    assert (decode_brush(bytes(ours), width, height) == from_pixels(mask)).all()


@pytest.mark.parametrize("length", LONG)
def test_long_runs_are_read_and_written_as_label_studio_and_coco_do(length: int) -> None:
    mask = one_row(length)
    runs, width = from_pixels(mask), mask.size
    ours, theirs = encode_brush(runs, width, 1), mask2rle(mask * np.uint8(255))
    # What is left of a run after 65536 values is free to take any size that holds it.
    assert ours == theirs[: len(ours)] or length > 16384
    assert (decode_rle(ours) == decode_rle(theirs)).all()
    for rle in (ours, theirs):
        assert decode_brush(rle, width, 1).tolist() == [[length, 2 * length]]
    assert encode_coco(runs, width, 1) == coco_encoded(mask)
    assert decode_coco(coco_encoded(mask), width, 1).tolist() == [[length, 2 * length]]


@given(st.data(), st.lists(st.integers(1, 16), min_size=4, max_size=4), st.integers(1, 5), st.integers(1, 5))
def test_any_split_into_blocks_is_read_as_label_studio_reads_it(
    data: st.DataObject, sizes: list[int], width: int, height: int
) -> None:
    left, blocks = 4 * width * height, []
    while left:
        repeated, size = data.draw(st.booleans()), data.draw(st.integers(0, 3))
        length = data.draw(st.integers(1, min(left, 2 ** sizes[size])))
        one = st.integers(0, 255)
        values = (
            [data.draw(one)] * length
            if repeated
            else data.draw(st.lists(one, min_size=length, max_size=length))
        )
        blocks.append((repeated, size, values))
        left -= length
    rle = written(4 * width * height, 8, sizes, blocks)
    alpha = np.array([value for _, _, values in blocks for value in values])[3::4].reshape(height, width)
    assert (decode_rle(rle)[3::4].reshape(height, width) == alpha).all()
    for above in (0, 100, 255):
        found = decode_brush(rle, width, height, above)
        assert found.tolist() == runs_by_hand(alpha > above)


def test_only_alpha_tells_whether_a_pixel_is_set() -> None:
    values = [255, 255, 255, 0, 0, 0, 0, 1, 9, 9, 9, 128]
    rle = written(12, 8, [4, 4, 4, 4], [(False, 0, values)])
    assert decode_brush(rle, 3, 1).tolist() == [[1, 3]]
    assert decode_brush(list(rle), 3, 1, above=1).tolist() == [[2, 3]]


@given(masks)
def test_coco_masks_are_pycocotools(mask: Pixels) -> None:
    height, width = mask.shape
    runs = from_pixels(mask)
    theirs = coco_encoded(mask)
    assert encode_coco(runs, width, height) == theirs
    assert (decode_coco(theirs, width, height) == runs).all()
    assert (decode_coco(theirs.encode(), width, height) == runs).all()
    counts = encode_coco_counts(runs, width, height)
    again = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    assert again["counts"].decode() == theirs
    assert (decode_coco(counts, width, height) == runs).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(1, 4))
def test_coco_counts_may_hold_empty_runs(counts: list[int], height: int) -> None:
    counts = [*counts, height - sum(counts) % height]
    width = sum(counts) // height
    down = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height)
    assert (decode_coco(counts, width, height) == from_pixels(down.T)).all()


@pytest.mark.parametrize("runs", [[], [[0, 10**9 // 4]], [[10**8 + 7, 10**8 + 30000]]])
def test_a_huge_picture_is_never_unpacked(runs: list[list[int]]) -> None:
    width, height = 50_000, 5_000
    as_array = np.array(runs, dtype=np.int64).reshape(-1, 2)
    assert decode_brush(encode_brush(as_array, width, height), width, height).tolist() == runs
    assert decode_coco(encode_coco(as_array, width, height), width, height).tolist() == runs


@given(masks)
@settings(max_examples=30)
def test_a_mask_cut_off_anywhere_is_refused(mask: Pixels) -> None:
    height, width = mask.shape
    brush, packed = encode_brush(from_pixels(mask), width, height), coco_encoded(mask)
    counts = encode_coco_counts(from_pixels(mask), width, height)
    for cut in range(len(brush)):
        with pytest.raises(ValueError):
            decode_brush(brush[:cut], width, height)
    for whole in (packed, counts):
        for cut in range(len(whole)):
            with pytest.raises(ValueError):
                decode_coco(whole[:cut], width, height)


@pytest.mark.parametrize(
    ("number", "word", "blocks"),
    [(12, 8, 3), (20, 8, 5), (4, 8, 4), (16, 7, 4), (16, 9, 4), (16, 32, 4), (16, 8, 3), (2**32 - 1, 8, 4)],
)
def test_a_brush_mask_of_another_picture_or_with_too_few_values_is_refused(
    number: int, word: int, blocks: int
) -> None:
    rle = written(number, word, [3, 4, 8, 16], [(True, 0, [255] * 4)] * blocks)
    with pytest.raises(ValueError, match="values"):
        decode_brush(rle, 2, 2)


@pytest.mark.parametrize("rle", [None, 7, 10**12, 10**20, True, "0", [], {}, [0] * 6])
def test_what_is_no_list_is_refused(rle: list[int]) -> None:
    with pytest.raises(ValueError):
        decode_brush(rle, 2, 2)


@pytest.mark.parametrize("byte", [256, -1, 10**30, 0.5, "0", None, [0]])
def test_a_list_with_anything_but_bytes_is_refused(byte: int) -> None:
    rle = encode_brush(np.array([[1, 3]]), 2, 2)
    with pytest.raises(ValueError, match="0 to 255"):
        decode_brush([*rle[:9], byte, *rle[10:]], 2, 2)


@pytest.mark.parametrize(
    "counts", [None, 4, {}, {4}, [None], ["4"], [[4]], [4.0], [1.5, 3.0], [float("nan")]]
)
def test_what_is_no_list_of_whole_numbers_is_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError):
        decode_coco(counts, 2, 2)


@pytest.mark.parametrize(
    "counts", [[], [3], [5], [5, -1], [-4, 8], [2**63 - 1, 2**63 - 1, 6], [2**63, 4], [10**30]]
)
def test_run_lengths_of_another_picture_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError):
        decode_coco(counts, 2, 2)


@pytest.mark.parametrize(
    "text", ["", "é", "\ud800", b"/", b"\xff", "o", "P", "4 ", "3", "5", "5O", "T" + "P" * 10 + "0"]
)
def test_a_string_that_holds_no_run_lengths_of_the_picture_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_coco(text, 2, 2)


@given(st.binary(max_size=60), st.integers(0, 65535), st.sampled_from([(2, 2), (5, 3), (30_000, 30_000)]))
@settings(max_examples=500)
def test_any_bytes_are_a_mask_of_the_picture_or_refused(
    data: bytes, sizes: int, picture: tuple[int, int]
) -> None:
    width, height = picture
    head = ((4 * width * height << 21 | 7 << 16 | sizes) << 3).to_bytes(7, "big")
    letters = bytes(48 + byte % 64 for byte in data)
    for decode, rle in (decode_brush, data), (decode_brush, head + data), (decode_coco, letters):
        try:
            runs = decode(rle, width, height)
        except ValueError:
            continue
        assert (np.diff(runs.ravel(), prepend=-1, append=width * height + 1) > 0).all()
