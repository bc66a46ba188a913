"""Name confidence: fitted on names of known truth, monotone, part of the classifier."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from samif.classifier.confidence import FEWEST, fit_confidence, naming_quantities

COUNT = 4000


def drawn(weights: list[float], bias: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Quantities (COUNT, 5) and whether each name is right, by a logistic model with these weights."""
    rng = np.random.default_rng(seed)
    quantities = naming_quantities(*rng.uniform(0.05, 1.0, (5, COUNT)))
    return quantities, rng.random(COUNT) < expit(quantities @ np.array(weights) + bias)


def test_the_weights_that_made_the_names_are_found() -> None:
    found = fit_confidence(*drawn([1.0, 4.0, 0.5, 2.0, 3.0], 3.0))
    assert found is not None
    values = [found.class_probability, found.iou, found.objectness, found.unmerged, found.apart, found.bias]
    assert values == pytest.approx([1.0, 4.0, 0.5, 2.0, 3.0, 3.0], abs=0.45)


def test_scores_are_the_share_of_right_names() -> None:
    quantities, right = drawn([1.0, 4.0, 0.0, 1.0, 2.0], 2.0)
    found = fit_confidence(quantities, right)
    assert found is not None
    scores = found(quantities)
    for low in (0.0, 0.25, 0.5, 0.75):
        rows = (scores >= low) & (scores < low + 0.25)
        assert right[rows].mean() == pytest.approx(scores[rows].mean(), abs=0.05)


def test_no_weight_is_negative() -> None:
    """Where right names have the lower predicted IoU, it is left out, and never lowers a better mask."""
    quantities, right = drawn([1.0, -3.0, 0.0, 1.0, 2.0], -4.0)
    found = fit_confidence(quantities, right)
    assert found is not None and found.iou == 0.0
    better = quantities.copy()
    better[:, 1] /= 2.0  # logarithms: a higher predicted IoU
    assert (found(better) >= found(quantities)).all()


@pytest.mark.parametrize(("right", "false"), [(FEWEST - 1, 200), (200, FEWEST - 1), (0, 0)])
def test_too_few_names_give_no_confidence(right: int, false: int) -> None:
    quantities = naming_quantities(*np.full((5, right + false), 0.5))
    assert fit_confidence(quantities, np.arange(right + false) < right) is None


def test_equal_names_are_no_error() -> None:
    """A quantity that is the same for all names has no spread to be scaled by."""
    found = fit_confidence(naming_quantities(*np.full((5, 90), 0.5)), np.arange(90) < 60)
    assert found is not None
    assert found(naming_quantities(*np.full((5, 1), 0.5)))[0] == pytest.approx(2 / 3, abs=0.01)
