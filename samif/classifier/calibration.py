"""Calibration on base images: temperature, background bias, unknown bias and rejection threshold of a classifier.

Scores are cross-fitted: each image is scored by a space, rows and prototypes that were made without it. In their own
space the training samples lie far closer to their rows than new samples do, and parameters fitted there would be
overconfident.

Shape legend: N held-out samples, C classes, G prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from samif.classifier.collect import BaseSamples
from samif.classifier.heads import HEADS, similarity
from samif.classifier.model import FeatureSpace, row_from, unknown_similarity
from samif.config import TrainBaseParams

Floats = NDArray[np.float64]

SMOOTHING = 0.01
"""Label smoothing: without it, the temperature is unbounded where all samples are separated."""
MAX_REJECTION = 0.9
"""Largest rejection threshold: new images score lower than the held-out ones."""


@dataclass(frozen=True)
class HeldOutScores:
    """Similarities of held-out samples to what was made without them.

    Attributes:
        angular: whether similarities are cosines.
        classes: similarity to each class row (N, C).
        background: similarity to each background prototype (N, G).
        unknown: similarity to a class that was not taught (N,).
        labels: class index of each sample (N,), -1 for background.
    """

    angular: bool
    classes: Floats
    background: Floats
    unknown: Floats
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, space: FeatureSpace, learn: BaseSamples, check: BaseSamples) -> HeldOutScores:
        """Score the samples of `check` with a space and rows made from `learn`."""
        groups = [np.concatenate([i.samples for i in found]) if found else None for found in check.instances.values()]
        samples = [group for group in groups if group is not None]
        labels = [np.full(len(group), row) for row, group in enumerate(groups) if group is not None]
        projected = space.project(np.concatenate([*samples, check.background])).astype(np.float64)
        rows = [row_from(space, [i.samples for i in found]) for found in learn.instances.values()]
        return cls(
            HEADS[space.head].angular,
            similarity(space.head, projected, np.stack(rows)),
            similarity(space.head, projected, space.background),
            unknown_similarity(space.head, projected, space.spread),
            np.concatenate([*labels, np.full(len(check.background), -1)]).astype(np.int64),
        )


@dataclass(frozen=True)
class Calibration:
    """Result of `calibrate`, see `samif.classifier.model.FeatureSpace`; `loss` in nats, lower is better."""

    temperature: float
    background_bias: float
    unknown_bias: float | None
    rejection: float
    loss: float


def calibrate(folds: Sequence[HeldOutScores], params: TrainBaseParams) -> Calibration:
    """Fit the parameters by maximum likelihood on held-out samples; every class has the same weight.

    The loss has three terms: objects have their class, background has none of the classes, and (leave-one-class-out,
    weighted by `params.unknown_weight`) an object whose own class is removed has none of the others. The last stands
    for objects of unknown classes, of which there are no samples.
    """
    held_out = _joined(folds)
    known = held_out.labels >= 0
    weights = _weights(held_out.labels)
    column = np.where(known, held_out.labels, held_out.classes.shape[1])

    def logits(temperature: float, background_bias: float, unknown_bias: float | None) -> Floats:
        none = logsumexp(temperature * held_out.background, axis=1) + background_bias
        if unknown_bias is not None:
            none = np.logaddexp(none, temperature * held_out.unknown + unknown_bias)
        return np.concatenate([temperature * held_out.classes, none[:, None]], axis=1)

    def loss(values: Floats) -> float:
        unknown_bias = float(values[2]) if len(values) > 2 else None
        scores = logits(float(np.exp(values[0])), float(values[1]), unknown_bias)
        log_probability = scores - logsumexp(scores, axis=1, keepdims=True)
        right = log_probability[np.arange(len(scores)), column]
        total = -float(weights @ ((1.0 - SMOOTHING) * right + SMOOTHING * log_probability.mean(axis=1)))
        if unknown_bias is not None and scores.shape[1] > 2:
            others = scores[known]
            others[np.arange(len(others)), held_out.labels[known]] = -np.inf
            total -= params.unknown_weight * float(weights[known] @ (others[:, -1] - logsumexp(others, axis=1)))
        return total

    start = np.array([np.log(10.0 if held_out.angular else 0.1), 0.0, 0.0])
    moves = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    if not params.unknown_weight:
        start, moves = start[:2], moves[:3, :2]
    best = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"maxiter": 300, "xatol": 0.01, "fatol": 1e-4, "initial_simplex": start + moves},
    )
    temperature, background_bias = float(np.exp(best.x[0])), float(best.x[1])
    unknown_bias = float(best.x[2]) if len(best.x) > 2 else None
    scores = logits(temperature, background_bias, unknown_bias)
    rejection = rejection_threshold(scores[known], held_out.labels[known], params.rejection)
    return Calibration(temperature, background_bias, unknown_bias, rejection, float(best.fun))


def rejection_threshold(logits: Floats, labels: NDArray[np.int64], share: float) -> float:
    """The probability of its own class that all but a share (0..1) of known objects reach, each class weighted alike.

    Args:
        logits: (N, C + 1), the last column for none of the classes.
        labels: class index of each sample (N,).

    Returns:
        At most `MAX_REJECTION`; 0 where nothing is to be rejected.
    """
    if not share or not len(labels):
        return 0.0
    right = logits[np.arange(len(labels)), labels] - logsumexp(logits, axis=1)
    quantile = np.quantile(right, share, weights=_weights(labels), method="inverted_cdf")
    return min(MAX_REJECTION, float(np.exp(quantile)))


def _weights(labels: NDArray[np.int64]) -> Floats:
    """Weights (N,): they sum to 1 over the known samples, each class alike, and to 1 over the background."""
    weights = np.zeros(len(labels))
    present = [label for label in np.unique(labels) if label >= 0]
    for label in present:
        weights[labels == label] = 1.0 / (len(present) * (labels == label).sum())
    if (labels < 0).any():
        weights[labels < 0] = 1.0 / (labels < 0).sum()
    return weights


def _joined(folds: Sequence[HeldOutScores]) -> HeldOutScores:
    """All folds together; missing prototypes of a fold get a similarity that has no effect."""
    most = max(fold.background.shape[1] for fold in folds)
    padded = [
        np.pad(fold.background, ((0, 0), (0, most - fold.background.shape[1])), constant_values=-1e9) for fold in folds
    ]
    return HeldOutScores(
        folds[0].angular,
        np.concatenate([fold.classes for fold in folds]),
        np.concatenate(padded),
        np.concatenate([fold.unknown for fold in folds]),
        np.concatenate([fold.labels for fold in folds]),
    )
