"""Polygons and RLE become one canonical form, or say what is wrong with them."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from samif.dataset.segmentation import BadSegmentation, Mask, read_mask, to_rle

W, H = 40, 30

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)).filter(lambda mask: mask.any())


def run_lengths(mask: np.ndarray) -> list[int]:
    """Runs by columns, background first, in plain Python."""
    counts = [] if not mask.T.flat[0] else [0]
    return counts + [len(list(run)) for _, run in groupby(mask.T.flat)]


@given(masks)
def test_both_kinds_of_rle_round_trip(mask: np.ndarray) -> None:
    height, width = mask.shape
    packed = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    for counts in (packed, run_lengths(mask)):
        rle = to_rle({"size": [height, width], "counts": counts}, width, height)
        assert rle == {"size": [height, width], "counts": packed}
        np.testing.assert_array_equal(coco_mask.decode(rle).astype(bool), mask)


@given(masks, st.data())
def test_runs_of_nothing_do_not_change_the_mask(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    counts = run_lengths(mask)
    plain = to_rle({"size": [height, width], "counts": list(counts)}, width, height)
    place = data.draw(st.integers(0, len(counts) - 1))
    cut = data.draw(st.integers(0, counts[place]))
    counts[place : place + 1] = [cut, 0, counts[place] - cut]
    assert to_rle({"size": [height, width], "counts": counts}, width, height) == plain


@given(st.text(alphabet=[chr(code) for code in range(40, 127)], max_size=40))
def test_no_string_breaks_the_decoder(counts: str) -> None:
    try:
        rle = to_rle({"size": [H, W], "counts": counts}, W, H)
    except BadSegmentation:
        return
    assert coco_mask.decode(rle).shape == (H, W)


@given(st.integers(0, W - 4), st.integers(0, H - 4), st.integers(3, 9), st.integers(3, 9))
def test_a_rectangle_covers_its_pixels(x: int, y: int, width: int, height: int) -> None:
    right, bottom = min(x + width, W), min(y + height, H)
    mask = coco_mask.decode(to_rle([[x, y, right, y, right, bottom, x, bottom]], W, H))
    expected = np.zeros((H, W), np.uint8)
    expected[y:bottom, x:right] = 1
    np.testing.assert_array_equal(mask, expected)


def test_polygons_of_one_object_are_united() -> None:
    two = to_rle([[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 14, 10, 14, 14, 10, 14]], W, H)
    assert coco_mask.area(two) == 32


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
@pytest.mark.parametrize(("over", "accepted"), [(0.0, True), (3.0, True), (5.0, True), (5.01, False), (8.0, False)])
def test_a_polygon_is_cut_to_the_image_with_a_word_beyond_five_pixels(side: str, over: float, accepted: bool) -> None:
    sides = {"left": 10.0, "top": 10.0, "right": 20.0, "bottom": 20.0}
    sides[side] = {"left": -over, "top": -over, "right": W + over, "bottom": H + over}[side]
    polygon = box(**sides)
    inside = box(**{**sides, side: {"left": 0, "top": 0, "right": W, "bottom": H}[side]})
    mask = read_mask(polygon, W, H)
    assert mask == Mask(to_rle(inside, W, H), mask.changes)
    told = [] if accepted else [f"has a polygon that sticks {over:.4g} pixels out of the 40 x 30 image"]
    assert [change.what for change in mask.changes] == told


@pytest.mark.parametrize("side", ["left", "top", "right", "bottom"])
def test_a_polygon_that_is_mostly_outside_is_refused(side: str) -> None:
    sides = {"left": 10.0, "top": 10.0, "right": 20.0, "bottom": 20.0}
    sides[side] = {"left": -90.0, "top": -90.0, "right": W + 90.0, "bottom": H + 90.0}[side]
    with pytest.raises(BadSegmentation, match="sticks 90 pixels out of the 40 x 30 image"):
        to_rle(box(**sides), W, H)


@given(st.lists(st.tuples(st.floats(-15, W + 15), st.floats(-15, H + 15)), min_size=3, max_size=8))
def test_cutting_changes_no_pixel_inside(points: list[tuple[float, float]]) -> None:
    """pycocotools on a canvas large enough for the whole outline is the reference."""
    try:
        cut = read_mask([[value for point in points for value in point]], W, H)
    except BadSegmentation:
        return
    wide = to_rle([[value + 20 for point in points for value in point]], W + 40, H + 40)
    reference = coco_mask.decode(wide)[20 : 20 + H, 20 : 20 + W]
    differing = coco_mask.decode(cut.rle) != reference
    assert differing.sum() <= 0.05 * W * H  # pixels on the outline may fall to either side


INF, NAN = math.inf, math.nan
BAD: list[tuple[Any, str]] = [
    (None, "no outline"),
    ([], "no outline"),
    ("polygon", "no outline"),
    (5, "no outline"),
    ([[1, 1, 5, 1, 5, NAN]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, INF]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, 10**400]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, "x"]], "not finite numbers"),
    ([1, 2, 3, 4, "x", 6], "not finite numbers"),
    ([[[1, 1], [5, 1], [5, None]]], "not finite numbers"),
    ([[1e9, 1, 5, 1, 5, 5]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, True]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, None]], "not finite numbers"),
    ([[1, 1, 5, 1, 5, 5, 1]], "odd number of coordinates"),
    ([[1, 1, 5, 5]], "polygon of 2 points"),
    ([[]], "no outline"),
    ([[], [[]]], "no outline"),
    ({}, "no outline"),
    ([{}], "no outline"),
    ("[]", "no outline"),
    ("[[1, 1", "no outline"),
    ([[5, 5]], "polygon of 1 point;"),
    ([[5, 5], [9, 9]], "polygon of 2 points"),
    ([[5, 5, 9, 9], [1, 1]], "polygon of 2 points"),
    ([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]], "between 0 and 1, as shares"),
    (box(-4, 1, -1, 9), "lies outside"),
    (box(W, 1, W + 3, 9), "lies outside"),
    (box(1, H, 9, H + 4), "lies outside"),
    (box(1e6, 1e6, 2e6, 2e6), "lies outside"),
    (box(-1e6, 0, 1e6, 9), "sticks"),
    (box(-1e18, 0, 1e18, 9), "not finite numbers"),
    ([[3, 3, 3, 3, 3, 3]], "empty mask"),
    ({"counts": [0, W * H]}, "RLE of size None"),
    ({"size": [W, H], "counts": [0, W * H]}, r"RLE of size \[40, 30\]"),
    ({"size": [H, W]}, "neither a list"),
    ({"size": [H, W], "counts": 5}, "neither a list"),
    ({"size": [H, W], "counts": [1.5, W * H - 1.5]}, "neither a list"),
    ({"size": [H, W], "counts": "b'5'"}, "do not add up"),
    ({"size": [H, W], "counts": [-1, W * H + 1]}, "neither a list"),
    ({"size": [H, W], "counts": [True, W * H - 1]}, "neither a list"),
    ({"size": [H, W], "counts": [NAN]}, "neither a list"),
    ({"size": [H, W], "counts": [10, W * H - 11]}, "do not add up to the 1200 pixels"),
    ({"size": [H, W], "counts": [10, W * H - 9]}, "do not add up to the 1200 pixels"),
    ({"size": [H, W], "counts": [0, 10**30]}, "neither a list"),
    ({"size": [H, W], "counts": [0, 10**400]}, "neither a list"),
    ({"size": [H, W], "counts": []}, "do not add up to the 1200 pixels"),
    ({"size": [H, W], "counts": [W * H]}, "empty mask"),
    ({"size": [H, W], "counts": ""}, "neither a list"),
    ({"size": [H, W], "counts": "ä"}, "neither a list"),
    ({"size": [H, W], "counts": "P"}, "neither a list"),  # promises another character
    ({"size": [H, W], "counts": "ooooooooooooo0"}, "neither a list"),  # 65 bits
    ({"size": [H, W], "counts": "@"}, "neither a list"),  # -16
    ({"size": [H, W], "counts": "55"}, "do not add up to the 1200 pixels"),
]


@pytest.mark.parametrize(("segmentation", "text"), BAD)
def test_what_is_no_mask_is_refused(segmentation: Any, text: str) -> None:
    with pytest.raises(BadSegmentation, match=text) as caught:
        to_rle(segmentation, W, H)
    assert caught.value.remedy


SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]
PAIRS = [[1, 1], [9, 1], [9, 9], [1, 9]]
RUNS = run_lengths(coco_mask.decode(to_rle([SQUARE], W, H)).astype(bool))
PACKED = to_rle([SQUARE], W, H)["counts"]


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        PAIRS,
        [PAIRS],
        [[SQUARE]],
        [[PAIRS]],
        [{"x": x, "y": y} for x, y in PAIRS],
        [[str(value) for value in SQUARE]],
        [[f"{value}.0" for value in SQUARE]],
        str([SQUARE]),
        [SQUARE, []],
        [SQUARE, [3, 3, 3, 3, 3, 3]],
        {"size": [H, W], "counts": RUNS},
        {"size": [H, W], "counts": [float(run) for run in RUNS]},
        {"size": [str(H), float(W)], "counts": [str(run) for run in RUNS]},
        {"size": [H, W], "counts": str(PACKED.encode())},
        [{"size": [H, W], "counts": PACKED}],
        [{"size": [H, W], "counts": PACKED}, SQUARE],
    ],
)
def test_every_way_of_writing_a_mask_is_read(segmentation: Any) -> None:
    assert read_mask(segmentation, W, H) == Mask(to_rle([SQUARE], W, H))


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ([5, 5], "polygon of 1 point;"),
        ([5, 5, 9, 9], "polygon of 2 points"),
        ([5, 5, 9, 9, 7], "odd number"),
        ([5, 5, 9, 9, 7, NAN], "not finite"),
        ([5, 5, 9, None, 7, 8], "not finite"),
        (7, "odd number"),
        ([90, 5, 99, 5, 99, 9], "lies outside"),
        ({"size": [W, H], "counts": PACKED}, "RLE of size"),
    ],
)
def test_a_broken_part_costs_only_itself(part: Any, text: str) -> None:
    mask = read_mask([part, SQUARE], W, H)
    assert mask.rle == to_rle([SQUARE], W, H)
    (change,) = mask.changes
    assert text in change.what and change.remedy and not change.cut
