"""A version tried on one small image before it is served."""

from __future__ import annotations

import numpy as np
import torch

from samif.classifier.samples import features_of
from samif.errors import IntegrityError
from samif.inference.propose import predict_points
from samif.inference.segment import Segmenter
from samif.sam.frame import split_views

PROBE = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))


def smoke_test(segmenter: Segmenter, ref: str) -> None:
    """Run every part once on a small image, so that a version that does not work is found before the switch."""
    seen = segmenter.embed([PROBE])[0]
    frame = segmenter.encoder.frame(PROBE)
    middle = torch.full((1, 2), segmenter.encoder.image_size / 2.0)
    classifier = segmenter.classifier
    embedding = split_views(seen.embedding, frame)[0][1]
    proposals, _ = predict_points(segmenter.decoder, embedding, frame, middle)
    features = features_of(proposals.with_semantic(seen.semantic), classifier.space.parts)
    found = classifier.probabilities(features)
    if not np.isfinite(found).all():
        raise IntegrityError(f"{ref} gives numbers that are not finite; register the version again")
