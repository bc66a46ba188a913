"""Projection of the uncertainty in ordinary images."""

from __future__ import annotations

import numpy as np
import pytest

from samif.watch.observe import Observation
from samif.watch.uncertainty import fit_uncertainty

CLASSES = 5


def images(count: int, seed: int) -> list[Observation]:
    mix = np.random.default_rng(1).normal(size=(CLASSES + 1, CLASSES + 1))
    uncertainty = np.random.default_rng(seed).normal(size=(count, CLASSES + 1)) @ mix
    return [Observation({}, np.zeros(1, np.float32), (), np.zeros((0, 3), np.float32), row) for row in uncertainty]


@pytest.mark.parametrize("count", [40, 300])
def test_reference_images_vary_as_new_ones_do(count: int) -> None:
    projection, projected = fit_uncertainty(images(count, 2), 32)
    others = projection.apply(np.stack([image.uncertainty for image in images(4000, 3)]))
    assert projected.var() == pytest.approx(others.var(), rel=0.25) and others.var() == pytest.approx(1.0, rel=0.35)


@pytest.mark.parametrize(("count", "most", "expected"), [(20, 32, 5), (300, 32, CLASSES + 1), (300, 3, 3)])
def test_components_are_limited_by_the_number_of_images(count: int, most: int, expected: int) -> None:
    projection, projected = fit_uncertainty(images(count, 2), most)
    assert projected.shape == (count, expected) and projection.components.shape == (CLASSES + 1, expected)


def test_without_any_uncertainty_the_projection_is_zero() -> None:
    certain = [Observation({}, np.zeros(1, np.float32), (), np.zeros((0, 3), np.float32), np.zeros(3))] * 20
    assert not fit_uncertainty(certain, 4)[1].any()
