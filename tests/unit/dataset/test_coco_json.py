"""The bytes of a COCO file: encodings, gzip, and files of other formats, each named in one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from samif.dataset.coco import read_coco
from samif.errors import DataError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_unicode_encoding_is_read(line: Any, encoding: str, packed: bool) -> None:
    line.raw["categories"][0]["name"] = "Schraube groß ネジ"
    text = json.dumps(line.raw, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    data = text.encode(encoding)
    line.annotations.write_bytes(gzip.compress(data) if packed else data)
    dataset, findings = read_coco(line.images, line.annotations)
    assert findings == []
    assert dataset.category_names == ("Schraube groß ネジ", "nut")


PANOPTIC = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [],
    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}],
}
LVIS = {"images": [{"id": 1, "coco_url": "http://x.example/val2017/1.jpg"}], "categories": [], "annotations": []}
CAPTIONS = {"images": [{"file_name": "a"}], "categories": [], "annotations": [{"image_id": 1, "caption": "a bolt"}]}
VIA = {"a.png99": {"filename": "a.png", "size": 99, "regions": []}}
LABELME = {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageData": None}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PANOPTIC, "is a COCO panoptic file, .*; convert it"),
        (LVIS, "is an LVIS file, .*; write the last two parts"),
        (CAPTIONS, "is a COCO captions file"),
        (VIA, "is a VGG Image Annotator file, not a COCO instance file; convert it with 'samif data import'"),
        ({"_via_settings": {}, "_via_img_metadata": VIA}, "is a VGG Image Annotator file"),
        (LABELME, "is a labelme file, .* 'samif data import'"),
        ({"info": {}, "categories": {}, "items": []}, "is a Datumaro file"),
        ({"description": "", "size": {}, "objects": []}, "is a Supervisely annotation"),
        ({"samples": []}, "is a FiftyOne dataset"),
        ({"type": "FeatureCollection", "features": []}, "is a GeoJSON file"),
        ([{"id": 1, "data": {}, "annotations": []}], "is an export of Label Studio, .* 'samif data import'"),
        ([{"image": "a.png", "annotations": []}], "is a CreateML file"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5}], "holds COCO results"),
        ([{"image_id": 1, "category_id": 1}], "holds only the list of annotations"),
    ],
)
def test_other_formats_are_named(line: Any, content: Any, said: str) -> None:
    line.annotations.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"labels\.json {said}"):
        read_coco(line.images, line.annotations)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        ("größe".encode("latin-1"), "not in Unicode: byte 0xf6 at position 2"),
        ("螺丝".encode("gbk"), "not in Unicode: byte"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"<?xml version='1.0'?><annotations/>", "it is XML, as CVAT and Pascal VOC"),
        (b'{"a": 1}\n{"b": 2}\n', "a sequence of JSON documents, one a line"),
        (b'{"a": ', "Expecting value"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason(line: Any, data: bytes, said: str) -> None:
    line.annotations.write_bytes(data)
    with pytest.raises(DataError, match=rf"labels\.json is not JSON \(.*{said}"):
        read_coco(line.images, line.annotations)


@pytest.mark.parametrize("cut", [3, 12, -4])
def test_an_incomplete_gzip_file(line: Any, cut: int, tmp_path: Path) -> None:
    line.annotations.write_bytes(gzip.compress(json.dumps(line.raw).encode())[:cut])
    with pytest.raises(DataError, match="damaged or incomplete gzip file; copy"):
        read_coco(line.images, line.annotations)
