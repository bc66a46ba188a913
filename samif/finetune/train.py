"""The fine-tuning loop: prompts drawn in objects, on background and on seams; the decoder is
fine-tuned, the encoder stays frozen.

Several workers may fine-tune one decoder together (`DistributedContext`): each draws the whole batch from the same
seed, works on its share of the images, and takes the same step as the others.

Shape legend: B images a step, P prompts an image, r resolution of low-resolution masks.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from samif.config import PretrainDecoderParams
from samif.dataset.model import ImageRecord
from samif.errors import DataError
from samif.finetune.quality import Quality, measure
from samif.finetune.targets import LABELS, ImageTargets, to_points
from samif.sam.decode import SINGLE_MASK
from samif.sam.decoder import InstanceDecoder
from samif.sam.precision import training_autocast

logger = logging.getLogger(__name__)

ReadEmbeddings = Callable[[Sequence[ImageRecord]], Tensor]
"""Images -> embeddings (B, C, h, w)."""

HELD_OUT = 0.15
CURVE_POINTS = 40
CELLS_AT_ONCE = 1 << 15
"""Prompts times grid cells of one pass: all 8 images of a step on `tiny`, one image on the official grid."""


@dataclass(frozen=True)
class TrainingResult:
    """A fine-tuned decoder, its training curve (rows of step, loss and mask IoU), and its quality before and after.

    `kept` is `after`, or `before` where fine-tuning made it no better.
    """

    decoder: InstanceDecoder
    curve: list[dict[str, float]]
    before: Quality
    after: Quality
    kept: str
    seconds: float


@dataclass(frozen=True)
class DistributedContext:
    """One worker of several that fine-tune a decoder together, each from the same decoder, images and parameters.

    Attributes:
        rank: number of this worker, from 0.
        workers: how many there are, at most the images of a step.
        all_reduce: replaces a tensor by its sum over all workers, bit for bit the same on each.
        device: where this worker computes losses and gradients.
    """

    rank: int = 0
    workers: int = 1
    all_reduce: Callable[[Tensor], None] = lambda _: None
    device: str = "cpu"

    def share(self, images: int) -> slice:
        """The images of a step that are this worker's."""
        return slice(images * self.rank // self.workers, images * (self.rank + 1) // self.workers)


SINGLE_PROCESS = DistributedContext()


@dataclass(frozen=True)
class _Batch:
    """Prompts and targets of the images of a step, or of some of them."""

    points: Tensor  # (B, P, 2)
    targets: Tensor  # (B * P, r, r)
    is_object: Tensor  # (B * P,)
    depth: Tensor  # (B, 2h, 2w)
    ignored: Tensor  # (B, 2h, 2w)

    def images(self, rows: slice) -> _Batch:
        """The same for some of the images."""
        prompts = self.points.shape[1]
        flat = slice(rows.start * prompts, rows.stop * prompts)
        return _Batch(self.points[rows], self.targets[flat], self.is_object[flat], self.depth[rows], self.ignored[rows])

    def to(self, device: str) -> _Batch:
        return _Batch(*(tensor.to(device) for tensor in vars(self).values()))


def planned_steps(params: PretrainDecoderParams, images: int) -> int:
    """Optimiser steps for a number of training images: `steps`, or as many as `max_epochs` passes take."""
    return min(params.steps, max(1, params.max_epochs * images // params.images_per_step))


def learnable(images: Sequence[ImageRecord], classes: frozenset[str]) -> list[ImageRecord]:
    """The images that show an instance of `classes`."""
    return [p for p in images if any(a.category in classes and not a.crowd for a in p.annotations)]


def finetune(
    decoder: InstanceDecoder,
    images: Sequence[ImageRecord],
    classes: frozenset[str],
    read: ReadEmbeddings,
    params: PretrainDecoderParams,
    advance: Callable[[int], None] = lambda _: None,
    distributed: DistributedContext = SINGLE_PROCESS,
) -> TrainingResult:
    """Fine-tune the mask decoder on the instances of `classes`; the prompt encoder stays as it is.

    A share of the images is held out; the fine-tuned decoder is kept only where it is better there than before.
    Losses: BCE + dice on the single mask, its IoU (regression), objectness, and the point proposal map.
    With several workers the first one calls this, the others `run_worker`.

    Raises:
        DataError: no image has an instance to learn from.
    """
    started = time.monotonic()
    training_set = _TrainingSet.of(images, classes, read, params)
    there = copy.deepcopy(decoder).to(distributed.device)
    before = measure(there, training_set.check, classes, read, seed=params.seed)
    finetuned, curve = _train(decoder, training_set, distributed, advance)
    after = measure(finetuned, training_set.check, classes, read, seed=params.seed)
    better = after.score >= before.score
    if not better:
        logger.warning("fine-tuning did not help (%.3f before, %.3f after): kept as it was", before.score, after.score)
    best, kept = (finetuned.cpu(), "after") if better else (decoder, "before")
    return TrainingResult(best, curve, before, after, kept, time.monotonic() - started)


def run_worker(
    decoder: InstanceDecoder,
    images: Sequence[ImageRecord],
    classes: frozenset[str],
    read: ReadEmbeddings,
    params: PretrainDecoderParams,
    distributed: DistributedContext,
) -> None:
    """Do a worker's share of the training steps of `finetune`; only the first worker measures.

    Raises:
        DataError: no image has an instance to learn from.
    """
    _train(decoder, _TrainingSet.of(images, classes, read, params), distributed)


@dataclass(frozen=True)
class _TrainingSet:
    """Images to learn from, and `check`, those to measure on: held out where there are more than three images."""

    learn: list[ImageRecord]
    check: list[ImageRecord]
    classes: frozenset[str]
    read: ReadEmbeddings
    params: PretrainDecoderParams
    steps: int
    rng: np.random.Generator

    @classmethod
    def of(
        cls, images: Sequence[ImageRecord], classes: frozenset[str], read: ReadEmbeddings, params: PretrainDecoderParams
    ) -> _TrainingSet:
        useful = learnable(images, classes)
        if not useful:
            raise DataError("no training image shows an instance of a class to learn; check dataset.base_classes")
        rng = np.random.default_rng(params.seed)
        order = rng.permutation(len(useful))
        held = max(1, int(HELD_OUT * len(useful))) if len(useful) > 3 else 0
        check, learn = [useful[i] for i in order[:held]], [useful[i] for i in order[held:]]
        return cls(learn, check or learn, classes, read, params, planned_steps(params, len(useful)), rng)


def _train(
    decoder: InstanceDecoder,
    training_set: _TrainingSet,
    distributed: DistributedContext,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[InstanceDecoder, list[dict[str, float]]]:
    """A fine-tuned copy of the decoder, and its curve: the same on every worker."""
    params, steps = training_set.params, training_set.steps
    torch.manual_seed(params.seed)
    finetuned = copy.deepcopy(decoder).to(distributed.device)
    weights = [*finetuned.mask_decoder.parameters()]
    if finetuned.heads is not getattr(finetuned.mask_decoder, "instance_heads", None):
        weights += [*finetuned.heads.parameters()]
    for parameter in weights:
        parameter.requires_grad_(True)
    finetuned.train()
    optimiser = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=0.01)
    targets: dict[int, ImageTargets] = {}
    curve: list[dict[str, float]] = []
    running: dict[str, float] = {}
    for step in range(steps):
        rate = params.learning_rate * min(1.0, (step + 1) / 30) * (1.0 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        share = distributed.share(params.images_per_step)
        chosen = _choose(training_set)
        embeddings = training_set.read(chosen[share]).float().to(distributed.device)
        batch = _draw(finetuned, chosen, embeddings.shape[-1], training_set, targets).to(distributed.device)
        optimiser.zero_grad(set_to_none=True)
        sums = _accumulate(finetuned, embeddings, batch, share)
        loss, iou = _over_all_workers(weights, sums, distributed)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        for key, value in (("loss", loss), ("mask_iou", iou)):
            running[key] = 0.9 * running.get(key, value) + 0.1 * value
        if step % max(1, steps // CURVE_POINTS) == 0 or step == steps - 1:
            curve.append({"step": step + 1, **{k: round(v, 4) for k, v in running.items()}})
        advance(1)
    return finetuned.eval().requires_grad_(False), curve


def _choose(training_set: _TrainingSet) -> list[ImageRecord]:
    """The images of the next step."""
    images, count = training_set.learn, training_set.params.images_per_step
    return [images[i] for i in training_set.rng.choice(len(images), count, replace=len(images) < count)]


def _draw(
    decoder: InstanceDecoder,
    chosen: Sequence[ImageRecord],
    grid: int,
    training_set: _TrainingSet,
    cache: dict[int, ImageTargets],
) -> _Batch:
    params, rng = training_set.params, training_set.rng
    points, masks, depth, ignored = [], [], [], []
    for image in chosen:
        if image.id not in cache:
            cache[image.id] = ImageTargets.of(image, training_set.classes, decoder.image_size)
        target = cache[image.id]
        for place, mask in _prompts(target, 4 * grid, params, rng):
            points.append(to_points(place, target.frame))
            masks.append(mask)
        depth.append(target.depth(2 * grid))
        block = LABELS // (2 * grid)
        ignored.append(target.ignored[block // 2 :: block, block // 2 :: block])
    targets = torch.from_numpy(np.stack(masks))
    return _Batch(
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


def _accumulate(decoder: InstanceDecoder, embeddings: Tensor, batch: _Batch, share: slice) -> tuple[float, float]:
    """Add the gradients of some images of a batch, a few at a time where prompts times grid cells would fill the
    memory. Over all workers they add up to those of the batch, whose parts are the same however many workers there are.

    Args:
        embeddings: of the images of `share`.

    Returns:
        What these images add to the batch's loss and mean mask IoU.
    """
    images, prompts = batch.points.shape[:2]
    at_once = max(1, CELLS_AT_ONCE // (prompts * embeddings.shape[-1] ** 2))
    sums = np.zeros(2)
    for start in range(0, images, at_once):
        stop = min(start + at_once, images)
        mine = slice(max(start, share.start), min(stop, share.stop))
        if mine.start >= mine.stop:
            continue
        own = embeddings[mine.start - share.start : mine.stop - share.start]
        loss, iou = _loss(decoder, own, batch.images(mine), batch.images(slice(start, stop)))
        weight = (stop - start) / images
        (loss * weight).backward()  # type: ignore[no-untyped-call]
        sums += weight * np.array([float(loss.detach()), iou])
    return float(sums[0]), float(sums[1])


def _over_all_workers(
    weights: Sequence[Tensor], sums: tuple[float, float], distributed: DistributedContext
) -> tuple[float, float]:
    """Replace gradients, and loss and IoU, by their sums over all workers, in one exchange."""
    if distributed.workers == 1:
        return sums
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), gradients[0].new_tensor(sums)])
    distributed.all_reduce(flat)
    *parts, loss, iou = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1, 1])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(loss), float(iou)


def _loss(decoder: InstanceDecoder, embeddings: Tensor, batch: _Batch, whole: _Batch) -> tuple[Tensor, float]:
    """What the images of `batch` add to loss and mean mask IoU of `whole`, which they are some or all images of."""
    with training_autocast(embeddings.device.type):
        answer, objectness = decoder(embeddings, batch.points, SINGLE_MASK)
        centre_logits = decoder.heads.centres(embeddings).float()
    logits, targets, weight = answer.masks[:, 0].float(), batch.targets, batch.is_object.float()
    if targets.shape[-1] != logits.shape[-1]:
        raise ValueError(f"expected targets of {logits.shape[-1]} cells, got {targets.shape[-1]}")
    objects = whole.is_object.float().sum().clamp_min(1.0)
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((-2, -1))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    mask = ((4 * bce + 2 * dice) * weight).sum() / objects
    with torch.no_grad():
        found, true = logits > 0, targets > 0.5
        iou = (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp_min(1)
    regression = (((answer.iou[:, 0].float() - iou) ** 2) * weight).sum() / objects
    seen = F.binary_cross_entropy_with_logits(objectness.float(), weight) * (len(weight) / len(whole.is_object))
    centres = F.binary_cross_entropy_with_logits(centre_logits, batch.depth, reduction="none")
    learnable = (~batch.ignored).float()
    proposal = (centres * learnable).sum() / (~whole.ignored).float().sum().clamp_min(1.0)
    total = mask + 2 * regression + 0.5 * seen + proposal
    return total, float((iou * weight).sum() / objects)
