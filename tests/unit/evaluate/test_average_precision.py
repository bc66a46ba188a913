"""AP against pycocotools on random detections."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samif.dataset.model import Category, Dataset
from samif.evaluate.average_precision import Detection, average_precision, group_mean
from samif.masks.rle import boxes
from tests.support.handmade import annotation, image, rectangle, rle

SHAPE = (60, 80)
CLASSES = ("bolt", "gear", "nut", "hook")  # no hook is ever labelled
IDS = {name: 3 * i + 2 for i, name in enumerate(CLASSES)}


def box_at(rng: np.random.Generator) -> tuple[int, int, int, int]:
    height, width = (int(v) for v in rng.integers(4, 40, 2))
    return int(rng.integers(0, SHAPE[0] - 3)), int(rng.integers(0, SHAPE[1] - 3)), height, width


def nudged(rng: np.random.Generator, place: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    top, left, height, width = (int(v + rng.integers(-2, 3)) for v in place)
    return max(0, top), max(0, left), max(2, height), max(2, width)


def detection(number: int, category: str, place: tuple[int, int, int, int], score: float) -> Detection:
    code = rle(rectangle(SHAPE, *place))
    return {
        "image_id": number,
        "category_id": IDS[category],
        "segmentation": code,
        "bbox": [float(v) for v in boxes([code])[0]],
        "score": score,
    }


def random_case(seed: int, root: Path) -> tuple[Dataset, list[Detection]]:
    """Images with instances and crowds; detections near them, doubled, misnamed or out of nowhere."""
    rng = np.random.default_rng(seed)
    images, detections, number = [], [], 0
    for image_id in range(1, 9):
        labels = []
        for _ in range(int(rng.integers(0, 6))):
            number += 1
            name, place = CLASSES[int(rng.integers(3))], box_at(rng)
            labels.append(annotation(number, name, rectangle(SHAPE, *place), crowd=bool(rng.random() < 0.2)))
            for _ in range(int(rng.choice([0, 1, 1, 2]))):
                said = name if rng.random() < 0.8 else CLASSES[int(rng.integers(4))]
                detections.append(detection(image_id, said, nudged(rng, place), round(float(rng.random()), 2)))
        for _ in range(int(rng.integers(0, 3))):
            detections.append(detection(image_id, CLASSES[int(rng.integers(4))], box_at(rng), float(rng.random())))
        images.append(image(image_id, SHAPE, *labels))
    return Dataset(root, tuple(Category(i, name) for name, i in IDS.items()), tuple(images)), detections


def reference(dataset: Dataset, detections: list[Detection]) -> dict[str, tuple[float | None, float | None]]:
    """AP and AP50 by pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": p.id, "height": p.height, "width": p.width} for p in dataset.images],
            "annotations": [
                {
                    "id": a.id,
                    "image_id": p.id,
                    "category_id": IDS[a.category],
                    "segmentation": a.rle,
                    "bbox": list(a.bbox),
                    "area": a.area,
                    "iscrowd": int(a.crowd),
                }
                for p in dataset.images
                for a in p.annotations
            ],
            "categories": [{"id": i, "name": name} for name, i in IDS.items()],
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(detections), "segm")
        run.evaluate()
        run.accumulate()
    found: dict[str, tuple[float | None, float | None]] = {}
    for column, name in enumerate(CLASSES):
        precision = run.eval["precision"][:, :, column, 0, -1]
        absent = (precision == -1).all()
        found[name] = (None, None) if absent else (100 * precision.mean(), 100 * precision[0].mean())
    return found


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_pycocotools(seed: int, tmp_path: Path) -> None:
    dataset, detections = random_case(seed, tmp_path)
    expected = reference(dataset, detections)
    found = average_precision(dataset, detections, CLASSES)
    assert list(found) == list(CLASSES)
    assert any(value not in (None, 0.0, 100.0) for value, _ in expected.values())
    for name in CLASSES:
        for ours, theirs in zip(found[name][:2], expected[name], strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours == pytest.approx(theirs, abs=1e-9)
        labelled = [a for p in dataset.images for a in p.annotations if a.category == name and not a.crowd]
        assert found[name][2] == len(labelled)


def test_a_class_is_scored_alike_alone(tmp_path: Path) -> None:
    dataset, detections = random_case(0, tmp_path)
    together = average_precision(dataset, detections, CLASSES)
    assert average_precision(dataset, detections, ["gear"]) == {"gear": together["gear"]}


def test_nothing_found_is_nought_and_nothing_labelled_is_none(tmp_path: Path) -> None:
    bolt = annotation(1, "bolt", rectangle(SHAPE, 5, 5, 10, 10))
    dataset = Dataset(tmp_path, tuple(Category(i, n) for n, i in IDS.items()), (image(1, SHAPE, bolt),))
    assert average_precision(dataset, [], ["bolt", "nut"]) == {"bolt": (0.0, 0.0, 1), "nut": (None, None, 0)}
    stray = [detection(1, "nut", (5, 5, 10, 10), 0.9)]
    assert average_precision(dataset, stray, ["bolt", "nut"]) == {"bolt": (0.0, 0.0, 1), "nut": (None, None, 0)}
    assert average_precision(dataset, stray, ["nut"]) == {"nut": (None, None, 0)}


def test_a_class_of_crowds_only_has_no_value(tmp_path: Path) -> None:
    crowd = annotation(1, "bolt", rectangle(SHAPE, 5, 5, 10, 10), crowd=True)
    dataset = Dataset(tmp_path, tuple(Category(i, n) for n, i in IDS.items()), (image(1, SHAPE, crowd),))
    found = average_precision(dataset, [detection(1, "bolt", (5, 5, 10, 10), 0.9)], ["bolt"])
    assert found == {"bolt": (None, None, 0)}


@pytest.mark.parametrize(
    ("names", "mean"), [(["a", "b"], 20.0), (["a", "b", "none"], 20.0), (["none"], None), ([], None), (["other"], None)]
)
def test_a_group_is_the_mean_of_those_that_have_a_value(names: list[str], mean: float | None) -> None:
    assert group_mean({"a": 10.0, "b": 30.0, "none": None}, names) == mean
