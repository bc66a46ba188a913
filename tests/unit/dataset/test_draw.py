"""The demo line: what it shows, and that equal seeds give equal bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samif.config import DrawnParams
from samif.dataset.draw.line import CLASSES, INSTANCES, draw_line
from samif.dataset.draw.part import Pose, render
from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS, make_parts
from samif.dataset.draw.scene import Item, compose
from samif.dataset.draw.variety import random_part
from samif.masks.rle import decode, overlaps

SIZE = 128
PARAMS = DrawnParams(base_images=8, mixed_images=14, val_images=5, size=SIZE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    draw_line(folder, PARAMS)
    return folder


def content(line: Path, split: str) -> dict[str, Any]:
    return json.loads((line / split / "annotations.json").read_text(encoding="utf-8"))


# The line


def test_twelve_base_and_six_novel_parts() -> None:
    assert len(BASE_PARTS) == 12 and len(NOVEL_PARTS) == 6 and len(set(CLASSES)) == 18
    assert tuple(make_parts()) == CLASSES


def test_equal_parameters_give_equal_bytes(line: Path, tmp_path: Path) -> None:
    few = DrawnParams(base_images=2, mixed_images=1, val_images=1, size=SIZE)
    for name, params in (("a", few), ("b", few), ("c", few.model_copy(update={"seed": 1}))):
        draw_line(tmp_path / name, params)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b and a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)
    # more scenes of a kind leave those before them as they are
    first = "train/images/scene_0000.jpg"
    assert a[first] == files(line)[first]


def test_train_and_val_show_different_scenes(line: Path) -> None:
    images = [blob for name, blob in files(line).items() if name.endswith(".jpg")]
    assert len(images) == len(set(images)) == 8 + 14 + 5


def test_splits_have_the_scenes_asked_for(line: Path) -> None:
    for split, base_only, mixed in (("train", 8, 14), ("val", 3, 2)):
        coco = content(line, split)
        assert [image["id"] for image in coco["images"]] == list(range(1, base_only + mixed + 1))
        for image in coco["images"]:
            with Image.open(line / split / "images" / image["file_name"]) as opened:
                assert opened.size == (image["width"], image["height"]) == (SIZE, SIZE) and opened.mode == "RGB"
        names = {category["id"]: category["name"] for category in coco["categories"]}
        assert tuple(names.values()) == CLASSES
        early = [a for a in coco["annotations"] if a["image_id"] <= base_only]
        assert early and {names[a["category_id"]] for a in early} <= set(BASE_PARTS)
        late = [a for a in coco["annotations"] if a["image_id"] > base_only]
        assert {names[a["category_id"]] for a in late} & set(NOVEL_PARTS)


def test_every_class_is_shown(line: Path) -> None:
    shown = {a["category_id"] for a in content(line, "train")["annotations"]}
    assert shown == set(range(1, 19))


def test_two_to_eight_instances_are_labelled(line: Path) -> None:
    counts = Counter(a["image_id"] for a in content(line, "train")["annotations"])
    assert len(counts) == len(content(line, "train")["images"])
    assert INSTANCES == (2, 8) and min(counts.values()) >= 2 and max(counts.values()) == 8
    assert len(set(counts.values())) > 4


def test_masks_lie_inside_and_do_not_overlap(line: Path) -> None:
    coco = content(line, "train")
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"])
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        codes = [a["segmentation"] for a in own]
        masks = decode(codes)
        assert masks.shape[1:] == (SIZE, SIZE) and masks.sum(axis=0).max() == 1
        for a, mask in zip(own, masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert a["area"] == mask.sum() > 0 and a["iscrowd"] == 0
            x, y, width, height = a["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert np.array_equal(overlaps(codes, codes), np.eye(len(codes)))


def test_progress_is_told_once_per_scene(tmp_path: Path) -> None:
    told: list[int] = []
    draw_line(tmp_path, DrawnParams(base_images=2, mixed_images=1, val_images=2, size=64), told.append)
    assert told == [1] * 5


# Scenes


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([96, 160]), crowding=st.floats(0.0, 1.0))
def test_a_scene_labels_what_is_seen(seed: int, size: int, crowding: float) -> None:
    rng = np.random.default_rng(seed)
    items = [Item(random_part(rng), i if i % 2 else -1) for i in range(6)]
    scene = compose(rng, items, size, (12.0, 30.0), crowding)
    assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
    assert scene.labels.shape == (size, size)
    assert set(np.unique(scene.labels)) - {0} == set(range(1, len(scene.kinds) + 1))
    assert set(scene.kinds) <= {-1, 1, 3, 5}


def test_distractors_are_drawn_but_not_labelled(line: Path) -> None:
    """A distractor takes room as a part does: its pixels are no background, and no annotation covers them."""
    rng = np.random.default_rng(3)
    bare = compose(np.random.default_rng(3), [], 96, (20.0, 30.0))
    scene = compose(rng, [Item(random_part(np.random.default_rng(0)), -1)], 96, (20.0, 30.0))
    assert scene.kinds == (-1,) and (scene.labels == 1).sum() > 100
    assert bare.kinds == () and not bare.labels.any()
    labelled = {a["category_id"] for split in ("train", "val") for a in content(line, split)["annotations"]}
    assert min(labelled) == 1  # kind -1 would be category 0


def test_a_part_hidden_too_much_is_left_out() -> None:
    """Twenty parts as large as the image: each that stays is seen by 45 of 100 at least."""
    parts = make_parts()
    items = [Item(parts["washer"], i) for i in range(20)]
    scene = compose(np.random.default_rng(0), items, 96, (60.0, 60.0), crowding=1.0)
    assert 1 <= len(scene.kinds) < 6


# Variety


def silhouette(part: object) -> np.ndarray:
    """(64, 64) bool, upright and unlit."""
    sprite = render(part, Pose(turn=0.0, radius=24.0), np.random.default_rng(0))  # type: ignore[arg-type]
    return sprite.alpha[:64, :64] > 0.5


def test_random_parts_are_none_of_the_line() -> None:
    """`tiny` is trained on them: neither a part's layers nor its silhouette may be among them."""
    parts = make_parts()
    outlines = np.stack([silhouette(part) for part in parts.values()])
    layers = {tuple(layer.polygon.tobytes() for layer in part.layers) for part in parts.values()}
    for seed in range(300):
        drawn = random_part(np.random.default_rng([7, seed]))
        assert tuple(layer.polygon.tobytes() for layer in drawn.layers) not in layers
        own = silhouette(drawn)
        both = (outlines & own).sum(axis=(1, 2))
        either = (outlines | own).sum(axis=(1, 2))
        assert (both / either).max() < 0.99


def test_random_parts_are_decided_by_the_generator() -> None:
    a, b, c = (random_part(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(silhouette(a), silhouette(b)) and a.palette == b.palette != c.palette
