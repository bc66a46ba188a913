"""The fine-tuning loop: prompts drawn in objects, on background and on seams; decoder tuned, encoder never touched.

Shape legend: B pictures a step, P prompts a picture, r resolution of low-resolution masks.
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
from samif.dataset.model import Picture
from samif.errors import SamifError
from samif.finetune.quality import Quality, measure
from samif.finetune.targets import LABELS, PictureTargets, to_points
from samif.sam.decode import SINGLE_MASK
from samif.sam.decoder import InstanceDecoder
from samif.sam.precision import training_autocast

log = logging.getLogger(__name__)

ReadEmbeddings = Callable[[Sequence[Picture]], Tensor]
"""Pictures -> embeddings (B, C, h, w)."""

HELD_OUT = 0.15
CURVE_POINTS = 40
CELLS_AT_ONCE = 1 << 15
"""Prompts times grid cells of one pass: all 8 pictures of a step on `tiny`, one picture on the official grid."""


@dataclass(frozen=True)
class Tuned:
    """A tuned decoder and how it came about; `curve` rows are {step, loss, mask_iou}."""

    decoder: InstanceDecoder
    curve: list[dict[str, float]]
    before: Quality
    after: Quality
    kept: str
    seconds: float


@dataclass(frozen=True)
class _Batch:
    embeddings: Tensor
    points: Tensor  # (B, P, 2)
    targets: Tensor  # (B * P, r, r)
    is_object: Tensor  # (B * P,)
    depth: Tensor  # (B, 2h, 2w)
    ignored: Tensor  # (B, 2h, 2w)

    def pictures(self, rows: slice) -> _Batch:
        """The same for some of the pictures."""
        prompts = self.points.shape[1]
        flat = slice(rows.start * prompts, rows.stop * prompts)
        return _Batch(
            self.embeddings[rows], self.points[rows], self.targets[flat], self.is_object[flat], self.depth[rows],
            self.ignored[rows],
        )  # fmt: skip


def planned_steps(params: PretrainDecoderParams, pictures: int) -> int:
    """Optimiser steps for a number of training pictures: `steps`, or as many as `max_epochs` passes take."""
    return min(params.steps, max(1, params.max_epochs * pictures // params.pictures_per_step))


def learnable(pictures: Sequence[Picture], classes: frozenset[str]) -> list[Picture]:
    """The pictures that show an instance of `classes`."""
    return [p for p in pictures if any(a.category in classes and not a.crowd for a in p.annotations)]


def tune(
    decoder: InstanceDecoder,
    pictures: Sequence[Picture],
    classes: frozenset[str],
    read: ReadEmbeddings,
    params: PretrainDecoderParams,
    advance: Callable[[int], None] = lambda _: None,
) -> Tuned:
    """Fine-tune the mask decoder on the instances of `classes`; the prompt encoder stays as it is.

    A share of the pictures is held out; the tuned decoder is kept only where it is better there than before.
    Losses: BCE + dice on the single mask, its IoU (regression), objectness, and the point proposal map.

    Raises:
        SamifError: no picture has an instance to learn from.
    """
    useful = learnable(pictures, classes)
    if not useful:
        raise SamifError("no training picture shows an instance of a class to learn; check dataset.base_classes")
    started = time.monotonic()
    rng = np.random.default_rng(params.seed)
    torch.manual_seed(params.seed)
    order = rng.permutation(len(useful))
    held = max(1, int(HELD_OUT * len(useful))) if len(useful) > 3 else 0
    check, learn = [useful[i] for i in order[:held]], [useful[i] for i in order[held:]]
    before = measure(decoder, check or learn, classes, read, seed=params.seed)

    tuned = copy.deepcopy(decoder)
    weights = [*tuned.mask_decoder.parameters()]
    if tuned.heads is not getattr(tuned.mask_decoder, "instance_heads", None):
        weights += [*tuned.heads.parameters()]
    for parameter in weights:
        parameter.requires_grad_(True)
    tuned.train()
    optimiser = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=0.01)
    targets: dict[int, PictureTargets] = {}
    curve: list[dict[str, float]] = []
    running: dict[str, float] = {}
    steps = planned_steps(params, len(useful))
    for step in range(steps):
        rate = params.learning_rate * min(1.0, (step + 1) / 30) * (1.0 - step / steps)
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = _draw(tuned, learn, targets, classes, read, params, rng)
        optimiser.zero_grad(set_to_none=True)
        loss, iou = _accumulate(tuned, batch)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        for key, value in (("loss", loss), ("mask_iou", iou)):
            running[key] = 0.9 * running.get(key, value) + 0.1 * value
        if step % max(1, steps // CURVE_POINTS) == 0 or step == steps - 1:
            curve.append({"step": step + 1, **{k: round(v, 4) for k, v in running.items()}})
        advance(1)
    tuned.eval().requires_grad_(False)
    after = measure(tuned, check or learn, classes, read, seed=params.seed)
    better = after.score >= before.score
    if not better:
        log.warning("fine-tuning did not help (%.3f before, %.3f after): kept as it was", before.score, after.score)
    best, kept = (tuned, "after") if better else (decoder, "before")
    return Tuned(best, curve, before, after, kept, time.monotonic() - started)


def _draw(
    decoder: InstanceDecoder,
    pictures: Sequence[Picture],
    cache: dict[int, PictureTargets],
    classes: frozenset[str],
    read: ReadEmbeddings,
    params: PretrainDecoderParams,
    rng: np.random.Generator,
) -> _Batch:
    few = len(pictures) < params.pictures_per_step
    chosen = [pictures[i] for i in rng.choice(len(pictures), params.pictures_per_step, replace=few)]
    embeddings = read(chosen).float()
    grid = embeddings.shape[-1]
    points, masks, depth, ignored = [], [], [], []
    for picture in chosen:
        if picture.id not in cache:
            cache[picture.id] = PictureTargets.of(picture, classes, decoder.image_size)
        target = cache[picture.id]
        for place, mask in _prompts(target, 4 * grid, params, rng):
            points.append(to_points(place, target.frame))
            masks.append(mask)
        depth.append(target.depth(2 * grid))
        block = LABELS // (2 * grid)
        ignored.append(target.ignored[block // 2 :: block, block // 2 :: block])
    targets = torch.from_numpy(np.stack(masks))
    return _Batch(
        embeddings,
        torch.from_numpy(np.stack(points)).reshape(len(chosen), -1, 2),
        targets,
        targets.flatten(1).any(dim=1),
        torch.from_numpy(np.stack(depth)),
        torch.from_numpy(np.stack(ignored)),
    )


def _prompts(
    target: PictureTargets, resolution: int, params: PretrainDecoderParams, rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Places and target masks of one picture: objects, then background and seams in turn."""
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


def _accumulate(decoder: InstanceDecoder, batch: _Batch) -> tuple[float, float]:
    """Add the gradients of a batch, a few pictures at a time where prompts times grid cells would fill the memory.

    Returns:
        Loss and mean mask IoU.
    """
    pictures, prompts = batch.points.shape[:2]
    at_once = max(1, CELLS_AT_ONCE // (prompts * batch.embeddings.shape[-1] ** 2))
    sums = np.zeros(2)
    for start in range(0, pictures, at_once):
        part = batch.pictures(slice(start, min(start + at_once, pictures)))
        loss, iou = _loss(decoder, part)
        share = len(part.embeddings) / pictures
        (loss * share).backward()  # type: ignore[no-untyped-call]
        sums += share * np.array([float(loss.detach()), iou])
    return float(sums[0]), float(sums[1])


def _loss(decoder: InstanceDecoder, batch: _Batch) -> tuple[Tensor, float]:
    with training_autocast():
        answer, objectness = decoder(batch.embeddings, batch.points, SINGLE_MASK)
        centre_logits = decoder.heads.centres(batch.embeddings).float()
    logits, targets, weight = answer.masks[:, 0].float(), batch.targets, batch.is_object.float()
    if targets.shape[-1] != logits.shape[-1]:
        raise ValueError(f"expected targets of {logits.shape[-1]} cells, got {targets.shape[-1]}")
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((-2, -1))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    mask = ((4 * bce + 2 * dice) * weight).sum() / weight.sum().clamp_min(1.0)
    with torch.no_grad():
        found, true = logits > 0, targets > 0.5
        iou = (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp_min(1)
    regression = (((answer.iou[:, 0].float() - iou) ** 2) * weight).sum() / weight.sum().clamp_min(1.0)
    seen = F.binary_cross_entropy_with_logits(objectness.float(), weight)
    centres = F.binary_cross_entropy_with_logits(centre_logits, batch.depth, reduction="none")
    learnable = (~batch.ignored).float()
    proposal = (centres * learnable).sum() / learnable.sum().clamp_min(1.0)
    total = mask + 2 * regression + 0.5 * seen + proposal
    return total, float((iou * weight).sum() / weight.sum().clamp_min(1.0))
