"""What a version finds in an image, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.serve.versions import Version
from samif.inference.propose import Proposals
from samif.inference.segment import Embedded, Instances, label


@dataclass(frozen=True)
class Found:
    """The proposals of an image and the instances that a person sees, of any score; `seconds` without the encoder where
    the embedding was given."""

    version: Version
    proposals: Proposals
    instances: Instances
    seconds: float


def find(version: Version, image: NDArray[np.uint8], seen: Embedded | None) -> Found:
    """Segment an image (H, W, 3) uint8 RGB; `seen` is its embedding, None encodes it."""
    begun, segmenter = time.perf_counter(), version.segmenter
    proposals = segmenter.propose(image, seen or segmenter.embed([image])[0])
    height, width = image.shape[:2]
    found = label(proposals, segmenter.classifier, segmenter.evaluate_params, height, width).resolved
    return Found(version, proposals, found, time.perf_counter() - begun)
