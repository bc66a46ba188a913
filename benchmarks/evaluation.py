"""COCO segm AP of one set of detections: ours (faster-coco-eval behind our groups) against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.measure import Comparison, compare
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.evaluate.average_precision import Detection, average_precision
from samif.masks.rle import areas, boxes, encode

IMAGES, CLASSES, OBJECTS, DETECTIONS = 200, 20, 8, 40


def run() -> list[Comparison]:
    """200 images, 20 classes, 8 objects and 40 detections an image."""
    from pathlib import Path

    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(CLASSES)]
    images, detections = [], []
    for p in range(IMAGES):
        codes = encode(np.stack([_blob(rng) for _ in range(OBJECTS + DETECTIONS)]))
        size, area = boxes(codes), areas(codes)
        annotations = tuple(
            Annotation(p * OBJECTS + i + 1, names[int(rng.integers(CLASSES))], codes[i], False, tuple(size[i]), area[i])
            for i in range(OBJECTS)
        )
        images.append(ImageRecord(p + 1, f"{p}.jpg", 160, 120, "", annotations))
        for i in range(DETECTIONS):
            near = int(rng.integers(OBJECTS)) if rng.random() < 0.5 else OBJECTS + i
            detection: Detection = {
                "image_id": p + 1,
                "category_id": int(rng.integers(CLASSES)) + 1,
                "score": float(rng.random()),
            }
            detections.append(detection | {"segmentation": codes[near], "bbox": [float(v) for v in size[near]]})
    dataset = Dataset(Path(), tuple(Category(i + 1, n) for i, n in enumerate(names)), tuple(images))

    def ours() -> float:
        scores = average_precision(dataset, detections, names)
        return float(np.mean([ap for ap, _, _ in scores.values() if ap is not None])) / 100

    def pycocotools() -> float:
        ids = {n: i + 1 for i, n in enumerate(names)}
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": [{"id": p.id, "height": p.height, "width": p.width} for p in images],
                "annotations": [
                    {"id": a.id, "image_id": p.id, "category_id": ids[a.category], "segmentation": dict(a.rle),
                     "bbox": list(a.bbox), "area": a.area, "iscrowd": 0}
                    for p in images for a in p.annotations
                ],
                "categories": [{"id": i, "name": n} for n, i in ids.items()],
            }  # fmt: skip
            truth.createIndex()
            found = truth.loadRes([{**d, "segmentation": dict(d["segmentation"])} for d in detections])
            run = COCOeval(truth, found, "segm")
            run.evaluate(), run.accumulate(), run.summarize()
        return float(run.stats[0])

    note = f"difference in AP {abs(ours() - pycocotools()):.0e}"
    return [compare("COCO evaluation", ours, pycocotools, "pycocotools", note, rounds=3)]


def _blob(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:120, 0:160]
    cx, cy, rx, ry = rng.uniform(10, 150), rng.uniform(10, 110), rng.uniform(6, 25), rng.uniform(6, 25)
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1)
