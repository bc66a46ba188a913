"""Targets of fine-tuning on rectangles. An image of 256 pixels has cells of one pixel."""

from __future__ import annotations

import numpy as np
import pytest

from samif.dataset.model import Annotation
from samif.finetune.targets import LABELS, SEAM, ImageTargets, to_points
from samif.sam.frame import Frame
from tests.support.handmade import annotation, image, rectangle

SQUARE = (LABELS, LABELS)
BOLT = frozenset({"bolt"})


def targets(*annotations: Annotation, shape: tuple[int, int] = SQUARE, image_size: int = 256) -> ImageTargets:
    return ImageTargets.of(image(1, shape, *annotations), BOLT, image_size)


def cells(places: np.ndarray) -> set[tuple[int, int]]:
    return {(int(x), int(y)) for x, y in places}


def box(top: int, left: int, height: int, width: int) -> set[tuple[int, int]]:
    return {(x, y) for y in range(top, top + height) for x in range(left, left + width)}


# Interior


@pytest.mark.parametrize(
    ("erosion", "margin"), [(0.0, 0), (0.1, 0), (0.15, 1), (0.2, 1), (0.21, 2), (0.5, 4), (1.0, 9)]
)
def test_erosion_takes_a_share_of_the_depth_off(erosion: float, margin: int) -> None:
    """A square of 19 is 10 cells deep, its outermost ring 1."""
    one = targets(annotation(1, "bolt", rectangle(SQUARE, 40, 60, 19, 19)))
    side = 19 - 2 * margin
    assert cells(one.interior(0, erosion)) == box(40 + margin, 60 + margin, side, side)


@pytest.mark.parametrize("erosion", [0.0, 0.15, 1.0])
def test_a_single_cell_is_left_whatever_the_erosion(erosion: float) -> None:
    one = targets(annotation(1, "bolt", rectangle(SQUARE, 7, 9, 1, 1)))
    assert cells(one.interior(0, erosion)) == {(9, 7)}


def test_a_line_that_covers_half_a_cell_keeps_its_best_cells() -> None:
    """One pixel wide in an image of 1024, a quarter of a cell: eroding by cells would leave nothing."""
    line = targets(annotation(1, "bolt", rectangle((1024, 1024), 100, 402, 40, 1)), shape=(1024, 1024))
    assert cells(line.interior(0, 0.15)) == box(25, 100, 10, 1)


def test_an_object_far_smaller_than_a_cell_can_be_prompted() -> None:
    shape = (6000, 8000)
    one = targets(annotation(1, "bolt", rectangle(shape, 3000, 4000, 1, 1)), shape=shape)
    assert cells(one.interior(0, 0.15)) == {(128, 96)}


def test_an_object_at_the_border_is_shallow_there() -> None:
    one = targets(annotation(1, "bolt", rectangle(SQUARE, 0, 0, 9, 9)))
    assert cells(one.interior(0, 1.0)) == {(4, 4)}


# Background and seams


def test_background_is_all_that_nothing_covers() -> None:
    one = targets(annotation(1, "bolt", rectangle(SQUARE, 10, 20, 30, 40)))
    assert cells(one.background) == box(0, 0, 256, 256) - box(10, 20, 30, 40)


@pytest.mark.parametrize(("category", "crowd"), [("hook", False), ("bolt", True)])
def test_what_is_ignored_is_never_background_nor_an_object(category: str, crowd: bool) -> None:
    seen = annotation(1, "bolt", rectangle(SQUARE, 0, 0, 20, 20))
    unseen = annotation(2, category, rectangle(SQUARE, 100, 100, 30, 30), crowd=crowd)
    one = targets(unseen, seen)
    assert len(one.objects) == 1 and one.objects[0, 5, 5] == 255
    assert not cells(one.background) & box(100, 100, 30, 30)
    assert one.ignored[100:130, 100:130].all() and one.ignored.sum() == 900


@pytest.mark.parametrize(("gap", "touching"), [(1, True), (2 * SEAM - 1, True), (2 * SEAM, False)])
def test_seams_lie_between_objects_that_nearly_touch(gap: int, touching: bool) -> None:
    left = annotation(1, "bolt", rectangle(SQUARE, 50, 20, 30, 30))
    right = annotation(2, "bolt", rectangle(SQUARE, 50, 50 + gap, 30, 30))
    one = targets(left, right)
    seams = cells(one.seams)
    assert bool(seams) is touching
    assert not seams & (box(50, 20, 30, 30) | box(50, 50 + gap, 30, 30))
    # within reach of both: the middle of the gap over the objects' whole height, and a little beyond it
    assert seams <= box(50 - SEAM, 50 + gap - SEAM, 30 + 2 * SEAM, 2 * SEAM - gap)
    assert not touching or seams >= box(50, 50 + gap // 2, 30, 1)


def test_one_object_has_no_seam() -> None:
    assert not len(targets(annotation(1, "bolt", rectangle(SQUARE, 50, 50, 30, 30))).seams)


def test_an_ignored_object_makes_no_seam_and_takes_none() -> None:
    left = annotation(1, "bolt", rectangle(SQUARE, 50, 20, 30, 30))
    right = annotation(2, "bolt", rectangle(SQUARE, 50, 54, 30, 30))
    between = annotation(3, "hook", rectangle(SQUARE, 50, 50, 30, 4))
    assert not cells(targets(left, right, between).seams) & box(50, 50, 30, 4)
    assert not len(targets(left, annotation(2, "hook", rectangle(SQUARE, 50, 54, 30, 30))).seams)


@pytest.mark.parametrize("shape", [(128, 256), (256, 128), (100, 301)])
def test_padding_is_never_prompted(shape: tuple[int, int]) -> None:
    """Two objects at the far edge, so that their seam would reach over it."""
    height, width = shape
    if width > height:
        masks = [rectangle(shape, height - 20, left, 20, 20) for left in (30, 54)]
    else:
        masks = [rectangle(shape, top, width - 20, 20, 20) for top in (30, 54)]
    one = targets(*(annotation(i, "bolt", mask) for i, mask in enumerate(masks)), shape=shape)
    assert len(one.seams) and len(one.background)
    side = max(shape)
    for places in (one.seams, one.background, one.interior(0, 0.0)):
        on_image = (places + 0.5) * (side / LABELS)  # image pixels
        assert (on_image[:, 0] < width).all() and (on_image[:, 1] < height).all()


def test_an_image_of_nothing_to_learn_has_background_only() -> None:
    one = targets()
    assert one.objects.shape == (0, LABELS, LABELS) and not len(one.seams) and len(one.background) == LABELS**2


# What the decoder is held to


def test_soft_masks_are_shares_of_cells() -> None:
    one = targets(annotation(1, "bolt", rectangle(SQUARE, 0, 0, 4, 6)))
    soft = one.soft(0, 64)
    assert soft.dtype == np.float32 and soft[0, :3].tolist() == [1.0, 0.5, 0.0] and soft.sum() == 1.5


def test_depth_is_one_in_the_middle_of_each_object_and_nought_outside() -> None:
    one = targets(
        annotation(1, "bolt", rectangle(SQUARE, 0, 0, 40, 40)),
        annotation(2, "bolt", rectangle(SQUARE, 120, 120, 104, 104)),
        annotation(3, "bolt", rectangle(SQUARE, 60, 200, 2, 2)),  # between the sampled pixels
    )
    depth = one.depth(32)
    assert depth.shape == (32, 32) and depth.dtype == np.float32
    assert [float(depth[y, x]) for y, x in ((2, 2), (21, 21), (7, 25))] == [1.0, 1.0, 1.0]
    assert depth[0, 0] == pytest.approx(1 / 3) and depth[10, 10] == 0.0
    assert (depth > 0).sum() == 5 * 5 + 13 * 13 + 1


def test_points_are_the_centres_of_cells_in_encoder_pixels() -> None:
    frame = Frame(100, 200, 1024)
    assert to_points(np.array([[0, 0], [255, 3]]), frame).tolist() == [[2.0, 2.0], [1022.0, 14.0]]
