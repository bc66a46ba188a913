"""Base training: the frozen space, the base rows and the background prototypes, in closed form.

The projection whitens the within-class scatter of base samples (Ledoit-Wolf shrinkage), which turns nearest mean into
linear discriminant analysis with a covariance that novel classes share. Base rows are means like novel rows will be:
trained rows would sit further out and be favoured over imprinted ones.

Shape legend: N samples, D feature width, d projected width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.covariance import ledoit_wolf

from samif.classifier.model import Array, Classifier, Space, background_logit, class_logits, row_from
from samif.config import TrainBaseParams
from samif.errors import SamifError

CALIBRATION_SHARE = 0.25


def train_base(
    instances: Mapping[str, Sequence[Array]],
    background: Array,
    params: TrainBaseParams,
) -> Classifier:
    """Make the base classifier.

    Args:
        instances: per class, in row order, one array of samples (S, D) per labelled instance.
        background: samples (N, D) of proposals that show no labelled object.

    Raises:
        SamifError: a class has no instance, or fewer than two classes have two.
    """
    empty = [name for name, samples in instances.items() if not samples]
    if empty:
        raise SamifError(
            f"base class '{empty[0]}' has no labelled instance in the training pictures; label some or leave it out"
        )
    rng = np.random.default_rng(params.seed)
    space = _space(instances, background, params)
    # calibrate on instances that the rows used for it have not seen
    learn, check = _split(instances, rng)
    rows = np.stack([row_from(space, list(samples)) for samples in learn.values()])
    temperature, bias = _calibrate(space, rows, check, background)
    space = Space(space.parts, space.head, space.centre, space.projection, space.background, temperature, bias)
    classifier = Classifier(space, (), np.zeros((0, space.projection.shape[1]), np.float32), np.zeros(0, np.int64))
    for name, samples in instances.items():
        classifier = classifier.add(name, list(samples))
    return classifier


def _space(instances: Mapping[str, Sequence[Array]], background: Array, params: TrainBaseParams) -> Space:
    """Centre, projection and background prototypes."""
    groups = [np.concatenate(list(samples)).astype(np.float64) for samples in instances.values()]
    # every class weighs the same in the centre, however many instances it has
    centre = np.stack([group.mean(axis=0) for group in groups]).mean(axis=0)
    if params.head == "lda":
        within = np.concatenate([group - group.mean(axis=0) for group in groups])
        projection = _whiten(within)
    else:
        everything = np.concatenate(groups)
        projection = np.diag(1.0 / np.maximum(everything.std(axis=0), 1e-6))
    centre32, projection32 = centre.astype(np.float32), projection.astype(np.float32)
    prototypes = np.zeros((1, projection.shape[1]), np.float32)
    if len(background):
        projected = (background - centre32) @ projection32
        count = min(params.background_prototypes, len(background))
        prototypes = (
            KMeans(count, random_state=params.seed, n_init=2).fit(projected).cluster_centers_.astype(np.float32)
        )
    return Space(tuple(params.features), params.head, centre32, projection32, prototypes, 1.0, 0.0)


def _whiten(within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Symmetric inverse square root (D, D) of the shrunk covariance of centred samples (N, D)."""
    scale = np.maximum(within.std(axis=0), 1e-6)
    covariance, _ = ledoit_wolf(within / scale, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    inverse_root = vectors @ np.diag(1.0 / np.sqrt(np.maximum(values, 1e-6))) @ vectors.T
    return np.asarray(np.diag(1.0 / scale) @ inverse_root)


def _split(
    instances: Mapping[str, Sequence[Array]], rng: np.random.Generator
) -> tuple[dict[str, list[Array]], dict[str, list[Array]]]:
    """Per class, instances to make rows of and instances to calibrate on; a single instance serves as both."""
    learn: dict[str, list[Array]] = {}
    check: dict[str, list[Array]] = {}
    for name, samples in instances.items():
        order = rng.permutation(len(samples))
        held = round(CALIBRATION_SHARE * len(samples))
        check[name] = [samples[i] for i in (order[:held] if held else order)]
        learn[name] = [samples[i] for i in order[held:]]
    return learn, check


def _calibrate(
    space: Space, rows: Array, check: Mapping[str, Sequence[Array]], background: Array
) -> tuple[float, float]:
    """Temperature and background bias that make held-out base samples and background most likely."""
    samples = [space.project(np.concatenate(list(group))).astype(np.float64) for group in check.values()]
    projected = np.concatenate(samples)
    labels = np.repeat(np.arange(len(samples)), [len(group) for group in samples])
    empty = space.project(background).astype(np.float64) if len(background) else projected[:0]

    def loss(parameters: NDArray[np.float64]) -> float:
        trial = Space(space.parts, space.head, space.centre, space.projection, space.background,
                      float(np.exp(parameters[0])), float(parameters[1]))  # fmt: skip
        known = np.concatenate(
            [class_logits(trial, projected, rows), background_logit(trial, projected)[:, None]], axis=1
        )
        right = known[np.arange(len(labels)), labels] - logsumexp(known, axis=1)
        total = -right.mean()
        if len(empty):
            none = np.concatenate([class_logits(trial, empty, rows), background_logit(trial, empty)[:, None]], axis=1)
            total -= (none[:, -1] - logsumexp(none, axis=1)).mean()
        return float(total)

    start = np.array([np.log(0.1 if space.head == "lda" else 10.0), 0.0])
    steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    best = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"maxiter": 200, "xatol": 0.01, "fatol": 1e-4, "initial_simplex": start + steps},
    )
    return float(np.exp(best.x[0])), float(best.x[1])
