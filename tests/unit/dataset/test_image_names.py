"""Names as labelling tools, servers and other systems write them lead to the file of the folder, or say where it is."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from samif.dataset.coco import read_coco
from samif.dataset.image_names import BY_END, CASE, DEEPER, UPLOAD, ImageFolder


def folder(tmp_path: Path, *files: str) -> Path:
    root = tmp_path / "line 4" / "images"
    root.mkdir(parents=True)
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.encode())
    return root


QUIET = [
    ("a.png", "a.png"),
    ("./day 1//b.png", "day 1/b.png"),
    ("day 1\\b.png", "day 1/b.png"),
    (".\\day 1\\b.png", "day 1/b.png"),
    ("../images/a.png", "a.png"),
    ("..\\images\\day 1\\b.png", "day 1/b.png"),
    ("day 1/../a.png", "a.png"),
    ("{root}/a.png", "a.png"),
    ("{root}/day 1/../a.png", "a.png"),
    ("file://{root}/a.png", "a.png"),
    ("  a.png ", "a.png"),
    ("50% off.png", "50% off.png"),
    ("%41.png", "%41.png"),  # a file of that very name comes before what the name stands for
    ("day%201/b.png", "day 1/b.png"),
    ("c%23%C3%A4.png", "c#ä.png"),
    (unicodedata.normalize("NFD", "c#ä.png"), "c#ä.png"),
]


@pytest.mark.parametrize(("name", "path"), QUIET)
def test_other_spellings_of_a_path_inside(tmp_path: Path, name: str, path: str) -> None:
    root = folder(tmp_path, "a.png", "day 1/b.png", "50% off.png", "%41.png", "A.gif", "c#ä.png")
    found = ImageFolder(root).find(name.format(root=root))
    assert (found.path, found.how, found.what) == (path, "", "")


INFERRED = [
    ("images\\a.png", "a.png", BY_END),
    ("images/day 1/b.png", "day 1/b.png", BY_END),
    ("C:\\Users\\Anna\\line 4\\images\\day 1\\b.png", "day 1/b.png", BY_END),
    ("C:/data/b.png", "", ""),
    ("\\\\nas\\share\\images\\a.png", "a.png", BY_END),
    ("/data/upload/1/a.png", "a.png", BY_END),
    ("/data/upload/1/0f3a9c1e-a.png", "a.png", UPLOAD),
    ("/data/local-files/?d=images/day%201/b.png", "day 1/b.png", BY_END),
    ("/data/local-files/?d=images\\a.png", "a.png", BY_END),
    ("https://s3.example.com/bucket/day%201/b.png?X-Amz-Date=1&d2=x", "day 1/b.png", BY_END),
    ("s3://bucket/images/a.png", "a.png", BY_END),
    ("file:///C:/images/a.png", "a.png", BY_END),
    ("A.PNG", "a.png", CASE),
    ("Day 1/B.png", "day 1/b.png", CASE),
    ("a.Png", "a.png", CASE),
    ("/mnt/Images/A.PNG", "a.png", BY_END),
    ("b.png", "day 1/b.png", DEEPER),
    ("..\\..\\label-studio\\media\\upload\\4\\a.png", "a.png", BY_END),
]


@pytest.mark.parametrize(("name", "path", "how"), [case for case in INFERRED if case[1]])
def test_a_file_is_found_by_the_end_of_its_path(tmp_path: Path, name: str, path: str, how: str) -> None:
    found = ImageFolder(folder(tmp_path, "a.png", "day 1/b.png", "day 2/c.png", ".thumbs/a.png")).find(name)
    assert (found.path, found.how) == (path, how)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("x/001.png", "does not exist; a file of that name lies at day 1/001.png, day 2/001.png"),
        ("001.png", "fits 2 files: day 1/001.png, day 2/001.png"),
        ("C:\\cam\\001.png", "does not exist; a file of that name lies at day 1/001.png, day 2/001.png"),
        ("/data/day 3/002.png", "does not exist; a file of that name lies at day 2/002.png"),
        ("a.jpg", "does not exist; a.png has that name with another extension"),
        ("/data/upload/1/zz.png", "does not exist"),
        ("../zz.png", "does not exist"),
        ("/zz.png", "does not exist"),
        ("C:\\zz.png", "does not exist"),
        ("http://[bad/zz.png", "does not exist"),
        (".", "is the image folder itself"),
        ("..\\images", "is the image folder itself"),
        ("..", "does not exist"),
        ("P.png", "fits 2 files: p.PNG, p.pnG"),
        ("n" * 300 + ".png", "does not exist"),
    ],
)
def test_what_is_not_found_says_where_it_may_be(tmp_path: Path, name: str, what: str) -> None:
    root = folder(tmp_path, "a.png", "day 1/001.png", "day 2/001.png", "day 2/002.png", "p.PNG", "p.pnG")
    found = ImageFolder(root).find(name)
    assert (found.path, found.what) == ("", what)
    assert found.remedy


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (["cam 1/p.png", "cam 2/p.png"], ["", ""]),
        (["C:\\cam 1\\p.png", "C:\\cam 2\\p.png"], ["", ""]),
        (["p.png", "old/p.png"], ["p.png", ""]),
        (["P.png", "p.png"], ["", "p.png"]),
        (["a\\p.png", "a/p.png"], ["p.png", "p.png"]),  # one name in two spellings
        (["p.png", "./p.png"], ["p.png", "p.png"]),
    ],
)
def test_a_file_is_not_given_to_two_names(tmp_path: Path, names: list[str], paths: list[str]) -> None:
    found = ImageFolder(folder(tmp_path, "p.png")).find_all(names)
    assert [found[name].path for name in names] == paths
    assert all(found[name].what.startswith("leads to no file; the only one") for name in names if not found[name].path)


def test_names_decomposed_on_the_disk(tmp_path: Path) -> None:
    on_disk = unicodedata.normalize("NFD", "Prüfstück é.png")
    root = folder(tmp_path, on_disk)
    for name in ("Prüfstück é.png", "images\\Prüfstück é.png", "prüfstück É.PNG"):
        assert ImageFolder(root).find(name).path == on_disk


def test_links_lead_anywhere(tmp_path: Path) -> None:
    root = folder(tmp_path, "a.png")
    cache = tmp_path / ".dvc" / "cache" / "files" / "md5" / "ce"
    cache.mkdir(parents=True)
    (cache / "30e40e").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.png").write_bytes(b"x")
    (root / "b.png").symlink_to(cache / "30e40e")
    (root / "day").symlink_to(tmp_path / "other")
    (root / "back").symlink_to(root)
    images = ImageFolder(root)
    names = ("b.png", "day/c.png", "images\\b.png", "C:\\x\\day\\c.png", "c.png")
    assert [images.find(name).path for name in names] == ["b.png", "day/c.png", "b.png", "day/c.png", "day/c.png"]
    link = tmp_path / "link"
    link.symlink_to(root)
    for place in (link, Path(os.path.relpath(root))):
        for name in (f"{root}/a.png", f"{link}/a.png" if place == link else "a.png", "../images/a.png"):
            assert ImageFolder(place).find(name).path == "a.png", (place, name)


NAMES = ["images\\{}", "C:\\Users\\x\\{}", "/data/upload/1/{}", "../images/{}", "https://host/{}", "{}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_coco_file_of_such_names_is_the_same_data_set(line: Any, name: str) -> None:
    before, _ = read_coco(*line.write())
    for record in line.raw["images"]:
        record["file_name"] = name.format(record["file_name"])
    dataset, findings = read_coco(*line.write())
    assert dataset == before
    assert [f.level for f in findings] == ["warning"] * (name not in ("{}", "../images/{}"))
    assert all(f.count == 2 and "such as 'a.png for" in f.what for f in findings)


def test_capital_letters_and_missing_files_in_a_coco_file(line: Any) -> None:
    line.raw["images"][0]["file_name"] = "A.PNG"
    line.raw["images"][1]["file_name"] = "b.jpg"
    dataset, findings = read_coco(*line.write())
    assert [image.file_name for image in dataset.images] == ["a.png", "b.jpg"]
    assert [(f.level, f.loss, f.file) for f in findings] == [
        ("error", "image", "b.jpg"),
        ("warning", "", "labels.json"),
    ]
    assert "does not exist; b.png has that name with another extension" in findings[0].what


def test_labels_may_name_images_as_the_images_are_named(line: Any) -> None:
    for record, name in zip(line.raw["images"], ("images\\a.png", "images\\b.png"), strict=True):
        record.update(id=name, file_name=name)
    for record in line.raw["annotations"]:
        record["image_id"] = f"images\\{'ab'[record['image_id'] - 1]}.png"
    assert [len(image.annotations) for image in read_coco(*line.write())[0].images] == [2, 2]
