"""Detections at the operating score, matched to the objects of each image: hits, misses, false positives, confusions.

These are the instances that a person sees. AP ranks all detections and has COCO's own matching
(`samif.evaluate.average_precision`).

Shape legend: N detections and G known objects of one image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.errors import DataError
from samif.masks.rle import Rle, overlaps

Kind = Literal["hits", "misses", "false_positives"]
KINDS: tuple[Kind, ...] = ("hits", "misses", "false_positives")

MATCH_IOU = 0.5
"""Mask IoU from which a detection matches an object."""
UNLABELLED_IOU = 0.3
"""Mask IoU with every known object below which a detection lies on something unlabelled."""


@dataclass(frozen=True)
class Detection:
    """One detection at or above the operating score."""

    category: str
    rle: Rle
    score: float


@dataclass(frozen=True)
class Matched:
    """An image with its known objects and its detections, best score first, matched one to one.

    Attributes:
        truth: the objects of known classes, crowd regions left out (G).
        detections: (N).
        matched_gt: per detection the index in `truth` of the object of its class that it matches, or None.
        overlapped_gt: the same regardless of class, for the confusion matrix.
        ignored: per detection whether it matches nothing and lies in a crowd region of its class: neither a hit nor a
            false positive.
        in_crowd: per detection whether it lies in a crowd region of any class.
        unlabelled: per detection whether it overlaps no known object by UNLABELLED_IOU and lies in no crowd region.
    """

    image: ImageRecord
    truth: tuple[Annotation, ...]
    detections: tuple[Detection, ...]
    matched_gt: tuple[int | None, ...]
    overlapped_gt: tuple[int | None, ...]
    ignored: tuple[bool, ...]
    in_crowd: tuple[bool, ...]
    unlabelled: tuple[bool, ...]

    def names(self, kind: Kind) -> list[str]:
        """Class names of the hits, of the missed objects, or of the false positives."""
        if kind == "misses":
            return [self.truth[index].category for index, missed in enumerate(self.missed) if missed]
        flags = self.hits if kind == "hits" else self.false_positives
        return [self.detections[index].category for index, flag in enumerate(flags) if flag]

    @property
    def hits(self) -> list[bool]:
        """Per detection: it matches an object of its class."""
        return [other is not None for other in self.matched_gt]

    @property
    def false_positives(self) -> list[bool]:
        """Per detection: it matches no object of its class, or only one that a better detection matches."""
        return [other is None and not ignored for other, ignored in zip(self.matched_gt, self.ignored, strict=True)]

    @property
    def unlabelled_false_positives(self) -> int:
        """Number of false positives on unlabelled objects: on something that no class of the classifier covers."""
        return sum(self.unlabelled)

    @property
    def missed(self) -> list[bool]:
        """Per known object: no detection matches it."""
        found = set(self.matched_gt)
        return [index not in found for index in range(len(self.truth))]


def match_all(
    dataset: Dataset, detections: Iterable[Mapping[str, Any]], known: Iterable[str], operating_score: float
) -> list[Matched]:
    """Match the detections of a classifier to the objects whose class it knows, image by image.

    Args:
        dataset: validation images; category ids of `detections` are its ids.
        detections: COCO results, `{"image_id", "category_id", "segmentation": RLE, "score"}`, with `"rejected": True`
            where the classifier rejects the class: those are left out, as a person sees them as unknown.
        known: class names of the classifier; objects of other classes are left out of the truth.
        operating_score: detections below it are left out.

    Raises:
        DataError: a detection has a category that the data set does not know.
    """
    known = list(known)
    names = {number: name for name, number in dataset.category_ids(known).items()}
    found: dict[int, list[Detection]] = defaultdict(list)
    for item in detections:
        if item["score"] >= operating_score and not item.get("rejected"):
            name = names.get(item["category_id"])
            if name is None:
                raise DataError(f"a detection has category {item['category_id']}, unknown to the validation index")
            found[item["image_id"]].append(Detection(name, item["segmentation"], float(item["score"])))
    wanted = set(known)
    return [_match(image, found.get(image.id, []), wanted) for image in dataset.images]


def _match(image: ImageRecord, detections: list[Detection], known: set[str]) -> Matched:
    ordered = tuple(sorted(detections, key=lambda detection: -detection.score))
    truth = tuple(a for a in image.annotations if a.category in known and not a.crowd)
    crowds = [a for a in image.annotations if a.crowd]
    masks = [detection.rle for detection in ordered]
    iou = overlaps(masks, [a.rle for a in truth])
    inside = overlaps(masks, [crowd.rle for crowd in crowds], within_a=True) >= MATCH_IOU
    same = _same_class(ordered, truth)
    matched_gt = _assign(np.where(same, iou, 0.0))
    in_own_crowd = np.asarray((inside & _same_class(ordered, crowds)).any(axis=1))
    in_crowd = np.asarray(inside.any(axis=1))
    unlabelled = np.asarray((iou.max(axis=1, initial=0.0) < UNLABELLED_IOU) & ~in_crowd)
    return Matched(
        image,
        truth,
        ordered,
        tuple(matched_gt),
        tuple(_assign(iou)),
        tuple(bool(crowd) and other is None for crowd, other in zip(in_own_crowd, matched_gt, strict=True)),
        tuple(in_crowd.tolist()),
        tuple(unlabelled.tolist()),
    )


def _same_class(detections: Sequence[Detection], annotations: Sequence[Annotation]) -> NDArray[np.bool_]:
    """(N, G)."""
    return np.array([[d.category == a.category for a in annotations] for d in detections], dtype=bool).reshape(
        len(detections), len(annotations)
    )


def _assign(iou: NDArray[np.float64]) -> list[int | None]:
    """Per detection, in their order, the free object that it overlaps most, by MATCH_IOU at least; `iou` is (N, G)."""
    free = iou.copy()
    assigned: list[int | None] = []
    for row in free:
        best = int(row.argmax()) if len(row) else 0
        matches = len(row) > 0 and row[best] >= MATCH_IOU
        assigned.append(best if matches else None)
        if matches:
            free[:, best] = -1.0
    return assigned
