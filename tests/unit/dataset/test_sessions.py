"""Draws and splits depend on content and seed, and on nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from samif.dataset.check import class_counts
from samif.dataset.coco import Annotation, Category, Dataset, ImageRecord
from samif.dataset.sessions import draw_shots, split_by_image
from samif.errors import SamifError

CLASSES = ("bolt", "nut", "pin")


def annotation(number: int, category: str, pixels: int = 40, crowd: bool = False) -> Annotation:
    """A mask of so many pixels, its place given by its number."""
    mask = np.zeros(20_000, np.uint8)
    mask[number * 7 % 19_000 :][:pixels] = 1
    rle = coco_mask.encode(np.asfortranarray(mask.reshape(100, 200, order="F")))
    return Annotation(
        number, category, {"size": [100, 200], "counts": rle["counts"].decode()}, crowd, (0, 0, 1, 1), pixels
    )


def make(images: list[list[str]], contents: list[int] | None = None) -> Dataset:
    """A data set from the classes of every image, and the number of its content."""
    made, number = [], 0
    for i, names in enumerate(images):
        labels = []
        for name in names:
            number += 1
            labels.append(annotation(number, name))
        made.append(ImageRecord(i, f"{i}.png", 200, 100, f"content {contents[i] if contents else i}", tuple(labels)))
    return Dataset(Path("x"), tuple(Category(i, name) for i, name in enumerate(CLASSES)), tuple(made))


scenes = st.lists(st.lists(st.sampled_from(CLASSES), max_size=5), min_size=2, max_size=12)
seeds = st.integers(0, 5)


@given(scenes, seeds)
def test_fewer_shots_are_a_prefix_and_images_take_turns(images: list[list[str]], seed: int) -> None:
    dataset = make(images)
    for name, (instances, shown_in) in class_counts(dataset).items():
        if not instances:
            continue
        every = draw_shots(dataset, [name], instances, seed)[name]
        assert len(set(every)) == instances
        assert len({image for image, _ in every[:shown_in]}) == shown_in
        for shots in range(1, instances):
            assert draw_shots(dataset, [name], shots, seed)[name] == every[:shots]


@given(scenes, seeds)
def test_a_draw_does_not_see_order_ids_or_other_classes(images: list[list[str]], seed: int) -> None:
    dataset = make([*images, ["bolt"]])
    drawn = draw_shots(dataset, ["bolt"], 1, seed)["bolt"]
    turned = replace(
        dataset,
        categories=(*dataset.categories, Category(9, "cap")),
        images=tuple(
            replace(p, id=p.id + 100, annotations=(*reversed(p.annotations), annotation(900 + p.id, "cap")))
            for p in reversed(dataset.images)
        ),
    )
    both = draw_shots(turned, ["cap", "bolt"], 1, seed)
    assert both["bolt"] == [(image + 100, label) for image, label in drawn]
    assert list(both) == ["cap", "bolt"]


def test_seeds_and_classes_draw_differently() -> None:
    dataset = make([["bolt", "nut"]] * 12)
    draws = {tuple(p for p, _ in draw_shots(dataset, ["bolt"], 6, seed)["bolt"]) for seed in range(5)}
    assert len(draws) == 5
    both = draw_shots(dataset, ["bolt", "nut"], 6, 0)
    assert [p for p, _ in both["bolt"]] != [p for p, _ in both["nut"]]


@pytest.mark.parametrize(("pixels", "last"), [(15, True), (16, False)])
def test_tiny_masks_come_last(pixels: int, last: bool) -> None:
    dataset = make([["bolt", "bolt"]] * 3 + [[]])
    small = annotation(500, "bolt", pixels)
    dataset = replace(dataset, images=(*dataset.images[:3], replace(dataset.images[3], annotations=(small,))))
    places = {draw_shots(dataset, ["bolt"], 7, seed)["bolt"].index((3, 500)) for seed in range(20)}
    assert places == {6} if last else max(places) <= 3


def test_equal_images_count_as_one() -> None:
    dataset = make([["bolt"], ["bolt"], ["bolt"]], contents=[0, 0, 1])
    for seed in range(10):
        assert 2 in {image for image, _ in draw_shots(dataset, ["bolt"], 2, seed)["bolt"]}


def test_refused_draws() -> None:
    dataset = make([["bolt", "nut"], ["bolt"]])
    crowd = replace(dataset.images[0], annotations=(*dataset.images[0].annotations, annotation(9, "nut", crowd=True)))
    dataset = replace(dataset, images=(crowd, dataset.images[1]))
    assert len(draw_shots(dataset, ["bolt"], 2, 0)["bolt"]) == 2
    assert draw_shots(dataset, ["nut"], 1, 0)["nut"][0][0] == 0
    with pytest.raises(SamifError, match=r"class 'nut' has 1 labelled instances, 2 shots .*; label more"):
        draw_shots(dataset, ["bolt", "nut"], 2, 0)
    with pytest.raises(SamifError, match="no class 'cap'; correct the name, it has bolt, nut, pin"):
        draw_shots(dataset, ["cap"], 1, 0)
    with pytest.raises(SamifError, match="0 shots"):
        draw_shots(dataset, ["bolt"], 0, 0)


@settings(deadline=None)
@given(scenes, st.floats(0.05, 0.95), seeds, st.data())
def test_a_split_parts_the_images(images: list[list[str]], fraction: float, seed: int, data: st.DataObject) -> None:
    contents = data.draw(st.lists(st.integers(0, 8), min_size=len(images), max_size=len(images)))
    dataset = make(images, contents)
    if len(set(contents)) < 2:
        with pytest.raises(SamifError, match="holds 1 different images"):
            split_by_image(dataset, fraction, seed)
        return
    train, val = split_by_image(dataset, fraction, seed)
    assert train.images
    assert val.images
    assert sorted(p.id for p in (*train.images, *val.images)) == [p.id for p in dataset.images]
    assert not {p.sha256 for p in train.images} & {p.sha256 for p in val.images}
    assert train.categories == val.categories == dataset.categories
    turned = replace(dataset, images=tuple(replace(p, id=p.id + 50) for p in reversed(dataset.images)))
    assert {p.id - 50 for p in split_by_image(turned, fraction, seed)[1].images} == {p.id for p in val.images}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_every_class_is_on_both_sides(seed: int, fraction: float) -> None:
    dataset = make([["bolt", "bolt"]] * 30 + [["bolt", "nut"]] * 8 + [["pin", "bolt"]] * 2 + [[]] * 10)
    train, val = split_by_image(dataset, fraction, seed)
    assert all(images for _, images in class_counts(train).values())
    assert all(images for _, images in class_counts(val).values())
    assert len(val.images) == pytest.approx(50 * fraction, abs=2)
    assert class_counts(val)["nut"][1] == pytest.approx(8 * fraction, abs=1)


def test_a_class_in_one_image_stays_in_train() -> None:
    for seed in range(10):
        train, _ = split_by_image(make([["bolt"]] * 9 + [["pin"]]), 0.5, seed)
        assert class_counts(train)["pin"] == (1, 1)


def test_seeds_split_differently() -> None:
    dataset = make([["bolt"]] * 20)
    assert len({tuple(p.id for p in split_by_image(dataset, 0.25, seed)[1].images) for seed in range(5)}) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_no_share_to_hold_out(fraction: float) -> None:
    with pytest.raises(SamifError, match="cannot be held out"):
        split_by_image(make([["bolt"]] * 4), fraction, 0)
