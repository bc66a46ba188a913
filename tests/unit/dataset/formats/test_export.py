"""Labels written in every format are read again as the same masks and classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from samif.dataset.formats import FORMATS, export_labels, guess_format, import_labels
from samif.dataset.formats.label_studio import brush_mask, pack_brush
from samif.dataset.formats.polygons import MIN_IOU, outline
from samif.dataset.formats.writers import WRITERS
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.dataset.segmentation import to_rle
from samif.errors import DataError
from samif.io.hashing import file_sha256
from samif.masks.rle import decode, overlaps
from tests.support.handmade import annotation, pixels, rectangle, rle

HEIGHT, WIDTH = 90, 120
SHAPE = (HEIGHT, WIDTH)
SOURCE = {
    "via": "via.json", "label-studio": "label-studio.json", "coco": "instances.json", "cvat": "annotations.xml",
}  # fmt: skip
POLYGONS_ALONE = ("yolo", "via")


def disc(cy: float, cx: float, radius: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 <= radius**2)


def ring() -> NDArray[np.bool_]:
    return disc(60, 90, 20) & ~disc(60, 90, 11)


def blob(seed: int) -> NDArray[np.bool_]:
    """A random shape with a ragged border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 4)
    return np.asarray(noise > 0.02)


def thread() -> NDArray[np.bool_]:
    """A diagonal of single pixels, which touch by corners only, and a run of two."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[range(10, 20), range(40, 50)] = True
    mask[10, 39] = True
    return mask


MASKS = {
    "rectangle": rectangle(SHAPE, 5, 5, 20, 30),
    "at the border": rectangle(SHAPE, 0, 0, HEIGHT, 7),
    "whole image": np.ones(SHAPE, dtype=bool),
    "one pixel": pixels(SHAPE, 1, 500),
    "disc": disc(40, 40, 25),
    "two parts": rectangle(SHAPE, 5, 5, 10, 20) | disc(60, 90, 15),
    "ring": ring(),
    "island in a ring": ring() | disc(60, 90, 4),
    "thread": thread(),
    **{f"blob {seed}": blob(seed) for seed in range(4)},
}


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("name", MASKS)
def test_polygons_are_the_mask_with_its_holes_filled(name: str) -> None:
    found = outline(rle(MASKS[name]))
    expected = rle(filled(MASKS[name]))
    assert found.holes == bool((filled(MASKS[name]) != MASKS[name]).any())
    for polygons in (found.polygons, [found.joined]):
        drawn = to_rle(polygons, WIDTH, HEIGHT)
        assert overlaps([drawn], [expected])[0, 0] >= MIN_IOU


def test_polygons_have_few_points() -> None:
    assert len(outline(rle(MASKS["rectangle"])).polygons[0]) == 8
    y, x = np.mgrid[:500, :500]
    large = outline(rle((y - 250) ** 2 + (x - 250) ** 2 <= 150**2))
    assert len(large.polygons[0]) < 120


@pytest.mark.parametrize("name", MASKS)
def test_a_packed_brush_is_unpacked(name: str) -> None:
    mask = brush_mask(pack_brush(MASKS[name]), WIDTH, HEIGHT)
    assert mask is not None and np.array_equal(mask, MASKS[name])


def data_set(root: Path, images: dict[str, list[tuple[str, NDArray[np.bool_]]]], classes: tuple[str, ...]) -> Dataset:
    """Images of noise below `root` with these objects."""
    records = []
    for number, (name, objects) in enumerate(images.items(), start=1):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        annotations: list[Annotation] = [
            annotation(10 * number + place, category, mask) for place, (category, mask) in enumerate(objects)
        ]
        records.append(ImageRecord(number, name, WIDTH, HEIGHT, file_sha256(path), tuple(annotations)))
    categories = tuple(Category(number, name) for number, name in enumerate(classes, start=1))
    return Dataset(root, categories, tuple(records))


CLASSES = ("bolt", "nut, M8", "Mutter ü (gross)", "unknown")


@pytest.fixture
def labelled(tmp_path: Path) -> Dataset:
    """Objects that do not overlap, of every kind that tools treat apart; the last image shows none."""
    return data_set(
        tmp_path / "photos",
        {
            "a.png": [("bolt", MASKS["rectangle"]), ("nut, M8", MASKS["ring"]), ("bolt", disc(60, 90, 6))],
            "cam 2/b.png": [("nut, M8", MASKS["two parts"]), ("unknown", rectangle(SHAPE, 40, 10, 12, 3))],
            "cam 2/c.jpg": [("Mutter ü (gross)", MASKS["blob 1"])],
            "d.png": [("bolt", MASKS["one pixel"]), ("bolt", rectangle(SHAPE, 70, 70, 9, 9))],
            "nothing.png": [],
        },
        CLASSES,
    )


def test_every_format_is_written() -> None:
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("format_", FORMATS)
def test_round_trip(format_: str, labelled: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lost = export_labels(labelled, out, format_, images=True)
    source = out / SOURCE.get(format_, "")
    assert guess_format(source)[0] == format_
    done = import_labels(source, tmp_path / "again.json")
    assert [(f.file, f.what) for f in done.findings if f.loss] == []
    again = {image.sha256: image for image in done.dataset.images}
    for image in labelled.images:
        if not image.annotations and format_ == "masks":
            assert image.sha256 not in again
            continue
        read = again[image.sha256].annotations
        assert sorted(a.category for a in read) == sorted(a.category for a in image.annotations)
        for one in image.annotations:
            expected = one.rle
            if format_ in POLYGONS_ALONE:
                expected = rle(filled(decode([one.rle])[0]))
            same = [a.rle for a in read if a.category == one.category]
            assert overlaps(same, [expected]).max() >= 0.99, (image.file_name, one.category)
    holes = sum(outline(a.rle).holes for image in labelled.images for a in image.annotations)
    wanted = [f"{holes} objects have holes, which the format does not hold: they are filled"]
    if format_ == "masks":
        assert lost == ["1 images have no object, and the format does not list them"]
    else:
        assert lost == (wanted if format_ in POLYGONS_ALONE else [])


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("format_", FORMATS)
def test_labels_of_an_image_that_an_exif_tag_turns_stay_upright(format_: str, orientation: int, tmp_path: Path) -> None:
    stored = (WIDTH, HEIGHT) if orientation == 3 else (HEIGHT, WIDTH)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "photos" / "turned.jpg"
    path.parent.mkdir()
    Image.new("RGB", stored, (90, 120, 60)).save(path, exif=exif)
    mask = MASKS["blob 2"] & rectangle(SHAPE, 0, 0, 50, 80)
    record = ImageRecord(1, "turned.jpg", WIDTH, HEIGHT, file_sha256(path), (annotation(1, "bolt", mask),))
    export_labels(Dataset(path.parent, (Category(1, "bolt"),), (record,)), tmp_path / "out", format_, images=True)
    done = import_labels(tmp_path / "out" / SOURCE.get(format_, ""), tmp_path / "again.json")
    (image,) = done.dataset.images
    (read,) = image.annotations
    expected = filled(mask) if format_ in POLYGONS_ALONE else mask
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert overlaps([read.rle], [rle(expected)])[0, 0] >= 0.99


@pytest.mark.parametrize("format_", sorted(set(FORMATS) - {"coco"}))
def test_labels_without_images_are_read_with_the_folder_of_the_images(
    format_: str, labelled: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_labels(labelled, out, format_)
    assert not list(out.rglob("*.jpg"))
    done = import_labels(out / SOURCE.get(format_, ""), tmp_path / "again.json", images=labelled.root)
    assert sum(len(image.annotations) for image in done.dataset.images) == 8


def test_voc_gives_a_pixel_to_the_smaller_object_and_says_so(tmp_path: Path) -> None:
    large, small = rectangle(SHAPE, 0, 0, 60, 60), rectangle(SHAPE, 50, 50, 20, 20)
    dataset = data_set(tmp_path / "photos", {"a.png": [("bolt", small), ("nut", large)]}, ("bolt", "nut"))
    (sentence,) = export_labels(dataset, tmp_path / "out", "voc", images=True)
    assert sentence.startswith("1 objects lose the pixels that a smaller object covers")
    done = import_labels(tmp_path / "out", tmp_path / "again.json")
    areas = {a.category: a.area for a in done.dataset.images[0].annotations}
    assert areas == {"bolt": 400.0, "nut": 3500.0}


@pytest.mark.parametrize("format_", sorted(set(FORMATS) - {"coco"}))
def test_crowds_are_left_out_and_said(format_: str, tmp_path: Path) -> None:
    dataset = data_set(tmp_path / "photos", {"a.png": [("bolt", MASKS["disc"])]}, ("bolt",))
    (image,) = dataset.images
    crowd = annotation(99, "bolt", MASKS["at the border"], crowd=True)
    record = ImageRecord(1, image.file_name, WIDTH, HEIGHT, image.sha256, (*image.annotations, crowd))
    lost = export_labels(Dataset(dataset.root, dataset.categories, (record,)), tmp_path / "out", format_)
    assert lost == ["1 labels are regions of many objects, which the format does not hold: they are left out"]


@pytest.mark.parametrize(
    ("format_", "files", "classes", "words"),
    [
        ("masks", ["a.png"], ("a/b",), "class 'a/b' cannot be the name of a mask file"),
        ("masks", ["a.png"], ("mask",), "class 'mask' cannot be"),
        ("voc", ["x/a.png", "y/a.png"], ("bolt",), "x/a.png and y/a.png would share one label file"),
        ("yolo", ["a.png", "a.jpg"], ("bolt",), "a.png and a.jpg would share one label file"),
        ("labelme", ["a.png", "a.bmp"], ("bolt",), "would share one label file"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_written(
    format_: str, files: list[str], classes: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    images = {name: [(classes[0], MASKS["disc"])] for name in files}
    dataset = data_set(tmp_path / "photos", images, classes)
    with pytest.raises(DataError, match=words):
        export_labels(dataset, tmp_path / "out", format_)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_a_folder_with_files_is_kept_without_force(labelled: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "labels").mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        export_labels(labelled, out, "yolo")
    assert sorted(path.name for path in out.iterdir()) == ["labels", "mine.txt"]
    export_labels(labelled, out, "yolo", force=True)
    assert (out / "mine.txt").read_text() == "mine" and (out / "labels" / "a.txt").is_file()
    with pytest.raises(DataError, match="is a file"):
        export_labels(labelled, out / "mine.txt", "yolo", force=True)
