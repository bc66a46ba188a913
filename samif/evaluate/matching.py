"""What a classifier shows at its operating score, matched to the objects of each image: for people, not for AP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.errors import SamifError
from samif.masks.rle import Rle, overlaps

Kind = Literal["hits", "misses", "false_tags"]
KINDS: tuple[Kind, ...] = ("hits", "misses", "false_tags")

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Detection:
    """One detection at or above the operating score."""

    category: str
    rle: Rle
    score: float


@dataclass(frozen=True)
class Matched:
    """An image with its known objects and its detections, matched one to one by class and mask IoU >= 0.5.

    `matched_gt[i]` is the index in `truth` of detection i, or None; `ignored[i]` is True where detection i lies in a
    crowd region of its class, which makes it neither right nor wrong.
    """

    image: ImageRecord
    truth: tuple[Annotation, ...]
    detections: tuple[Detection, ...]
    matched_gt: tuple[int | None, ...]
    ignored: tuple[bool, ...]

    def names(self, kind: Kind) -> list[str]:
        """Class names of the hits, of the missed objects, or of the false tags."""
        if kind == "misses":
            return [self.truth[index].category for index, missed in enumerate(self.missed) if missed]
        flags = self.right if kind == "hits" else self.wrong
        return [self.detections[index].category for index, flag in enumerate(flags) if flag]

    @property
    def right(self) -> list[bool]:
        """Per detection: it matches an object."""
        return [other is not None for other in self.matched_gt]

    @property
    def wrong(self) -> list[bool]:
        """Per detection: it matches no object of its class, or one that a better detection has taken."""
        return [other is None and not ignored for other, ignored in zip(self.matched_gt, self.ignored, strict=True)]

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
        detections: COCO results, `{"image_id", "category_id", "segmentation": RLE, "score"}`.
        known: class names of the classifier; objects of other classes are left out of the truth.
        operating_score: detections below it are left out.
    """
    known = list(known)
    names = {number: name for name, number in dataset.category_ids(known).items()}
    found: dict[int, list[Detection]] = defaultdict(list)
    for item in detections:
        if item["score"] >= operating_score:
            name = names.get(item["category_id"])
            if name is None:
                raise SamifError(f"a detection has category {item['category_id']}, unknown to the validation index")
            found[item["image_id"]].append(Detection(name, item["segmentation"], float(item["score"])))
    wanted = set(known)
    return [_match(image, found.get(image.id, []), wanted) for image in dataset.images]


def _match(image: ImageRecord, detections: list[Detection], known: set[str]) -> Matched:
    ordered = tuple(sorted(detections, key=lambda detection: -detection.score))
    objects = [annotation for annotation in image.annotations if annotation.category in known]
    truth = tuple(annotation for annotation in objects if not annotation.crowd)
    crowds = [annotation for annotation in objects if annotation.crowd]
    ours = [detection.rle for detection in ordered]
    iou = overlaps(ours, [annotation.rle for annotation in truth])
    inside = overlaps(ours, [crowd.rle for crowd in crowds], within_a=True)
    matched_gt: list[int | None] = []
    ignored: list[bool] = []
    for row, detection in enumerate(ordered):
        free = [
            (iou[row, column], -column)
            for column, annotation in enumerate(truth)
            if annotation.category == detection.category and column not in matched_gt and iou[row, column] >= MATCH_IOU
        ]
        matched_gt.append(-max(free)[1] if free else None)
        in_crowd = any(
            crowd.category == detection.category and inside[row, column] >= MATCH_IOU
            for column, crowd in enumerate(crowds)
        )
        ignored.append(not free and in_crowd)
    return Matched(image, truth, ordered, tuple(matched_gt), tuple(ignored))
