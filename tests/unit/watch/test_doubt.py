"""Where the doubt about ordinary images lies."""

from __future__ import annotations

import numpy as np
import pytest

from samif.watch.doubt import learn_doubt
from samif.watch.observe import Observation

CLASSES = 5


def images(count: int, seed: int) -> list[Observation]:
    mix = np.random.default_rng(1).normal(size=(CLASSES + 1, CLASSES + 1))
    doubt = np.random.default_rng(seed).normal(size=(count, CLASSES + 1)) @ mix
    return [Observation({}, np.zeros(1, np.float32), (), np.zeros((0, 3), np.float32), row) for row in doubt]


@pytest.mark.parametrize("count", [40, 300])
def test_reference_images_scatter_as_others_do(count: int) -> None:
    space, places = learn_doubt(images(count, 2), 32)
    others = space.place(np.stack([seen.doubt for seen in images(4000, 3)]))
    assert places.var() == pytest.approx(others.var(), rel=0.25) and others.var() == pytest.approx(1.0, rel=0.35)


@pytest.mark.parametrize(("count", "most", "expected"), [(20, 32, 5), (300, 32, CLASSES + 1), (300, 3, 3)])
def test_directions_are_no_more_than_the_images_bear(count: int, most: int, expected: int) -> None:
    space, places = learn_doubt(images(count, 2), most)
    assert places.shape == (count, expected) and space.directions.shape == (CLASSES + 1, expected)


def test_without_any_doubt_there_is_no_place_to_be() -> None:
    sure = [Observation({}, np.zeros(1, np.float32), (), np.zeros((0, 3), np.float32), np.zeros(3))] * 20
    assert not learn_doubt(sure, 4)[1].any()
