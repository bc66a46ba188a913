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
from torch import Tensor
from torch.nn import functional as F

from samif.config import PretrainDecoderParams
from samif.dataset.model import ImageRecord
from samif.finetune.quality import Quality, measure
from samif.finetune.targets import ImageTargets
from samif.finetune.training_set import Batch, ReadEmbeddings, TrainingSet, choose, draw, read_views
from samif.sam.decode import ALL_MASKS, SINGLE_MASK
from samif.sam.decoder import InstanceDecoder
from samif.sam.precision import training_autocast

logger = logging.getLogger(__name__)

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


def finetune(
    decoder: InstanceDecoder,
    images: Sequence[ImageRecord],
    classes: frozenset[str],
    read: ReadEmbeddings,
    params: PretrainDecoderParams,
    advance: Callable[[int], None] = lambda _: None,
    distributed: DistributedContext = SINGLE_PROCESS,
    tiles: int = 1,
) -> TrainingResult:
    """Fine-tune the mask decoder on the instances of `classes`; the prompt encoder stays as it is.

    A share of the images is held out; the fine-tuned decoder is kept only where it is better there than before.
    Where embeddings have `tiles` per image side, half of each step's images are tiles that show an object.
    Losses: BCE + dice on the single mask, its IoU (regression), objectness, and the point proposal map.
    With several workers the first one calls this, the others `run_worker`.

    Raises:
        DataError: no image has an instance to learn from.
    """
    started = time.monotonic()
    training_set = TrainingSet.of(images, classes, read, params, tiles)
    there = copy.deepcopy(decoder).to(distributed.device)
    before = measure(there, training_set.check, classes, read, params.seed, tiles)
    finetuned, curve = _train(decoder, training_set, distributed, advance)
    after = measure(finetuned, training_set.check, classes, read, params.seed, tiles)
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
    tiles: int = 1,
) -> None:
    """Do a worker's share of the training steps of `finetune`; only the first worker measures.

    Raises:
        DataError: no image has an instance to learn from.
    """
    _train(decoder, TrainingSet.of(images, classes, read, params, tiles), distributed)


def _train(
    decoder: InstanceDecoder,
    training_set: TrainingSet,
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
    targets: dict[tuple[int, int], ImageTargets] = {}
    curve: list[dict[str, float]] = []
    running: dict[str, float] = {}
    for step in range(steps):
        rate = params.learning_rate * min(1.0, (step + 1) / 30) * (1.0 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        share = distributed.share(params.images_per_step)
        chosen = choose(training_set)
        embeddings = read_views(training_set, chosen[share]).float().to(distributed.device)
        batch = draw(finetuned, chosen, embeddings.shape[-1], training_set, targets).to(distributed.device)
        optimiser.zero_grad(set_to_none=True)
        sums = _accumulate(finetuned, embeddings, batch, share, params.multimask)
        loss, iou = _over_all_workers(weights, sums, distributed)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        for key, value in (("loss", loss), ("mask_iou", iou)):
            running[key] = 0.9 * running.get(key, value) + 0.1 * value
        if step % max(1, steps // CURVE_POINTS) == 0 or step == steps - 1:
            curve.append({"step": step + 1, **{k: round(v, 4) for k, v in running.items()}})
        advance(1)
    return finetuned.eval().requires_grad_(False), curve


def _accumulate(
    decoder: InstanceDecoder, embeddings: Tensor, batch: Batch, share: slice, multimask: bool
) -> tuple[float, float]:
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
        loss, iou = _loss(decoder, own, batch.images(mine), batch.images(slice(start, stop)), multimask)
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


def _loss(
    decoder: InstanceDecoder, embeddings: Tensor, batch: Batch, whole: Batch, multimask: bool
) -> tuple[Tensor, float]:
    """What the images of `batch` add to loss and mean mask IoU of `whole`, which they are some or all images of."""
    with training_autocast(embeddings.device.type):
        answer, objectness = decoder(embeddings, batch.points, ALL_MASKS if multimask else SINGLE_MASK)
        centre_logits = decoder.heads.centres(embeddings).float()
    logits, targets, weight = answer.masks[:, 0].float(), batch.targets, batch.is_object.float()
    if targets.shape[-1] != logits.shape[-1]:
        raise ValueError(f"expected targets of {logits.shape[-1]} cells, got {targets.shape[-1]}")
    objects = whole.is_object.float().sum().clamp_min(1.0)
    mask = (_mask_loss(logits, targets) * weight).sum() / objects
    iou = _iou(logits, targets)
    regression = (((answer.iou[:, 0].float() - iou) ** 2) * weight).sum() / objects
    if multimask:  # as SAM is trained: the best of the three learns, and each learns how good it is
        several, aims = answer.masks[batch.is_object, 1:].float(), targets[batch.is_object, None]
        aims = aims.expand_as(several)
        mask = mask + 0.5 * _mask_loss(several, aims).min(dim=1).values.sum() / objects
        errors = (answer.iou[batch.is_object, 1:].float() - _iou(several, aims)) ** 2
        regression = regression + errors.mean(dim=1).sum() / objects
    seen = F.binary_cross_entropy_with_logits(objectness.float(), weight) * (len(weight) / len(whole.is_object))
    centres = F.binary_cross_entropy_with_logits(centre_logits, batch.depth, reduction="none")
    learnable = (~batch.ignored).float()
    proposal = (centres * learnable).sum() / (~whole.ignored).float().sum().clamp_min(1.0)
    total = mask + 2 * regression + 0.5 * seen + proposal
    return total, float((iou * weight).sum() / objects)


def _mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """4 BCE + 2 dice of each mask: (..., r, r) -> (...)."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((-2, -1))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    return 4 * bce + 2 * dice


@torch.no_grad()
def _iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of each mask with its target: (..., r, r) -> (...)."""
    found, true = logits > 0, targets > 0.5
    return (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp_min(1)
