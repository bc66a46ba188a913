"""Feature vectors with labels: from proposals matched to ground truth, and from prompts inside labelled instances.

Shape legend: N samples, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samif.config import FeaturePart
from samif.dataset.crop import crop
from samif.dataset.model import Annotation, ImageRecord
from samif.errors import DataError
from samif.finetune.targets import ImageTargets, to_points
from samif.inference.propose import Proposals, predict_points, small_and_whole
from samif.masks.pooling import pool
from samif.masks.rle import boxes, decode, overlaps
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame, View, split_views

OBJECT_IOU = 0.5
BACKGROUND_IOU = 0.3
IGNORED_SHARE = 0.3


def features_of(proposals: Proposals, parts: Sequence[FeaturePart]) -> NDArray[np.float32]:
    """Feature vectors (N, D) of proposals: the named parts side by side.

    Raises:
        DataError: `semantic` is named and the proposals were made without a semantic encoder.
    """
    columns = {"token": proposals.tokens, "pooled": proposals.pooled}
    if proposals.semantic is not None:
        columns["semantic"] = proposals.semantic
    elif "semantic" in parts:
        raise DataError(
            "the classifier needs semantic features and these proposals have none; give params.yaml the section "
            "'semantic' that it was made with and run 'samif run'"
        )
    return np.concatenate([columns[part] for part in parts], axis=1).astype(np.float32)


def background_rows(
    proposals: Proposals, annotations: Sequence[Annotation], learnt: frozenset[str]
) -> NDArray[np.int64]:
    """Indices of proposals that are background: IoU below 0.3 with every instance, and not on an ignored region.

    Instances of classes that are not `learnt`, and crowds, are ignored regions: neither object nor background.
    """
    objects = [a.rle for a in annotations if a.category in learnt and not a.crowd]
    ignored = [a.rle for a in annotations if a.category not in learnt or a.crowd]
    best = overlaps(proposals.masks, objects).max(axis=1, initial=0.0)
    hidden = overlaps(proposals.masks, ignored, within_a=True).max(axis=1, initial=0.0)
    return np.flatnonzero((best < BACKGROUND_IOU) & (hidden < IGNORED_SHARE))


def instance_samples(
    decoder: InstanceDecoder,
    embedding: Tensor,
    image: ImageRecord,
    annotations: Sequence[Annotation],
    prompts: int,
    parts: Sequence[FeaturePart],
    rng: np.random.Generator,
    semantic: Tensor | None = None,
    tiles: int = 1,
) -> list[NDArray[np.float32]]:
    """Features of labelled instances, from masks that the decoder predicts for them.

    Each instance is prompted at its deepest point and at random interior points, in the whole image and in the tiles
    that answer for it. Masks that match the label (IoU >= 0.5) are samples as they are; where none does, the label's
    own mask is pooled under instead.

    Args:
        embedding: (V * C, h, w) of the image.
        prompts: prompts per instance and view.
        semantic: (S, g, g) of the image, where `parts` names it.
        tiles: tiles per image side that `embedding` was made with.

    Returns:
        One array (S, D) per annotation, 1 <= S <= prompts times views.
    """
    if not annotations:
        return []
    frame = Frame(image.height, image.width, decoder.image_size, tiles)
    samples: list[list[NDArray[np.float32]]] = [[] for _ in annotations]
    for view, seen in split_views(embedding, frame):
        rows = list(range(len(annotations)))
        if view.frame.width < image.width:
            inside = boxes([a.rle for a in annotations]) - np.array([view.x, view.y, 0.0, 0.0])
            seen_there = (inside[:, :2] >= 0).all(axis=1)
            seen_there &= (inside[:, :2] + inside[:, 2:] <= (view.frame.width, view.frame.height)).all(axis=1)
            rows = np.flatnonzero(seen_there & small_and_whole(inside, view, frame)).tolist()
        if rows:
            shown = [annotations[row] for row in rows]
            for row, found in zip(
                rows, _view_samples(decoder, seen, image, shown, view, prompts, parts, rng, semantic), strict=True
            ):
                samples[row].append(found)
    return [np.concatenate(found) for found in samples]


def _view_samples(
    decoder: InstanceDecoder,
    embedding: Tensor,
    image: ImageRecord,
    annotations: Sequence[Annotation],
    view: View,
    prompts: int,
    parts: Sequence[FeaturePart],
    rng: np.random.Generator,
    semantic: Tensor | None,
) -> list[NDArray[np.float32]]:
    """Samples of instances that one view (C, h, w) shows whole."""
    categories = frozenset(a.category for a in annotations)
    record = replace(image, annotations=tuple(annotations))
    whole = Frame(image.height, image.width, decoder.image_size)
    if view.frame != whole:
        record = crop(record, view.x, view.y, view.frame.width, view.frame.height)
    target = ImageTargets.of(record, categories, decoder.image_size)
    places = []
    for index in range(len(annotations)):
        cells = target.interior(index, 0.0)
        places.append(target.interior(index, 1.0)[0])
        places += [cells[i] for i in rng.integers(len(cells), size=prompts - 1)]
    points = torch.from_numpy(to_points(np.stack(places), target.frame))
    predicted, usable = predict_points(decoder, embedding, target.frame, points)
    match = overlaps(predicted.masks, [a.rle for a in record.annotations])
    samples = []
    for index, annotation in enumerate(record.annotations):
        rows = np.arange(index * prompts, (index + 1) * prompts)
        good = rows[usable[rows] & (match[rows, index] >= OBJECT_IOU)]
        if len(good):
            chosen = predicted.take(good)
        else:
            best = predicted.take(rows[[int(match[rows, index].argmax())]])
            chosen = _with_label(best, annotation, embedding, target.frame)
        if semantic is not None and view.frame != whole:
            chosen = chosen.placed(view, whole)
        samples.append(features_of(chosen.with_semantic(semantic), parts))
    return samples


def _with_label(answer: Proposals, annotation: Annotation, embedding: Tensor, frame: Frame) -> Proposals:
    """The answer with image features pooled under the label's mask instead of its own."""
    low = frame.low_masks(torch.from_numpy(decode([annotation.rle])), 4 * embedding.shape[-1])
    pooled = pool(embedding, low).numpy()
    return Proposals([annotation.rle], answer.iou, answer.objectness, answer.tokens, pooled)
