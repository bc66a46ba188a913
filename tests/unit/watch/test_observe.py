"""Statistics of one image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samif.config import EvaluateParams
from samif.watch.objects import MIN_OBJECTS, REFERENCE_SHARE, fit_class_means, fit_object_space
from samif.watch.observe import Observation, observe, pooled, statistic_names, vector
from tests.support.handmade import classifier, proposals, rectangle

SHAPE = (40, 40)
HEAD = classifier({"bolt": [9.0, 0.0, 0.0], "gear": [0.0, 9.0, 0.0]}, [0.0, 0.0, 9.0])
TOKENS = {"bolt": [9.0, 0, 0], "gear": [0, 9.0, 0], "background": [0, 0, 9.0], "mixed": [4.6, 4.4, 0]}
PLACES = [rectangle(SHAPE, 10 * (i // 4), 10 * (i % 4), 8, 8) for i in range(16)]
EMBEDDING = torch.zeros(256, 8, 8)


def observation(*kinds: str, quality: float = 1.0) -> Observation:
    tokens = np.array([TOKENS[kind] for kind in kinds], dtype=np.float32).reshape(len(kinds), 3)
    found = proposals(PLACES[: len(kinds)], tokens, [quality] * len(kinds))
    return observe(found, EMBEDDING, SHAPE, HEAD, EvaluateParams(operating_score=0.3))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), {"objects": 0, "unknown": 0}),
        (("bolt", "bolt", "gear"), {"objects": 3, "background": 0, "unknown": 0, "class bolt": 2, "class gear": 1}),
        (("bolt", "background"), {"objects": 2, "background": 0.5, "unknown": 1, "class bolt": 1}),
        (("background", "background"), {"objects": 2, "background": 1, "unknown": 2}),
    ],
)
def test_counts_and_shares(kinds: tuple[str, ...], expected: dict[str, float]) -> None:
    found = observation(*kinds)
    assert {name: value for name, value in found.values.items() if name != "margin"} == expected
    assert found.names == tuple(k for k in kinds if k != "background") and len(found.features) == len(found.names)


def test_the_margin_is_small_between_two_classes_and_absent_without_objects() -> None:
    assert observation("bolt").values["margin"] > 0.99
    assert observation("mixed").values["margin"] < 0.9
    assert "margin" not in observation("background").values and "margin" not in observation().values


def test_uncertainty_is_highest_for_the_classes_that_an_uncertain_object_resembles() -> None:
    """Both classes of an object between them; there is none for a clear object, nor without objects."""
    bolt, gear, total = observation("mixed", "bolt").uncertainty
    assert bolt == pytest.approx(total / np.sqrt(2), rel=0.05) and gear == pytest.approx(total / np.sqrt(2), rel=0.05)
    assert np.allclose(observation("bolt").uncertainty, 0.0, atol=0.01) and not observation().uncertainty.any()
    assert observation("background").uncertainty[-1] > 0.9


def test_a_bad_mask_of_background_is_no_object() -> None:
    assert observation("background", quality=0.4).values["objects"] == 0


def test_undefined_is_not_zero() -> None:
    names = statistic_names(("bolt",))
    assert np.isnan(vector({"objects": 1.0}, names)).tolist() == [False, True, True, True, True, False]


def test_the_padding_of_a_wide_image_does_not_count() -> None:
    embedding = torch.zeros(256, 8, 8)
    embedding[:, 4:] = 5.0  # below an image twice as wide as high
    assert not pooled(embedding, (20, 40)).any() and pooled(embedding, (40, 40)).any()


def drawn(names: tuple[str, ...], rng: np.random.Generator, far: float = 0.0) -> Observation:
    centres = {"bolt": np.zeros(5), "gear": np.full(5, 4.0)}
    features = [centres[name] + rng.normal(size=5) * np.array([1, 1, 1, 1, 0.1]) for name in names]
    features[0] = features[0] + np.array([0, 0, 0, 0, far])
    return Observation(
        {}, np.zeros(1, np.float32), names, np.array(features, dtype=np.float32), np.zeros(1, np.float32)
    )


def test_an_object_is_out_of_distribution_by_the_component_in_which_its_class_varies_little() -> None:
    rng = np.random.default_rng(0)
    reference = [drawn(("bolt", "gear", "bolt"), rng) for _ in range(100)]
    space, counts = fit_object_space(reference, 5)
    assert space is not None and 0.0 < np.mean(counts) < 3 * 2 * REFERENCE_SHARE
    usual = [space.count_out_of_distribution(drawn(("bolt", "gear", "bolt"), rng)) for _ in range(300)]
    assert np.mean(usual) / 3 == pytest.approx(REFERENCE_SHARE, abs=0.02)
    assert space.count_out_of_distribution(drawn(("bolt", "gear"), rng, far=2.0)) == 1.0


def test_a_class_of_too_few_reference_objects_is_left_out() -> None:
    rng = np.random.default_rng(0)
    reference = [drawn(("bolt",), rng) for _ in range(40)]
    few = fit_class_means(reference + [drawn(("gear",), rng)] * (MIN_OBJECTS - 1), 5)
    enough = fit_class_means(reference + [drawn(("gear",), rng)] * MIN_OBJECTS, 5)
    assert few is not None and len(few.distances(drawn(("gear",), rng))) == 0
    assert enough is not None and len(enough.distances(drawn(("gear",), rng))) == 1
    assert fit_object_space([drawn(("bolt",), rng)], 5) == (None, [0.0])
