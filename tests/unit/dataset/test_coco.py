"""read_coco: good files come out as they are, and each kind of bad record becomes its finding."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from samif.config import ReadRules
from samif.dataset.check import Finding
from samif.dataset.coco import Category, read_coco
from samif.errors import SamifError
from samif.masks.rle import decode

REAL = Path(__file__).parents[4] / "shared" / "data"


def test_a_good_set(line: Any) -> None:
    seen: list[tuple[int, int]] = []
    images, annotations = line.write()
    dataset, findings = read_coco(images, annotations, progress=lambda done, total: seen.append((done, total)))
    assert findings == []
    assert dataset.categories == (Category(3, "bolt"), Category(7, "nut"))
    assert [image.file_name for image in dataset.images] == ["a.png", "b.png"]
    bolt, nut = dataset.images[1].annotations
    assert (bolt.id, bolt.category, nut.id, nut.category) == (20, "bolt", 21, "nut")
    assert (nut.bbox, nut.area, nut.crowd) == ((30.0, 20.0, 12.0, 12.0), 144.0, False)
    assert decode([nut.rle])[0][20:32, 30:42].all()
    assert decode([nut.rle])[0].sum() == 144
    assert seen == [(1, 2), (2, 2)]


def test_measures_come_from_the_mask_and_crowds_stay_crowds(line: Any) -> None:
    runs = [0, 48 * 2, 48 * 62]
    line.label(30, 1, 3, {"size": [48, 64], "counts": runs}, iscrowd=1, area=5, bbox=[1, 1, 2, 2])
    dataset, findings = read_coco(*line.write())
    crowd = dataset.images[0].annotations[-1]
    assert [(f.level, f.what[:30]) for f in findings] == [("warning", "1 of 5 labels have iscrowd 1 a")]
    assert (crowd.crowd, crowd.area, crowd.bbox) == (True, 96.0, (0.0, 0.0, 2.0, 48.0))
    assert isinstance(crowd.rle["counts"], str)


def test_images_without_annotation_are_kept(line: Any) -> None:
    line.image(3, "c.png")
    dataset, findings = read_coco(*line.write())
    assert dataset.images[2].annotations == ()
    assert [finding.level for finding in findings] == ["warning"]


def test_file_names_in_folders_and_a_byte_order_mark(line: Any) -> None:
    (line.images / "day 1").mkdir()
    (line.images / "a.png").rename(line.images / "day 1" / "ä.png")
    line.raw["images"][0]["file_name"] = "./day 1//ä.png"
    images, annotations = line.write()
    annotations.write_text(json.dumps(line.raw), encoding="utf-8-sig")
    dataset, findings = read_coco(images, annotations)
    assert findings == []
    assert dataset.images[0].file_name == "day 1/ä.png"
    assert dataset.path_of(dataset.images[0]).is_file()


def test_an_image_folder_that_is_itself_a_link(line: Any, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(line.images)
    assert read_coco(link, line.write()[1])[1] == []


Place = tuple[str, int | None, int | None]
Bend = Callable[[dict[str, Any], Path], object]

FILE: Place = ("labels.json", None, None)
IMAGE: Place = ("a.png", 1, None)
LABEL: Place = ("a.png", 1, 10)


def image(place: int = 0, **changes: object) -> Bend:
    return lambda raw, _: raw["images"][place].update(changes)


def label(place: int = 0, **changes: object) -> Bend:
    return lambda raw, _: raw["annotations"][place].update(changes)


def added(key: str, record: object) -> Bend:
    return lambda raw, _: raw[key].append(record)


def without(key: str, field: str) -> Bend:
    return lambda raw, _: raw[key][0].pop(field)


def content(data: bytes) -> Bend:
    return lambda _, images: (images / "a.png").write_bytes(data)


def cut(_: dict[str, Any], images: Path) -> None:
    (images / "a.png").write_bytes((images / "a.png").read_bytes()[:-200])


NAN = float("nan")
SQUARE = [[4, 4, 14, 4, 14, 14, 4, 14]]
OUTSIDE = [[90, 0, 99, 0, 99, 9]]
TURNED = {"size": [64, 48], "counts": [0, 64 * 48]}

CASES: list[tuple[str, Bend, str, Place]] = [
    ("missing image", lambda _, images: (images / "a.png").unlink(), "does not exist", IMAGE),
    ("empty image", content(b""), "is empty", IMAGE),
    ("no image", content(b"x"), "not an image", IMAGE),
    ("truncated image", cut, "cannot be decoded", IMAGE),
    ("other width", image(width=65), "is 64 x 48, but is declared 65 x 48", IMAGE),
    ("other height", image(height=49), "is declared 64 x 49", IMAGE),
    ("image record of text", added("images", "c.png"), "image record 2 needs", FILE),
    ("no file name", without("images", "file_name"), "image record 0 needs a file_name, has None", FILE),
    ("sizes differ", added("images", {"id": 9, "file_name": "a.png", "width": 48, "height": 64}), "different", IMAGE),
    ("NUL in file name", image(file_name="a\0.png"), "image record 0 needs", FILE),
    ("half a character", image(file_name="\ud800.png"), "image record 0 needs", FILE),
    ("same image id", image(1, id=1), "shares its image id with a.png", ("b.png", 1, None)),
    ("parent folder", image(file_name="../other/z.png"), "does not exist", ("../other/z.png", 1, None)),
    ("absolute", image(file_name="/z.png"), "does not exist", ("/z.png", 1, None)),
    ("drive", image(file_name="C:\\z.png"), "does not exist", ("C:\\z.png", 1, None)),
    ("the folder itself", image(file_name="."), "is the image folder itself", (".", 1, None)),
    ("no image at all", lambda raw, _: raw.update(images=[], annotations=[]), "names no image", FILE),
    ("no class at all", lambda raw, _: raw.update(categories=[], annotations=[]), "names no class", FILE),
    ("same category id", added("categories", {"id": 3, "name": "pin"}), "category id 3 is given twice", FILE),
]


LABELS: list[tuple[str, Bend, str, Place]] = [
    ("unknown class", label(category_id=4), "category_id 4, which is not", LABEL),
    ("class of a list", label(category_id=[3]), r"category_id \[3\]", LABEL),
    ("unknown image", label(image_id=5), "image_id 5, which is not", ("labels.json", None, 10)),
    ("image of a dict", label(image_id={}), "image_id {}", ("labels.json", None, 10)),
    ("crowd of text", label(iscrowd="maybe"), "has iscrowd 'maybe'", LABEL),
    ("no mask", without("annotations", "segmentation"), "has no outline", LABEL),
    ("empty mask", label(segmentation=[[3, 3, 3, 3, 3, 3]]), "empty mask", LABEL),
    ("outside", label(segmentation=OUTSIDE), "lies outside", LABEL),
    ("RLE of another size", label(segmentation=TURNED), "RLE of size", LABEL),
    ("annotation null", added("annotations", None), "image_id None", ("labels.json", None, 22)),
    ("class without a name", lambda raw, _: raw["categories"][0].update(name=" "), "names category_id 3", LABEL),
    (
        "a stray point",
        label(segmentation=[*SQUARE, [5, 5]]),
        "polygon of 1 point; an area needs 3 or more; the polygon was left out",
        LABEL,
    ),
    (
        "a part outside",
        label(segmentation=[*SQUARE, *OUTSIDE]),
        "lies outside the 64 x 48 image; the polygon was left",
        LABEL,
    ),
    ("sticking out", label(segmentation=[[40, 4, 80, 4, 80, 14, 40, 14]]), "sticks 16 pixels out of the .* cut", LABEL),
]


@pytest.mark.parametrize(("bend", "text", "place"), [case[1:] for case in LABELS], ids=[case[0] for case in LABELS])
def test_each_kind_of_broken_label_is_refused_or_left_out(line: Any, bend: Bend, text: str, place: Place) -> None:
    bend(line.raw, line.images)
    for policy, level in (("refuse", "error"), ("quarantine", "warning")):
        dataset, findings = read_coco(*line.write(), ReadRules(broken_labels=policy))
        (found,) = [
            finding for finding in findings if finding.loss in ("label", "outline") and _matches(finding, text, place)
        ]
        assert (found.level, bool(found.remedy)) == (level, True)
        assert not [f for f in findings if f.level == "error" and policy == "quarantine"]
        kept = [a.id for image in dataset.images for a in image.annotations]
        assert (10 in kept) == (found.loss == "outline" or "null" in text or place[2] == 22)


@pytest.mark.parametrize(("bend", "text", "place"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_kind_of_error(line: Any, bend: Bend, text: str, place: Place) -> None:
    bend(line.raw, line.images)
    dataset, findings = read_coco(*line.write())
    errors = [finding for finding in findings if finding.level == "error"]
    assert any(_matches(error, text, place) for error in errors), [str(error) for error in errors]
    assert all(error.what and error.remedy for error in errors)
    # Whatever is wrong, what could be read is still a data set.
    assert len(dataset.digest) == 64
    assert {p.id for p in dataset.images} <= {1, 2}


def _matches(finding: Finding, text: str, place: Place) -> bool:
    file, *ids = place
    return bool(re.search(text, finding.what) and [finding.image, finding.annotation] == ids and file == finding.file)


@pytest.mark.parametrize(
    "broken",
    [
        *(("area", value) for value in (NAN, -1, "wide")),
        *(("bbox", value) for value in ([1, 2, 3], [1, 2, -3, 4], [1, 2, float("inf"), 4], "box")),
    ],
)
def test_broken_measures_are_warned_of_and_measured_anew(line: Any, broken: tuple[str, Any]) -> None:
    line.raw["annotations"][0][broken[0]] = broken[1]
    dataset, findings = read_coco(*line.write())
    assert [(f.level, f.count) for f in findings] == [("warning", 1)]
    assert "which is measured from the mask instead: 1, such as" in findings[0].what
    assert dataset.images[0].annotations[0].area == 100.0


def test_links(line: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    os.replace(line.images / "a.png", outside)
    (line.images / "a.png").symlink_to(outside)
    os.rename(line.images / "b.png", line.images / "c.png")
    (line.images / "b.png").symlink_to("c.png")
    dataset, findings = read_coco(*line.write())
    assert findings == []
    assert [image.file_name for image in dataset.images] == ["a.png", "b.png"]
    outside.unlink()
    (line.images / "c.png").unlink()
    (line.images / "b.png").unlink()
    (line.images / "b.png").symlink_to("b.png")
    assert [(f.image, f.what) for f in read_coco(*line.write())[1]] == [
        (1, f"is a link to {outside}, which does not exist"),
        (2, "is a link that leads back to itself"),
    ]


def test_what_can_be_kept_is_kept(line: Any) -> None:
    (line.images / "a.png").unlink()
    line.raw["images"][1]["width"] = 60
    dataset, findings = read_coco(*line.write())
    assert len(findings) == 2
    assert [len(image.annotations) for image in dataset.images] == [2, 2]
    assert dataset.images[0].sha256 == ""
    assert (dataset.images[1].width, dataset.images[1].height) == (60, 48)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ('{"images": ' + "1" * 5000 + "}", "is not JSON"),
        ("[]", "holds a list"),
        ("null", "holds a NoneType"),
        ("{}", "has no list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
    ],
)
def test_what_is_no_coco_file_is_refused(line: Any, text: str, expected: str) -> None:
    line.annotations.write_text(text)
    with pytest.raises(SamifError, match=rf"labels\.json {expected}"):
        read_coco(line.images, line.annotations)


def test_missing_places_are_refused(line: Any, tmp_path: Path) -> None:
    images, annotations = line.write()
    with pytest.raises(SamifError, match="is not a folder; name"):
        read_coco(tmp_path / "none", annotations)
    with pytest.raises(SamifError, match="does not exist; name"):
        read_coco(images, tmp_path / "none.json")
    with pytest.raises(SamifError, match="cannot be read"):
        read_coco(images, tmp_path)
    annotations.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SamifError, match="is not JSON"):
        read_coco(images, annotations)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "size", "counts"]), inner),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk, st.data())
def test_no_value_anywhere_escapes_as_a_traceback(line: Any, value: Any, data: st.DataObject) -> None:
    raw = json.loads(json.dumps(line.raw))
    records = raw[data.draw(st.sampled_from(sorted(raw)))]
    record = data.draw(st.sampled_from(records))
    key = data.draw(st.sampled_from([*sorted(record), "iscrowd", "bbox", "area"]))
    record[key] = value
    line.annotations.write_text(json.dumps(raw))
    dataset, findings = read_coco(line.images, line.annotations)
    assert all(finding.what and finding.remedy and str(finding) for finding in findings)
    assert len(dataset.digest) == 64


@pytest.mark.parametrize(
    ("name", "images", "labels"),
    [("tote_dev", 74, 622), ("coco_dev", 302, 2657), ("microcontrollers", 149, 178), ("nuts", 18, 165)],
)
def test_real_sets_have_no_errors(name: str, images: int, labels: int) -> None:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not at hand")
    dataset, findings = read_coco(folder / "images", folder / "instances.json")
    assert [str(finding) for finding in findings if finding.level == "error"] == []
    assert len(dataset.images) == images
    annotations = [a for image in dataset.images for a in image.annotations]
    assert len(annotations) == labels
    declared = {a["id"]: a for a in json.loads((folder / "instances.json").read_text())["annotations"]}
    for a in annotations:
        assert a.area == coco_mask.area(a.rle) == np.count_nonzero(decode([a.rle])[0]) > 0
        if name != "coco_dev":  # COCO's own areas are not those of its polygons
            assert a.area == declared[a.id]["area"]
