"""Errors and warnings about a data set, each with a remedy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.errors import DataError

TINY_AREA = 16
"""Masks of fewer pixels are too small to learn from."""

DUPLICATE_IOU = 0.95
"""Two labels of one class that overlap by more than this are one object labelled twice."""

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing wrong (`error`: the data set cannot be used) or odd (`warning`).

    Attributes:
        file: the image as the annotations name it, or the annotation file.
        image, annotation: COCO ids, where there are any.
        what: a phrase whose subject is the place, such as "has an empty mask".
        remedy: what to do, as an order.
        broken: whether it is the image file itself that cannot be used.
    """

    level: Literal["error", "warning"]
    file: str
    image: int | None
    annotation: int | None
    what: str
    remedy: str
    broken: bool = False

    def __str__(self) -> str:
        place = [self.file]
        if self.image is not None:
            place.append(f"image {self.image}")
        if self.annotation is not None:
            place.append(f"annotation {self.annotation}")
        return f"{', '.join(place)}: {self.what}; {self.remedy}"


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Refuse a data set with errors.

    Raises:
        DataError: the first errors and how many more there are.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return
    shown = " | ".join(str(error) for error in errors[:_SHOWN])
    more = f" | and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    noun = "error" if len(errors) == 1 else "errors"
    raise DataError(f"the data set has {len(errors)} {noun}: {shown}{more}; run 'samif data check' for the whole list")


def without_broken(dataset: Dataset, findings: Iterable[Finding]) -> tuple[Dataset, list[Finding], list[Finding]]:
    """Leave out the images whose files cannot be used, with all that was found about them.

    Returns:
        The data set without them, the findings about the rest, and per image left out the finding that is the reason.
    """
    found = list(findings)
    broken = [finding for finding in found if finding.broken]
    out = {(finding.file, finding.image) for finding in broken}
    kept = dataset.only(p.id for p in dataset.images if (p.file_name, p.id) not in out)
    return kept, [finding for finding in found if (finding.file, finding.image) not in out], broken


def class_counts(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """(instances, images that show one) of every class, crowd regions left out; in category order."""
    instances: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for image in dataset.images:
        here = Counter(a.category for a in image.annotations if not a.crowd)
        instances += here
        images.update(here.keys())
    return {name: (instances[name], images[name]) for name in dataset.category_names}


def oddities(dataset: Dataset, file: str) -> Iterator[Finding]:
    """Warnings about a data set that can be used; `file` names its annotation file."""
    for name, (instances, _) in class_counts(dataset).items():
        if not instances:
            yield Finding(
                "warning", file, None, None, f"class '{name}' has no instance", "label some or remove the class"
            )
    first_of: dict[str, ImageRecord] = {}
    for image in dataset.images:
        first = first_of.setdefault(image.sha256, image) if image.sha256 else image
        if first is not image:
            yield Finding(
                "warning",
                image.file_name,
                image.id,
                None,
                f"is the same image as {first.file_name} (image {first.id})",
                "remove one of them, or labels may be counted twice",
            )
        if not image.annotations:
            yield Finding(
                "warning",
                image.file_name,
                image.id,
                None,
                "has no annotation",
                "label its objects, or leave it as an image of background alone",
            )
        yield from _odd_masks(image)


def _odd_masks(image: ImageRecord) -> Iterator[Finding]:
    of_class: defaultdict[str, list[Annotation]] = defaultdict(list)
    for a in image.annotations:
        if a.crowd:
            continue
        of_class[a.category].append(a)
        if a.area < TINY_AREA:
            yield Finding(
                "warning",
                image.file_name,
                image.id,
                a.id,
                f"has a tiny mask ({a.area:.0f} pixels)",
                "delete it if it is a mistake; take a closer image if it is the object",
            )
    for same in of_class.values():
        rles = [a.rle for a in same]
        overlap = np.triu(np.asarray(coco_mask.iou(rles, rles, [0] * len(rles))), k=1)
        for i, k in np.argwhere(overlap > DUPLICATE_IOU):
            yield Finding(
                "warning",
                image.file_name,
                image.id,
                same[k].id,
                f"covers the same object as annotation {same[i].id} (IoU {overlap[i, k]:.3f})",
                "delete one of the two labels",
            )
