"""Which classes are small to an encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from samif.dataset.model import Category, Dataset
from samif.dataset.object_sizes import small_classes
from tests.support.handmade import annotation, image, rectangle

SHAPE = (100, 200)


def dataset(*sides: tuple[str, int]) -> Dataset:
    labels = [annotation(n, name, rectangle(SHAPE, 0, 0, side, side)) for n, (name, side) in enumerate(sides)]
    categories = tuple(Category(n, name) for n, name in enumerate(("nail", "mug", "none")))
    return Dataset(Path(), categories, (image(1, SHAPE, *labels),))


@pytest.mark.parametrize(("image_size", "expected"), [(200, ["nail"]), (100, ["nail", "mug"]), (800, [])])
def test_a_class_is_small_by_its_median_in_encoder_pixels(image_size: int, expected: list[str]) -> None:
    found = small_classes(dataset(("mug", 10), ("mug", 50), ("mug", 60), ("nail", 9), ("nail", 31)), image_size)
    assert found == expected


def test_crowds_are_no_objects() -> None:
    crowd = annotation(1, "nail", rectangle(SHAPE, 0, 0, 9, 9), crowd=True)
    labelled = Dataset(Path(), (Category(1, "nail"),), (image(1, SHAPE, crowd),))
    assert small_classes(labelled, 200) == []
