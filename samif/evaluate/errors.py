"""The errors of a classifier on labelled images, by cause: false names, and known objects without their name.

They rest on the matches of `samif.evaluate.matching`; an object under a wrong name is one error, not two.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from samif.dataset.model import Annotation, ImageRecord
from samif.evaluate.matching import MATCH_IOU, UNLABELLED_IOU, Detection, Matched
from samif.masks.rle import Rle, overlaps

Cause = Literal[
    "unknown object", "background", "look-alike", "wrong class", "part of an object", "double", "no name", "missed mask"
]
CAUSES: tuple[Cause, ...] = get_args(Cause)

LOOK_ALIKE = 3
"""Objects of two classes under the name of the other one, from which the classes are look-alikes."""

DEFINITIONS: Mapping[Cause, str] = {
    "unknown object": "a name on a labelled object whose class the classifier was not taught",
    "background": "a name where nothing is labelled",
    "look-alike": f"an object under the name of another class, where the two are confused {LOOK_ALIKE} times or more",
    "wrong class": "an object under the name of another class, where the two are confused more rarely",
    "part of an object": "a name on a mask that half lies in a labelled object or overlaps it, without outlining it",
    "double": "a second name of its class on an object that has one",
    "no name": "a known object whose mask was found and given no name",
    "missed mask": f"a known object that no mask outlines with an IoU of {MATCH_IOU}",
}


@dataclass(frozen=True)
class ErrorCase:
    """One error.

    Attributes:
        id: short digest of the image, the mask and the cause: the same for the same error of another run.
        name: the false name; None where an object has no name.
        label: the class of the labelled object; None where nothing is labelled.
        rle: the mask of the false name, or of the object without one.
        score: of the false name.
    """

    id: str
    cause: Cause
    image: ImageRecord
    name: str | None
    label: str | None
    rle: Rle
    score: float | None

    @property
    def category(self) -> str:
        """The class that the error is counted under: that of the false name, else that of the object."""
        return self.name or self.label or ""


def find_errors(
    matched: Sequence[Matched], detections: Iterable[Mapping[str, Any]], known: Iterable[str]
) -> list[ErrorCase]:
    """Every error, in the order of CAUSES, then of the images.

    Args:
        matched: of `match_all`.
        detections: the COCO results that it matched, those below the operating score and rejected ones too.
        known: class names of the classifier.
    """
    masks: dict[int, list[Rle]] = {}
    for detection in detections:
        masks.setdefault(detection["image_id"], []).append(detection["segmentation"])
    classes = set(known)
    errors = [error for item in matched for error in _of_image(item, masks.get(item.image.id, []), classes)]
    pairs = Counter(frozenset((e.name, e.label)) for e in errors if e.cause == "wrong class")
    errors = [
        _case("look-alike", e.image, e.name, e.label, e.rle, e.score)
        if e.cause == "wrong class" and pairs[frozenset((e.name, e.label))] >= LOOK_ALIKE
        else e
        for e in errors
    ]
    return sorted(errors, key=lambda error: CAUSES.index(error.cause))


def _of_image(item: Matched, masks: list[Rle], known: set[str]) -> Iterator[ErrorCase]:
    every = item.image.annotations
    iou = overlaps([d.rle for d in item.detections], [a.rle for a in every])
    inside = overlaps([d.rle for d in item.detections], [a.rle for a in every], within_a=True)
    named: set[int] = set()
    for detection, wrong, on, within in zip(item.detections, item.false_positives, iou, inside, strict=True):
        if not wrong:
            continue
        objects = [a for a, value in zip(every, on, strict=True) if value >= MATCH_IOU and not a.crowd]
        objects.sort(key=lambda a: (a.category != detection.category, a.category not in known))
        if objects:
            cause = _cause(detection, objects[0], known)
            named |= {objects[0].id} if cause == "wrong class" else set()
            label: str | None = objects[0].category
        elif on.max(initial=0.0) >= UNLABELLED_IOU or within.max(initial=0.0) >= MATCH_IOU:
            cause, label = "part of an object", every[int((on + within).argmax())].category
        else:
            cause, label = "background", None
        yield _case(cause, item.image, detection.category, label, detection.rle, detection.score)
    missed = [a for a, is_missed in zip(item.truth, item.missed, strict=True) if is_missed and a.id not in named]
    found = overlaps([a.rle for a in missed], masks)
    for annotation, row in zip(missed, found, strict=True):
        cause = "no name" if row.max(initial=0.0) >= MATCH_IOU else "missed mask"
        yield _case(cause, item.image, None, annotation.category, annotation.rle, None)


def _cause(detection: Detection, on: Annotation, known: set[str]) -> Cause:
    """Of a false name on a labelled object."""
    if on.category == detection.category:
        return "double"
    return "wrong class" if on.category in known else "unknown object"


def _case(
    cause: Cause, image: ImageRecord, name: str | None, label: str | None, rle: Rle, score: float | None
) -> ErrorCase:
    content = "\0".join((image.sha256, str(image.id), name or "", label or "", rle["counts"]))
    return ErrorCase(hashlib.sha256(content.encode()).hexdigest()[:8], cause, image, name, label, rle, score)
