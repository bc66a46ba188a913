"""What fine-tuning is worth: masks from one interior point, and silence on background, on held-out pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samif.dataset.model import Picture
from samif.finetune.targets import PictureTargets, to_points
from samif.masks.rle import overlaps
from samif.propose import answer_points
from samif.sam.decoder import InstanceDecoder

BACKGROUND_POINTS = 12
SILENT_BELOW = 0.5


@dataclass(frozen=True)
class Quality:
    """Mean IoU from one random interior point over instances of the learnt classes and of all others (None: none
    there), the share of background points whose objectness is below one half, and how many pictures were measured."""

    iou_base: float
    iou_other: float | None
    background_silent: float
    pictures: int

    @property
    def score(self) -> float:
        """What decides between two decoders: masks first, silence on background second."""
        return self.iou_base + 0.5 * self.background_silent


def measure(
    decoder: InstanceDecoder,
    pictures: Sequence[Picture],
    classes: frozenset[str],
    read: Callable[[Sequence[Picture]], Tensor],
    seed: int,
) -> Quality:
    """Prompt every instance of the pictures once at a random interior point, and some background points."""
    rng = np.random.default_rng([seed, 17])
    known: list[float] = []
    other: list[float] = []
    silent: list[bool] = []
    for picture in pictures:
        objects = [a for a in picture.annotations if not a.crowd]
        if not objects:
            continue
        everything = frozenset(a.category for a in objects)
        target = PictureTargets.of(picture, everything, decoder.image_size)
        places = []
        for index in range(len(objects)):
            cells = target.interior(index, 0.0)
            places.append(cells[rng.integers(len(cells))])
        empty = target.background
        if len(empty):
            places += [empty[i] for i in rng.integers(len(empty), size=BACKGROUND_POINTS)]
        points = torch.from_numpy(to_points(np.stack(places), target.frame))
        answers, _ = answer_points(decoder, read([picture])[0], target.frame, points)
        for index, annotation in enumerate(objects):
            value = float(overlaps([answers.masks[index]], [annotation.rle])[0, 0])
            (known if annotation.category in classes else other).append(value)
        silent += [bool(o < SILENT_BELOW) for o in answers.objectness[len(objects) :]]
    return Quality(
        iou_base=float(np.mean(known)) if known else 0.0,
        iou_other=float(np.mean(other)) if other else None,
        background_silent=float(np.mean(silent)) if silent else 1.0,
        pictures=len(pictures),
    )
