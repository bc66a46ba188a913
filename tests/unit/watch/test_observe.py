"""What one image tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samif.config import EvaluateParams
from samif.watch.objects import LEAST_OBJECTS, STRANGE_SHARE, learn_objects, object_space
from samif.watch.observe import Observation, observe, pooled, statistics_of, vector
from tests.support.handmade import classifier, proposals, rectangle

SHAPE = (40, 40)
HEAD = classifier({"bolt": [9.0, 0.0, 0.0], "gear": [0.0, 9.0, 0.0]}, [0.0, 0.0, 9.0])
TOKENS = {"bolt": [9.0, 0, 0], "gear": [0, 9.0, 0], "background": [0, 0, 9.0], "torn": [4.6, 4.4, 0]}
PLACES = [rectangle(SHAPE, 10 * (i // 4), 10 * (i % 4), 8, 8) for i in range(16)]
EMBEDDING = torch.zeros(256, 8, 8)


def see(*kinds: str, quality: float = 1.0) -> Observation:
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
    seen = see(*kinds)
    assert {name: value for name, value in seen.values.items() if name != "margin"} == expected
    assert seen.names == tuple(k for k in kinds if k != "background") and len(seen.features) == len(seen.names)


def test_the_margin_is_small_between_two_classes_and_absent_of_nothing() -> None:
    assert see("bolt").values["margin"] > 0.99
    assert see("torn").values["margin"] < 0.9
    assert "margin" not in see("background").values and "margin" not in see().values


def test_doubt_points_to_the_classes_that_a_doubtful_object_is_like() -> None:
    """Both classes of a torn one; nothing is doubtful about a clear one, nor where there is nothing."""
    bolt, gear, much = see("torn", "bolt").doubt
    assert bolt == pytest.approx(much / np.sqrt(2), rel=0.05) and gear == pytest.approx(much / np.sqrt(2), rel=0.05)
    assert (
        np.allclose(see("bolt").doubt, 0.0, atol=0.01) and not see().doubt.any() and see("background").doubt[-1] > 0.9
    )


def test_a_bad_mask_of_background_is_no_object() -> None:
    assert see("background", quality=0.4).values["objects"] == 0


def test_undefined_is_not_zero() -> None:
    names = statistics_of(("bolt",))
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


def test_an_object_unlike_its_class_is_strange_in_the_direction_in_which_they_are_alike() -> None:
    rng = np.random.default_rng(0)
    reference = [drawn(("bolt", "gear", "bolt"), rng) for _ in range(100)]
    space, strange = learn_objects(reference, 5)
    assert space is not None and 0.0 < np.mean(strange) < 3 * 2 * STRANGE_SHARE
    usual = [space.strange(drawn(("bolt", "gear", "bolt"), rng)) for _ in range(300)]
    assert np.mean(usual) / 3 == pytest.approx(STRANGE_SHARE, abs=0.02)
    assert space.strange(drawn(("bolt", "gear"), rng, far=2.0)) == 1.0


def test_a_class_of_too_few_reference_objects_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    reference = [drawn(("bolt",), rng) for _ in range(40)]
    few = object_space(reference + [drawn(("gear",), rng)] * (LEAST_OBJECTS - 1), 5)
    enough = object_space(reference + [drawn(("gear",), rng)] * LEAST_OBJECTS, 5)
    assert few is not None and len(few.distances(drawn(("gear",), rng))) == 0
    assert enough is not None and len(enough.distances(drawn(("gear",), rng))) == 1
    assert learn_objects([drawn(("bolt",), rng)], 5) == (None, [0.0])
