"""Base training on clusters that can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samif.classifier.base import train_base
from samif.classifier.collect import BaseSamples, Instance
from samif.classifier.heads import HeadName
from samif.classifier.model import Classifier
from samif.config import TrainBaseParams
from samif.errors import SamifError

WIDTH, SPREAD = 12, 0.7
MEANS = 6.0 * np.eye(WIDTH)[:3]
CLASSES = ("bolt", "gear", "nut")
HEADS: list[HeadName] = ["cosine", "centred", "lda", "ranpac"]


def samples(mean: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Noise that is much wider along two axes that say nothing about the class."""
    scale = np.where(np.arange(WIDTH) >= WIDTH - 2, 6.0, 1.0) * SPREAD
    return (mean + np.random.default_rng(seed).normal(0.0, 1.0, (count, WIDTH)) * scale).astype(np.float32)


def instances(count: int = 8, each: int = 2) -> dict[str, list[np.ndarray]]:
    return {
        name: [samples(mean, each, 100 * row + i) for i in range(count)]
        for row, (name, mean) in enumerate(zip(CLASSES, MEANS, strict=True))
    }


def background(count: int = 60) -> np.ndarray:
    return np.concatenate([samples(6.0 * np.eye(WIDTH)[axis], count // 2, 900 + axis) for axis in (4, 5)])


def params(head: str, seed: int = 0, **others: object) -> TrainBaseParams:
    return TrainBaseParams.model_validate(
        {"features": ["token"], "head": head, "background_prototypes": 4, "seed": seed, **others}
    )


def train(found: dict[str, list[np.ndarray]], empty: np.ndarray, how: TrainBaseParams) -> Classifier:
    """Instances and background spread over eight images."""
    images = np.arange(len(empty)) % 8
    placed = {name: [Instance(i % 8, each) for i, each in enumerate(group)] for name, group in found.items()}
    return train_base(BaseSamples(placed, empty, images), how)


@pytest.mark.parametrize("head", HEADS)
def test_clusters_are_told_apart_and_the_background_from_them(head: str) -> None:
    made = train(instances(), background(), params(head))
    assert made.classes == CLASSES and made.counts.tolist() == [8, 8, 8]
    assert made.space.head == head and made.space.parts == ("token",)
    assert made.space.background.shape == (4, made.rows.shape[1])
    for row, mean in enumerate(MEANS):
        found = made.probabilities(samples(mean, 50, 5000 + row))
        assert (found.argmax(axis=1) == row).mean() >= 0.9
    empty = np.concatenate([samples(6.0 * np.eye(WIDTH)[axis], 50, 7000) for axis in (4, 5)])
    assert (made.probabilities(empty).argmax(axis=1) == len(CLASSES)).mean() >= 0.9


def test_lda_looks_past_directions_that_vary_within_classes() -> None:
    """What whitening is for: with a quarter of the distance between means, the noisy axes drown the cosine."""
    near = {
        name: [samples(0.25 * mean, 2, 100 * row + i) for i in range(40)]
        for row, (name, mean) in enumerate(zip(CLASSES, MEANS, strict=True))
    }
    made = train(near, background(), params("lda"))
    flat = made.space.projection
    along, across = np.abs(np.diag(flat))[:3].mean(), np.abs(np.diag(flat))[-2:].mean()
    assert along / across == pytest.approx(6.0, rel=0.3)


@pytest.mark.parametrize("head", HEADS)
def test_equal_inputs_give_equal_bytes(head: str, tmp_path: Path) -> None:
    for name in "ab":
        train(instances(), background(), params(head)).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_do_not_depend_on_the_calibration_split() -> None:
    a, b = (train(instances(), background(), params("lda", seed)) for seed in (0, 1))
    assert a.row_digests() == b.row_digests()


@pytest.mark.parametrize("head", HEADS)
def test_a_class_added_later_is_known_and_the_old_ones_stay(head: str) -> None:
    base = train(instances(), background(), params(head))
    novel = 6.0 * np.eye(WIDTH)[7]
    after = base.add("hook", [samples(novel, 2, 300 + i) for i in range(5)])
    assert (after.probabilities(samples(novel, 50, 9000)).argmax(axis=1) == 3).mean() >= 0.9
    assert {name: after.row_digests()[name] for name in CLASSES} == base.row_digests()
    for row, mean in enumerate(MEANS):
        assert (after.probabilities(samples(mean, 50, 5000 + row)).argmax(axis=1) == row).mean() >= 0.9


@pytest.mark.parametrize("head", HEADS)
def test_without_background_samples_there_is_still_a_classifier(head: str) -> None:
    made = train(instances(), np.zeros((0, WIDTH), np.float32), params(head))
    found = made.probabilities(samples(MEANS[1], 50, 1))
    assert np.isfinite(found).all() and (found[:, :3].argmax(axis=1) == 1).mean() >= 0.9


def test_fewer_background_samples_than_prototypes() -> None:
    assert train(instances(), background(2), params("lda")).space.background.shape == (2, WIDTH)


@pytest.mark.parametrize("head", HEADS)
def test_one_instance_of_one_sample_per_class_is_enough(head: str) -> None:
    made = train(instances(count=1, each=1), background(), params(head))
    found = made.probabilities(np.concatenate([samples(mean, 1, 100 * row) for row, mean in enumerate(MEANS)]))
    assert found.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_class_without_an_instance_is_refused() -> None:
    with pytest.raises(SamifError, match="base class 'gear' has no labelled instance"):
        train({**instances(), "gear": []}, background(), params("lda"))
