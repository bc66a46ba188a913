"""What fine-tuning draws its steps from: views of the training images, and prompts with their targets.

Shape legend: B views of a step, P prompts a view, V views of an image, r resolution of low-resolution masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samif.config import PretrainDecoderParams
from samif.dataset.crop import crop
from samif.dataset.model import ImageRecord
from samif.errors import DataError
from samif.finetune.targets import LABELS, ImageTargets, to_points
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame, view_count, views

ReadEmbeddings = Callable[[Sequence[ImageRecord]], Tensor]
"""Images -> embeddings (B, V * C, h, w) of V views each."""

HELD_OUT = 0.15


@dataclass(frozen=True)
class Batch:
    """Prompts and targets of the images of a step, or of some of them."""

    points: Tensor  # (B, P, 2)
    targets: Tensor  # (B * P, r, r)
    is_object: Tensor  # (B * P,)
    depth: Tensor  # (B, 2h, 2w)
    ignored: Tensor  # (B, 2h, 2w)

    def images(self, rows: slice) -> Batch:
        """The same for some of the images."""
        prompts = self.points.shape[1]
        flat = slice(rows.start * prompts, rows.stop * prompts)
        return Batch(self.points[rows], self.targets[flat], self.is_object[flat], self.depth[rows], self.ignored[rows])

    def to(self, device: str) -> Batch:
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


def planned_steps(params: PretrainDecoderParams, images: int) -> int:
    """Optimiser steps for a number of training images: `steps`, or as many as `max_epochs` passes take."""
    return min(params.steps, max(1, params.max_epochs * images // params.images_per_step))


def learnable(images: Sequence[ImageRecord], classes: frozenset[str]) -> list[ImageRecord]:
    """The images that show an instance of `classes`."""
    return [p for p in images if any(a.category in classes and not a.crowd for a in p.annotations)]


@dataclass(frozen=True)
class Shown:
    """A view of an image to learn from: its labels in its own pixels, and its number among the image's views."""

    image: ImageRecord
    view: int
    labels: ImageRecord


@dataclass(frozen=True)
class TrainingSet:
    """Images to learn from, whole, and their tiles that show an object; and `check`, images to measure on: held out
    where there are more than three."""

    learn: list[Shown]
    tiles: list[Shown]
    views: int
    check: list[ImageRecord]
    classes: frozenset[str]
    read: ReadEmbeddings
    params: PretrainDecoderParams
    steps: int
    rng: np.random.Generator

    @classmethod
    def of(
        cls,
        images: Sequence[ImageRecord],
        classes: frozenset[str],
        read: ReadEmbeddings,
        params: PretrainDecoderParams,
        tiles: int,
    ) -> TrainingSet:
        useful = learnable(images, classes)
        if not useful:
            raise DataError("no training image shows an instance of a class to learn; check dataset.base_classes")
        rng = np.random.default_rng(params.seed)
        order = rng.permutation(len(useful))
        held = max(1, int(HELD_OUT * len(useful))) if len(useful) > 3 else 0
        check, learn = [useful[i] for i in order[:held]], [useful[i] for i in order[held:]]
        parts = [shown for image in learn for shown in _tiles(image, tiles, classes)]
        steps = planned_steps(params, len(useful))
        whole = [Shown(image, 0, image) for image in learn]
        return cls(whole, parts, view_count(tiles), check or learn, classes, read, params, steps, rng)


def _tiles(image: ImageRecord, tiles: int, classes: frozenset[str]) -> list[Shown]:
    """The tiles of an image that show an instance of `classes`."""
    found = []
    for number, view in enumerate(views(Frame(image.height, image.width, 1, tiles))[1:], start=1):
        labels = crop(image, view.x, view.y, view.frame.width, view.frame.height)
        if learnable([labels], classes):
            found.append(Shown(image, number, labels))
    return found


def choose(training_set: TrainingSet) -> list[Shown]:
    """The views of the next step: whole images, and as many tiles where there are any."""
    count = training_set.params.images_per_step
    of_tiles = count // 2 if training_set.tiles else 0
    chosen = []
    for shown, part in ((training_set.learn, count - of_tiles), (training_set.tiles, of_tiles)):
        if part:
            chosen += [shown[i] for i in training_set.rng.choice(len(shown), part, replace=len(shown) < part)]
    return chosen


def read_views(training_set: TrainingSet, chosen: Sequence[Shown]) -> Tensor:
    """Embeddings (B, C, h, w) of views."""
    seen = training_set.read([shown.image for shown in chosen])
    by_view = seen.view(len(chosen), training_set.views, -1, *seen.shape[2:])
    return by_view[torch.arange(len(chosen)), torch.tensor([shown.view for shown in chosen])]


def draw(
    decoder: InstanceDecoder,
    chosen: Sequence[Shown],
    grid: int,
    training_set: TrainingSet,
    cache: dict[tuple[int, int], ImageTargets],
) -> Batch:
    params, rng = training_set.params, training_set.rng
    points, masks, depth, ignored = [], [], [], []
    for shown in chosen:
        key = shown.image.id, shown.view
        if key not in cache:
            cache[key] = ImageTargets.of(shown.labels, training_set.classes, decoder.image_size)
        target = cache[key]
        for place, mask in _prompts(target, 4 * grid, params, rng):
            points.append(to_points(place, target.frame))
            masks.append(mask)
        depth.append(target.depth(2 * grid))
        block = LABELS // (2 * grid)
        ignored.append(target.ignored[block // 2 :: block, block // 2 :: block])
    targets = torch.from_numpy(np.stack(masks))
    return Batch(
        torch.from_numpy(np.stack(points)).reshape(len(chosen), -1, 2),
        targets,
        targets.flatten(1).any(dim=1),
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(ignored)),
    )


def _prompts(
    target: ImageTargets, resolution: int, params: PretrainDecoderParams, rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Places and target masks of one image: objects, then background and seams in turn."""
    nothing = np.zeros((resolution, resolution), dtype=np.float32)
    total = params.object_points + params.background_points
    prompts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    count = len(target.objects)
    for index in rng.choice(count, params.object_points, replace=count < params.object_points):
        cells = target.interior(int(index), params.erosion)
        prompts.append((cells[rng.integers(len(cells))], target.soft(int(index), resolution)))
    while len(prompts) < total:
        cells = target.seams if len(prompts) % 3 == 0 and len(target.seams) else target.background
        if not len(cells):
            prompts.append(prompts[int(rng.integers(params.object_points))])
            continue
        prompts.append((cells[rng.integers(len(cells))], nothing))
    return prompts
