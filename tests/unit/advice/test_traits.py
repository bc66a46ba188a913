"""Traits of objects drawn by hand, whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from samif.advice.traits import largest_window, measure_traits, principal_angle
from tests.support.handmade import annotation, image, rectangle

SHAPE = (120, 160)


def bar(angle: float, length: float, width: float) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    turn = np.radians(angle)
    along = (x - 80) * np.cos(turn) + (y - 60) * np.sin(turn)
    across = -(x - 80) * np.sin(turn) + (y - 60) * np.cos(turn)
    return (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 130, 175])
def test_the_direction_of_a_long_object(angle: float) -> None:
    found = principal_angle(bar(angle, 60, 15))
    assert found is not None and min(abs(found - angle), 180 - abs(found - angle)) < 2


def test_an_object_as_long_as_wide_has_no_direction() -> None:
    assert principal_angle(bar(30, 40, 36)) is None
    assert principal_angle(rectangle(SHAPE, 0, 0, 1, 1)) is None


@pytest.mark.parametrize(
    ("angles", "count"), [([10.0, 12.0, 90.0], 2), ([178.0, 2.0, 5.0], 3), ([0.0, 45.0, 90.0, 135.0], 1)]
)
def test_directions_are_counted_around_the_circle(angles: list[float], count: int) -> None:
    assert largest_window(angles, 15.0)[0] == count


def test_size_light_and_background() -> None:
    pixels = np.full((*SHAPE, 3), (100, 120, 140), dtype=np.uint8)
    pixels[40:60, 50:90] = 200
    (found,) = measure_traits(image(1, SHAPE, annotation(5, "bolt", rectangle(SHAPE, 40, 50, 20, 40))), pixels)
    assert (found.image, found.annotation, found.category) == (1, 5, "bolt")
    assert found.size == pytest.approx((800 / (120 * 160)) ** 0.5)
    assert found.brightness == pytest.approx(200)
    assert found.surround == pytest.approx((100, 120, 140))
    assert not found.cut and not found.touching


@pytest.mark.parametrize(("left", "cut"), [(0, True), (1, True), (2, False), (118, False), (119, True), (120, True)])
def test_cut_by_the_border(left: int, cut: bool) -> None:
    record = image(1, SHAPE, annotation(1, "bolt", rectangle(SHAPE, 40, left, 20, 40)))
    assert measure_traits(record, np.zeros((*SHAPE, 3), np.uint8))[0].cut is cut


@pytest.mark.parametrize(("gap", "touching"), [(-5, True), (0, True), (2, True), (9, False)])
def test_touched_by_another_label(gap: int, touching: bool) -> None:
    one, other = rectangle(SHAPE, 40, 30, 30, 30), rectangle(SHAPE, 40, 60 + gap, 30, 30)
    record = image(1, SHAPE, annotation(1, "bolt", one), annotation(2, "nut", other))
    assert [t.touching for t in measure_traits(record, np.zeros((*SHAPE, 3), np.uint8))] == [touching] * 2


def test_crowds_are_not_measured_and_large_images_are_thinned() -> None:
    shape = (1500, 2100)
    record = image(
        1, shape, annotation(1, "bolt", rectangle(shape, 300, 300, 200, 500)),
        annotation(2, "bolt", rectangle(shape, 0, 0, 100, 100), crowd=True),
    )  # fmt: skip
    (found,) = measure_traits(record, np.full((*shape, 3), 50, dtype=np.uint8))
    assert found.angle == pytest.approx(0, abs=1) and found.surround == pytest.approx((50, 50, 50))


def test_pixels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="expected an image of 120 x 160 pixels"):
        measure_traits(image(1, SHAPE), np.zeros((10, 10, 3), np.uint8))
