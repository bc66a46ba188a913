"""results.json against a COCO file: pycocotools loads it with its ids, or a note says what does not fit."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from ruamel.yaml import YAML

from flows.inference.image_files import find_images
from flows.inference.predict import Predicted, predict
from flows.workspace.layout import Layout
from samif.config import Params
from samif.errors import SamifError
from samif.inference.detections import Detections
from samif.inference.model import Model
from samif.inference.segment import UNKNOWN
from samif.masks.rle import encode

NAMES = ("a.png", "b.png")
CLASSES = ("bolt", "Mutter M4 ü")


class OneOfEach:
    """In place of a model: finds a rectangle of each class in every image."""

    categories = (*CLASSES, UNKNOWN)

    def predict(self, pixels: NDArray[np.uint8], min_score: float | None) -> Detections:
        height, width = pixels.shape[:2]
        masks = np.zeros((3, height, width), dtype=bool)
        for number in range(3):
            masks[number, 2 : 8 + number, 10 * number : 10 * number + 7] = True
        scores, boxes = np.linspace(0.9, 0.5, 3), np.array([[0, 2, 7, 8], [10, 2, 17, 9], [20, 2, 27, 10]], np.float64)
        return Detections(height, width, encode(masks), boxes, scores, self.categories, self.categories)


@pytest.fixture
def model() -> Model:
    return cast(Model, OneOfEach())


def draw(path: Path, size: tuple[int, int] = (60, 40), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise(size, 80).convert("RGB")
    image.save(path, **options)
    return path


def coco_file(path: Path, images: dict[str, Any], classes: dict[str, Any], size: tuple[int, int] = (60, 40)) -> Path:
    """File names and class names with their ids."""
    content = {
        "images": [{"id": i, "file_name": n, "width": size[0], "height": size[1]} for n, i in images.items()],
        "categories": [{"id": i, "name": n} for n, i in classes.items()],
        "annotations": [],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def loaded(file: Path, results: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file)).loadRes(str(results))


def run(model: Model, tmp_path: Path, annotations: Path | None = None, **options: Any) -> Predicted:
    recursive = options.pop("recursive", False)
    images = find_images([tmp_path / "in"], recursive).images
    return predict(model, images, tmp_path / "out", 0.0, annotations=annotations, **options)


def check(done: Predicted, file: Path, out: Path, image_ids: dict[str, Any], class_ids: dict[str, Any]) -> None:
    """Every detection has the ids of its image and class in the file."""
    result = loaded(file, out / "results.json")
    expected = [
        (image_ids[p.image.name], class_ids.get(name))
        for p in done.predictions if p.image.name in image_ids for name in p.detections.class_names
    ]  # fmt: skip
    taken = set(class_ids.values())
    told = [
        (a["image_id"], a["category_id"] if a["category_id"] in taken else None) for a in result.dataset["annotations"]
    ]
    assert expected and told == expected
    with contextlib.redirect_stdout(io.StringIO()):
        whole = COCO(str(out / "instances.json"))
    assert len(whole.anns) == sum(len(p.detections) for p in done.predictions)
    assert all(whole.annToMask(a).sum() == a["area"] for a in whole.anns.values())


@pytest.mark.parametrize(
    ("image_ids", "class_ids"),
    [
        ((1, 2), (1, 2)),
        ((2, 1), (2, 1)),
        ((4711, -3), (0, 90)),
        (("img-7", "img-9"), ("c2", "c1")),
        (("0012", "12"), (7, 3)),
        ((1.0, 2.0), (5.0, 4.0)),
    ],
)
def test_ids_are_those_of_the_file(model: Model, tmp_path: Path, image_ids: Any, class_ids: Any) -> None:
    for name in NAMES:
        draw(tmp_path / "in" / name)
    images, classes = dict(zip(NAMES, image_ids, strict=True)), dict(zip(CLASSES, class_ids, strict=True))
    file = coco_file(tmp_path / "val.json", images, classes)
    done = run(model, tmp_path, file)
    assert done.ids.file == file and done.ids.notes == ()
    check(done, file, tmp_path / "out", images, classes)


@pytest.mark.parametrize(
    "written", ["images/{}", "..\\images\\{}", "C:\\data\\{}", "/home/somebody/{}", "./{}", "in/{}"]
)
def test_folders_in_front_of_a_name_do_not_matter(model: Model, tmp_path: Path, written: str) -> None:
    for name in NAMES:
        draw(tmp_path / "in" / name)
    classes = dict(zip(CLASSES, (8, 9), strict=True))
    file = coco_file(tmp_path / "val.json", {written.format(n): i for i, n in enumerate(NAMES, 50)}, classes)
    done = run(model, tmp_path, file)
    assert done.ids.notes == ()
    check(done, file, tmp_path / "out", {n: i for i, n in enumerate(NAMES, 50)}, classes)


def test_images_of_one_name_in_sub_folders(model: Model, tmp_path: Path) -> None:
    names = ("cam1/p.png", "cam2/p.png")
    for name in names:
        draw(tmp_path / "in" / name)
    ids = {"cam2/p.png": 1, "cam1/p.png": 2}
    file = coco_file(tmp_path / "val.json", ids, dict(zip(CLASSES, (1, 2), strict=True)))
    done = run(model, tmp_path, file, recursive=True)
    assert done.ids.images == (2, 1) and done.ids.notes == ()


def test_a_name_in_the_decomposed_form_of_macos(model: Model, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "Stu\u0308ck.png")
    classes = {"bolt": 4, "Mutter M4 u\u0308": 6}
    file = coco_file(tmp_path / "val.json", {"St\u00fcck.png": 31}, classes)
    done = run(model, tmp_path, file)
    assert done.ids.images == (31,) and done.ids.notes == () and done.ids.classes[CLASSES[1]] == 6


def test_images_and_classes_that_the_file_lacks_are_told(model: Model, tmp_path: Path) -> None:
    for name in (*NAMES, "new.png"):
        draw(tmp_path / "in" / name)
    file = coco_file(tmp_path / "val.json", {"a.png": 5, "b.png": 9}, {"bolt": 3})
    done = run(model, tmp_path, file)
    assert done.ids.images == (5, 9, 10) and done.ids.classes == {"bolt": 3, CLASSES[1]: 4, "unknown": 5}
    images, classes = done.ids.notes
    assert "1 of 3 images are not in" in images and "new.png" in images and "instances.json only" in images
    assert f"does not list 1 of the classes, which have new category ids: '{CLASSES[1]}' is 4" in classes
    check(done, file, tmp_path / "out", {"a.png": 5, "b.png": 9}, {"bolt": 3, CLASSES[1]: 4})


def test_an_image_of_another_size_in_the_file_is_told(model: Model, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "in" / "a.jpg", exif=exif)
    file = coco_file(tmp_path / "val.json", {"a.jpg": 5}, dict(zip(CLASSES, (1, 2), strict=True)))
    [note] = run(model, tmp_path, file).ids.notes
    assert "a.jpg: 60 x 40 there, 40 x 60 upright" in note and "do not fit" in note


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": []}', "no json", ""])
def test_a_file_that_is_not_coco_is_refused_before_anything_is_written(
    model: Model, tmp_path: Path, content: str
) -> None:
    draw(tmp_path / "in" / "a.png")
    (tmp_path / "val.json").write_text(content)
    with pytest.raises(SamifError, match=r"val\.json"):
        run(model, tmp_path, tmp_path / "val.json")
    with pytest.raises(SamifError, match=r"gone\.json does not exist"):
        run(model, tmp_path, tmp_path / "gone.json")
    assert not (tmp_path / "out").exists()


# Of a workspace


def workspace(root: Path, train: Path, val: Path | None, images: Path) -> tuple[Layout, Params]:
    template = YAML(typ="safe").load(Path("params.yaml").read_text(encoding="utf-8"))
    dataset = template["dataset"] | {
        "drawn": None,
        "train": {"images": str(images / "train"), "annotations": str(train)},
        "val": None if val is None else {"images": str(images / "val"), "annotations": str(val)},
        "base_classes": list(CLASSES),
    }
    params = Params.model_validate(template | {"dataset": dataset, "sessions": {}})
    return Layout(root), params


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_place_of_the_images_decides_between_the_files(model: Model, tmp_path: Path, split: str) -> None:
    for part in ("train", "val"):
        for name in NAMES:
            draw(tmp_path / "data" / part / name)
    (tmp_path / "in").symlink_to(tmp_path / "data" / split)
    files = {
        "train": coco_file(tmp_path / "train.json", {"a.png": 1, "b.png": 2}, {"bolt": 1, CLASSES[1]: 2}),
        "val": coco_file(tmp_path / "val.json", {"a.png": 20, "b.png": 10}, {"bolt": 7, CLASSES[1]: 5}),
    }
    done = run(model, tmp_path, workspace=workspace(tmp_path, files["train"], files["val"], tmp_path / "data"))
    assert done.ids.file == files[split] and done.ids.notes == ()
    ids = {"train": {"a.png": 1, "b.png": 2}, "val": {"a.png": 20, "b.png": 10}}[split]
    check(
        done, files[split], tmp_path / "out", ids, {"bolt": (1, 7)[split == "val"], CLASSES[1]: (2, 5)[split == "val"]}
    )


def test_a_copy_of_the_images_is_known_by_name_and_size(model: Model, tmp_path: Path) -> None:
    for name in NAMES:
        draw(tmp_path / "in" / name)
    (tmp_path / "data" / "train").mkdir(parents=True)
    file = coco_file(tmp_path / "train.json", {"a.png": 20, "b.png": 10}, {"bolt": 7, CLASSES[1]: 5})
    done = run(model, tmp_path, workspace=workspace(tmp_path, file, None, tmp_path / "data"))
    assert done.ids.file == file and done.ids.images == (20, 10)


@pytest.mark.parametrize("harm", ["another name", "another size"])
def test_images_of_no_file_count_from_1_and_it_is_said(model: Model, tmp_path: Path, harm: str) -> None:
    for name in NAMES:
        draw(tmp_path / "in" / name)
    images = {"a.png": 20, "b.png": 10} if harm == "another size" else {"a.png": 20}
    size = (61, 40) if harm == "another size" else (60, 40)
    file = coco_file(tmp_path / "train.json", images, {"bolt": 7, CLASSES[1]: 5}, size)
    done = run(model, tmp_path, workspace=workspace(tmp_path, file, None, tmp_path / "data"))
    assert done.ids.images == (1, 2) and done.ids.classes == {"bolt": 7, CLASSES[1]: 5, "unknown": 8}
    [note] = done.ids.notes
    assert note.startswith(f"image ids count from 1, category ids are those of {file}") and "--annotations" in note
    assert ("1 of 2 images" in note and "b.png" in note) == (harm == "another name")


def test_without_a_file_it_is_said(model: Model, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png")
    done = run(model, tmp_path)
    assert done.ids.images == (1,) and list(done.ids.classes.values()) == [1, 2, 3]
    assert done.ids.notes == ("image and category ids count from 1; --annotations FILE takes the ids of a COCO file",)
