"""A part of a labelled image as an image of its own."""

from __future__ import annotations

import numpy as np
import pytest

from samif.dataset.crop import crop
from samif.masks.rle import decode
from tests.support.handmade import annotation, image, rectangle

SHAPE = (60, 80)


def test_labels_are_in_the_pixels_of_the_part() -> None:
    whole = image(1, SHAPE, annotation(7, "a", rectangle(SHAPE, 20, 30, 10, 8)))
    part = crop(whole, 25, 15, 40, 30)
    assert (part.id, part.sha256, part.height, part.width) == (1, whole.sha256, 30, 40)
    (label,) = part.annotations
    assert (label.id, label.category, label.crowd) == (7, "a", False)
    assert label.bbox == (5.0, 5.0, 8.0, 10.0) and label.area == 80.0
    assert np.array_equal(decode([label.rle])[0], decode([whole.annotations[0].rle])[0][15:45, 25:65])


@pytest.mark.parametrize(("left", "crowd"), [(20, False), (24, False), (25, False), (26, True), (29, True)])
def test_an_object_of_which_less_than_half_is_seen_is_a_crowd(left: int, crowd: bool) -> None:
    whole = image(1, SHAPE, annotation(1, "a", rectangle(SHAPE, 10, 20, 10, 10)))
    (label,) = crop(whole, left, 0, 40, 60).annotations
    assert label.crowd is crowd


def test_what_is_not_seen_has_no_label() -> None:
    whole = image(1, SHAPE, annotation(1, "a", rectangle(SHAPE, 10, 20, 10, 10)))
    assert [crop(whole, x, y, 20, 10).annotations for x, y in ((0, 10), (30, 10), (20, 0), (20, 20))] == [()] * 4


def test_a_crowd_stays_one() -> None:
    whole = image(1, SHAPE, annotation(1, "a", rectangle(SHAPE, 0, 0, 60, 80), crowd=True))
    (label,) = crop(whole, 10, 10, 30, 20).annotations
    assert label.crowd and label.area == 600.0
