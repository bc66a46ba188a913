"""Image -> labelled instances: the whole of inference in one place.

Proposals -> features -> class probability x predicted IoU x objectness -> duplicate removal (SAM-IF, inference)
-> name confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.confidence import naming_quantities
from samif.classifier.model import Classifier
from samif.classifier.samples import features_of
from samif.config import EvaluateParams, ProposeParams
from samif.inference.propose import Proposals, propose
from samif.masks.mask_nms import diffuse, greedy, soften
from samif.masks.rle import Rle, boxes
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.semantic.encoder import SemanticEncoder

UNKNOWN = "unknown"
"""Label of a mask that is an object, but of no known class."""
UNKNOWN_QUALITY = 0.5
"""Predicted IoU x objectness from which a mask without a class is called an unknown object."""


@dataclass(frozen=True)
class Instances:
    """Labelled instances of one image of `height` x `width` pixels, best first.

    Attributes:
        masks: N run-length codes in image pixels.
        boxes: (N, 4) as x, y, width, height.
        labels: N class names, or `unknown`.
        scores: (N,) in 0..1.
    """

    height: int
    width: int
    masks: list[Rle]
    boxes: NDArray[np.float64]
    labels: tuple[str, ...]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = len(self.masks)
        if self.boxes.shape != (count, 4) or len(self.labels) != count or self.scores.shape != (count,):
            raise ValueError(
                f"expected boxes ({count}, 4), {count} labels and scores ({count},) for {count} masks, "
                f"got {self.boxes.shape}, {len(self.labels)} and {self.scores.shape}"
            )
        if any(mask["size"] != [self.height, self.width] for mask in self.masks):
            raise ValueError(f"expected masks of {self.height} x {self.width} pixels, got another size")
        if count and not (self.scores.min() >= 0.0 and self.scores.max() <= 1.0):
            raise ValueError(f"expected scores in 0..1, got {self.scores.min()}..{self.scores.max()}")

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, rows: NDArray[np.int64]) -> Instances:
        """The instances at these indices, in that order."""
        return Instances(
            self.height, self.width, [self.masks[i] for i in rows], self.boxes[rows],
            tuple(self.labels[i] for i in rows), self.scores[rows],
        )  # fmt: skip

    @property
    def known(self) -> Instances:
        """Those of a known class."""
        return self.take(np.array([i for i, label in enumerate(self.labels) if label != UNKNOWN], dtype=np.int64))

    @property
    def rejected(self) -> list[bool]:
        """Per instance: it has a class, for ranking, although the classifier rejects it and lists its mask as `unknown`
        too (see `label`)."""
        unknown = {m["counts"] for m, label in zip(self.masks, self.labels, strict=True) if label == UNKNOWN}
        return [label != UNKNOWN and m["counts"] in unknown for m, label in zip(self.masks, self.labels, strict=True)]

    @property
    def resolved(self) -> Instances:
        """What a person sees: one name per mask, best first. A mask that is `unknown` loses the class name that it
        would rank under, and is left out where it is not even a good object."""
        rows = [
            i
            for i, (label, rejected) in enumerate(zip(self.labels, self.rejected, strict=True))
            if (self.scores[i] > 0.0 if label == UNKNOWN else not rejected)
        ]
        return self.take(np.array(sorted(rows, key=lambda i: -self.scores[i]), dtype=np.int64))

    def above(self, score: float) -> Instances:
        """Those that score at least `score`; unknown objects stay."""
        rows = [i for i, label in enumerate(self.labels) if label == UNKNOWN or self.scores[i] >= score]
        return self.take(np.array(rows, dtype=np.int64))


@dataclass(frozen=True)
class Ranked:
    """The proposals of one image that are no duplicates, each with its most probable class, best score first.

    Attributes:
        rows: their indices among the proposals (N,).
        classes: indices of their classes (N,).
        probability: of each class and of none (N, C + 1).
        quality: predicted IoU x objectness (N,).
        scores: (N,) in 0..1.
        quantities: (N, 5), see `samif.classifier.confidence`.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.int64]
    probability: NDArray[np.float64]
    quality: NDArray[np.float64]
    scores: NDArray[np.float64]
    quantities: NDArray[np.float64]

    def take(self, order: NDArray[np.int64]) -> Ranked:
        """Those at these indices, in that order."""
        return Ranked(*(getattr(self, column.name)[order] for column in fields(self)))

    @property
    def named(self) -> NDArray[np.float64]:
        """The probability of its class (N,)."""
        return np.asarray(self.probability[np.arange(len(self.rows)), self.classes])


def rank(proposals: Proposals, classifier: Classifier, params: EvaluateParams) -> Ranked:
    """Name the proposals of one image, at least one, remove duplicates and score the rest.

    Duplicates are ranked by class probability x predicted IoU x objectness, less what the merging of duplicates takes.
    The score is the name confidence that the classifier was given, or that product where it has none.
    """
    features = features_of(proposals, classifier.space.parts)
    probability = classifier.probabilities(features)
    best = probability[:, :-1].argmax(axis=1)
    quality = proposals.quality.astype(np.float64)
    product = probability[np.arange(len(best)), best] * quality
    scores = product
    if params.duplicates != "nms":
        merge = soften if params.duplicates == "soft" else diffuse
        scores = merge(proposals.inside, product, classifier.space.project(features), best)
    kept = greedy(proposals.overlap, scores, params.duplicate_iou)[: params.max_detections]
    unmerged = np.divide(scores[kept], product[kept], out=np.ones(len(kept)), where=product[kept] > 0.0)
    better = (best[kept, None] == best[None, kept]) & np.tri(len(kept), k=-1, dtype=bool)
    inside = (proposals.inside[np.ix_(kept, kept)] * better).max(axis=1)
    ranked = Ranked(
        kept,
        best[kept],
        probability[kept],
        quality[kept],
        scores[kept],
        naming_quantities(
            probability[kept, best[kept]], proposals.iou[kept].astype(np.float64),
            proposals.objectness[kept].astype(np.float64), unmerged, 1.0 - inside,
        ),
    )  # fmt: skip
    confidence = classifier.space.confidence
    if confidence is not None:
        ranked = replace(ranked, scores=confidence(ranked.quantities))
        ranked = ranked.take(np.argsort(-ranked.scores, kind="stable"))
    return ranked


def label(proposals: Proposals, classifier: Classifier, params: EvaluateParams, height: int, width: int) -> Instances:
    """Label the proposals of one image.

    A mask gets its most probable class. It is listed again as `unknown` where it scores less than the operating point
    asks of that class; without an operating point, where "none" is more probable or the class is less probable than the
    rejection. `unknown` scores quality times the probability of none, and 0 for what is no good object. AP ranks the
    first entry, a person sees the second (`Instances.resolved`).
    """
    if not len(proposals):
        return Instances(height, width, [], np.zeros((0, 4)), (), np.zeros(0))
    ranked = rank(proposals, classifier, params)
    point = classifier.space.operating_point
    if point is None:
        unknown = (ranked.probability[:, -1] > ranked.named) | (ranked.named < classifier.space.rejection)
    else:
        unknown = ranked.scores < np.array([point.score_of(classifier.classes[i]) for i in ranked.classes])
    masks = [proposals.masks[i] for i in ranked.rows]
    instances = Instances(
        height,
        width,
        masks,
        boxes(masks),
        tuple(classifier.classes[i] for i in ranked.classes),
        np.clip(ranked.scores, 0.0, 1.0),
    )
    if not unknown.any():
        return instances
    rejected = ranked.take(np.flatnonzero(unknown))
    is_object = rejected.quality >= UNKNOWN_QUALITY
    unknown_scores = (is_object * rejected.quality * rejected.probability[:, -1]).clip(0.0, 1.0)
    masks = [proposals.masks[i] for i in rejected.rows]
    others = Instances(height, width, masks, boxes(masks), (UNKNOWN,) * len(masks), unknown_scores)
    return Instances(
        height, width, instances.masks + others.masks, np.concatenate([instances.boxes, others.boxes]),
        instances.labels + others.labels, np.concatenate([instances.scores, others.scores]),
    )  # fmt: skip


@dataclass(frozen=True)
class Embedded:
    """SAM's embedding (C, h, w) of one image, and its semantic features (S, g, g) or none."""

    embedding: Tensor
    semantic: Tensor | None


@dataclass(frozen=True)
class Segmenter:
    """Encoders, frozen decoder and classifier, ready to segment images; `semantic` where the classifier's features
    name it."""

    encoder: ImageEncoder
    decoder: InstanceDecoder
    classifier: Classifier
    propose_params: ProposeParams
    evaluate_params: EvaluateParams
    semantic: SemanticEncoder | None = None

    @property
    def default_score(self) -> float:
        """The lowest score of a name that is shown."""
        return self.classifier.operating_score(self.evaluate_params.operating_score)

    def embed(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedded]:
        """Encode images (H, W, 3) uint8 RGB."""
        semantic = [None] * len(images) if self.semantic is None else self.semantic.encode(images)
        return [Embedded(*seen) for seen in zip(self.encoder.encode(images), semantic, strict=True)]

    def with_semantic(self, image: NDArray[np.uint8], embedding: Tensor) -> Embedded:
        """The embedding (C, h, w) of an image that was encoded before, with its semantic features computed now."""
        return Embedded(embedding, None if self.semantic is None else self.semantic.encode([image])[0])

    def propose(self, image: NDArray[np.uint8], seen: Embedded) -> Proposals:
        """The proposals of an image, with all features that the classifier takes."""
        found = propose(self.decoder, seen.embedding, self.encoder.frame(image), self.propose_params)
        return found.with_semantic(seen.semantic)

    def segment(self, image: NDArray[np.uint8]) -> Instances:
        """An image (H, W, 3) uint8 RGB -> its instances, unknown objects among them."""
        proposals = self.propose(image, self.embed([image])[0])
        return label(proposals, self.classifier, self.evaluate_params, *image.shape[:2]).resolved
