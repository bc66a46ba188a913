"""Every cause is planted and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samif.dataset.model import Category, Dataset, ImageRecord
from samif.evaluate.errors import CAUSES, DEFINITIONS, LOOK_ALIKE, ErrorCase, find_errors
from samif.evaluate.matching import match_all
from tests.support.handmade import annotation, image, rectangle, rle

SHAPE = (100, 100)
CLASSES = ("bolt", "nut", "hook")
KNOWN = ("bolt", "nut")
BOX = rectangle(SHAPE, 20, 20, 20, 20)
FAR = rectangle(SHAPE, 60, 60, 9, 9)
Mask = NDArray[np.bool_]
Found = tuple[str, Mask, float]


def errors(*scenes: tuple[list[tuple[str, Mask]], list[Found]], crowd: bool = False) -> list[ErrorCase]:
    """Errors at an operating score of 0.5, of images with these objects and detections."""
    images: list[ImageRecord] = []
    detections: list[dict[str, Any]] = []
    for number, (objects, found) in enumerate(scenes, start=1):
        labels = [annotation(100 * number + i, name, mask, crowd) for i, (name, mask) in enumerate(objects)]
        images.append(image(number, SHAPE, *labels))
        detections += [
            {"image_id": number, "category_id": CLASSES.index(name) + 1, "segmentation": rle(mask), "score": score}
            for name, mask, score in found
        ]
    categories = tuple(Category(i, name) for i, name in enumerate(CLASSES, start=1))
    dataset = Dataset(Path("nowhere"), categories, tuple(images))
    return find_errors(match_all(dataset, detections, KNOWN, 0.5), detections, KNOWN)


@pytest.mark.parametrize(
    ("cause", "objects", "found", "name", "label"),
    [
        ("unknown object", [("hook", BOX)], [("bolt", BOX, 0.9)], "bolt", "hook"),
        ("unknown object", [("hook", BOX)], [("nut", rectangle(SHAPE, 20, 20, 20, 15), 0.6)], "nut", "hook"),
        ("background", [], [("bolt", BOX, 0.9)], "bolt", None),
        ("background", [("bolt", BOX)], [("bolt", BOX, 0.9), ("nut", FAR, 0.7)], "nut", None),
        ("wrong class", [("nut", BOX)], [("bolt", BOX, 0.9)], "bolt", "nut"),
        ("wrong class", [("bolt", BOX)], [("nut", rectangle(SHAPE, 22, 20, 20, 20), 0.9)], "nut", "bolt"),
        ("double", [("nut", BOX)], [("nut", BOX, 0.9), ("nut", rectangle(SHAPE, 21, 20, 20, 20), 0.8)], "nut", "nut"),
        ("no name", [("nut", BOX)], [("nut", BOX, 0.4)], None, "nut"),
        ("no name", [("nut", BOX)], [("bolt", rectangle(SHAPE, 20, 20, 20, 14), 0.1)], None, "nut"),
        ("missed mask", [("nut", BOX)], [], None, "nut"),
        ("missed mask", [("bolt", BOX)], [("bolt", rectangle(SHAPE, 20, 20, 20, 8), 0.2)], None, "bolt"),
    ],
)  # fmt: skip
def test_one_error_of_each_cause(
    cause: str, objects: list[tuple[str, Mask]], found: list[Found], name: str | None, label: str | None
) -> None:
    (error,) = errors((objects, found))
    assert (error.cause, error.name, error.label) == (cause, name, label)
    assert error.category == (name or label)


@pytest.mark.parametrize(
    "mask", [rectangle(SHAPE, 22, 22, 8, 8), rectangle(SHAPE, 10, 20, 50, 20), rectangle(SHAPE, 10, 10, 36, 30)]
)
def test_parts_and_masks_that_hold_more_than_an_object(mask: Mask) -> None:
    found = errors(([("nut", BOX)], [("nut", BOX, 0.9), ("bolt", mask, 0.8)]))
    assert [(e.cause, e.name, e.label) for e in found] == [("part of an object", "bolt", "nut")]
    of_unknown = errors(([("hook", BOX)], [("bolt", mask, 0.8)]))
    assert [(e.cause, e.label) for e in of_unknown] == [("part of an object", "hook")]


def test_two_classes_that_are_confused_often_are_look_alikes() -> None:
    confused = ([("nut", BOX)], [("bolt", BOX, 0.9)])
    other_way = ([("bolt", BOX)], [("nut", BOX, 0.9)])
    few = errors(*[confused] * (LOOK_ALIKE - 1))
    assert [e.cause for e in few] == ["wrong class"] * (LOOK_ALIKE - 1)
    many = errors(*[confused] * (LOOK_ALIKE - 1), other_way)
    assert [e.cause for e in many] == ["look-alike"] * LOOK_ALIKE
    assert [e.id for e in many][: LOOK_ALIKE - 1] == [e.id for e in few]  # the name of an error stays


def test_no_error_is_found_where_there_is_none() -> None:
    assert errors(([("nut", BOX), ("bolt", rectangle(SHAPE, 60, 60, 20, 20))], [
        ("nut", BOX, 0.9), ("bolt", rectangle(SHAPE, 61, 60, 20, 20), 0.8),
    ])) == []  # fmt: skip
    assert errors(([("hook", BOX)], [("nut", BOX, 0.3)])) == []
    assert errors(([("nut", BOX)], [("nut", rectangle(SHAPE, 25, 25, 9, 9), 0.9)]), crowd=True) == []


def test_ids_differ_and_causes_are_defined() -> None:
    scenes = [([("nut", BOX)], [("bolt", BOX, 0.9), ("bolt", rectangle(SHAPE, 60, 60, 9, 9), 0.7)])] * 3
    found = errors(*scenes)
    assert len({e.id for e in found}) == len(found) == 6
    assert [e.cause for e in found] == sorted((e.cause for e in found), key=CAUSES.index)
    assert set(DEFINITIONS) == set(CAUSES)
