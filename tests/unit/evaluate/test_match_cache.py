"""AP from match matches: COCO's own for the images as they are, and for images repeated or left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samif.dataset.model import Dataset
from samif.evaluate.average_precision import Detection, average_precision
from samif.evaluate.match_cache import ClassMatches, build_match_cache
from tests.unit.evaluate.test_average_precision import CLASSES, random_case

AT_HALF = slice(0, 1)


def repeated(dataset: Dataset, detections: list[Detection], weights: list[int]) -> tuple[Dataset, list[Detection]]:
    """The same images, each as often as its weight says, copies next to each other."""
    images, found = [], []
    for image, weight in zip(dataset.images, weights, strict=True):
        for copy in range(weight):
            number = 100 * image.id + copy
            images.append(replace(image, id=number))
            found += [{**d, "image_id": number} for d in detections if d["image_id"] == image.id]
    return replace(dataset, images=tuple(images)), found


@pytest.mark.parametrize("seed", range(8))
def test_a_resample_has_the_ap_of_the_images_so_repeated(seed: int, tmp_path: Path) -> None:
    dataset, detections = random_case(seed, tmp_path)
    count = len(dataset.images)
    rng = np.random.default_rng(seed)
    weights = np.array([[1] * count, *(rng.multinomial(count, [1 / count] * count) for _ in range(6))], dtype=np.int32)
    matches = build_match_cache(dataset, detections, CLASSES, [0] * count)
    ours = {name: matches.classes[name].average_precision(weights) for name in CLASSES}
    at_half = {name: matches.classes[name].average_precision(weights, AT_HALF) for name in CLASSES}
    for row, drawn in enumerate(weights.tolist()):
        expected = average_precision(*repeated(dataset, detections, drawn), CLASSES)
        for name in CLASSES:
            ap, ap50, _ = expected[name]
            np.testing.assert_allclose(ours[name][row], np.nan if ap is None else ap, atol=1e-9)
            np.testing.assert_allclose(at_half[name][row], np.nan if ap50 is None else ap50, atol=1e-9)


def test_nothing_found_is_zero_and_nothing_labelled_is_no_number(tmp_path: Path) -> None:
    dataset, detections = random_case(0, tmp_path)
    weights = np.ones((1, len(dataset.images)), dtype=np.int32)
    matches = build_match_cache(dataset, [], CLASSES, [0] * len(dataset.images))
    assert {name: float(r.average_precision(weights)[0]) for name, r in matches.classes.items()} == pytest.approx(
        dict.fromkeys(CLASSES[:3], 0.0) | {"hook": np.nan}, nan_ok=True
    )
    labelled = {name: sum(a.category == name and not a.crowd for p in dataset.images for a in p.annotations)
                for name in CLASSES}  # fmt: skip
    for found in ([], detections):
        matches = build_match_cache(dataset, found, CLASSES, [0] * len(dataset.images))
        assert {name: int(r.objects.sum()) for name, r in matches.classes.items()} == labelled


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    hit = rng.random((10, 50)) < 0.6
    record = ClassMatches(np.full(20, 3, np.int32), rng.integers(0, 20, 50), hit, ~hit & (rng.random((10, 50)) < 0.2))
    weights = rng.multinomial(20, [0.05] * 20, size=30).astype(np.int32)
    whole = record.average_precision(weights)
    monkeypatch.setattr("samif.evaluate.match_cache.BLOCK", 150)
    np.testing.assert_array_equal(record.average_precision(weights), whole)
    assert np.ptp(whole) > 0
