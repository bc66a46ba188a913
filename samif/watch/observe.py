"""What one picture tells about how well the live version fits what the camera sees.

Shape legend: P proposals, C classes, E channels of an embedding, (h, w) its grid, D width of the pooled embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.model import Classifier
from samif.classifier.samples import features_of
from samif.config import EvaluateParams
from samif.masks.pooling import planes
from samif.propose import Proposals
from samif.sam.frame import Frame
from samif.segment import UNKNOWN, label

FOUND, BACKGROUND, UNKNOWN_RATE, MARGIN = "objects", "background", "unknown", "margin"
CLASS_PREFIX = "class "


@dataclass(frozen=True)
class Observation:
    """One picture.

    Attributes:
        values: statistic -> number; a statistic that is undefined for this picture (the margin of nothing) is absent.
        embedding: (D,) the pooled embedding.
    """

    values: dict[str, float]
    embedding: NDArray[np.float32]


def statistics_of(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of everything that `observe` may put into `Observation.values`, in order."""
    return (FOUND, BACKGROUND, UNKNOWN_RATE, MARGIN, *(f"{CLASS_PREFIX}{name}" for name in classes))


def observe(
    proposals: Proposals, embedding: Tensor, frame: Frame, classifier: Classifier, params: EvaluateParams
) -> Observation:
    """Sum up one picture from its proposals and its embedding (E, h, w).

    `objects`: how many are found at the operating score. `background`: the share of proposals whose most probable class
    is the background. `unknown`: the share of found objects that bear no known name. `margin`: best class probability
    minus the runner-up (the background counts), mean over the other proposals. `class NAME`: found objects of it.
    """
    found = label(proposals, classifier, params, frame.height, frame.width).resolved.above(params.operating_score)
    values = {FOUND: float(len(found))}
    if len(proposals):
        probability = classifier.probabilities(features_of(proposals, classifier.space.parts))
        named = probability.argmax(axis=1) < len(classifier.classes)
        values[BACKGROUND] = 1.0 - float(named.mean())
        if named.any():
            best = np.sort(probability[named], axis=1)
            values[MARGIN] = float((best[:, -1] - best[:, -2]).mean())
    if len(found):
        values[UNKNOWN_RATE] = found.labels.count(UNKNOWN) / len(found)
    values |= {f"{CLASS_PREFIX}{name}": float(found.labels.count(name)) for name in classifier.classes}
    return Observation(values, pooled(embedding, frame))


def pooled(embedding: Tensor, frame: Frame) -> NDArray[np.float32]:
    """Mean and standard deviation of each feature map of an embedding (E, h, w) over the picture, without padding.

    Returns:
        (D,), D twice the channels of all maps.
    """
    longer = max(frame.height, frame.width)
    parts = []
    for plane in planes(embedding.unsqueeze(0)):
        rows = max(1, math.ceil(plane.shape[-2] * frame.height / longer))
        columns = max(1, math.ceil(plane.shape[-1] * frame.width / longer))
        cells = plane[0, :, :rows, :columns].float().flatten(1)
        parts += [cells.mean(dim=1), cells.std(dim=1, correction=0)]
    return np.concatenate([part.numpy() for part in parts]).astype(np.float32)
