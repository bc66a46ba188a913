"""The records of `annotations` in a COCO file: labels with an image, a class and a mask; regions of many objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pycocotools import mask as coco_mask

from samif.config import ReadRules
from samif.dataset.coco_classes import Classes
from samif.dataset.coco_images import Entries, Entry
from samif.dataset.findings import NOTHING_TO_DO, Findings, shown
from samif.dataset.model import Annotation
from samif.dataset.segmentation import BadSegmentation, read_mask
from samif.dataset.values import flag_of, get, key_of, new_ids, number_of

CROWD_SHARE = 0.1
"""Share of labels with iscrowd 1 above which they are painted objects: in COCO, where they are regions of many
objects, they are one label in eighty."""

CROWD_REPEATS = 0.1
"""The same for classes of an image that have two or more: a region of COCO takes in all that is left of its class."""

Labels = dict[int, list[Annotation]]
_Place = tuple[str, int | None, int | None]


class LabelReader:
    """One pass over the annotations of a file.

    Args:
        sizes: (width, height) by image id; None where it is unknown, because the image cannot be used.
    """

    def __init__(
        self, entries: Entries, classes: Classes, sizes: Mapping[int, tuple[int, int] | None], findings: Findings
    ) -> None:
        self._entries = entries
        self._classes = classes
        self._sizes = sizes
        self._findings = findings
        self._lost: set[int] = set()  # positions of labels that are left out or cut

    def read(self, records: list[Any], rules: ReadRules) -> Labels:
        """Usable labels by image id; what is left out or changed becomes a finding with its `loss`."""
        labels: Labels = {entry.id: [] for entry in self._entries.all}
        ids = _Numbering(records, self._findings)
        for position, record in enumerate(records):
            entry, label = self._label(position, record, ids)
            if entry is not None and label is not None:
                labels[entry.id].append(label)
        self._check_limit(records, rules)
        return self._with_crowds(labels, rules.crowds)

    def _label(self, position: int, record: object, ids: _Numbering) -> tuple[Entry | None, Annotation | None]:
        image, category = get(record, "image_id"), get(record, "category_id")
        id_ = ids.of(position)
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
        size = self._sizes[entry.id]
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

    def _check_limit(self, records: list[Any], rules: ReadRules) -> None:
        total, lost = len(records), len(self._lost)
        if rules.broken_labels == "refuse" or lost <= rules.max_broken_labels * total:
            return
        reasons = Counter(f.kind or f.what for f in self._findings.found if f.loss in ("label", "outline"))
        (reason, number) = reasons.most_common(1)[0]
        self._findings.add(
            f"{lost} of {total} labels cannot be used as they are, above the limit of {rules.max_broken_labels:.0%}; "
            f"most often ({number}) a label {reason}",
            "export the labels again, or raise dataset.max_broken_labels in params.yaml",
        )

    def _with_crowds(self, labels: Labels, crowds: Literal["auto", "ignore", "objects"]) -> Labels:
        """The labels with iscrowd 1 as objects, if the parameter says so or, for `auto`, their number."""
        regions = Counter((id_, a.category) for id_, here in labels.items() for a in here if a.crowd)
        number, total = regions.total(), sum(map(len, labels.values()))
        if not number:
            return labels
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
        if not objects:
            return labels
        return {id_: [replace(a, crowd=False) for a in here] for id_, here in labels.items()}


class _Numbering:
    """Annotation ids: whole numbers that occur once stay, the others are numbered after them."""

    def __init__(self, records: list[Any], findings: Findings) -> None:
        keys = [key_of(get(record, "id")) for record in records]
        fresh = new_ids({key for key in keys if isinstance(key, int)})
        seen: set[int] = set()
        self._ids: list[int] = []
        for record, key in zip(records, keys, strict=True):
            if isinstance(key, int) and key not in seen:
                seen.add(key)
                self._ids.append(key)
                continue
            again = isinstance(key, int)
            findings.tally(
                "annotations that share their id with another, which were numbered apart"
                if again
                else "annotations without an id that is a whole number, which were numbered",
                NOTHING_TO_DO,
                get(record, "id"),
            )
            self._ids.append(next(fresh))

    def of(self, position: int) -> int:
        return self._ids[position]


def _is_box(bbox: object) -> bool:
    if not isinstance(bbox, list) or len(bbox) != 4:
        return False
    numbers = [number_of(value) for value in bbox]
    return all(number is not None for number in numbers) and min(n for n in numbers[2:] if n is not None) >= 0
