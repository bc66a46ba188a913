"""Parameters fitted on images that a classifier was made without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from samif.classifier import base
from samif.classifier.base import SHRINKAGES, steps, train_base
from samif.classifier.calibration import MAX_REJECTION, Calibration, HeldOutScores, calibrate, rejection_threshold
from samif.classifier.collect import BaseSamples, Instance
from samif.classifier.heads import BaseStatistics
from samif.classifier.model import FeatureSpace
from samif.config import TrainBaseParams

WIDTH, CLASSES, IMAGES = 24, 8, 16


def overfit(seed: int = 0, spread: float = 2.0) -> BaseSamples:
    """Few objects in many dimensions: whitened, each lies nearly on its own row."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(CLASSES, WIDTH))
    instances = {
        f"c{c}": [
            Instance(
                p, (means[c] + rng.normal(size=(1, WIDTH)) + 0.05 * rng.normal(size=(3, WIDTH))).astype(np.float32)
            )
            for p in rng.permutation(IMAGES)[:5]
        ]
        for c in range(CLASSES)
    }
    background = rng.normal(size=(80, WIDTH)).astype(np.float32)
    return BaseSamples(instances, background, np.arange(80) % IMAGES)


def drawn(samples: BaseSamples, seed: int, count: int = 40, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """New objects of the known classes, and of classes that were not taught."""
    known_means = spread * np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    rng = np.random.default_rng([seed, 99])
    known = np.concatenate([m + rng.normal(size=(count // 4, WIDTH)) for m in known_means])
    unknown = spread * rng.normal(size=(count, WIDTH)) + rng.normal(size=(count, WIDTH))
    return known.astype(np.float32), unknown.astype(np.float32)


def params(**others: object) -> TrainBaseParams:
    return TrainBaseParams.model_validate({"features": ["token"], "background_prototypes": 4, **others})


def test_probabilities_of_new_objects_are_what_they_say() -> None:
    """Mean probability of the true class near how often it is the best: in-sample weights say 1 of everything."""
    samples = overfit()
    made = train_base(samples, params(unknown_weight=0.0, rejection=0.0))
    known, _ = drawn(samples, 1)
    labels = np.repeat(np.arange(CLASSES), len(known) // CLASSES)
    found = made.probabilities(known)
    right = (found.argmax(axis=1) == labels).mean()
    assert right > 0.7
    assert found.max(axis=1).mean() == pytest.approx(right, abs=0.15)


def test_unknown_objects_get_fewer_names_the_more_they_count() -> None:
    samples = overfit()
    named = {}
    for weight in (0.0, 1.0, 5.0):
        made = train_base(samples, params(unknown_weight=weight))
        known, unknown = drawn(samples, 2)
        named[weight] = [float((made.probabilities(x).argmax(axis=1) < CLASSES).mean()) for x in (known, unknown)]
    assert named[0.0][1] > named[1.0][1] >= named[5.0][1]
    assert named[1.0][0] > 0.6 and named[1.0][1] < 0.5 * named[0.0][1]


def test_rejection_gives_up_no_more_known_objects_than_asked() -> None:
    """The threshold is found with fewer objects to learn from than the classifier has in the end, so it is careful."""
    thresholds = []
    for share in (0.0, 0.1, 0.3):
        made = train_base(overfit(), params(rejection=share))
        known, unknown = drawn(overfit(), 3, count=200)
        best = [made.probabilities(samples)[:, :-1].max(axis=1) for samples in (known, unknown)]
        given_up, kept_out = ((values < made.space.rejection).mean() for values in best)
        assert given_up <= share + 0.05 and kept_out >= given_up
        thresholds.append(made.space.rejection)
    assert thresholds[0] == 0.0 and 0.0 < thresholds[1] < thresholds[2] <= MAX_REJECTION


def test_what_cannot_be_judged_is_left_out() -> None:
    """Each class is in one image only, so the unknown class and the rejection threshold cannot be calibrated."""
    samples = overfit()
    one = {
        name: [Instance(row, i.samples) for i in found] for row, (name, found) in enumerate(samples.instances.items())
    }
    made = train_base(BaseSamples(one, samples.background, samples.background_images), params())
    assert made.space.unknown_bias is None and made.space.rejection == 0.0


def test_no_class_is_scored_by_rows_made_of_the_very_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class c0 is in one image only: where that image is held out, its row is made of what is held out."""
    folds: list[HeldOutScores] = []

    def spied(parts: Sequence[HeldOutScores], how: TrainBaseParams) -> Calibration:
        folds.extend(parts)
        return calibrate(parts, how)

    monkeypatch.setattr(base, "calibrate", spied)
    samples = overfit()
    alone = {**samples.instances, "c0": [Instance(3, i.samples) for i in samples.instances["c0"]]}
    train_base(BaseSamples(alone, samples.background, samples.background_images), params(head="cosine"))
    scored = set(np.concatenate([fold.labels for fold in folds]).tolist())
    assert len(folds) == 4 and scored == {-1, *range(1, CLASSES)}


def test_a_fold_knows_nothing_of_its_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out images with objects far off must leave the space that scores them as it is, spread included."""
    spreads: dict[bool, list[float]] = {}
    of = HeldOutScores.of
    for far in (False, True):
        spaces: list[FeatureSpace] = []

        def spied(
            space: FeatureSpace, learn: BaseSamples, check: BaseSamples, kept: list[FeatureSpace] = spaces
        ) -> Any:
            kept.append(space)
            return of(space, learn, check)

        monkeypatch.setattr(HeldOutScores, "of", spied)
        samples = overfit()
        held_out = base._folds(samples, 0)[0]
        moved = {
            name: [Instance(i.image, i.samples + 50.0 * (far and i.image in held_out)) for i in found]
            for name, found in samples.instances.items()
        }
        train_base(BaseSamples(moved, samples.background, samples.background_images), params(head="lda"))
        monkeypatch.setattr(HeldOutScores, "of", of)
        spreads[far] = [space.spread for space in spaces[: len(SHRINKAGES)]]
    assert spreads[False] == spreads[True]


def test_every_class_counts_alike_in_the_rejection_threshold() -> None:
    """A class of 10 samples at 0.2 and one of 990 at 0.9: half of the known objects by class lie at 0.2."""
    chances = np.concatenate([np.full(990, 0.9), np.full(10, 0.2)])
    labels = np.concatenate([np.zeros(990, np.int64), np.ones(10, np.int64)])
    scores = np.log(np.stack([np.where(labels == c, chances, 1e-9) for c in (0, 1)] + [1.0 - chances], axis=1))
    assert rejection_threshold(scores, labels, 0.4) == pytest.approx(0.2, rel=1e-6)
    assert rejection_threshold(scores, labels, 0.6) == pytest.approx(MAX_REJECTION, rel=1e-6)
    assert rejection_threshold(scores, labels, 0.0) == 0.0


def test_progress_is_told_for_every_space() -> None:
    told: list[int] = []
    train_base(overfit(), params(), told.append)
    assert sum(told) == steps(params()) == 4 * len(SHRINKAGES) + 1
    assert steps(params(head="cosine")) == 5


def test_more_shrinkage_whitens_less() -> None:
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 1.0, 1.0])
    correlated = rng.normal(size=(400, 1)) + 0.2 * rng.normal(size=(400, 3))
    scatter = BaseStatistics.of("lda", [(correlated * scale + shift).astype(np.float32) for shift in (0.0, 5.0)], 0)
    ratios = []
    for shrinkage in (0.0, 0.5, 1.0):
        values = np.linalg.eigvalsh(np.cov(scatter.transform(shrinkage)(correlated.astype(np.float32)).T))
        ratios.append(values[-1] / values[0])
    assert ratios[0] == pytest.approx(1.0, abs=0.05) and ratios[0] < ratios[1] < ratios[2]


def test_samples_and_images_must_agree() -> None:
    with pytest.raises(ValueError, match="expected an image for each of 2 samples"):
        BaseSamples({}, np.zeros((2, 3), np.float32), np.zeros(3, np.int64))
