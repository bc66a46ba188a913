"""What one image tells about how well the live version fits what the camera sees.

Shape legend: M named objects, F width of their features, C classes, E channels of an embedding, (h, w) its grid, D
width of the pooled embedding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.heads import unit
from samif.classifier.model import Classifier
from samif.classifier.samples import features_of
from samif.config import EvaluateParams
from samif.inference.propose import Proposals
from samif.inference.segment import UNKNOWN, Segmenter, label
from samif.masks.pooling import planes

OBJECTS, BACKGROUND, MARGIN, STRANGE = "objects", "background", "margin", "strange"
CLASS_PREFIX = "class "


@dataclass(frozen=True)
class Observation:
    """One image.

    Attributes:
        values: statistic -> number. A statistic that is undefined for this image (the margin of nothing) is absent,
            and so is a class of which nothing is found.
        embedding: (D,) the pooled embedding.
        names: of the M found objects that bear a class name.
        features: (M, F) their features.
        doubt: (C + 1,) which classes its doubtful objects are like, and how much doubt there is.
    """

    values: dict[str, float]
    embedding: NDArray[np.float32]
    names: tuple[str, ...]
    features: NDArray[np.float32]
    doubt: NDArray[np.float32]


def statistics_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all statistics of a version with these classes, in order."""
    return (OBJECTS, BACKGROUND, UNKNOWN, MARGIN, STRANGE, *(f"{CLASS_PREFIX}{name}" for name in classes))


def see(segmenter: Segmenter, image: NDArray[np.uint8]) -> Observation:
    """What a version sees in an image (H, W, 3) uint8 RGB, with all features that its classifier takes."""
    seen = segmenter.embed([image])[0]
    size = (image.shape[0], image.shape[1])
    proposals = segmenter.propose(image, seen)
    return observe(proposals, seen.embedding, size, segmenter.classifier, segmenter.evaluate_params)


def observe(
    proposals: Proposals, embedding: Tensor, size: tuple[int, int], classifier: Classifier, params: EvaluateParams
) -> Observation:
    """Sum up one image of `size` (height, width) from its proposals and its embedding (E, h, w).

    `objects`: how many are found at the operating score. `background`: the share of proposals whose most probable class
    is the background. `unknown`: found objects that bear no known name. `margin`: best class probability
    minus the runner-up (the background counts), mean over the other proposals. `class NAME`: found objects of it.
    """
    found = label(proposals, classifier, params, *size).resolved.above(params.operating_score)
    values = {OBJECTS: float(len(found)), UNKNOWN: float(found.labels.count(UNKNOWN))}
    row_of = {mask["counts"]: row for row, mask in enumerate(proposals.masks)}
    features, doubt = np.zeros((0, 0), dtype=np.float32), np.zeros(len(classifier.classes) + 1)
    if len(proposals):
        features = features_of(proposals, classifier.space.parts)
        probability = classifier.probabilities(features)
        objects = np.array([row_of[mask["counts"]] for mask in found.masks], dtype=np.int64)
        doubt = _doubt(features[objects], probability[objects], classifier)
        tagged = probability.argmax(axis=1) < len(classifier.classes)
        values[BACKGROUND] = 1.0 - float(tagged.mean())
        if tagged.any():
            best = np.sort(probability[tagged], axis=1)
            values[MARGIN] = float((best[:, -1] - best[:, -2]).mean())
    named = [(name, row_of[m["counts"]]) for m, name in zip(found.masks, found.labels, strict=True) if name != UNKNOWN]
    names = tuple(name for name, _ in named)
    values |= {f"{CLASS_PREFIX}{name}": float(count) for name, count in sorted(Counter(names).items())}
    rows = np.array([row for _, row in named], dtype=np.int64)
    return Observation(values, pooled(embedding, size), names, features[rows], doubt.astype(np.float32))


def _doubt(
    features: NDArray[np.float32], probability: NDArray[np.float64], classifier: Classifier
) -> NDArray[np.float64]:
    """Which classes doubtful objects are like (C + 1,), from the features (N, F) and probabilities (N, C + 1) of all.

    The doubt about an object is what its best class leaves of certainty. Its cosines to all classes and a one, times
    the doubt, are summed over the objects: a new part, whatever it is called, pulls the sum its own way every time.
    """
    projected, rows = classifier.space.project(features), classifier.rows
    likeness = unit(projected.astype(np.float64)) @ unit(rows.astype(np.float64)).T
    doubt = 1.0 - probability[:, :-1].max(axis=1, initial=0.0)
    return np.asarray(doubt @ np.concatenate([likeness, np.ones((len(likeness), 1))], axis=1), dtype=np.float64)


def pooled(embedding: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Mean and standard deviation of each feature map of an embedding (E, h, w) over an image of `size` (height,
    width), without its padding.

    Returns:
        (D,), D twice the channels of all maps.
    """
    parts = []
    for plane in planes(embedding.unsqueeze(0)):
        rows = max(1, math.ceil(plane.shape[-2] * size[0] / max(size)))
        columns = max(1, math.ceil(plane.shape[-1] * size[1] / max(size)))
        cells = plane[0, :, :rows, :columns].float().flatten(1)
        parts += [cells.mean(dim=1), cells.std(dim=1, correction=0)]
    return np.concatenate([part.numpy() for part in parts]).astype(np.float32)


def vector(values: Mapping[str, float], names: tuple[str, ...]) -> NDArray[np.float64]:
    """`Observation.values` in the order of `names`: NaN where undefined, zero for a class of which nothing is found."""
    return np.array([values.get(n, 0.0 if n.startswith(CLASS_PREFIX) else math.nan) for n in names], dtype=np.float64)
