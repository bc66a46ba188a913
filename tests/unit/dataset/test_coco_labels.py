"""What labelling tools write and people expect to be read: ids, sizes, outlines, painted masks, broken labels."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from samif.config import ReadRules
from samif.dataset.check import raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.coco_labels import CROWD_SHARE
from samif.errors import DataError

Raw = dict[str, Any]


def _each(key: str, **changes: Callable[[Any], object]) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        for record in raw[key]:
            for field, value in changes.items():
                record[field] = value(record.get(field))

    return change


def _dropped(key: str, *fields: str) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        for record in raw[key]:
            for field in fields:
                record.pop(field, None)

    return change


def _both(*changes: Callable[[Raw], None]) -> Callable[[Raw], None]:
    def change(raw: Raw) -> None:
        for one in changes:
            one(raw)

    return change


def _image_names(raw: Raw) -> None:
    for record in raw["images"]:
        record["id"] = record["file_name"].removesuffix(".png")
    for record in raw["annotations"]:
        record["image_id"] = "ab"[record["image_id"] - 1]


DIGITS = _both(
    _each("images", id=str),
    _each("annotations", id=str, image_id=str, category_id=str),
    _each("categories", id=str),
)
SAME: dict[str, Callable[[Raw], None]] = {
    "digits in quotes": DIGITS,
    "quotes in annotations only": _each("annotations", image_id=str, category_id=lambda v: f" {v}.0 "),
    "floats": _both(_each("annotations", image_id=float, category_id=float), _each("images", width=float)),
    "sizes in quotes": _each("images", width=str, height=lambda v: f"{v}.0"),
    "null measures": _each("annotations", iscrowd=lambda _: None, area=lambda _: None, bbox=lambda _: None),
    "true and false": _each("annotations", iscrowd=lambda _: False),
    "crowd in quotes": _each("annotations", iscrowd=lambda _: "0"),
    "crowd as float": _each("annotations", iscrowd=lambda _: 0.0),
    "measures in quotes": _each("annotations", area=lambda _: "100.5", bbox=lambda _: ["1", "2", "3", "4"]),
    "coordinates in quotes": _each("annotations", segmentation=lambda parts: [[str(v) for v in p] for p in parts]),
    "pairs": _each("annotations", segmentation=lambda parts: [parts[0][i : i + 2] for i in range(0, 8, 2)]),
    "flat": _each("annotations", segmentation=lambda parts: parts[0]),
    "classes by name": _each("annotations", category_id=lambda v: {3: "bolt", 7: "nut"}[v]),
    "images by file name": _each("annotations", image_id=lambda v: {1: "a.png", 2: "b.png"}[v]),
    "images by stem": _each("annotations", image_id=lambda v: {1: "a", 2: "b"}[v]),
}
TOLD: dict[str, tuple[Callable[[Raw], None], str]] = {
    "names as image ids": (_image_names, "images whose id is no whole number, which were numbered: 2, such as 'a'"),
    "no image ids": (
        _both(_each("annotations", image_id=lambda v: f"{'ab'[v - 1]}.png"), _dropped("images", "id")),
        "images whose id is no whole number, which were numbered: 2",
    ),
    "text as annotation ids": (
        _each("annotations", id=lambda v: f"a-{v:04d}"),
        "annotations without an id that is a whole number, which were numbered: 4, such as 'a-0010'",
    ),
    "no annotation ids": (_dropped("annotations", "id"), "annotations without an id that is a whole number.*: 4"),
    "halves": (_each("annotations", id=lambda v: v + 0.5), "annotations without an id that is a whole number.*: 4"),
    "too long": (_each("annotations", id=lambda v: v + 2**64), "annotations without an id .*: 4, such as 1844"),
    "true as id": (_each("annotations", id=lambda _: True), "annotations without an id .*: 4, such as True"),
    "ids of each image": (
        _each("annotations", id=lambda v: v % 10),
        "annotations that share their id with another, which were numbered apart: 2, such as 0",
    ),
    "text as class ids": (
        _both(
            _each("categories", id=lambda v: f"c{v}"),
            _each("annotations", category_id=lambda v: f"c{v}"),
        ),
        "classes whose id is no whole number, which were numbered: 2, such as 'bolt'",
    ),
    "no size": (_dropped("images", "width", "height"), "images without a valid width and height, .*: 2"),
    "null size": (_each("images", width=lambda _: None), "images without a valid width and height, .*: 2"),
    "negative size": (_each("images", width=lambda _: -64), "images without a valid width and height, .*: 2"),
    "NaN as size": (_each("images", height=lambda _: float("nan")), "images without a valid width and height"),
    "huge size": (_each("images", height=lambda _: 10**9, width=lambda _: 10**9), "images without a valid width"),
    "listed twice": (
        lambda raw: raw["images"].append({**raw["images"][0]}),
        "images that are listed twice, whose labels were joined: 1, such as 'a.png'",
    ),
    "listed under two ids": (
        lambda raw: (raw["images"].append({**raw["images"][0], "id": 9}), raw["annotations"][0].update(image_id=9))[0],
        "images that are listed twice, whose labels were joined: 1, such as 'a.png'",
    ),
    "supercategory only": (
        lambda raw: raw.update(categories=[{"id": c["id"], "supercategory": c["name"]} for c in raw["categories"]]),
        "classes without a name, for which the supercategory was taken: 2, such as 'bolt'",
    ),
}


def content(line: Any) -> tuple[list[Any], list[str]]:
    """What training sees of a file, and what was said about it."""
    dataset, findings = read_coco(*line.write())
    raise_on_errors(findings)
    assert all(finding.level == "warning" and finding.remedy for finding in findings)
    labels = [
        (image.file_name, image.width, image.height, sorted((a.category, a.rle["counts"]) for a in image.annotations))
        for image in dataset.images
    ]
    ids = [a.id for image in dataset.images for a in image.annotations]
    assert len(set(ids)) == len(ids) and all(type(id_) is int for id_ in ids)
    return labels, [finding.what for finding in findings]


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_other_clothing_of_the_same_values_is_read_without_a_word(line: Any, change: Callable[[Raw], None]) -> None:
    before = content(line)
    change(line.raw)
    assert content(line) == before == (before[0], [])


@pytest.mark.parametrize(("change", "said"), TOLD.values(), ids=TOLD.keys())
def test_what_had_to_be_added_is_said_once_with_its_number(line: Any, change: Callable[[Raw], None], said: str) -> None:
    before, _ = content(line)
    change(line.raw)
    after, told = content(line)
    assert after == before
    assert len(told) == 1
    assert re.search(said, told[0]), told


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_numbers_stay_ids(line: Any, sign: int) -> None:
    for record in line.raw["annotations"]:
        record["id"] = str(sign * record["id"])
    dataset, findings = read_coco(*line.write())
    assert findings == []
    assert [a.id for image in dataset.images for a in image.annotations] == [sign * n for n in (10, 11, 20, 21)]


def test_a_name_that_two_images_share_is_no_reference(line: Any) -> None:
    for number, folder in ((1, "x"), (2, "y")):
        (line.images / folder).mkdir()
        (line.images / f"{'ab'[number - 1]}.png").rename(line.images / folder / "c.png")
        line.raw["images"][number - 1]["file_name"] = f"{folder}/c.png"
    line.raw["annotations"][0]["image_id"] = "c.png"
    line.raw["annotations"][1]["image_id"] = "y/c.png"
    dataset, findings = read_coco(*line.write())
    assert [(f.loss, f.annotation, f.what) for f in findings if f.loss] == [
        ("label", 10, "names image_id 'c.png', which is not in 'images'")
    ]
    assert [len(image.annotations) for image in dataset.images] == [0, 3]


@pytest.mark.parametrize(
    ("empty", "lost"), [([], 2), ([[]], 2), (None, 2), ({}, 2), ([[4, 4, 14, 4]], 2), ([[4, 4]], 1), ("", 2), ([], 3)]
)
def test_labels_without_outline_are_left_out_up_to_the_limit(line: Any, empty: Any, lost: int) -> None:
    for record in line.raw["annotations"][:lost]:
        record["segmentation"] = copy.deepcopy(empty)
        record["bbox"] = [4, 4, 10, 10]
    dataset, findings = read_coco(*line.write())
    assert sum(finding.loss == "label" for finding in findings) == lost
    assert sum(len(image.annotations) for image in dataset.images) == 4 - lost
    if lost <= 2:  # half of the labels is the limit
        raise_on_errors(findings)
    else:
        with pytest.raises(DataError, match=r"1 error: labels\.json: 3 of 4 labels cannot .* limit of 50%; most often"):
            raise_on_errors(findings)
    raise_on_errors(read_coco(*line.write(), ReadRules(max_broken_labels=0.75))[1])
    with pytest.raises(DataError, match=rf"{lost} errors?: a\.png, image 1, "):
        raise_on_errors(read_coco(*line.write(), ReadRules(broken_labels="refuse"))[1])


def test_cut_outlines_count_for_the_limit_and_stray_points_do_not(line: Any) -> None:
    for record in line.raw["annotations"]:
        record["segmentation"].append([5, 5])
    raise_on_errors(read_coco(*line.write())[1])
    for record in line.raw["annotations"]:
        record["segmentation"] = [[40, 4, 80, 4, 80, 14, 40, 14]]
    dataset, findings = read_coco(*line.write())
    assert sum(len(image.annotations) for image in dataset.images) == 4
    with pytest.raises(DataError, match=r"4 of 4 labels cannot be used as they are.*sticks out of the image"):
        raise_on_errors(findings)


def test_labels_of_an_image_that_is_left_out_are_no_broken_labels(line: Any) -> None:
    (line.images / "a.png").write_bytes(b"")
    dataset, findings = read_coco(*line.write(), ReadRules(broken_images="quarantine"))
    assert [(f.level, f.loss, f.file) for f in findings] == [("warning", "image", "a.png")]
    assert [image.file_name for image in dataset.images] == ["b.png"]
    dataset, findings = read_coco(*line.write(), ReadRules(broken_images="refuse"))
    assert [(f.level, f.loss, f.file) for f in findings] == [("error", "image", "a.png")]
    assert len(dataset.images) == 2


RUNS = {"size": [48, 64], "counts": [48 * 10, 48 * 3, 48 * 51]}


def painted(line: Any, crowds: int, objects: int, same_image: bool) -> None:
    """A file of `crowds` labels with iscrowd 1, of one class in one image or one in each of many images."""
    line.raw["annotations"].clear()
    for number in range(objects):
        line.label(number, 1, 7, [[1, 1, 9, 1, 9, 9, 1, 9]])
    for number in range(crowds):
        image = 1 if same_image else 100 + number
        if not same_image:
            line.image(image, f"{image}.png")
        line.label(1000 + number, image, 3, RUNS, iscrowd=1)


@pytest.mark.parametrize(
    ("crowds", "objects", "same_image", "taken"),
    [
        (4, 0, False, True),  # all painted, as CVAT exports a task in which the brush was used throughout
        (3, 1, False, True),
        (2, 18, True, True),  # two of one class in an image: a region of COCO takes in all of them
        (2, 17, False, True),  # above a tenth
        (2, 18, False, False),
        (1, 99, False, False),  # as in COCO
        (1, 3, False, False),  # one label says nothing
    ],
)
def test_painted_masks_are_told_from_regions_of_many_objects(
    line: Any, crowds: int, objects: int, same_image: bool, taken: bool
) -> None:
    painted(line, crowds, objects, same_image)
    for rule, as_objects in (("auto", taken), ("objects", True), ("ignore", False)):
        dataset, findings = read_coco(*line.write(), ReadRules(crowds=rule))
        (told,) = [f for f in findings if "iscrowd" in f.what]
        how = "objects, as CVAT" if as_objects else "regions of many objects"
        assert f"{crowds} of {crowds + objects} labels have iscrowd 1 and are taken as {how}" in told.what
        assert (told.level, "set dataset.crowds to" in told.remedy) == ("warning", True)
        regions = [a for image in dataset.images for a in image.annotations if a.crowd]
        assert len(regions) == (0 if as_objects else crowds)
    assert CROWD_SHARE == 0.1


def test_labels_can_be_counted_without_opening_images(line: Any) -> None:
    line.raw["annotations"][0]["segmentation"] = []
    del line.raw["images"][0]["width"]
    images, annotations = line.write()
    (images / "b.png").unlink()
    dataset, findings = read_coco(images, annotations, open_images=False)
    assert [len(image.annotations) for image in dataset.images] == [1, 2]
    assert [f.loss for f in findings] == ["image", "label", ""]
    assert "images without a valid width and height" in findings[2].what
