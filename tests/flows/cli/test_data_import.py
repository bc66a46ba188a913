"""`samif data import` and `samif data export` as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.console import refusal, samif
from tests.support.label_formats import draw_images, dump, labelme, write_coco, write_labelme, write_yolo


def test_report_of_an_import(tmp_path: Path) -> None:
    source = write_labelme(tmp_path / "photos [new]")
    box = {"label": "bolt", "points": [[1, 1], [20, 20]], "shape_type": "rectangle"}
    draw_images(source, ("d4.png",))
    dump(source / "d4.json", labelme("d4.png", [box, box]))
    dump(source / "e5.json", labelme("gone.png", [box]))
    done = samif(tmp_path, "data", "import", source.name, "--out", "line/labels.json")
    assert done.code == 0, done.err
    assert "format: labelme (recognised by 'shapes' and 'imagePath' in a1.json; --format names another)" in done.out
    for words in ("nut, M8", "box without an outline", "has no image file", "3 images or labels", "photos [new]"):
        assert words in done.out
    assert len(json.loads((tmp_path / "line" / "labels.json").read_text())["annotations"]) == 6
    again = samif(tmp_path, "data", "import", source.name, "--out", "line/labels.json", "--json", "--force").json
    assert (again["format"], again["image_count"], again["images"]) == ("labelme", 4, "photos [new]")
    assert again["classes"]["bolt"] == {"instances": 3, "images": 2}
    assert sorted(f["loss"] for f in again["findings"] if f["loss"]) == ["image", "label", "label"]


def test_imported_file_passes_data_check_and_is_exported_again(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo")
    found = samif(tmp_path, "data", "import", "yolo", "--out", "labels.json", "--format", "yolo", "--json").json
    assert found["recognised_by"] is None
    check = ("data", "check", "--images", found["images"], "--annotations")
    (first,) = samif(tmp_path, *check, "labels.json", "--json").json
    done = samif(
        tmp_path, "data", "export", "--images", found["images"], "--annotations", "labels.json", "--out", "e.json"
    )
    assert done.code == 0, done.err
    (second,) = samif(tmp_path, *check, "e.json", "--json").json
    assert first["digest"] == second["digest"] == found["digest"]
    masks = [a["segmentation"] for a in json.loads((tmp_path / "e.json").read_text())["annotations"]]
    assert all(isinstance(mask, dict) for mask in masks)


def test_refusals_are_one_sentence(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    (tmp_path / "taken.json").write_text("mine")
    refusal(samif(tmp_path, "data", "import", "coco", "--out", "taken.json"), "replace it with --force")
    assert (tmp_path / "taken.json").read_text() == "mine"
    refusal(samif(tmp_path, "data", "export", "--out", "o.json"), "run 'samif run'")
    assert samif(tmp_path, "data", "import", "coco", "--out", "o.json", "--format", "yolov5").code == 2


def test_export_in_another_format_with_images_is_imported_again(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    given = ("data", "export", "--images", "coco/images", "--annotations", "coco/instances.json")
    for format_, source in (("yolo", "out-yolo"), ("cvat", "out-cvat/annotations.xml")):
        done = samif(tmp_path, *given, "--format", format_, "--with-images", "--out", f"out-{format_}")
        assert done.code == 0, done.err
        again = samif(tmp_path, "data", "import", source, "--out", f"{format_}.json", "--json").json
        assert (again["format"], again["image_count"]) == (format_, 3)
        assert again["classes"]["bolt"] == {"instances": 3, "images": 2}
    refusal(samif(tmp_path, *given, "--format", "yolo", "--out", "out-yolo"), "not empty", "--force")
