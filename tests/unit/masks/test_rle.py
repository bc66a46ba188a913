"""Run-length codes against plain arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samif.masks.rle import areas, boxes, decode, encode, encode_whole, overlaps, paste
from tests.support.handmade import pixels, rectangle, rle

stacks = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 12)))


@given(stacks)
def test_masks_come_back(masks: np.ndarray) -> None:
    codes = encode(masks)
    assert np.array_equal(decode(codes), masks)
    assert json.loads(json.dumps(codes)) == codes  # plain text and whole numbers
    assert all(code["size"] == list(masks.shape[1:]) for code in codes)
    assert areas(codes).tolist() == masks.sum(axis=(1, 2)).tolist()


@given(stacks, stacks)
def test_overlaps_are_those_of_the_arrays(a: np.ndarray, b: np.ndarray) -> None:
    b = np.resize(b, (len(b), *a.shape[1:]))
    both = (a[:, None] & b[None]).sum(axis=(2, 3))
    either = (a[:, None] | b[None]).sum(axis=(2, 3))
    own = np.broadcast_to(a.sum(axis=(1, 2))[:, None], both.shape)
    iou, inside = overlaps(encode(a), encode(b)), overlaps(encode(a), encode(b), within_a=True)
    np.testing.assert_allclose(iou[either > 0], (both / np.maximum(either, 1))[either > 0])
    np.testing.assert_allclose(inside[own > 0], (both / np.maximum(own, 1))[own > 0])


def test_share_within_a_is_of_the_first() -> None:
    small, large = rle(rectangle((20, 20), 5, 5, 4, 5)), rle(rectangle((20, 20), 0, 0, 20, 10))
    assert overlaps([small], [large], within_a=True)[0, 0] == 1.0
    assert overlaps([large], [small], within_a=True)[0, 0] == pytest.approx(20 / 200)


@pytest.mark.parametrize(("a", "b"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_overlaps_nothing(a: int, b: int) -> None:
    code = rle(pixels((4, 4), 3))
    assert overlaps([code] * a, [code] * b).shape == (a, b)


def test_boxes_are_corner_and_size_in_pixels() -> None:
    codes = [rle(rectangle((20, 30), 3, 7, 4, 9)), rle(np.zeros((20, 30), bool))]
    assert boxes(codes).tolist() == [[7.0, 3.0, 9.0, 4.0], [0.0, 0.0, 0.0, 0.0]]
    assert boxes([]).shape == (0, 4) and areas([]).shape == (0,)


@given(stacks, st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_a_pasted_mask_lies_where_its_part_was_cut(masks: np.ndarray, x: int, y: int, more: int) -> None:
    _, h, w = masks.shape
    whole = decode(paste(encode(masks), x, y, y + h + more, x + w + more))
    assert np.array_equal(whole[:, y : y + h, x : x + w], masks) and whole.sum() == masks.sum()


@given(stacks)
def test_one_mask_is_encoded_as_several_are(masks: np.ndarray) -> None:
    assert [encode_whole(mask) for mask in masks] == encode(masks)
