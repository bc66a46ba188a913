"""Prediction with a model from a folder: a random decoder behind the shipped encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.inference.predict import find_images, predict
from flows.inference.source import find
from flows.registry.model_files import find_model
from samif.classifier.model import Classifier, FeatureSpace
from samif.config import EvaluateParams
from samif.errors import SamifError
from samif.inference.detections import Detections
from samif.inference.model import Model, open_model
from samif.inference.segment import UNKNOWN
from samif.masks.rle import areas, boxes
from samif.sam.decoder import InstanceDecoder, save_decoder
from tests.support.handmade import random_tiny

CLASSES = ("bolt", "Mutter M4 ü")
TOKEN = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as the registry hands it out, without a card."""
    folder = tmp_path_factory.mktemp("model")
    decoder = InstanceDecoder.of(random_tiny())
    decoder.heads.objectness[-1].bias.fill_(3.0)  # finds something wherever it is prompted
    save_decoder(decoder, "tiny", folder / "decoder.safetensors")
    rng = np.random.default_rng(0)
    space = FeatureSpace(
        ("token",), "cosine", np.zeros(TOKEN, np.float32), np.eye(TOKEN, dtype=np.float32),
        rng.normal(size=(1, TOKEN)).astype(np.float32), 1.0, 0.0,
    )  # fmt: skip
    rows = rng.normal(size=(2, TOKEN)).astype(np.float32)
    Classifier(space, CLASSES, rows, np.array([1, 1])).save(folder / "classifier.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(find(str(folder), folder))


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


# Finding images


def test_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    b, a = draw(tmp_path / "line" / "b.png"), draw(tmp_path / "line" / "a.JPG")
    (tmp_path / "line" / "notes.txt").write_text("no image")
    extra = draw(tmp_path / "c.bmp")
    assert find_images([extra, tmp_path / "line"]) == [extra, a, b]


def test_a_place_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(SamifError, match="no image .* in .*; give another folder"):
        find_images([tmp_path])
    with pytest.raises(SamifError, match=r"gone\.png does not exist"):
        find_images([tmp_path / "gone.png"])


# Results


def test_results_are_coco(model: Model, tmp_path: Path) -> None:
    images = [draw(tmp_path / "in" / "wide.png", 60, 40), draw(tmp_path / "in" / "tall.jpg", 33, 57, seed=1)]
    told: list[int] = []
    predictions = predict(model, images, tmp_path / "new" / "out", 0.0, told.append)
    content = json.loads((tmp_path / "new" / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(content) == ["schema", "images", "categories", "annotations"] and content["schema"] == 1
    assert content["images"] == [
        {"id": 1, "file_name": "wide.png", "width": 60, "height": 40},
        {"id": 2, "file_name": "tall.jpg", "width": 33, "height": 57},
    ]
    assert [c["name"] for c in content["categories"]] == [*CLASSES, UNKNOWN]
    assert [c["id"] for c in content["categories"]] == [1, 2, 3]
    sizes = {1: [40, 60], 2: [57, 33]}
    for a in content["annotations"]:
        assert set(a) == {"image_id", "category_id", "segmentation", "bbox", "score"}
        assert 1 <= a["category_id"] <= 3 and 0.0 <= a["score"] <= 1.0
        assert a["segmentation"]["size"] == sizes[a["image_id"]] and areas([a["segmentation"]])[0] > 0
        assert a["bbox"] == boxes([a["segmentation"]])[0].tolist()
    assert {a["image_id"] for a in content["annotations"]} == {1, 2}
    assert told == [1, 1] and [p.file for p in predictions] == images
    for number, prediction in enumerate(predictions, start=1):
        names = [
            content["categories"][a["category_id"] - 1]["name"]
            for a in content["annotations"]
            if a["image_id"] == number
        ]
        assert tuple(names) == prediction.detections.class_names
    for name, size in (("wide.overlay.jpg", (60, 40)), ("tall.overlay.jpg", (33, 57))):
        with Image.open(tmp_path / "new" / "out" / name) as overlay:
            assert overlay.size == size
    assert len(list((tmp_path / "new" / "out").iterdir())) == 3


def known(detections: Detections) -> np.ndarray:
    return np.array([name != UNKNOWN for name in detections.class_names], dtype=bool)


def test_the_minimum_score_is_kept_to(model: Model, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png")
    [every] = predict(model, [image], tmp_path / "every", 0.0)
    best = every.detections.scores[known(every.detections)].max()
    for least, count in ((best, 1), (np.nextafter(best, 1.0), 0)):
        [some] = predict(model, [image], tmp_path / "some", float(least))
        assert known(some.detections).sum() == count
        written = json.loads((tmp_path / "some" / "results.json").read_text(encoding="utf-8"))["annotations"]
        assert len([a for a in written if a["category_id"] < 3]) == count


def test_images_of_one_name_get_overlays_of_their_own(model: Model, tmp_path: Path) -> None:
    images = [draw(tmp_path / folder / "scene.png", seed=i) for i, folder in enumerate(("x", "y"))]
    predict(model, [*images, draw(tmp_path / "z" / "other.png")], tmp_path / "out", 0.0)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.overlay.jpg"))
    assert names == ["other.overlay.jpg", "scene-2.overlay.jpg", "scene.overlay.jpg"]
    assert (tmp_path / "out" / names[1]).read_bytes() != (tmp_path / "out" / names[2]).read_bytes()


def test_a_numbered_name_is_nobody_elses(model: Model, tmp_path: Path) -> None:
    names = ("x/scene.png", "y/scene.png", "y/scene-2.png")
    predict(model, [draw(tmp_path / name, seed=i) for i, name in enumerate(names)], tmp_path / "out", 0.0)
    assert len(list((tmp_path / "out").glob("*.overlay.jpg"))) == 3


@pytest.mark.parametrize("harm", ["truncated", "text", "empty"])
def test_a_broken_image_is_refused_before_anything_is_written(model: Model, tmp_path: Path, harm: str) -> None:
    good, bad = draw(tmp_path / "a.png"), draw(tmp_path / "b.jpg", 200, 200)
    whole = bad.read_bytes()
    bad.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"no image at all", "empty": b""}[harm])
    with pytest.raises(SamifError, match=r"b\.jpg") as refusal:
        predict(model, [good, bad], tmp_path / "out", 0.0)
    assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()
