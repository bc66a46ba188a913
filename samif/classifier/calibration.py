"""Weighing what a classifier finds, on base images alone: temperature, background, unknown objects, few-shot classes.

Evidence is cross-fitted: every image is judged by a space, rows and prototypes that were made without it. In their
own space the training samples lie far closer to their rows than new ones ever will, and weights that were fitted there
would trust every distance too much.

Shape legend: N held-out samples, C classes, G prototypes, R numbers of shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from samif.classifier.collect import BaseSamples, Instance
from samif.classifier.heads import HEADS, Array, similarity
from samif.classifier.model import FeatureSpace, row_from, unknown_similarity
from samif.config import TrainBaseParams

Floats = NDArray[np.float64]

SHOTS = (1, 5, 10, 30)
"""Numbers of instances for which the bias of a class learnt from so few is measured."""
MOST_FOR_SHOTS = 1500
SMOOTHING = 0.01
"""Share of every label that is spread over all classes: where all samples are told apart, nothing else would keep the
temperature finite."""
SUREST = 0.9
"""No more than this may be asked of a probability for a name: new images are never as clear as those at hand."""


@dataclass(frozen=True)
class Held:
    """Evidence on the samples of images that a space was made without.

    Attributes:
        angular: whether evidence is a cosine.
        classes: (N, C).
        background: (N, G).
        unknown: (N,).
        few: (R, N, C), with each class's row from so few instances; R = len(SHOTS), or 0 where no bias is asked for.
        labels: class of each sample (N,), -1 for background.
    """

    angular: bool
    classes: Floats
    background: Floats
    unknown: Floats
    few: Floats
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, space: FeatureSpace, learn: BaseSamples, check: BaseSamples, shots: Sequence[int] = SHOTS) -> Held:
        """What a space and rows learnt from some images say of the samples of others."""
        groups = [np.concatenate([i.samples for i in found]) if found else None for found in check.instances.values()]
        samples = [group for group in groups if group is not None]
        labels = [np.full(len(group), row) for row, group in enumerate(groups) if group is not None]
        everything = [*samples, check.background]
        projected = space.project(np.concatenate(everything)).astype(np.float64)
        rng = np.random.default_rng(11)
        rows = [row_from(space, [i.samples for i in found]) for found in learn.instances.values()]
        few = [np.stack([_few(space, found, count, rng) for found in learn.instances.values()]) for count in shots]
        return cls(
            HEADS[space.head].angular,
            similarity(space.head, projected, np.stack(rows)),
            similarity(space.head, projected, space.background),
            unknown_similarity(space.head, projected, space.spread),
            np.array([similarity(space.head, projected, each) for each in few]).reshape(
                len(few), len(projected), len(rows)
            ),
            np.concatenate([*labels, np.full(len(check.background), -1)]).astype(np.int64),
        )


def _few(space: FeatureSpace, found: Sequence[Instance], count: int, rng: np.random.Generator) -> Array:
    chosen = rng.permutation(len(found))[:count]
    return row_from(space, [found[i].samples for i in chosen])


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` finds, see `samif.classifier.model.Space`; `loss` in nats, lower is better."""

    temperature: float
    background_bias: float
    unknown_bias: float | None
    rejection: float
    shot_bias: tuple[tuple[int, float], ...]
    loss: float


def calibrate(parts: Sequence[Held], params: TrainBaseParams) -> Calibration:
    """The weights that make held-out samples most likely: objects their class, background none of the classes, and
    objects whose own class is taken out of the answer none of the others. Every class weighs the same.

    The last is how unknown objects are known without one: each base class plays the stranger in turn.
    """
    held = _joined(parts)
    known = held.labels >= 0
    weights = _weights(held.labels)
    column = np.where(known, held.labels, held.classes.shape[1])

    def logits(temperature: float, background_bias: float, unknown_bias: float | None) -> Floats:
        none = logsumexp(temperature * held.background, axis=1) + background_bias
        if unknown_bias is not None:
            none = np.logaddexp(none, temperature * held.unknown + unknown_bias)
        return np.concatenate([temperature * held.classes, none[:, None]], axis=1)

    def loss(found: Floats) -> float:
        unknown_bias = float(found[2]) if len(found) > 2 else None
        scores = logits(float(np.exp(found[0])), float(found[1]), unknown_bias)
        every = scores - logsumexp(scores, axis=1, keepdims=True)
        right = every[np.arange(len(scores)), column]
        total = -float(weights @ ((1.0 - SMOOTHING) * right + SMOOTHING * every.mean(axis=1)))
        if unknown_bias is not None and scores.shape[1] > 2:
            strange = scores[known]
            strange[np.arange(len(strange)), held.labels[known]] = -np.inf
            total -= params.unknown_weight * float(weights[known] @ (strange[:, -1] - logsumexp(strange, axis=1)))
        return total

    start = np.array([np.log(10.0 if held.angular else 0.1), 0.0, 0.0])
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
    return Calibration(
        temperature,
        background_bias,
        unknown_bias,
        _rejection(scores[known], held.labels[known], params.rejection),
        _shot_bias(held, scores, temperature) if params.shot_bias else (),
        float(best.fun),
    )


def _weights(labels: NDArray[np.int64]) -> Floats:
    """One in all for the known samples, each class alike, and one for the background."""
    weights = np.zeros(len(labels))
    present = [label for label in np.unique(labels) if label >= 0]
    for label in present:
        weights[labels == label] = 1.0 / (len(present) * (labels == label).sum())
    if (labels < 0).any():
        weights[labels < 0] = 1.0 / (labels < 0).sum()
    return weights


def _rejection(scores: Floats, labels: NDArray[np.int64], share: float) -> float:
    """The probability that all but a share of the known objects reach with their own class."""
    if not share or not len(labels):
        return 0.0
    right = scores[np.arange(len(labels)), labels] - logsumexp(scores, axis=1)
    return min(SUREST, float(np.exp(np.quantile(right, share))))


def _shot_bias(held: Held, scores: Floats, temperature: float) -> tuple[tuple[int, float], ...]:
    """Per number of shots, what a class learnt from so few must be given beside classes that are known well.

    Each base class is learnt anew from so few of its instances while the others stay; the bias is what makes the
    held-out samples most likely.
    """
    known = np.flatnonzero(held.labels >= 0)
    if len(known) > MOST_FOR_SHOTS:
        known = np.sort(np.random.default_rng(13).permutation(known)[:MOST_FOR_SHOTS])
    labels, full = held.labels[known], scores[known]
    weights = _weights(labels)
    classes = held.classes.shape[1]
    found = []
    for number, few in zip(SHOTS, held.few[:, known], strict=True):
        # what all other columns say together, for each class that is learnt anew
        total = logsumexp(full, axis=1)
        share = np.exp(full[:, :classes] - total[:, None])
        others = total[:, None] + np.log1p(-np.minimum(share, 1.0 - 1e-12))
        anew = temperature * few
        own = labels[:, None] == np.arange(classes)[None, :]

        def loss(bias: float, others: Floats = others, anew: Floats = anew, own: NDArray[np.bool_] = own) -> float:
            together = np.logaddexp(others, anew + bias)
            right = np.where(own, anew + bias, full[np.arange(len(labels)), labels][:, None]) - together
            return -float(np.mean(np.average(right, axis=0, weights=weights)))

        best = minimize_scalar(loss, bounds=(-10.0, 10.0), method="bounded", options={"xatol": 0.01})
        found.append((number, float(best.x)))
    return tuple(found)


def _joined(parts: Sequence[Held]) -> Held:
    """All folds together; a fold with fewer prototypes has some that say nothing."""
    most = max(part.background.shape[1] for part in parts)
    padded = [
        np.pad(part.background, ((0, 0), (0, most - part.background.shape[1])), constant_values=-1e9) for part in parts
    ]
    return Held(
        parts[0].angular,
        np.concatenate([part.classes for part in parts]),
        np.concatenate(padded),
        np.concatenate([part.unknown for part in parts]),
        np.concatenate([part.few for part in parts], axis=1),
        np.concatenate([part.labels for part in parts]),
    )
