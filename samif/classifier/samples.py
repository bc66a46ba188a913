"""Feature vectors with labels: from proposals matched to ground truth, and from prompts inside labelled instances.

Shape legend: N samples, D feature width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samif.config import FeaturePart
from samif.dataset.model import Annotation, ImageRecord
from samif.errors import DataError
from samif.finetune.targets import ImageTargets, to_points
from samif.inference.propose import Proposals, predict_points
from samif.masks.pooling import pool
from samif.masks.rle import decode, overlaps
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame

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
) -> list[NDArray[np.float32]]:
    """Features of labelled instances, from masks that the decoder predicts for them.

    Each instance is prompted at its deepest point and at random interior points. Masks that match the label
    (IoU >= 0.5) are samples as they are; where none does, the label's own mask is pooled under instead.

    Args:
        embedding: (C, h, w) of the image.
        prompts: prompts per instance.
        semantic: (S, g, g) of the image, where `parts` names it.

    Returns:
        One array (S, D) per annotation, 1 <= S <= prompts.
    """
    if not annotations:
        return []
    categories = frozenset(a.category for a in annotations)
    target = ImageTargets.of(_only(image, annotations), categories, decoder.image_size)
    places = []
    for index in range(len(annotations)):
        cells = target.interior(index, 0.0)
        places.append(target.interior(index, 1.0)[0])
        places += [cells[i] for i in rng.integers(len(cells), size=prompts - 1)]
    points = torch.from_numpy(to_points(np.stack(places), target.frame))
    predicted, usable = predict_points(decoder, embedding, target.frame, points)
    match = overlaps(predicted.masks, [a.rle for a in annotations])
    samples = []
    for index, annotation in enumerate(annotations):
        rows = np.arange(index * prompts, (index + 1) * prompts)
        good = rows[usable[rows] & (match[rows, index] >= OBJECT_IOU)]
        if len(good):
            samples.append(features_of(predicted.take(good).with_semantic(semantic), parts))
        else:
            best = predicted.take(rows[[int(match[rows, index].argmax())]])
            labelled = _with_label(best, annotation, embedding, target.frame)
            samples.append(features_of(labelled.with_semantic(semantic), parts))
    return samples


def _with_label(answer: Proposals, annotation: Annotation, embedding: Tensor, frame: Frame) -> Proposals:
    """The answer with image features pooled under the label's mask instead of its own."""
    low = frame.low_masks(torch.from_numpy(decode([annotation.rle])), 4 * embedding.shape[-1])
    pooled = pool(embedding, low).numpy()
    return Proposals([annotation.rle], answer.iou, answer.objectness, answer.tokens, pooled)


def _only(image: ImageRecord, annotations: Sequence[Annotation]) -> ImageRecord:
    return ImageRecord(image.id, image.file_name, image.width, image.height, image.sha256, tuple(annotations))
