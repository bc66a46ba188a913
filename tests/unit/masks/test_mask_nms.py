"""Duplicate removal on rectangles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samif.masks.mask_nms import diffuse, soften, suppress
from samif.masks.rle import Rle, overlaps
from tests.support.handmade import rectangle, rle

SHAPE = (40, 40)
WHOLE = rle(rectangle(SHAPE, 0, 0, 20, 10))
HALF = rle(rectangle(SHAPE, 0, 0, 10, 10))  # IoU 0.5 with WHOLE, all of it inside
SHIFTED = rle(rectangle(SHAPE, 5, 0, 10, 10))  # half of it on HALF, IoU 1/3
APART = rle(rectangle(SHAPE, 25, 25, 10, 10))
SAME = np.ones((2, 3), dtype=np.float32)
OTHER = np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32)


def softened(
    masks: Sequence[Rle], scores: Sequence[float], features: NDArray[np.float32], labels: Sequence[int] | None = None
) -> list[float]:
    numbers = np.array(labels if labels is not None else [0] * len(masks), dtype=np.int64)
    inside = overlaps(masks, masks, within_a=True)
    return [float(score) for score in soften(inside, np.array(scores, dtype=np.float64), features, numbers)]


# Suppression


@pytest.mark.parametrize(("iou", "kept"), [(0.49, [1]), (0.5, [1, 0]), (0.51, [1, 0])])
def test_only_more_than_the_limit_is_a_duplicate(iou: float, kept: list[int]) -> None:
    assert suppress([HALF, WHOLE], np.array([0.4, 0.9]), iou).tolist() == kept


def test_best_comes_first_and_the_rest_stays_apart() -> None:
    masks = [HALF, APART, WHOLE, SHIFTED]
    assert suppress(masks, np.array([0.3, 0.2, 0.9, 0.5]), 0.4).tolist() == [2, 1]


def test_what_is_dropped_drops_nothing_itself() -> None:
    """SHIFTED loses to WHOLE; HALF overlaps SHIFTED too much, but WHOLE not."""
    bridge = rle(rectangle(SHAPE, 8, 0, 12, 10))  # IoU 0.6 with WHOLE
    tail = rle(rectangle(SHAPE, 14, 0, 12, 10))  # with bridge 1/3, with WHOLE 6/26
    scores = np.array([0.9, 0.8, 0.7])
    assert suppress([WHOLE, bridge, tail], scores, 0.3).tolist() == [0, 2]


def test_of_equals_the_first_stays() -> None:
    assert suppress([HALF, HALF, HALF], np.array([0.5, 0.5, 0.5]), 0.5).tolist() == [0]


def test_nothing_suppresses_nothing() -> None:
    assert suppress([], np.zeros(0), 0.5).tolist() == []
    assert softened([], [], np.zeros((0, 3), np.float32)) == []


# Soft merging


@pytest.mark.parametrize(
    ("second", "features", "labels", "expected"),
    [
        (HALF, SAME, [0, 0], 0.0),  # a part of the whole
        (SHIFTED, SAME, [0, 0], 0.0),
        (APART, SAME, [0, 0], 0.6),  # no overlap: two objects of one class
        (HALF, OTHER, [0, 0], 0.6),  # other features
        (HALF, SAME, [0, 1], 0.6),  # lies on top and bears another name
    ],
    ids=["part", "inside", "apart", "different", "another label"],
)
def test_what_a_better_mask_does_to_the_next(
    second: Rle, features: NDArray[np.float32], labels: list[int], expected: float
) -> None:
    assert softened([WHOLE, second], [0.9, 0.6], features, labels) == pytest.approx([0.9, expected], abs=1e-6)


def test_decay_is_overlap_times_similarity() -> None:
    angled = np.array([[1, 0, 0], [0.6, 0.8, 0]], dtype=np.float32)
    assert softened([HALF, SHIFTED], [0.9, 0.6], angled) == pytest.approx([0.9, 0.6 * (1 - 0.5 * 0.6)])
    assert softened([HALF, SHIFTED], [0.9, 0.6], 100 * angled) == pytest.approx([0.9, 0.6 * (1 - 0.5 * 0.6)])


def test_a_whole_that_scores_less_than_its_part_loses() -> None:
    assert softened([HALF, WHOLE], [0.9, 0.6], SAME) == pytest.approx([0.9, 0.0], abs=1e-6)


def test_opposite_features_do_not_raise_a_score() -> None:
    assert softened([WHOLE, HALF], [0.9, 0.6], np.array([[1, 0], [-1, 0]], np.float32)) == pytest.approx([0.9, 0.6])


def test_of_equals_one_is_left() -> None:
    assert softened([HALF, HALF], [0.5, 0.5], SAME) == pytest.approx([0.5, 0.0], abs=1e-6)


@given(st.data())
def test_the_best_of_each_label_stays_and_none_rises(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    corner = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 15), st.integers(1, 15))
    masks = [rle(rectangle(SHAPE, *data.draw(corner))) for _ in range(count)]
    scores = np.array([data.draw(st.floats(0.0, 1.0)) for _ in range(count)])
    labels = np.array([data.draw(st.integers(0, 2)) for _ in range(count)], dtype=np.int64)
    features = np.array([[data.draw(st.floats(-1, 1, width=32)) for _ in range(3)] for _ in range(count)], np.float32)
    inside = overlaps(masks, masks, within_a=True)
    diffused = diffuse(inside, scores, features, labels)
    assert (diffused <= scores).all() and (diffused >= -1e-6).all()
    after = soften(inside, scores, features, labels)
    assert (after <= scores).all() and (after >= -1e-6).all()
    for label in set(labels.tolist()):
        group = np.flatnonzero(labels == label)
        best = group[scores[group].argmax()]
        assert after[best] == scores[best]


# Diffusion


PARTS = [rle(rectangle(SHAPE, top, 0, 5, 10)) for top in (0, 5, 10, 15)]  # together they are WHOLE


def diffused(scores: Sequence[float], labels: Sequence[int]) -> list[float]:
    masks = [WHOLE, *PARTS][: len(scores)]
    features = np.ones((len(scores), 3), dtype=np.float32)
    inside = overlaps(masks, masks, within_a=True)
    return diffuse(inside, np.array(scores), features, np.array(labels, dtype=np.int64)).tolist()


def test_parts_vouch_for_the_whole_even_against_a_better_score_of_their_own() -> None:
    whole, *parts = diffused([0.6, 0.8, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0])
    assert whole == pytest.approx(0.6) and parts == pytest.approx([0.0] * 4, abs=1e-6)


def test_a_whole_that_nothing_vouches_for_loses_to_its_better_part() -> None:
    assert diffused([0.2, 0.9], [0, 0]) == pytest.approx([0.0, 0.9], abs=1e-6)


def test_parts_of_another_label_neither_vouch_nor_lose() -> None:
    assert diffused([0.6, 0.8, 0.5], [0, 1, 1]) == pytest.approx([0.6, 0.8, 0.5])


def test_nothing_diffuses_to_nothing() -> None:
    none = np.zeros((0, 0))
    assert diffuse(none, np.zeros(0), np.zeros((0, 3), np.float32), np.zeros(0, np.int64)).tolist() == []
