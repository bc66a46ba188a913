"""COCO segm AP per class, by faster-coco-eval (equal to pycocotools, and fast)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from samif.dataset.model import Dataset

Detection = dict[str, Any]
"""COCO result: image_id, category_id, segmentation (RLE), bbox (x, y, w, h), score."""


def average_precision(
    dataset: Dataset, detections: Sequence[Detection], classes: Iterable[str]
) -> dict[str, tuple[float | None, float | None, int]]:
    """AP and AP50 in points (0-100) and the number of instances, per class; None where a class has none.

    Crowd regions are ignored as COCO does; up to 100 detections per image and class count.
    """
    wanted = set(classes)
    ids = {category.name: category.id for category in dataset.categories if category.name in wanted}
    truth = coco_truth(dataset, ids)
    counts = dict.fromkeys(ids, 0)
    names = {id_: name for name, id_ in ids.items()}
    for a in truth["annotations"]:
        counts[names[a["category_id"]]] += not a["iscrowd"]
    result: dict[str, tuple[float | None, float | None, int]] = {name: (None, None, counts[name]) for name in ids}
    if not truth["annotations"]:
        return result
    found = coco_results(detections, ids)
    if not found:
        return {name: ((0.0, 0.0, count) if count else (None, None, 0)) for name, count in counts.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        run = COCOeval_faster(coco, coco.loadRes(found), "segm")
        run.evaluate()
        run.accumulate()
    precision = np.asarray(run.eval["precision"])  # (IoU, recall, class, area, maxDets)
    for column, category_id in enumerate(run.params.catIds):
        name = names[category_id]
        if counts[name]:
            values = precision[:, :, column, 0, -1]
            result[name] = (_points(values), _points(values[:1]), counts[name])
    return result


def coco_truth(dataset: Dataset, ids: Mapping[str, int]) -> dict[str, Any]:
    """The objects of the classes in `ids` (name -> category id), as the content of a COCO file."""
    return {
        "images": [{"id": p.id, "height": p.height, "width": p.width} for p in dataset.images],
        "annotations": [
            {
                "id": number,
                "image_id": image.id,
                "category_id": ids[a.category],
                "segmentation": dict(a.rle),
                "bbox": list(a.bbox),
                "area": a.area,
                "iscrowd": int(a.crowd),
            }
            for number, (image, a) in enumerate(
                ((p, a) for p in dataset.images for a in p.annotations if a.category in ids), start=1
            )
        ],
        "categories": [{"id": id_, "name": name} for name, id_ in ids.items()],
    }


def coco_results(detections: Iterable[Detection], ids: Mapping[str, int]) -> list[Detection]:
    """The detections of these classes as plain COCO results, copied: evaluators rewrite the run-length codes."""
    wanted = set(ids.values())
    return [
        {
            "image_id": d["image_id"],
            "category_id": d["category_id"],
            "segmentation": dict(d["segmentation"]),
            "bbox": d["bbox"],
            "score": d["score"],
        }
        for d in detections
        if d["category_id"] in wanted
    ]


def group_mean(values: Mapping[str, float | None], names: Iterable[str]) -> float | None:
    """Mean over the classes that have a value; None where none has."""
    present = [v for name in names if (v := values.get(name)) is not None]
    return float(np.mean(present)) if present else None


def _points(precision: np.ndarray[Any, Any]) -> float:
    valid = precision[precision > -1]
    return float(100.0 * valid.mean()) if valid.size else 0.0
