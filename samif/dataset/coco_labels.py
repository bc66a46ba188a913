"""The records of `annotations` in a COCO file: labels with an image, a class and a mask; regions of many objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from samif.config import ReadRules
from samif.dataset.coco_classes import Classes
from samif.dataset.coco_file import NO_ID, CocoFile
from samif.dataset.coco_images import Entries, Entry
from samif.dataset.findings import NOTHING_TO_DO, Findings, shown
from samif.dataset.label_frames import Frame
from samif.dataset.label_table import LabelTable
from samif.dataset.records import Annotation
from samif.dataset.segmentation import BadSegmentation, read_mask
from samif.dataset.values import flag_of, get, number_of

CROWD_SHARE = 0.1
"""Share of labels with iscrowd 1 above which they are painted objects: in COCO, where they are regions of many
objects, they are one label in eighty."""

CROWD_REPEATS = 0.1
"""The same for classes of an image that have two or more: a region of COCO takes in all that is left of its class."""

_Place = tuple[str, int | None, int | None]


class LabelReader:
    """One pass over the annotations of a file.

    Args:
        frames: by image id; their size is None where it is unknown, because the image cannot be used.
    """

    def __init__(self, entries: Entries, classes: Classes, frames: Mapping[int, Frame], findings: Findings) -> None:
        self._entries = entries
        self._classes = classes
        self._frames = frames
        self._findings = findings
        self._lost: set[int] = set()  # positions of labels that are left out or cut

    def read(self, file: CocoFile, rules: ReadRules) -> LabelTable:
        """Usable labels by image; what is left out or changed becomes a finding with its `loss`."""
        labels, regions = LabelTable(), Counter[tuple[int, str]]()
        ids = _numbered(file, self._findings)
        for position, record in enumerate(file.annotations()):
            entry, label = self._label(position, record, int(ids[position]) if position < len(ids) else 0)
            if entry is not None and label is not None:
                labels.add(entry.place, label)
                if label.crowd:
                    regions[entry.id, label.category] += 1
        self._check_limit(len(ids), rules)
        labels.crowds_are_objects = self._are_objects(regions, labels.count, rules.crowds)
        return labels

    def _label(self, position: int, record: object, id_: int) -> tuple[Entry | None, Annotation | None]:
        image, category = get(record, "image_id"), get(record, "category_id")
        entry = self._entries.of(image)
        if entry is None:
            self._leave_out(
                position, (self._findings.file, None, id_),
                f"names image_id {shown(image)}, which is not in 'images'", "add the image or delete the annotation",
                "names an image_id that is not in 'images'",
            )  # fmt: skip
            return None, None
        place = (entry.file_name, entry.id, id_)
        name = self._classes.of(category)
        if name is None:
            self._leave_out(
                position, place,
                f"names category_id {shown(category)}, which is not in 'categories'", "add the class or correct the id",
                "names a category_id that is not in 'categories'",
            )  # fmt: skip
            return entry, None
        crowd = flag_of(get(record, "iscrowd"))
        if crowd is None:
            self._leave_out(
                position, place,
                f"has iscrowd {shown(get(record, 'iscrowd'))}", "set it to 0, or to 1 for a region of many objects",
                "has an iscrowd that is neither 0 nor 1",
            )  # fmt: skip
            return entry, None
        self._check_measures(record)
        size = self._frames[entry.id].size
        if size is None:  # the image cannot be used, which is a finding of its own
            return entry, None
        try:
            mask = read_mask(get(record, "segmentation"), *size)
        except BadSegmentation as problem:
            self._leave_out(position, place, problem.what, problem.remedy, problem.kind)
            return entry, None
        for change in mask.changes:
            how = "the polygon was cut to the image" if change.cut else "the polygon was left out of the outline"
            self._findings.add(
                f"{change.what}; {how}", change.remedy, *place, loss="outline",
                kind=f"{change.kind or change.what}; {how}",
            )  # fmt: skip
            if change.cut:
                self._lost.add(position)
        x, y, width, height = coco_mask.toBbox(mask.rle).tolist()
        area = float(coco_mask.area(mask.rle))
        return entry, Annotation(id_, name, mask.rle, crowd, (x, y, width, height), area)

    def _leave_out(self, position: int, place: _Place, what: str, remedy: str, kind: str) -> None:
        self._lost.add(position)
        self._findings.add(what, remedy, *place, loss="label", kind=kind)

    def _check_measures(self, record: object) -> None:
        """`bbox` and `area` are measured from the mask again; invalid values are still a sign of a broken export."""
        area, bbox = get(record, "area"), get(record, "bbox")
        if area is not None and ((number := number_of(area)) is None or number < 0):
            self._findings.tally(
                "annotations with an invalid area, which is measured from the mask instead",
                "check the program that exported them", area,
            )  # fmt: skip
        if bbox is not None and not _is_box(bbox):
            self._findings.tally(
                "annotations with an invalid bbox, which is measured from the mask instead",
                "check the program that exported them", bbox,
            )  # fmt: skip

    def _check_limit(self, total: int, rules: ReadRules) -> None:
        lost = len(self._lost)
        if rules.broken_labels == "refuse" or lost <= rules.max_broken_labels * total:
            return
        reasons = Counter(f.kind or f.what for f in self._findings.found if f.loss in ("label", "outline"))
        (reason, number) = reasons.most_common(1)[0]
        self._findings.add(
            f"{lost} of {total} labels cannot be used as they are, above the limit of {rules.max_broken_labels:.0%}; "
            f"most often ({number}) a label {reason}",
            "export the labels again, or raise dataset.max_broken_labels in params.yaml",
        )

    def _are_objects(
        self, regions: Counter[tuple[int, str]], total: int, crowds: Literal["auto", "ignore", "objects"]
    ) -> bool:
        """Whether labels with iscrowd 1 are objects: if the parameter says so or, for `auto`, their number."""
        number = regions.total()
        if not number:
            return False
        repeats = sum(count > 1 for count in regions.values()) / len(regions)
        painted = number > 1 and (number > CROWD_SHARE * total or repeats > CROWD_REPEATS)
        objects = crowds == "objects" or (crowds == "auto" and painted)
        self._findings.add(
            f"{number} of {total} labels have iscrowd 1 and are taken as "
            + ("objects, as CVAT and Datumaro write painted masks so" if objects else "regions of many objects, which "
               "are neither learnt nor scored"),
            "set dataset.crowds to ignore in params.yaml if they are regions of many objects" if objects
            else "set dataset.crowds to objects in params.yaml if they are single objects, such as painted masks",
            level="warning",
        )  # fmt: skip
        return objects


def _numbered(file: CocoFile, findings: Findings) -> npt.NDArray[np.int64]:
    """(N,) annotation ids: whole numbers stay where they occur first, the others are numbered after them."""
    ids = file.ids.copy()
    none = ids == NO_ID
    order = np.argsort(ids, kind="stable")
    again = np.zeros(len(ids), np.bool_)
    again[order[1:]] = ids[order[1:]] == ids[order[:-1]]
    again &= ~none
    kinds = (
        (again, "annotations that share their id with another, which were numbered apart"),
        (none, "annotations without an id that is a whole number, which were numbered"),
    )
    for which, what in sorted((kind for kind in kinds if kind[0].any()), key=lambda kind: int(kind[0].argmax())):
        example = file.odd_id if which is none else int(ids[which.argmax()])
        findings.tally(what, NOTHING_TO_DO, example, int(which.sum()))
    anew = none | again
    ids[anew] = max(0, int(ids.max(initial=0))) + 1 + np.arange(int(anew.sum()))
    return ids


def _is_box(bbox: object) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return False
    numbers = [number_of(value) for value in bbox]
    return all(number is not None for number in numbers) and min(n for n in numbers[2:] if n is not None) >= 0
