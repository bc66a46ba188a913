"""Classes of one file, and of the training and validation file together."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from samif.dataset.check import class_counts
from samif.dataset.coco import read_coco
from samif.dataset.coco_classes import joined
from samif.dataset.model import Category, Dataset


def test_a_class_without_labels_is_named_and_no_error(line: Any) -> None:
    line.raw["categories"].insert(0, {"id": 0, "name": "fasteners", "supercategory": "none"})
    dataset, findings = read_coco(*line.write())
    assert [(f.level, f.what) for f in findings] == [("warning", "class 'fasteners' has no instance")]
    assert class_counts(dataset) == {"fasteners": (0, 0), "bolt": (2, 2), "nut": (2, 2)}


@pytest.mark.parametrize(
    ("name", "read"),
    [
        (8, "8"),
        (8.0, "8"),
        ("8", "8"),
        (" bolt ", "bolt"),
        ("hex\r\nnut", "hex nut"),
        ("hex\tnut", "hex nut"),
        (unicodedata.normalize("NFD", "größe"), unicodedata.normalize("NFC", "größe")),
        ("a, b", "a, b"),
    ],
)
def test_names_of_classes(line: Any, name: Any, read: str) -> None:
    line.raw["categories"][0]["name"] = name
    dataset, findings = read_coco(*line.write())
    assert findings == []
    assert class_counts(dataset) == {read: (2, 2), "nut": (2, 2)}


@pytest.mark.parametrize("name", [None, "", " ", "a\0b", "\ud800", True, [], 1.5])
def test_a_class_without_a_usable_name_costs_its_labels(line: Any, name: Any) -> None:
    line.raw["categories"][0]["name"] = name
    dataset, findings = read_coco(*line.write())
    assert [f.level for f in findings if "category record 0 needs a name" in f.what] == ["warning"]
    assert sum(f.loss == "label" for f in findings) == 2
    assert class_counts(dataset) == {"nut": (2, 2)}


@pytest.mark.parametrize("name", ["background", "unknown"])
def test_a_reserved_name_is_told(line: Any, name: str) -> None:
    line.raw["categories"][0]["name"] = name
    (finding,) = read_coco(*line.write())[1]
    assert finding.level == "warning"
    assert finding.what == f"a class may not be named '{name}': results use that word for what has no class"


def test_classes_of_one_name_are_one_class(line: Any) -> None:
    line.raw["categories"] += [{"id": 9, "name": "nut"}, {"id": "x", "name": " nut"}]
    line.raw["annotations"][1]["category_id"] = 9
    line.raw["annotations"][3]["category_id"] = "x"
    dataset, findings = read_coco(*line.write())
    assert [(f.level, f.what) for f in findings] == [("warning", "class 'nut' is listed twice")] * 2
    assert class_counts(dataset) == {"bolt": (2, 2), "nut": (2, 2)}


def labelled(line: Any, renamed: dict[int, int], extra: list[dict[str, Any]], only: set[str]) -> Dataset:
    raw = {**line.raw, "categories": [dict(c, id=renamed.get(c["id"], c["id"])) for c in line.raw["categories"]]}
    raw["categories"] = [c for c in raw["categories"] if c["name"] in only] + extra
    names = {c["id"]: c["name"] for c in line.raw["categories"]}
    before = line.raw
    line.raw = {
        **raw,
        "annotations": [
            dict(a, category_id=renamed.get(a["category_id"], a["category_id"]))
            for a in before["annotations"]
            if names[a["category_id"]] in only
        ],
    }
    dataset = read_coco(*line.write())[0]
    line.raw = before
    return dataset


BOTH = {"bolt", "nut"}


@pytest.mark.parametrize(
    ("renamed", "extra", "only"),
    [
        ({}, [], BOTH),
        ({3: 7, 7: 3}, [], BOTH),
        ({3: 1, 7: 2}, [{"id": 0, "name": "parts"}], BOTH),
        ({}, [{"id": 99, "name": "aaa"}], BOTH),
        ({}, [], {"bolt"}),
        ({}, [], {"nut"}),
    ],
    ids=["same", "exchanged", "others", "an empty class", "bolts only", "nuts only"],
)
def test_training_and_validation_are_joined_by_name(
    line: Any, renamed: dict[int, int], extra: list[dict[str, Any]], only: set[str]
) -> None:
    train = labelled(line, {}, [], BOTH)
    train_index, val_index = joined(train, labelled(line, renamed, extra, only))
    assert train_index.categories == val_index.categories == (Category(1, "bolt"), Category(2, "nut"))
    assert train_index.digest == train.digest
    counts = {name: objects for name, (objects, _) in class_counts(val_index).items()}
    assert counts == {name: 2 if name in only else 0 for name in ("bolt", "nut")}


def test_validation_may_know_classes_that_a_session_teaches(line: Any) -> None:
    train = labelled(line, {}, [], {"bolt"})
    _, val = joined(train, labelled(line, {}, [], BOTH))
    assert val.category_ids(["bolt", "nut", "pin"]) == {"bolt": 1, "nut": 2, "pin": 3}
