"""Labels of images that an EXIF tag turns or mirrors: drawn on the upright image or on the stored pixels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from samif.config import ReadRules
from samif.dataset.check import raise_on_errors
from samif.dataset.coco import read_coco
from samif.dataset.images import inspect_image, read_image
from samif.dataset.orientation import TURNS, turn_mask
from samif.errors import DataError
from samif.masks.rle import decode, encode

ALL = range(1, 9)
RED = (230, 20, 20)
WIDE, SQUARE = (64, 40), (48, 48)


def stored_mask(size: tuple[int, int], far: bool = True) -> np.ndarray:
    mask = np.zeros((size[1], size[0]), bool)
    mask[6:18, slice(3, size[0] - 10) if far else slice(8, 18)] = True
    return mask


def polygons(mask: np.ndarray) -> list[list[int]]:
    ys, xs = np.nonzero(mask)
    x0, y0, x1, y1 = map(int, (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@dataclass
class Turned:
    """Images with a red object that a tag turns; the labels are outlines of the object in one of the two frames."""

    root: Path
    labels: Literal["upright", "stored"]
    declared: Literal["upright", "stored", "none"]
    far: bool = True
    """Whether the object is longer than the shorter side of the image, so that it fits only one of both frames."""

    def write(
        self, orientations: Sequence[int], size: tuple[int, int] = WIDE, *, rle: bool = False
    ) -> tuple[Path, Path]:
        folder = self.root / "images"
        folder.mkdir()
        raw: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bolt"}]}
        for id_, orientation in enumerate(orientations, start=1):
            stored = stored_mask(size, self.far)
            exif = Image.Exif()
            exif[0x0112] = orientation
            pixels = np.where(stored[..., None], np.array(RED, np.uint8), np.uint8(id_))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{id_}.png", exif=exif)
            mask = stored if self.labels == "stored" else turn_mask(stored, orientation)
            frame = stored if self.declared == "stored" else turn_mask(stored, orientation)
            record = {"id": id_, "file_name": f"{id_}.png", "width": frame.shape[1], "height": frame.shape[0]}
            if self.declared == "none":
                del record["width"], record["height"]
            raw["images"].append(record)
            outline: Any = encode(mask[None])[0] if rle else polygons(mask)
            raw["annotations"].append({"id": id_, "image_id": id_, "category_id": 1, "segmentation": outline})
        file = self.root / "labels.json"
        file.write_text(json.dumps(raw))
        return folder, file


def rightly_placed(source: tuple[Path, Path], rules: ReadRules | None = None) -> list[bool]:
    """Per image, whether the mask is where the object is in the upright image."""
    dataset, findings = read_coco(*source, rules)
    raise_on_errors(findings)
    placed = []
    for image in dataset.images:
        pixels = read_image(dataset.path_of(image))
        (label,) = image.annotations
        mask = decode([label.rle])[0]
        x, y, width, height = map(int, label.bbox)
        assert pixels.shape[:2] == (image.height, image.width) == mask.shape
        assert mask[y : y + height, x : x + width].all() and label.area == mask.sum()
        placed.append(bool((mask == (pixels[..., 0] > 128)).all()))
    return placed


def warning(source: tuple[Path, Path], rules: ReadRules | None = None) -> str:
    (found,) = [f for f in read_coco(*source, rules)[1] if "EXIF" in f.what]
    assert found.level == "warning"
    return f"{found.what}; {found.remedy}"


@pytest.mark.parametrize("orientation", TURNS)
def test_masks_are_turned_as_images_are(tmp_path: Path, orientation: int) -> None:
    stored = np.random.default_rng(orientation).integers(0, 2, (5, 9)).astype(bool)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(stored.astype(np.uint8) * 255).save(path, exif=exif)
        upright = read_image(path)[..., 0] > 0
        np.testing.assert_array_equal(turn_mask(stored, orientation), upright)
        facts = inspect_image(path)
        assert (facts.orientation, facts.stored_size) == (orientation, (9, 5))
        assert facts.size == upright.shape[::-1]


@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize("labels", ["upright", "stored"])
@pytest.mark.parametrize("declared", ["upright", "stored", "none"])
@pytest.mark.parametrize("size", [WIDE, SQUARE])
def test_the_parameter_decides(tmp_path: Path, labels: Any, declared: Any, size: tuple[int, int], rle: bool) -> None:
    source = Turned(tmp_path, labels, declared).write(ALL, size, rle=rle)
    assert all(rightly_placed(source, ReadRules(labels_on=labels)))
    told = warning(source, ReadRules(labels_on=labels))
    assert "turns or mirrors 7 images, such as 2.png" in told and "as dataset.labels_on says" in told


@pytest.mark.parametrize("rle", [False, True])
@pytest.mark.parametrize(
    ("labels", "declared"),
    [("upright", "upright"), ("stored", "stored"), ("upright", "stored"), ("upright", "none"), ("stored", "none")],
)
@pytest.mark.parametrize("orientations", [(5, 6), (7, 8, 1), (6, 3), (2, 4, 8), tuple(ALL)])
def test_quarter_turns_tell(
    tmp_path: Path, labels: Any, declared: Any, orientations: tuple[int, ...], rle: bool
) -> None:
    """Also for half turns and mirrored images of the same file."""
    source = Turned(tmp_path, labels, declared).write(orientations, rle=rle)
    assert all(rightly_placed(source))
    other = {"upright": "stored", "stored": "upright"}[labels]
    assert f"of them tell; set dataset.labels_on to {other} in params.yaml" in warning(source)


@pytest.mark.parametrize(("orientations", "size"), [((2,), WIDE), ((3, 3), WIDE), ((4, 1), WIDE), (tuple(ALL), SQUARE)])
def test_what_sizes_do_not_tell_is_said(tmp_path: Path, orientations: tuple[int, ...], size: tuple[int, int]) -> None:
    source = Turned(tmp_path, "stored", "stored").write(orientations, size)
    told = warning(source)
    assert "do not tell" in told and "set dataset.labels_on to stored in params.yaml if" in told
    assert [o for o, right in zip(orientations, rightly_placed(source), strict=True) if right] in ([], [1])
    assert all(rightly_placed(source, ReadRules(labels_on="stored")))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_stored_size_alone_is_asked_about(tmp_path: Path, orientation: int) -> None:
    """The object fits both frames: the labels may be those of a tool that shows images upright, too."""
    source = Turned(tmp_path, "stored", "stored", far=False).write([orientation, 3])
    assert not [f for f in read_coco(*source)[1] if "are taken" in f.what]
    with pytest.raises(DataError, match="is 40 x 64 once its EXIF .*set dataset.labels_on .* to stored or upright"):
        rightly_placed(source)
    assert all(rightly_placed(source, ReadRules(labels_on="stored")))
    assert len(rightly_placed(source, ReadRules(labels_on="upright"))) == 2


def test_images_without_labels_are_not_asked_about(tmp_path: Path) -> None:
    folder, file = Turned(tmp_path, "stored", "stored").write([6, 1])
    raw = json.loads(file.read_text())
    del raw["annotations"][0]
    file.write_text(json.dumps(raw))
    dataset, findings = read_coco(folder, file)
    assert not [f for f in findings if f.level == "error"]
    assert [(image.width, image.height) for image in dataset.images] == [(40, 64), (64, 40)]


def test_two_tools_in_one_file(tmp_path: Path) -> None:
    folder, file = Turned(tmp_path, "stored", "stored").write([6, 8, 3])
    raw = json.loads(file.read_text())
    raw["images"][1].update(width=40, height=64)
    raw["annotations"][1]["segmentation"] = polygons(turn_mask(stored_mask(WIDE), 8))
    file.write_text(json.dumps(raw))
    assert rightly_placed((folder, file)) == [True, True, False]
    assert "tell for 1 that the labels were drawn on the upright images and for 1 on" in warning((folder, file))


@pytest.mark.parametrize("labels", ["upright", "stored"])
def test_counting_without_opening_sees_turned_images(tmp_path: Path, labels: Any) -> None:
    source = Turned(tmp_path, labels, "stored").write([6, 1, 8])
    dataset, findings = read_coco(*source, open_images=False)
    assert [len(image.annotations) for image in dataset.images] == [1, 1, 1]
    assert not [f for f in findings if f.loss]


def test_images_without_a_tag_are_not_spoken_of(tmp_path: Path) -> None:
    source = Turned(tmp_path, "upright", "upright").write([1, 1])
    for rule in ("auto", "upright", "stored"):
        assert read_coco(*source, ReadRules(labels_on=rule))[1] == []
