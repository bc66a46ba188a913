"""Quality of a fine-tuned decoder on held-out images: masks from one interior point, recall of the proposals, and
silence on background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from samif.config import ProposeParams
from samif.dataset.model import ImageRecord
from samif.finetune.targets import ImageTargets, to_points
from samif.inference.propose import predict_points, propose
from samif.masks.rle import overlaps
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import split_views

BACKGROUND_POINTS = 12
SILENT_BELOW = 0.5
MOST_PROPOSALS = 100
RECALL_IOUS = np.arange(0.5, 0.96, 0.05)


@dataclass(frozen=True)
class Quality:
    """Mean IoU from one random interior point over instances of the learnt classes and of all others (None: none
    there); the same split of recall, the share of instances that one of at most 100 proposals finds, averaged over
    IoU 0.5 to 0.95; the share of background points whose objectness is below one half; and how many images were
    measured."""

    iou_base: float
    iou_other: float | None
    recall_base: float
    recall_other: float | None
    background_silent: float
    images: int

    @property
    def score(self) -> float:
        """Score by which two decoders are compared: mask IoU, and half of the share of silent background points."""
        return self.iou_base + 0.5 * self.background_silent


def measure(
    decoder: InstanceDecoder,
    images: Sequence[ImageRecord],
    classes: frozenset[str],
    read: Callable[[Sequence[ImageRecord]], Tensor],
    seed: int,
    tiles: int = 1,
) -> Quality:
    """Prompt every instance of the images once at a random interior point, and some background points; then propose
    without being told anything, in `tiles` tiles per image side too where there are some."""
    rng = np.random.default_rng([seed, 17])
    known: list[float] = []
    other: list[float] = []
    silent: list[bool] = []
    found: dict[bool, list[float]] = {True: [], False: []}
    for image in images:
        objects = [a for a in image.annotations if not a.crowd]
        if not objects:
            continue
        everything = frozenset(a.category for a in objects)
        target = ImageTargets.of(image, everything, decoder.image_size)
        places = []
        for index in range(len(objects)):
            cells = target.interior(index, 0.0)
            places.append(cells[rng.integers(len(cells))])
        empty = target.background
        if len(empty):
            places += [empty[i] for i in rng.integers(len(empty), size=BACKGROUND_POINTS)]
        points = torch.from_numpy(to_points(np.stack(places), target.frame))
        embedding = read([image])[0]
        frame = replace(target.frame, tiles=tiles)
        answers, _ = predict_points(decoder, split_views(embedding, frame)[0][1], target.frame, points)
        for index, annotation in enumerate(objects):
            value = float(overlaps([answers.masks[index]], [annotation.rle])[0, 0])
            (known if annotation.category in classes else other).append(value)
        proposed = propose(decoder, embedding, frame, ProposeParams(max_proposals=MOST_PROPOSALS))
        best = overlaps(proposed.masks, [a.rle for a in objects]).max(axis=0, initial=0.0)
        for annotation, reached in zip(objects, best, strict=True):
            found[annotation.category in classes].append(float((reached >= RECALL_IOUS).mean()))
        silent += [bool(o < SILENT_BELOW) for o in answers.objectness[len(objects) :]]
    return Quality(
        iou_base=float(np.mean(known)) if known else 0.0,
        iou_other=float(np.mean(other)) if other else None,
        recall_base=float(np.mean(found[True])) if found[True] else 0.0,
        recall_other=float(np.mean(found[False])) if found[False] else None,
        background_silent=float(np.mean(silent)) if silent else 1.0,
        images=len(images),
    )
