"""Statistics of one image that show how well the live version fits what the camera delivers.

Shape legend: M classified objects, F width of their features, C classes, E channels of an embedding, (h, w) its grid, D
width of the pooled embedding, N proposals.
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

OBJECTS, BACKGROUND, MARGIN, OUT_OF_DISTRIBUTION = "objects", "background", "margin", "out_of_distribution"
CLASS_PREFIX = "class "


@dataclass(frozen=True)
class Observation:
    """The statistics of one image.

    Attributes:
        values: statistic -> number. A statistic that is undefined for this image (the margin where nothing is found) is
            absent, and so is a class of which nothing is found.
        embedding: (D,) the pooled embedding.
        names: classes of the M detected objects that have a known class.
        features: (M, F) their features.
        uncertainty: (C + 1,) uncertainty of the detected objects by class, and its sum.
    """

    values: dict[str, float]
    embedding: NDArray[np.float32]
    names: tuple[str, ...]
    features: NDArray[np.float32]
    uncertainty: NDArray[np.float32]


def statistic_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of all statistics of a version with these classes, in order."""
    return (OBJECTS, BACKGROUND, UNKNOWN, MARGIN, OUT_OF_DISTRIBUTION, *(f"{CLASS_PREFIX}{name}" for name in classes))


def observe_image(segmenter: Segmenter, image: NDArray[np.uint8]) -> Observation:
    """Observe an image (H, W, 3) uint8 RGB with a version, with all features that its classifier takes."""
    embedded = segmenter.embed([image])[0]
    size = (image.shape[0], image.shape[1])
    proposals = segmenter.propose(image, embedded)
    return observe(proposals, embedded.embedding, size, segmenter.classifier, segmenter.evaluate_params)


def observe(
    proposals: Proposals, embedding: Tensor, size: tuple[int, int], classifier: Classifier, params: EvaluateParams
) -> Observation:
    """Observe an image of `size` (height, width) from its proposals and its embedding (E, h, w).

    `objects`: number of detections at the operating score. `background`: share of proposals whose most probable class
    is the background. `unknown`: detections without a known class. `margin`: probability of the best class minus that
    of the runner-up (background included), averaged over the other proposals. `class NAME`: detections of a class.
    """
    least = classifier.operating_score(params.operating_score)
    detected = label(proposals, classifier, params, *size).resolved.above(least)
    values = {OBJECTS: float(len(detected)), UNKNOWN: float(detected.labels.count(UNKNOWN))}
    row_of = {mask["counts"]: row for row, mask in enumerate(proposals.masks)}
    features, uncertainty = np.zeros((0, 0), dtype=np.float32), np.zeros(len(classifier.classes) + 1)
    if len(proposals):
        features = features_of(proposals, classifier.space.parts)
        probability = classifier.probabilities(features)
        objects = np.array([row_of[mask["counts"]] for mask in detected.masks], dtype=np.int64)
        uncertainty = _uncertainty(features[objects], probability[objects], classifier)
        classified = probability.argmax(axis=1) < len(classifier.classes)
        values[BACKGROUND] = 1.0 - float(classified.mean())
        if classified.any():
            ranked = np.sort(probability[classified], axis=1)
            values[MARGIN] = float((ranked[:, -1] - ranked[:, -2]).mean())
    known = [
        (name, row_of[mask["counts"]])
        for mask, name in zip(detected.masks, detected.labels, strict=True)
        if name != UNKNOWN
    ]
    names = tuple(name for name, _ in known)
    values |= {f"{CLASS_PREFIX}{name}": float(count) for name, count in sorted(Counter(names).items())}
    rows = np.array([row for _, row in known], dtype=np.int64)
    return Observation(values, pooled(embedding, size), names, features[rows], uncertainty.astype(np.float32))


def _uncertainty(
    features: NDArray[np.float32], probability: NDArray[np.float64], classifier: Classifier
) -> NDArray[np.float64]:
    """Uncertainty by class (C + 1,), from the features (N, F) and probabilities (N, C + 1) of all detections.

    The uncertainty of an object is one minus the probability of its best class. It weights the object's cosine
    similarities to all classes and a constant one, summed over the objects: a new part, whatever class it gets, shifts
    the sum in the same direction each time.
    """
    projected, rows = classifier.space.project(features), classifier.rows
    similarity = unit(projected.astype(np.float64)) @ unit(rows.astype(np.float64)).T
    uncertainty = 1.0 - probability[:, :-1].max(axis=1, initial=0.0)
    return np.asarray(
        uncertainty @ np.concatenate([similarity, np.ones((len(similarity), 1))], axis=1), dtype=np.float64
    )


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
