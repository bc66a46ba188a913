"""What is refused, in one sentence and with nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samif.dataset.formats import FORMATS, import_labels
from samif.errors import SamifError
from tests.support.label_formats import draw_images, dump, labelme, write_coco

POINT = {"label": "x", "points": [[1, 1]], "shape_type": "point"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_coco(tmp_path / "coco")
    (tmp_path / "text").write_text("bolt 1 2 3")
    (tmp_path / "nothing.json").write_text("")
    (tmp_path / "half.json").write_text('{"images": [')
    (tmp_path / "other.json").write_text('{"some": "settings"}')
    (tmp_path / "table.csv").write_text("filename,region\n")
    (tmp_path / "packed.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "boxes.xml").write_text("<annotation><object/></annotation>")
    dump(tmp_path / "min.json", [{"image": "a1.png", "label": []}])
    dump(tmp_path / "via3.json", {"project": {}, "file": {}, "metadata": {}})
    (tmp_path / "empty").mkdir()
    draw_images(tmp_path / "points", ("a1.png",))
    dump(tmp_path / "points" / "a1.json", labelme("a1.png", [POINT, POINT]))
    dump(tmp_path / "gone" / "a1.json", labelme("a1.png", [POINT]))
    (tmp_path / "taken.json").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "out", "options", "words"),
    [
        ("nowhere", "o.json", {}, "does not exist"),
        ("text", "o.json", {}, "is not JSON"),
        ("nothing.json", "o.json", {}, "is empty"),
        ("half.json", "o.json", {}, "is not JSON"),
        ("other.json", "o.json", {}, r"no format that samif imports \(coco, yolo"),
        ("table.csv", "o.json", {}, "CSV file; export the annotations as JSON"),
        ("packed.zip", "o.json", {}, "zip archive; unpack it"),
        ("boxes.xml", "o.json", {}, "Pascal VOC file of boxes"),
        ("min.json", "o.json", {}, "JSON-MIN; export the project as JSON"),
        ("via3.json", "o.json", {}, "Annotator 3; export it as COCO"),
        ("empty", "o.json", {}, "no format that samif imports"),
        ("points", "o.json", {}, "no outline that can be imported; 2 times: has a label of the kind 'point'"),
        ("gone", "o.json", {}, "no labelled image that can be imported; 1 times: has no image file"),
        ("coco", "taken.json", {}, "exists; name another file, or replace it with --force"),
        ("coco", "empty", {}, "is a folder; name the COCO file"),
        ("coco", "text/o.json", {}, "cannot be written"),
        ("coco", "o.json", {"images": "text"}, "is not a folder"),
        ("coco", "o.json", {"images": "empty"}, "no labelled image that can be imported; 3 times: has no image file"),
        ("gone", "taken.json", {"force": True}, "no labelled image"),
        *(("empty", "o.json", {"format_": name}, "empty") for name in FORMATS),
    ],
)
def test_refused(place: Path, source: str, out: str, options: dict[str, Any], words: str) -> None:
    before = sorted(place.rglob("*"))
    given = options | ({"images": place / options["images"]} if "images" in options else {})
    with pytest.raises(SamifError, match=words):
        import_labels(place / source, place / out, **given)
    assert sorted(place.rglob("*")) == before
    assert (place / "taken.json").read_text() == "mine"
