"""The curve over shots: where it is given, and what it says of a class that rises and of one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from samif.advice.naming import LabelledObjects
from samif.advice.shots_curve import MIN_GROUPS, shots_curve


def line(images: int, own_spread: float, seed: int = 0) -> LabelledObjects:
    """Two known classes of 20 images, and one of `images` whose objects scatter more or less."""
    rng = np.random.default_rng(seed)
    means = 2.0 * rng.normal(size=(3, 16))
    category = np.array([0] * images + [1] * 20 + [2] * 20)
    spread = np.where(category == 0, own_spread, 1.0)[:, None]
    features = means[category] + spread * rng.normal(size=(len(category), 16))
    return LabelledObjects(features.astype(np.float32), ("pin", "bolt", "nut"), category, np.arange(len(category)))


def test_nothing_is_said_where_the_data_are_too_few() -> None:
    assert shots_curve(line(MIN_GROUPS - 1, 1.0), 0) is None
    few = line(12, 1.0)
    assert shots_curve(few.take(few.category != 2), 0) is None, "one other class"
    assert shots_curve(few.take(np.flatnonzero(few.category == 0)), 0) is None
    assert shots_curve(line(MIN_GROUPS, 1.0), 0) is not None


@pytest.mark.parametrize("seed", range(3))
def test_an_easy_class_gains_nothing_and_the_interval_says_so(seed: int) -> None:
    found = shots_curve(line(12, 0.5, seed), 0)
    assert found is not None
    assert all(point.right == 1.0 for point in found.points)
    assert abs(found.gain) < 0.5 and 0.5 < found.half < 10


@pytest.mark.parametrize("seed", range(3))
def test_a_class_that_scatters_rises(seed: int) -> None:
    found = shots_curve(line(20, 3.2, seed), 0)
    assert found is not None
    assert found.points[-1].right > found.points[0].right + 0.05
    assert found.gain > 0
    assert all(p.low <= p.right <= p.high for p in found.points)


def test_few_images_have_a_wider_interval() -> None:
    halves = [found.half for n in (6, 12, 24) if (found := shots_curve(line(n, 2.0), 0)) is not None]
    assert len(halves) == 3 and halves == sorted(halves, reverse=True)
