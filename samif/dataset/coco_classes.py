"""The records of `categories` in a COCO file, and how the files of one data set are joined by class name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from samif.config import RESERVED_CLASSES
from samif.dataset.findings import NOTHING_TO_DO, Findings, shown
from samif.dataset.model import Category, Dataset
from samif.dataset.values import Key, get, key_of, new_ids, text_of


@dataclass
class Classes:
    """The classes of a file, and by what annotations may refer to them."""

    all: list[Category] = field(default_factory=list)
    by_key: dict[Key, str] = field(default_factory=dict)

    def of(self, reference: object) -> str | None:
        """Name of the class of a `category_id`, which some tools write as a name."""
        key = key_of(reference)
        if key is None:
            return None
        if (name := self.by_key.get(key)) is not None:
            return name
        return next((c.name for c in self.all if c.name == reference), None) if isinstance(reference, str) else None


def read_classes(records: list[Any], findings: Findings) -> Classes:
    """Classes of one file; those of one name are one class, those without a name are left out."""
    classes = Classes()
    of_name: dict[str, Category] = {}
    if not records:
        findings.add("names no class ('categories' is empty)", "export the annotations with their classes")
    keys = [key_of(get(record, "id")) for record in records]
    fresh = new_ids(key for key in keys if isinstance(key, int))
    for position, (record, key) in enumerate(zip(records, keys, strict=True)):
        name = text_of(get(record, "name"))
        if name is None and get(record, "name") is None and (name := text_of(get(record, "supercategory"))) is not None:
            findings.tally("classes without a name, for which the supercategory was taken", "name them", name)
        if name is None:
            findings.add(
                f"category record {position} needs a name, has {shown(get(record, 'name'))}",
                "name the class",
                level="warning",
                kind="category records have no usable name",
            )
            continue
        if key is not None and classes.by_key.get(key, name) != name:
            findings.add(
                f"category id {key} is given twice ('{classes.by_key[key]}', '{name}')", "number them apart",
                kind="category ids are given twice",
            )  # fmt: skip
            continue
        if name in of_name:
            findings.add(
                f"class '{name}' is listed twice", "nothing needs to be done, both are taken as one class",
                level="warning", kind="classes are listed twice",
            )  # fmt: skip
        else:
            id_ = key if isinstance(key, int) else next(fresh)
            if not isinstance(key, int):
                findings.tally("classes whose id is no whole number, which were numbered", NOTHING_TO_DO, name)
            of_name[name] = Category(id_, name)
            classes.all.append(of_name[name])
            key = id_ if key is None else key
        if key is not None:
            classes.by_key[key] = name
    for name in sorted(RESERVED_CLASSES & of_name.keys()):
        findings.add(
            f"a class may not be named '{name}': results use that word for what has no class",
            "rename it before you teach it",
            level="warning",
        )
    return classes


def joined(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
    """Both data sets with one list of classes, joined by name and numbered in the order of the names.

    Only classes with a label in either of them are listed, so that neither the ids of a file nor an empty class in it
    change anything.
    """
    used = {a.category for dataset in (train, val) for image in dataset.images for a in image.annotations}
    categories = tuple(Category(number, name) for number, name in enumerate(sorted(used), start=1))
    return replace(train, categories=categories), replace(val, categories=categories)
