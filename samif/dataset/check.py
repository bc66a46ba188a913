"""Errors and warnings about a data set, each with a remedy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from samif.config import ReadRules
from samif.dataset.model import Annotation, Dataset, ImageRecord
from samif.errors import DataError

TINY_AREA = 16
"""Masks of fewer pixels are too small to learn from."""

DUPLICATE_IOU = 0.95
"""Two labels of one class that overlap by more than this are one object labelled twice."""

_SHOWN = 3


Loss = Literal["", "image", "label", "outline"]


@dataclass(frozen=True)
class Finding:
    """One thing wrong (`error`: the data set cannot be used) or odd (`warning`).

    Attributes:
        file: the image as the annotations name it, or the annotation file.
        image, annotation: COCO ids, where there are any.
        what: a phrase whose subject is the place, such as "has an empty mask".
        remedy: what to do, as an order.
        loss: what is not used because of it: the image file, the whole label, or a part of its outline.
        kind: `what` without the values of this one record, so that findings of a kind can be counted; "" if the same.
        count: of records that it stands for.
    """

    level: Literal["error", "warning"]
    file: str
    image: int | None
    annotation: int | None
    what: str
    remedy: str
    loss: Loss = ""
    kind: str = ""
    count: int = 1

    @property
    def place(self) -> str:
        place = [self.file]
        if self.image is not None:
            place.append(f"image {self.image}")
        if self.annotation is not None:
            place.append(f"annotation {self.annotation}")
        return ", ".join(place)

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Kind:
    """Findings of one kind: their level and loss, what is the case, what to do, how many records, and some places."""

    level: Literal["error", "warning"]
    loss: Loss
    what: str
    remedy: str
    count: int
    places: tuple[str, ...]

    def __str__(self) -> str:
        more = f" ({self.count} in all)" if self.count > 1 and self.places else ""
        place = f"{self.places[0]}: " if self.places else ""
        return f"{place}{self.what}{more}; {self.remedy}"


def kinds(findings: Iterable[Finding]) -> list[Kind]:
    """One entry per kind, errors first, otherwise in the order in which they were found."""
    groups: defaultdict[tuple[str, str, str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.level, finding.loss, finding.kind or finding.what, finding.remedy].append(finding)
    found = []
    for same in groups.values():
        first = same[0]
        what = first.what if len({finding.what for finding in same}) == 1 else first.kind or first.what
        places = tuple(finding.place for finding in same[:_SHOWN])
        count = sum(finding.count for finding in same)
        found.append(Kind(first.level, first.loss, what, first.remedy, count, places))
    return sorted(found, key=lambda kind: kind.level != "error")


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Refuse a data set with errors.

    Raises:
        DataError: the first kinds of errors, each with a place and their number, and how many more kinds there are.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        return
    found = kinds(errors)
    shown = " | ".join(str(kind) for kind in found[:_SHOWN])
    more = f" | and {len(found) - _SHOWN} more kinds" if len(found) > _SHOWN else ""
    number = sum(error.count for error in errors)
    noun = "error" if number == 1 else "errors"
    raise DataError(f"the data set has {number} {noun}: {shown}{more}; run 'samif data check' for the whole list")


def apply_rules(dataset: Dataset, findings: Iterable[Finding], rules: ReadRules) -> tuple[Dataset, list[Finding]]:
    """Decide by the rules what is an error, and leave out the images that cannot be used where the rules say so.

    Returns:
        The data set without those images, and the findings. Of an image left out, only the reason is kept.
    """
    refused = {
        "image": rules.broken_images == "refuse",
        "label": rules.broken_labels == "refuse",
        "outline": rules.broken_labels == "refuse",
    }
    found = [
        replace(finding, level="error" if refused[finding.loss] else "warning") if finding.loss else finding
        for finding in findings
    ]
    if refused["image"]:
        return dataset, found
    out = {(finding.file, finding.image) for finding in found if finding.loss == "image"}
    if not out:
        return dataset, found
    kept = dataset.only(p.id for p in dataset.images if (p.file_name, p.id) not in out)
    return kept, [f for f in found if f.loss == "image" or (f.file, f.image) not in out]


def class_counts(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """(instances, images that show one) of every class, crowd regions left out; in category order."""
    instances: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for image in dataset.images:
        here = Counter(a.category for a in image.annotations if not a.crowd)
        instances += here
        images.update(here.keys())
    return {name: (instances[name], images[name]) for name in dataset.category_names}


def empty_classes(dataset: Dataset, file: str) -> Iterator[Finding]:
    """A warning for every class without a label; `file` names the annotation file."""
    for name, (instances, _) in class_counts(dataset).items():
        if not instances:
            yield Finding(
                "warning", file, None, None, f"class '{name}' has no instance",
                "label some, or leave it so: classes without a label are passed over", kind="classes have no instance",
            )  # fmt: skip


def oddities(dataset: Dataset) -> Iterator[Finding]:
    """Warnings about the images and masks of a data set that can be used."""
    first_of: dict[bytes, tuple[str, int]] = {}
    for image in dataset.images:
        here = (image.file_name, image.id)
        first = first_of.setdefault(bytes.fromhex(image.sha256), here) if image.sha256 else here
        if first is not here:
            yield Finding(
                "warning",
                image.file_name,
                image.id,
                None,
                f"is the same image as {first[0]} (image {first[1]})",
                "remove one of them, or labels may be counted twice",
                kind="is the same image as another",
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
                kind=f"has a tiny mask (fewer than {TINY_AREA} pixels)",
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
                kind="covers the same object as another annotation",
            )
