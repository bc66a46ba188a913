"""The choice of images, on drawn feature clouds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samif.dataset.near_duplicates import Array, T
from samif.suggest.select import STRATEGIES, Choice, Strategy
from samif.suggest.select import choose as choose_with

WIDTH = 16
Cloud = NDArray[np.float64]
NONE = np.zeros((0, WIDTH))


def cloud(sizes: tuple[int, ...], spread: float = 0.4, seed: int = 0) -> tuple[Cloud, NDArray[np.int64]]:
    """Points about orthogonal directions, the first `sizes[k]` of each; and the direction of each point."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(WIDTH)[of] + rng.normal(0, spread, (len(of), WIDTH)), of


def scenes(kinds: NDArray[np.int64], noise: float = 0.02) -> list[Array]:
    """A thumbnail of each kind; those of one kind differ by noise."""
    rng = np.random.default_rng(7)
    plain = np.kron(rng.normal(size=(kinds.max(initial=0) + 1, 8, 8, 3)), np.ones((1, T // 8, T // 8, 1)))
    return [(plain[kind] + rng.normal(0, noise, (T, T, 3))).astype(np.float32) for kind in kinds]


def choose(
    features: Cloud, labelled: Cloud, uncertainty: Cloud, count: int, strategy: Strategy = "typical", seed: int = 0
) -> list[Choice]:
    """Where no two images are near-duplicates."""
    thumbnails = scenes(np.arange(len(features) + len(labelled)))
    return choose_with(features, labelled, uncertainty, thumbnails, count, strategy, seed)


@pytest.mark.parametrize("seed", range(4))
def test_typical_images_come_from_every_cluster_the_largest_first(seed: int) -> None:
    features, of = cloud((40, 20, 10, 30), spread=0.1, seed=seed)
    found = choose(features, NONE, np.zeros(100), 4, seed=seed)
    assert [of[c.index] for c in found] == [0, 3, 1, 2]
    assert [c.by for c in found] == ["typical"] * 4
    assert found[0].why == "typical of 40 images, none labelled"


@pytest.mark.parametrize("seed", range(4))
def test_typical_images_are_dense(seed: int) -> None:
    features, of = cloud((60, 60), spread=0.2, seed=seed)
    for choice in choose(features, NONE, np.zeros(120), 2, seed=seed):
        rows = np.flatnonzero(of == of[choice.index])
        from_centre = np.linalg.norm(features[rows] - features[rows].mean(axis=0), axis=1)
        rank = int((from_centre < from_centre[rows == choice.index][0]).sum())
        assert rank < len(rows) // 4


@pytest.mark.parametrize("covered", [(0,), (0, 3), (1, 2)])
def test_clusters_without_labels_come_first(covered: tuple[int, ...]) -> None:
    features, of = cloud((30, 25, 20, 15), spread=0.15)
    labelled, of_labelled = cloud((5, 5, 5, 5), spread=0.15, seed=9)
    labelled = labelled[np.isin(of_labelled, covered)]
    found = choose(features, labelled, np.zeros(90), 4)
    typical = [of[c.index] for c in found if c.by == "typical"]
    assert typical == [k for k in range(4) if k not in covered]
    assert len(found) == 4 and all(c.by == "uncertain" for c in found[len(typical) :])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(3))
def test_no_near_duplicates_of_each_other_or_of_labelled_images(strategy: Strategy, seed: int) -> None:
    """Whatever their features are."""
    rng = np.random.default_rng(seed)
    kinds = np.concatenate([np.arange(12), rng.integers(12, size=48), np.arange(3)])
    features = rng.normal(size=(60, WIDTH))
    labelled = rng.normal(size=(3, WIDTH))
    found = choose_with(features, labelled, rng.random(60), scenes(kinds), 20, strategy, seed)
    assert sorted(kinds[choice.index] for choice in found) == list(range(3, 12))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("copies", [2, 5, 30])
def test_copies_of_one_image_are_one(strategy: Strategy, copies: int) -> None:
    features = np.random.default_rng(0).normal(size=(copies, WIDTH))
    uncertainty, same = np.zeros(copies), scenes(np.zeros(copies + 1, dtype=np.int64))
    assert len(choose_with(features, NONE, uncertainty, same[:copies], 3, strategy)) == 1
    assert choose_with(features, features[:1], uncertainty, same, 3, strategy) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_images_with_equal_features_are_none(strategy: Strategy) -> None:
    """A fixed camera gives nearly one embedding to all."""
    assert len(choose(np.ones((6, WIDTH)), NONE, np.zeros(6), 6, strategy)) == 6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_seed_gives_the_same_choice(strategy: Strategy) -> None:
    features, _ = cloud((20, 20, 20))
    uncertainty = np.random.default_rng(1).random(60)
    first = choose(features, NONE, uncertainty, 8, strategy, seed=3)
    assert first == choose(features, NONE, uncertainty, 8, strategy, seed=3)
    if strategy == "random":
        assert first != choose(features, NONE, uncertainty, 8, strategy, seed=4)


def test_uncertain_images_are_uncertain_and_of_several_kinds() -> None:
    features, of = cloud((30, 30, 30))
    uncertainty = np.where(np.arange(90) % 5 == 0, 0.8, 0.1)
    found = choose(features, NONE, uncertainty, 6, "uncertain")
    assert all(uncertainty[c.index] == 0.8 for c in found)
    assert {of[c.index] for c in found} == {0, 1, 2}
    assert found[0].why == "names of 80 % of its objects change under dropout"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_fewer_images_than_asked_for(strategy: Strategy, number: int) -> None:
    features = np.eye(WIDTH)[:number]
    found = choose(features, NONE, np.zeros(number), 5, strategy)
    assert sorted(c.index for c in found) == list(range(number))
