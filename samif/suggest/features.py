"""One feature vector per image, and how uncertain the names of its objects are.

Shape legend: P proposals, D feature width of the classifier, (V * C, h, w) an embedding of V views.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.model import Classifier
from samif.classifier.samples import features_of
from samif.inference.propose import Proposals
from samif.inference.segment import UNKNOWN_QUALITY
from samif.masks.pooling import pool
from samif.sam.frame import Frame, split_views

DROPOUT = 0.5
"""Share of the features that is dropped."""
PASSES = 8
"""Times that they are dropped."""


def image_features(
    embedding: Tensor, frame: Frame, proposals: Proposals, semantic: Tensor | None
) -> NDArray[np.float64]:
    """Vector of an image: the embedding pooled over the whole image, the mean of its proposals by quality, and
    the mean of the semantic features (S, g, g) where there are some; each of unit length.

    Args:
        embedding: (V * C, h, w); its first view is taken.
    """
    _, seen = split_views(embedding, frame)[0]
    everywhere = torch.ones(1, frame.height, frame.width)
    whole = pool(seen, frame.low_masks(everywhere, 4 * seen.shape[-1]))[0].numpy()
    objects = proposals.quality @ proposals.pooled if len(proposals) else np.zeros_like(whole)
    parts = [whole, objects]
    if semantic is not None:
        side = semantic.shape[-1]
        cover = frame.low_masks(everywhere, side)[0]
        parts.append(((semantic.float() * cover).sum(dim=(1, 2)) / cover.sum()).numpy())
    return np.concatenate([part / max(float(np.linalg.norm(part)), 1e-12) for part in parts]).astype(np.float64)


def name_changes(proposals: Proposals, classifier: Classifier, seed: int = 0) -> float:
    """Share (0..1) of the passes under feature dropout in which an object gets another class than without, or none; the
    mean over the good objects of an image. A dropped feature takes its mean over the base samples."""
    good = proposals.take(np.flatnonzero(proposals.quality >= UNKNOWN_QUALITY))
    if not len(good):
        return 0.0
    features = features_of(good, classifier.space.parts)
    named = classifier.probabilities(features).argmax(axis=1)
    rng = np.random.default_rng(seed)
    changed = 0.0
    for _ in range(PASSES):
        kept = rng.random(features.shape) >= DROPOUT
        dropped = np.where(kept, features, classifier.space.centre).astype(np.float32)
        changed += float((classifier.probabilities(dropped).argmax(axis=1) != named).mean())
    return changed / PASSES
