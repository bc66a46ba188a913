"""Prediction with a model from a folder: a random decoder behind the shipped encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.inference.image_files import find_images
from flows.inference.predict import predict
from flows.registry.model_files import find_model
from samif.config import EvaluateParams
from samif.errors import SamifError
from samif.inference.detections import Detections
from samif.inference.model import Model
from samif.inference.segment import UNKNOWN
from samif.masks.rle import areas, boxes
from tests.support.random_model import CLASSES


def draw(path: Path, width: int = 60, height: int = 40, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# The model


def test_a_folder_is_a_model(folder: Path, model: Model) -> None:
    files = find_model(str(folder), None, None)
    assert files.card is None and files.decoder == folder / "decoder.safetensors"
    assert model.class_names == CLASSES and model.default_score == EvaluateParams().operating_score


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamifError, match="there is no classifier.safetensors in"):
        find_model(str(tmp_path), None, None)


# Results


def test_results_are_coco(model: Model, tmp_path: Path) -> None:
    images = [draw(tmp_path / "in" / "wide.png", 60, 40), draw(tmp_path / "in" / "tall.jpg", 33, 57, seed=1)]
    told: list[int] = []
    done = predict(model, find_images(images).images, tmp_path / "new" / "out", 0.0, told.append)
    results = json.loads((tmp_path / "new" / "out" / "results.json").read_text(encoding="utf-8"))
    content = json.loads((tmp_path / "new" / "out" / "instances.json").read_text(encoding="utf-8"))
    assert list(content) == ["schema", "images", "categories", "annotations"] and content["schema"] == 1
    assert content["images"] == [
        {"id": 1, "file_name": "wide.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "tall.jpg", "width": 33, "height": 57},
    ]
    assert [c["name"] for c in content["categories"]] == [*CLASSES, UNKNOWN]
    assert [c["id"] for c in content["categories"]] == [1, 2, 3]
    sizes = {1: [40, 60], 2: [57, 33]}
    for number, (a, result) in enumerate(zip(content["annotations"], results, strict=True), start=1):
        assert list(result) == ["image_id", "category_id", "segmentation", "bbox", "score"]
        assert a == {"id": number, **result, "area": areas([a["segmentation"]])[0], "iscrowd": 0}
        assert 1 <= a["category_id"] <= 3 and 0.0 <= a["score"] <= 1.0
        assert a["segmentation"]["size"] == sizes[a["image_id"]] and a["area"] > 0
        assert a["bbox"] == boxes([a["segmentation"]])[0].tolist()
    assert {a["image_id"] for a in results} == {1, 2}
    assert sum(told) == 2 and [p.image.path for p in done.predictions] == images
    for number, prediction in enumerate(done.predictions, start=1):
        names = [content["categories"][a["category_id"] - 1]["name"] for a in results if a["image_id"] == number]
        assert tuple(names) == prediction.detections.class_names
    for name, size in (("wide.overlay.jpg", (60, 40)), ("tall.overlay.jpg", (33, 57))):
        with Image.open(tmp_path / "new" / "out" / name) as overlay:
            assert overlay.size == size
    assert len(list((tmp_path / "new" / "out").iterdir())) == 4


def known(detections: Detections) -> np.ndarray:
    return np.array([name != UNKNOWN for name in detections.class_names], dtype=bool)


def test_the_minimum_score_is_kept_to(model: Model, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    [every] = predict(model, find_images([image]).images, tmp_path / "every", 0.0).predictions
    best = every.detections.scores[known(every.detections)].max()
    for least, count in ((best, 1), (np.nextafter(best, 1.0), 0)):
        [some] = predict(model, find_images([image]).images, tmp_path / "some", float(least)).predictions
        assert known(some.detections).sum() == count
        written = json.loads((tmp_path / "some" / "results.json").read_text(encoding="utf-8"))
        assert len([a for a in written if a["category_id"] < 3]) == count


def test_empty_results_are_told(model: Model, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "plain.png")
    for image, told in ((tmp_path / "plain.png", True), (draw(tmp_path / "a.png"), False)):
        done = predict(model, find_images([image]).images, tmp_path / image.stem, 0.0)
        assert (json.loads((tmp_path / image.stem / "results.json").read_text(encoding="utf-8")) == []) == told
        assert any("empty list" in note for note in done.notes) == told


def test_images_of_one_name_get_overlays_of_their_own(model: Model, tmp_path: Path) -> None:
    images = [draw(tmp_path / folder / "scene.png", seed=i) for i, folder in enumerate(("x", "y"))]
    images.append(draw(tmp_path / "z" / "other.png"))
    predict(model, find_images(images).images, tmp_path / "out", 0.0)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.overlay.jpg"))
    assert names == ["other.overlay.jpg", "scene-2.overlay.jpg", "scene.overlay.jpg"]
    assert (tmp_path / "out" / names[1]).read_bytes() != (tmp_path / "out" / names[2]).read_bytes()


def test_a_numbered_name_is_nobody_elses(model: Model, tmp_path: Path) -> None:
    names = ("x/scene.png", "y/scene.png", "y/scene-2.png")
    images = find_images([draw(tmp_path / name, seed=i) for i, name in enumerate(names)]).images
    predict(model, images, tmp_path / "out", 0.0)
    assert len(list((tmp_path / "out").glob("*.overlay.jpg"))) == 3


HARMS = ("truncated", "text", "empty")


def broken(path: Path, harm: str) -> Path:
    whole = draw(path, 200, 200).read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no image at all", "empty": b""}[harm])
    return path


@pytest.mark.parametrize("harm", HARMS)
def test_a_broken_image_is_refused_before_anything_is_written(model: Model, tmp_path: Path, harm: str) -> None:
    images = find_images([draw(tmp_path / "a.png"), broken(tmp_path / "b.jpg", harm)]).images
    with pytest.raises(SamifError, match=r"b\.jpg") as refusal:
        predict(model, images, tmp_path / "out", 0.0)
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", HARMS)
def test_a_broken_image_of_a_folder_is_skipped_by_name(model: Model, tmp_path: Path, harm: str) -> None:
    good, bad = draw(tmp_path / "in" / "a.png"), broken(tmp_path / "in" / "b.jpg", harm)
    done = predict(model, find_images([tmp_path / "in"]).images, tmp_path / "out", 0.0)
    assert [p.image.path for p in done.predictions] == [good] and [item.path for item in done.skipped] == [bad]
    assert len(json.loads((tmp_path / "out" / "instances.json").read_text())["images"]) == 1


def test_a_folder_of_broken_images_is_refused(model: Model, tmp_path: Path) -> None:
    for harm in HARMS:
        broken(tmp_path / "in" / f"{harm}.jpg", harm)
    with pytest.raises(SamifError, match=r"none of 3 images can be read, the first is .*empty\.jpg: it is empty"):
        predict(model, find_images([tmp_path / "in"]).images, tmp_path / "out", 0.0)
    assert not (tmp_path / "out").exists()
