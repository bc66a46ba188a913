"""The facts of the COCO2014 protocol, and the two parts that its published files make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samif.dataset.coco import read_coco
from samif.dataset.coco2014 import (
    BASE,
    CATEGORIES,
    NOVEL,
    PUBLISHED,
    VOC,
    Counts,
    class_deviations,
    data_deviations,
)
from samif.dataset.coco2014_files import LeftOut, Parts, write_parts
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.errors import SamifError
from tests.support.coco2014_copy import COUNTS, SHOWN, TEST, TRAIN, VAL, Copy

GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Ids from 1 to 90 that COCO's 80 classes leave free."""

NOVEL_IDS = {1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 18, 19, 20, 21, 44, 62, 63, 64, 67, 72}
"""Of the classes that COCO shares with Pascal VOC."""


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "coco")


def parts_of(copy: Copy, expected: Counts | None = COUNTS, ids: Path | None = None) -> tuple[Parts, dict[str, Any]]:
    out = copy.root.parent / "out"
    out.mkdir(exist_ok=True)
    parts = write_parts(copy.root, ids, out, expected)
    return parts, {name: json.loads((out / f"{name}.json").read_text()) for name in ("train", "val")}


def ids_of(content: dict[str, Any]) -> set[int]:
    return {image["id"] for image in content["images"]}


def test_the_facts() -> None:
    assert set(CATEGORIES) == set(range(1, 91)) - GAPS
    assert {CATEGORIES[id_] for id_ in NOVEL_IDS} == set(NOVEL) == set(VOC.values())
    assert (len(BASE), len(NOVEL), len(set(BASE) | set(NOVEL))) == (60, 20, 80)
    assert sum(PUBLISHED.images.values()) - PUBLISHED.test_images == PUBLISHED.train_images == 118_287
    assert sum(PUBLISHED.labels.values()) - PUBLISHED.test_labels == PUBLISHED.train_labels == 860_001


def test_the_rest_of_val2014_is_for_training(copy: Copy) -> None:
    parts, written = parts_of(copy)
    assert ids_of(written["val"]) == set(TEST)
    assert ids_of(written["train"]) == set(TRAIN) | set(VAL) - set(TEST)
    assert (parts.train.images, parts.train.labels, parts.test.images, parts.test.labels) == (11, 66, 3, 18)
    assert parts.train.objects == dict.fromkeys((CATEGORIES[id_] for id_ in SHOWN), 11)
    assert (parts.absent, parts.left_out) == (0, ())
    for split, name in (("train2014", "train"), ("val2014", "train"), ("val2014", "val")):
        source = json.loads((copy.annotations / f"instances_{split}.json").read_text())
        of_source = {label["id"]: label for label in source["annotations"]}
        here = [label for label in written[name]["annotations"] if label["id"] in of_source]
        assert here and all(label == of_source[label["id"]] for label in here)


def test_the_parts_are_data_sets_over_the_images_where_they_lie(copy: Copy) -> None:
    parts_of(copy)
    for name, images in (("train", 11), ("val", 3)):
        dataset, findings = read_coco(copy.root, copy.root.parent / "out" / f"{name}.json")
        assert findings == [f for f in findings if f.level == "warning"]
        assert {category.id: category.name for category in dataset.categories} == CATEGORIES
        assert len(dataset.images) == images
        assert all(len(image.annotations) == len(SHOWN) for image in dataset.images)
    assert dataset.image(139).file_name == "val2014/COCO_val2014_000000000139.jpg"


def test_where_the_test_ids_come_from(copy: Copy) -> None:
    assert parts_of(copy)[0].test_ids_from.name == "instances_minival2014.json"
    (copy.annotations / "instances_minival2014.json").unlink()
    copy.name_test("instances_val2017.json", TEST)
    parts, written = parts_of(copy)
    assert (parts.test_ids_from.name, ids_of(written["val"])) == ("instances_val2017.json", set(TEST))
    for text in ("42\n73\n724\n", "[42, 73, 724]"):
        given_ids = copy.root / "ids.txt"
        given_ids.write_text(text)
        assert ids_of(parts_of(copy, COUNTS, given_ids)[1]["val"]) == {42, 73, 724}


@given(test=st.sets(st.sampled_from(VAL), min_size=1), gone=st.sets(st.sampled_from(TRAIN + VAL), max_size=8))
@settings(max_examples=30, deadline=None)
def test_no_test_image_is_ever_for_training(
    tmp_path_factory: pytest.TempPathFactory, test: set[int], gone: set[int]
) -> None:
    copy = Copy(tmp_path_factory.mktemp("any") / "coco")
    copy.name_test("instances_minival2014.json", tuple(test))
    for id_ in gone:
        copy.image("train2014" if id_ in TRAIN else "val2014", id_).unlink()
    if test <= gone or set(TRAIN + VAL) - test <= gone:
        with pytest.raises(SamifError, match="has no image for the (training|test) part"):
            parts_of(copy, None)
        return
    parts, written = parts_of(copy, None)
    assert ids_of(written["val"]) == test - gone
    assert ids_of(written["train"]) == set(TRAIN + VAL) - test - gone
    assert parts.absent == len(gone)
    for content in written.values():
        assert {label["image_id"] for label in content["annotations"]} == ids_of(content)


def test_a_label_without_a_pixel_is_left_out_by_name(copy: Copy) -> None:
    flat = [[29.65, 38.33, 29.65, 38.33, 30.68, 38.33, 30.68, 38.33]]
    copy.edit("train2014", lambda content: content["annotations"][0].update(segmentation=flat))
    parts, written = parts_of(copy, None)
    why = "has an empty mask (no pixel inside)"
    assert parts.left_out == (LeftOut("train", 900, "train2014/COCO_train2014_000000000009.jpg", why),)
    assert 900 not in {label["id"] for label in written["train"]["annotations"]}
    assert parts.train.objects["person"] == 10
    with pytest.raises(SamifError, match="1 labels are no masks, more than COCO2014 has; annotation 900 of train2014/"):
        parts_of(copy)


def test_crowds_are_labels_but_no_objects(copy: Copy) -> None:
    copy.edit("val2014", lambda content: content["annotations"][0].update(iscrowd=1))
    parts, _ = parts_of(copy)
    assert (parts.train.labels, parts.train.objects["person"], parts.train.objects["truck"]) == (66, 10, 11)


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (PUBLISHED, "3 test images, COCO2014 has 5,000"),
        (replace(COUNTS, images={"train2014": 9, "val2014": 6}), "train2014.json: 8 images, COCO2014 has 9"),
        (replace(COUNTS, images={"train2014": 8, "val2014": 5}), "val2014.json: 6 images, COCO2014 has 5"),
        (replace(COUNTS, labels={"train2014": 48, "val2014": 35}), "val2014.json: 36 labels, COCO2014 has 35"),
        (replace(COUNTS, train_images=12), "11 training images, COCO2014 has 12"),
        (replace(COUNTS, train_labels=65), "66 labels on training images, COCO2014 has 65"),
        (replace(COUNTS, test_labels=19), "18 labels on test images, COCO2014 has 19"),
    ],
)
def test_a_count_that_differs_is_refused(copy: Copy, counts: Counts, sentence: str) -> None:
    with pytest.raises(SamifError, match=f"{sentence}; download it again, or take a part of COCO2014 with '--partial'"):
        parts_of(copy, counts)
    assert not list((copy.root.parent / "out").iterdir())


def test_another_choice_of_as_many_test_images_shows_in_its_labels(copy: Copy) -> None:
    copy.edit("val2014", lambda content: content["annotations"].append({**content["annotations"][0], "id": 7}))
    expected = replace(COUNTS, labels={"train2014": 48, "val2014": 37}, train_labels=67)
    parts_of(copy, expected)
    copy.name_test("instances_minival2014.json", (42, 285, 632))
    with pytest.raises(SamifError, match="66 labels on training images, COCO2014 has 67"):
        parts_of(copy, expected)


def _categories(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Copy], object]:
    return lambda copy: copy.edit("val2014", lambda content: change(content["categories"]))


def _label(**change: object) -> Callable[[Copy], object]:
    return lambda copy: copy.edit("train2014", lambda content: content["annotations"][2].update(change))


def _link_out(copy: Copy) -> None:
    (copy.root / "val2014").rename(copy.root.parent / "elsewhere")
    (copy.root / "val2014").symlink_to(copy.root.parent / "elsewhere")


@pytest.mark.parametrize(
    ("bend", "sentence"),
    [
        (_categories(lambda all_: all_[0].update(name="human")), "category 1 as 'human', COCO2014 has 'person'"),
        (_categories(lambda all_: all_[11].update(id=12)), "category 12 as 'stop sign', COCO2014 has None"),
        (_categories(lambda all_: all_.pop()), "category 90 as None, COCO2014 has 'toothbrush'"),
        (_categories(lambda all_: all_.append({"id": 91, "name": "cog"})), "category 91 as 'cog', COCO2014 has None"),
        (_label(image_id=4), "annotation 902: its image is not in the file"),
        (_label(category_id=12), "annotation 902: its class is not in the file"),
        (
            lambda copy: copy.edit("val2014", lambda c: c["images"][1].pop("width")),
            r"not COCO's \(KeyError\('width'\)\)",
        ),
        (
            lambda copy: copy.edit("val2014", lambda c: c["images"][1].update(width="64")),
            "image 73 needs a file name",
        ),
        (_label(id=901), "has two annotations of one id"),
        (lambda copy: (copy.annotations / "instances_val2014.json").unlink(), "instances_val2014.json does not exist"),
        (lambda copy: shutil.rmtree(copy.root / "train2014"), r"train2014 is not a folder; unpack train2014\.zip"),
        (lambda copy: copy.image("val2014", 73).unlink(), "lacks 1 of 6 images, COCO_val2014_000000000073.jpg"),
        (_link_out, "val2014 is a link that leads out of"),
        (
            lambda copy: (copy.annotations / "instances_minival2014.json").unlink(),
            r"neither instances_minival2014\.json nor instances_val2017\.json is in .*--val-ids FILE",
        ),
        (
            lambda copy: copy.name_test("instances_minival2014.json", (139, 285, 110)),
            "names image 110, one of .*train",
        ),
        (lambda copy: copy.name_test("instances_minival2014.json", (139, 285, 5)), "names image 5, which .*val2014"),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(
    copy: Copy, bend: Callable[[Copy], object], sentence: str
) -> None:
    bend(copy)
    with pytest.raises(SamifError, match=sentence):
        parts_of(copy)
    assert not list((copy.root.parent / "out").iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("139\n28s\n", "is no list of image ids .*one id a line, or a JSON list"),
        ("[139, ", "is no list of image ids"),
        ('[139, "285"]', "names '285' as an image; give whole numbers"),
        ("\n", "names no image"),
        (None, "cannot read .*No such file"),
    ],
)
def test_a_file_of_ids_that_is_none(copy: Copy, text: str | None, sentence: str) -> None:
    path = copy.root / "ids"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SamifError, match=sentence):
        parts_of(copy, COUNTS, path)


def dataset(images: range, labels: int, categories: dict[int, str] | None = None) -> Dataset:
    """So many images and labels, without a file."""
    label = Annotation(1, "person", {"size": [1, 1], "counts": "01"}, False, (0.0, 0.0, 1.0, 1.0), 1.0)
    share, rest = divmod(labels, len(images))
    return Dataset(
        Path(),
        tuple(Category(id_, name) for id_, name in (categories or dict(CATEGORIES)).items()),
        tuple(ImageRecord(id_, "", 1, 1, "", (label,) * (share + (place < rest))) for place, id_ in enumerate(images)),
    )


SCALED = Counts({}, {}, train_images=118, train_labels=8_000, test_images=5, test_labels=1_000)
TRAINING, MINIVAL = range(118), range(200, 205)


@pytest.mark.parametrize(
    ("train", "test", "found"),
    [
        ((TRAINING, 8_000), (MINIVAL, 1_000), []),
        ((TRAINING, 7_992), (MINIVAL, 999), []),  # one label in a thousand may be no mask
        ((TRAINING, 7_991), (MINIVAL, 998), ["7,991 labels on training images instead of 8,000",
                                             "998 labels on test images instead of 1,000"]),
        ((TRAINING, 8_001), (MINIVAL, 1_000), ["8,001 labels on training images instead of 8,000"]),
        ((TRAINING[1:], 8_000), (MINIVAL, 1_000), ["117 training images instead of 118"]),
        ((TRAINING, 8_000), (range(5), 1_000), ["5 test images are also training images"]),
        ((TRAINING, 8_000), (MINIVAL, 1_000, {1: "person"}), ["other categories than COCO's 80 in the test part"]),
    ],
)  # fmt: skip
def test_data_are_held_against_the_protocol(train: Any, test: Any, found: list[str]) -> None:
    assert data_deviations(dataset(*train), dataset(*test), SCALED) == found


@pytest.mark.parametrize(
    ("base", "sessions", "found"),
    [
        (BASE, [NOVEL], []),
        (BASE[::-1], [NOVEL[::-1]], []),
        (BASE[:-1], [NOVEL], ["base classes without toothbrush (1)"]),
        ((*BASE, "person"), [NOVEL[1:]], ["base classes with person (1)", "novel classes without person (1)"]),
        (BASE, [NOVEL[:10], NOVEL[10:]], ["2 sessions instead of one"]),
        (BASE, [], ["0 sessions instead of one", "novel classes without person, bicycle, car, ... (20)"]),
    ],
)
def test_classes_are_held_against_the_protocol(base: Any, sessions: Any, found: list[str]) -> None:
    assert class_deviations(base, sessions) == found
