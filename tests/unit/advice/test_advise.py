"""Advice about whole data sets with planted faults, and about clean and empty ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samif.advice.advise import Measured, advise
from samif.advice.label_errors import BadMask
from samif.advice.traits import Traits
from samif.dataset.model import Category, Dataset, ImageRecord
from samif.dataset.near_duplicates import T
from tests.support.handmade import annotation, image, rectangle, rle

NAMES = ("bolt", "gear", "nut")
SHAPE = (40, 60)


def measured(count: int = 15, seed: int = 0, split: str = "train", first: int = 0) -> list[Measured]:
    """Images of one object of each class, varied in every trait."""
    rng = np.random.default_rng(seed)
    means = 5.0 * np.random.default_rng(9).normal(size=(len(NAMES), 16))
    found = []
    for number in range(first, first + count):
        labels = [
            annotation(10 * number + k, name, rectangle(SHAPE, 5, 20 * k, 10, 10)) for k, name in enumerate(NAMES)
        ]
        traits = [
            Traits(number, a.id, a.category, rng.uniform(0.1, 0.3), rng.uniform(0, 180), rng.uniform(50, 200),
                   tuple(rng.uniform(30, 220, 3)), False, False)
            for a in labels
        ]  # fmt: skip
        thumbnail = rng.normal(size=(8, 8, 3)).repeat(T // 8, axis=0).repeat(T // 8, axis=1).astype(np.float32)
        features = (means + rng.normal(size=means.shape)).astype(np.float32)
        found.append(Measured(split, image(number, SHAPE, *labels), thumbnail, traits, features))
    return found


def dataset(images: list[Measured]) -> Dataset:
    categories = tuple(Category(i, name) for i, name in enumerate(NAMES))
    return Dataset(Path("images"), categories, tuple(m.image for m in images))


def renamed(m: Measured, row: int, name: str) -> Measured:
    labels = list(m.image.annotations)
    labels[row] = replace(labels[row], category=name)
    return replace(m, image=replace(m.image, annotations=tuple(labels)))


@pytest.mark.parametrize("seed", range(3))
def test_clean_data_are_ready_and_accused_of_nothing(seed: int) -> None:
    train, val = measured(15, seed), measured(5, seed + 50, "val", 100)
    found = advise(dataset(train), train + val)
    assert [(c.verdict, c.next) for c in found.classes] == [("ready", ())] * 3
    assert found.leaks == found.duplicates == found.look_alikes == found.label_errors == ()
    assert found.with_features and (found.images, found.measured_images) == (15, 15)


@pytest.mark.parametrize("seed", range(3))
def test_planted_swapped_names_in_either_split(seed: int) -> None:
    train, val = measured(15, seed), measured(5, seed + 50, "val", 100)
    train[4], val[2] = renamed(train[4], 0, "nut"), renamed(val[2], 1, "bolt")
    found = advise(dataset(train), train + val)
    told = {(e.kind, e.split, e.file, e.annotation, e.given, e.suggested) for e in found.label_errors}
    assert told == {("name", "train", "4.png", 40, "nut", "bolt"), ("name", "val", "102.png", 1021, "bolt", "gear")}
    assert found.classes[2].next == ("look at 1 label that may be wrong",)


def test_planted_bad_mask() -> None:
    train = measured()
    rival = rle(rectangle(SHAPE, 5, 20, 20, 20))
    train[3] = replace(train[3], bad_masks=[BadMask(1, rival, 0.3, 0.6)])
    (error,) = advise(dataset(train), train).label_errors
    assert (error.kind, error.file, error.annotation, error.given, error.rival) == ("mask", "3.png", 31, "gear", rival)


@pytest.mark.parametrize("other", ["train", "val"])
def test_planted_near_duplicates_and_leaks(other: str) -> None:
    train = measured()
    copy = replace(train[2], split=other, image=replace(train[2].image, id=99, file_name="copy.png", sha256="f"))
    images = [*train, copy]
    found = advise(dataset([m for m in images if m.split == "train"]), images)
    pairs = found.leaks if other == "val" else found.duplicates
    assert [(p.first, p.second, p.identical) for p in pairs] == [("train/2.png", f"{other}/copy.png", False)]
    assert len(found.leaks) + len(found.duplicates) == 1
    assert {(c.images, c.distinct_images) for c in found.classes} == {(16, 15) if other == "train" else (15, 15)}


def test_ten_photographs_of_one_view() -> None:
    train = [replace(m, thumbnail=measured()[0].thumbnail) for m in measured(10)]
    found = advise(dataset(train), train)
    assert {(c.verdict, c.images, c.distinct_images) for c in found.classes} == {("not yet", 10, 1)}
    assert not found.with_features, "nothing is left to be named from"


def test_one_view_among_other_parts() -> None:
    """The images differ, and the part lies unmoved in all of them."""
    train = measured(12)
    features = train[0].features
    assert features is not None
    for at in range(12):
        own = train[at].features
        assert own is not None
        train[at] = replace(train[at], features=np.stack([features[0], *own[1:]]))
    bolt, gear, nut = advise(dataset(train), train).classes
    assert (bolt.verdict, bolt.distinct_images) == ("not yet", 1)
    assert (gear.verdict, gear.distinct_images, nut.distinct_images) == ("ready", 12, 12)


def test_identical_files_are_called_so() -> None:
    train = measured(6)
    train.append(replace(train[1], image=replace(train[1].image, id=50, file_name="same.png")))
    (pair,) = advise(dataset(train), train).duplicates
    assert pair.identical and pair.difference == 0


def test_without_features_names_are_not_judged() -> None:
    train = [replace(m, features=None) for m in measured()]
    found = advise(dataset(train), train)
    assert not found.with_features and all(c.naming is None and c.verdict == "ready" for c in found.classes)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_images_of_background_alone(count: int) -> None:
    blank = [
        Measured("train", ImageRecord(n, f"{n}.png", 60, 40, str(n), ()), measured(1, n)[0].thumbnail, ())
        for n in range(count)
    ]
    found = advise(dataset(blank), blank)
    assert found.background_images == found.images == count and found.classes == ()


def test_held_out_images_are_counted_with_the_others() -> None:
    train, val = measured(8), measured(4, 7, "val", 100)
    found = advise(dataset(train + val), train + val, held_out=True)
    assert {(c.images, c.distinct_images, c.verdict) for c in found.classes} == {(12, 12, "ready")}
    assert found.measured_images == 12
