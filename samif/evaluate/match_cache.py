"""What COCO's matching found in each image, kept so that AP can be computed again for any resample of the images.

COCO matches detections to objects image by image; only the accumulation takes all images together. So a
bootstrap over images matches once and accumulates per resample, with each image counted as often as it was drawn.
The result is the AP that COCO would find on the images so repeated, not an approximation of it: repeats of a
detection share one score, and inside such a block precision only rises, which the interpolated envelope hides.

Shape legend: P images, D detections of one class, T IoU thresholds, R resamples.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from samif.dataset.model import Dataset
from samif.evaluate.average_precision import Detection, coco_results, coco_truth

RECALLS = np.linspace(0.0, 1.0, 101)
"""COCO's recall levels; compared with the same floating-point numbers as pycocotools does."""
MAX_DETECTIONS = 100
BLOCK = 4_000_000
"""Elements of the largest array of one step: resamples are taken in blocks, so memory stays flat."""


@dataclass(frozen=True)
class ClassMatches:
    """One class. Detections are in the order of falling score that COCO accumulates them in.

    Attributes:
        objects: (P,) objects that are not crowds.
        images: (D,) index of each detection's image.
        hit: (T, D) it matches an object at this IoU threshold.
        ignored: (T, D) it lies in a crowd, which makes it neither right nor wrong.
    """

    objects: NDArray[np.int32]
    images: NDArray[np.int64]
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]

    def average_precision(self, weights: NDArray[np.int32], thresholds: slice = slice(None)) -> NDArray[np.float64]:
        """AP in points over these IoU thresholds (the first is 0.5), (R,); nan where a resample shows no object.

        Args:
            weights: (R, P), how often each resample drew each image.
        """
        rows = max(1, BLOCK // max(1, len(self.images)))
        blocks = [self._accumulate(weights[at : at + rows], thresholds) for at in range(0, len(weights), rows)]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _accumulate(self, weights: NDArray[np.int32], thresholds: slice) -> NDArray[np.float64]:
        objects = (weights @ self.objects).astype(np.float64)
        drawn = weights[:, self.images]
        seen = np.cumsum(drawn, axis=1, dtype=np.int32)
        per_threshold = []
        for hit, ignored in zip(self.hit[thresholds], self.ignored[thresholds], strict=True):
            # Precision peaks at hits, and recall moves only there: all other detections enter through `counted`.
            at = np.flatnonzero(hit)
            counted = seen[:, at]
            if ignored.any():
                counted = counted - np.cumsum(drawn * ignored, axis=1, dtype=np.int32)[:, at]
            hits = np.cumsum(drawn[:, at], axis=1, dtype=np.float64)
            precision = hits / (counted + np.spacing(1))
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            with np.errstate(invalid="ignore", divide="ignore"):
                recall = hits / objects[:, None]
            levels = np.searchsorted(RECALLS, recall, side="right")
            per_threshold.append((envelope * np.diff(levels, axis=1, prepend=0)).sum(axis=1) / len(RECALLS))
        points = 100.0 * np.mean(per_threshold, axis=0)
        return np.where(objects > 0, points, np.nan)


@dataclass(frozen=True)
class MatchCache:
    """Every class of a classifier, and the false positives on unlabelled objects of each image (P,)."""

    classes: dict[str, ClassMatches]
    unlabelled_false_positives: NDArray[np.int64]


def build_match_cache(
    dataset: Dataset, detections: Sequence[Detection], classes: Sequence[str], unlabelled_false_positives: Sequence[int]
) -> MatchCache:
    """Match detections to objects as pycocotools does (segm, all areas, 100 detections per image and class).

    Args:
        unlabelled_false_positives: per image of `dataset`, in its order.
    """
    wanted = dataset.category_ids(classes)
    ids = {name: wanted[name] for name in classes}
    place = {image.id: index for index, image in enumerate(dataset.images)}
    per_class = {name: _nothing(len(place)) for name in classes}
    found = coco_results(detections, ids)
    truth = coco_truth(dataset, ids)
    if truth["annotations"] and found:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = truth
            coco.createIndex()
            run = COCOeval(coco, coco.loadRes(found), "segm")
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            run.params.maxDets = [MAX_DETECTIONS]
            run.evaluate()
        by_class: dict[int, list[dict[str, Any]]] = {id_: [] for id_ in ids.values()}
        for item in filter(None, run.evalImgs):
            by_class[item["category_id"]].append(item)
        # pycocotools walks through images by id, and its stable sort keeps that order among equal scores.
        per_class = {name: _of_class(by_class[ids[name]], place) for name in classes}
    else:
        for a in truth["annotations"]:
            name = next(n for n, id_ in ids.items() if id_ == a["category_id"])
            per_class[name].objects[place[a["image_id"]]] += not a["iscrowd"]
    return MatchCache(per_class, np.asarray(unlabelled_false_positives, dtype=np.int64))


def _nothing(images: int) -> ClassMatches:
    empty = np.zeros((10, 0), dtype=bool)
    return ClassMatches(np.zeros(images, np.int32), np.zeros(0, np.int64), empty, empty)


def _of_class(items: list[dict[str, Any]], place: dict[int, int]) -> ClassMatches:
    matches = _nothing(len(place))
    for item in items:
        matches.objects[place[item["image_id"]]] = int((np.asarray(item["gtIgnore"]) == 0).sum())
    shown = [item for item in items if item["dtScores"]]
    if not shown:
        return matches
    scores = np.concatenate([item["dtScores"] for item in shown])
    order = np.argsort(-scores, kind="stable")
    images = np.concatenate([np.full(len(i["dtScores"]), place[i["image_id"]], dtype=np.int64) for i in shown])
    matched = np.concatenate([item["dtMatches"] for item in shown], axis=1)[:, order] > 0
    ignored = np.concatenate([item["dtIgnore"] for item in shown], axis=1)[:, order].astype(bool)
    return ClassMatches(matches.objects, images[order], matched & ~ignored, ignored)
