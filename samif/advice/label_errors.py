"""Labels that are probably wrong: names that the other images contradict, masks that the decoder draws otherwise.

Shape legend: N labelled objects, K neighbours, C classes, P proposals of one image, L labels of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samif.advice.naming import Array, LabelledObjects, folds_of, space_of
from samif.dataset.model import Annotation
from samif.inference.propose import Proposals
from samif.masks.rle import Rle, overlaps

NAME_MARGIN = 0.5
"""By how much another class must be more probable than the given one. With 5 % of the names exchanged, precision and
recall are 0.87 and 0.85 on tote_dev, 0.96 and 0.85 on the demo line, 0.95 and 0.89 on microcontrollers
(benchmarks/LABEL_ERRORS.md); a margin of 0.9 finds half as many, one of 0.3 is right in three of four cases
on tote_dev."""
NEIGHBOURS = 5
"""Nearest objects of other images, none of which may have the given name. Without this condition the precision on
tote_dev is 0.77 instead of 0.88, at the same recall. Objects whose own names are doubted do not count: where a fifth of
one class has the name of another, they would vouch for each other (recall 0.36 instead of 0.92)."""
MIN_IMAGES = 4
"""Images of a class from which its names are judged: fewer cannot be told from the neighbours of another class."""
MASK_IOU = 0.6
"""IoU with the best proposal below which a mask is doubtful."""
RIVAL_QUALITY = 0.75
"""Predicted IoU times objectness of the proposal that the decoder draws instead. With 5 % bad masks, precision and
recall are 0.55 and 0.41 on tote_dev (heaps, many covered parts), 0.74 and 0.72 on the demo line, 0.88 and 0.71 on
microcontrollers. On tote_dev 9 of 622 given masks are doubted; at 0.7 twice as many, at 0.8 half as many and a seventh
less of the planted ones. Prompting the decoder again inside each mask hardly changed
either number."""
RIVAL_IOU = 0.1
"""IoU with the label from which a proposal may show the same object."""
OWNED_IOU = 0.5
"""IoU from which a proposal is another label's object."""


@dataclass(frozen=True)
class WrongName:
    """An object, by its row, whose name is probably wrong.

    Attributes:
        suggested: class that it is probably of.
        score: probability of that class less that of the given one, 0..1.
    """

    row: int
    suggested: str
    score: float


@dataclass(frozen=True)
class BadMask:
    """A label, by its row in its image, whose mask is probably wrong.

    Attributes:
        rival: the mask that the decoder draws there.
        iou: of the label with the best proposal.
        score: quality of the rival times the share that the label misses of it, 0..1.
    """

    row: int
    rival: Rle
    iou: float
    score: float


def wrong_names(objects: LabelledObjects, log_probability: Array) -> list[WrongName]:
    """Objects whose names are probably wrong, the surest first.

    Args:
        log_probability: (N, C) of `samif.advice.naming.out_of_fold`.
    """
    probability, rows = np.exp(log_probability), np.arange(len(log_probability))
    best = probability.argmax(axis=1)
    margin = probability[rows, best] - probability[rows, objects.category]
    images = np.array([len(np.unique(objects.group[objects.category == c])) for c in range(len(objects.names))])
    doubted = margin > NAME_MARGIN
    asked = np.flatnonzero(doubted & (images[objects.category] >= MIN_IMAGES))
    alone = [row for row, names in zip(asked, _neighbours(objects, asked, ~doubted), strict=True)
             if objects.category[row] not in names]  # fmt: skip
    found = [WrongName(int(row), objects.names[best[row]], float(margin[row])) for row in alone]
    return sorted(found, key=lambda name: -name.score)


def _neighbours(objects: LabelledObjects, asked: NDArray[np.int64], trusted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Classes (len(asked), K) of the nearest trusted objects of other folds, by angle in the whitened space."""
    found = np.full((len(asked), NEIGHBOURS), -1, dtype=np.int64)
    for teach, named in folds_of(objects.group):
        here = np.flatnonzero(named[asked])
        if not len(here):
            continue
        centre, axes = space_of(objects.features[teach], objects.category[teach])
        pool = teach & trusted
        known = _unit((objects.features[pool] - centre) @ axes)
        near = np.argsort(-(_unit((objects.features[asked[here]] - centre) @ axes) @ known.T), axis=1)[:, :NEIGHBOURS]
        found[here, : near.shape[1]] = objects.category[pool][near]
    return found


def bad_masks(labels: Sequence[Annotation], proposals: Proposals) -> list[BadMask]:
    """Labels of one image, no crowds among them, whose masks the decoder draws otherwise.

    A label is doubted where no proposal matches it, and a good one lies over it that is no other label's object: a good
    mask of a covered or unusual part has no such rival.
    """
    if not labels or not len(proposals):
        return []
    iou = overlaps(proposals.masks, [a.rle for a in labels])
    found = []
    for row in range(len(labels)):
        others = np.delete(iou, row, axis=1).max(axis=1, initial=0.0)
        rivals = (others < OWNED_IOU) & (iou[:, row] > RIVAL_IOU)
        quality = np.where(rivals, proposals.quality, 0.0)
        rival, best = int(quality.argmax()), float(iou[:, row].max())
        if best < MASK_IOU and quality[rival] > RIVAL_QUALITY:
            found.append(BadMask(row, proposals.masks[rival], best, float(quality[rival] * (1.0 - best))))
    return found


def _unit(values: Array) -> Array:
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
