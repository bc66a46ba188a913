"""Warnings straddle their thresholds; errors become one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from samif.dataset.check import Finding, class_counts, kinds, raise_on_errors
from samif.dataset.coco import read_coco
from samif.errors import SamifError

CROWD = "1 of 5 labels have iscrowd 1 and are taken as regions of many objects, which are neither learnt nor scored"
Outline = Callable[[float, float, float], list[list[float]]]


def whats(line: Any) -> list[tuple[int | None, int | None, str]]:
    found = read_coco(*line.write())[1]
    assert all(f.level == "warning" and f.remedy for f in found)
    return [(f.image, f.annotation, f.what) for f in found]


@pytest.mark.parametrize(
    ("polygon", "tiny"), [([40, 2, 44, 2, 44, 6, 40, 6], False), ([40, 2, 45, 2, 45, 5, 40, 5], True)]
)
def test_tiny_masks(line: Any, polygon: list[int], tiny: bool) -> None:
    line.label(50, 1, 3, [polygon])  # 16 pixels, 15 pixels
    assert whats(line) == ([(1, 50, "has a tiny mask (15 pixels)")] if tiny else [])


@pytest.mark.parametrize(("size", "duplicate"), [((20, 20), True), ((20, 19), False)])
def test_one_object_labelled_twice(line: Any, size: tuple[int, int], duplicate: bool) -> None:
    line.raw["annotations"] = line.raw["annotations"][2:]
    line.label(50, 1, 3, [[10, 10, 30, 10, 30, 30, 10, 30]])
    right, bottom = 10 + size[0], 10 + size[1]  # IoU 1.0, and 380 / 400 = 0.95, which is not above the threshold
    line.label(51, 1, 3, [[10, 10, right, 10, right, bottom, 10, bottom]])
    line.label(52, 1, 7, [[10, 10, 30, 10, 30, 30, 10, 30]])  # another class
    line.label(53, 1, 3, [[10, 10, 30, 10, 30, 30, 10, 30]], iscrowd=1)
    crowd = (None, None, CROWD.replace("of 5", "of 6"))
    expected = [(1, 51, "covers the same object as annotation 50 (IoU 1.000)")] if duplicate else []
    assert whats(line) == [crowd, *expected]


def test_class_without_instances(line: Any, outline: Outline) -> None:
    line.raw["categories"].append({"id": 9, "name": "pin"})
    line.label(50, 1, 9, outline(50, 30, 8), iscrowd=1)
    assert whats(line) == [(None, None, CROWD), (None, None, "class 'pin' has no instance")]


def test_same_content_and_no_annotation(line: Any) -> None:
    line.image(3, "c.png")
    shutil.copy(line.images / "a.png", line.images / "c.png")
    assert whats(line) == [(3, None, "is the same image as a.png (image 1)"), (3, None, "has no annotation")]


def test_class_counts(line: Any, outline: Outline) -> None:
    line.raw["categories"].append({"id": 9, "name": "pin"})
    line.label(50, 1, 3, outline(50, 30, 8))
    line.label(51, 1, 3, outline(40, 2, 6), iscrowd=1)
    assert class_counts(read_coco(*line.write())[0]) == {"bolt": (3, 2), "nut": (2, 2), "pin": (0, 0)}


def errors(number: int) -> list[Finding]:
    warning = Finding("warning", "w.png", 9, None, "is odd", "look")
    return [warning, *(Finding("error", f"{i}.png", i, None, f"is bad {i}", "correct it") for i in range(number))]


def test_errors_become_one_sentence() -> None:
    raise_on_errors(errors(0))
    with pytest.raises(SamifError) as caught:
        raise_on_errors(errors(1))
    assert str(caught.value) == (
        "the data set has 1 error: 0.png, image 0: is bad 0; correct it; run 'samif data check' for the whole list"
    )
    with pytest.raises(SamifError) as caught:
        raise_on_errors(errors(3))
    assert "more" not in str(caught.value)
    with pytest.raises(SamifError) as caught:
        raise_on_errors(errors(5))
    assert "2.png, image 2: is bad 2; correct it | and 2 more kinds; run" in str(caught.value)
    assert "3.png" not in str(caught.value)


def test_findings_of_a_kind_are_counted() -> None:
    first, second, third = (
        Finding("error", f"{i}.png", i, None, f"is {i} x 2", "cut it", kind="is of another size") for i in range(3)
    )
    other = Finding("warning", "w.json", None, None, "numbers: 7", "look", count=7)
    assert [str(kind) for kind in kinds([other, first])] == [
        "0.png, image 0: is 0 x 2; cut it", "w.json: numbers: 7 (7 in all); look",
    ]  # fmt: skip
    whole, single = kinds([first, other, second, third, third])
    assert (whole.count, single.count) == (4, 7)
    assert whole.places == ("0.png, image 0", "1.png, image 1", "2.png, image 2")
    with pytest.raises(SamifError, match=r"4 errors: 0\.png, image 0: is of another size \(4 in all\); cut it; run"):
        raise_on_errors([first, other, second, third, third])
