"""The demo line: drawn scenes of industrial parts as JPEG images and a COCO file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from samif.config import DrawnParams
from samif.dataset.draw.part import Part
from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS, make_parts
from samif.dataset.draw.scene import Item, Scene, compose
from samif.dataset.draw.variety import random_part
from samif.masks.rle import areas, boxes, encode

CLASSES = (*BASE_PARTS, *NOVEL_PARTS)
INSTANCES = (2, 8)
RADIUS = (26.0, 52.0)
"""Half extent of a part in pixels, for an image of 320; scales with the image."""
CROWDING = 0.1
MIN_VISIBLE = 0.6
"""About half of the parts touch or overlap another one; none is hidden by more than 40 %."""
DISTRACTORS = (0, 0, 0, 1, 1, 2)
QUALITY = (82, 95)


@dataclass(frozen=True)
class Plan:
    """A set of scenes: how many show base parts only, and how many base and novel parts mixed."""

    base_only: int
    mixed: int


def draw_line(folder: Path, params: DrawnParams, advance: Callable[[int], None] = lambda _: None) -> None:
    """Write `train` and `val` below `folder`, each `images/*.jpg` and `annotations.json`.

    Half of the validation scenes show base parts only, so that forgetting can be told from crowding out.
    Distractors are drawn but not labelled. Equal parameters give equal bytes.
    """
    half = params.val_images // 2
    plans = {"train": Plan(params.base_images, params.mixed_images), "val": Plan(params.val_images - half, half)}
    for order, (split, plan) in enumerate(plans.items()):
        _draw_split(folder / split, plan, params, order, advance)


def _draw_split(folder: Path, plan: Plan, params: DrawnParams, order: int, advance: Callable[[int], None]) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    parts = make_parts()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in range(plan.base_only + plan.mixed):
        rng = np.random.default_rng([params.seed, order, index])
        scene = draw_scene(rng, parts, BASE_PARTS if index < plan.base_only else CLASSES, params.size)
        name = f"scene_{index:04d}.jpg"
        Image.fromarray(scene.image).save(folder / "images" / name, quality=int(rng.integers(*QUALITY)))
        images.append({"id": index + 1, "file_name": name, "width": params.size, "height": params.size})
        annotations += _annotations(scene, index + 1, len(annotations))
        advance(1)
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def draw_scene(
    rng: np.random.Generator, parts: dict[str, Part], names: Sequence[str], size: int, more: Sequence[str] = ()
) -> Scene:
    """One scene of the line, `size` pixels square, with parts called `names`, and one each of `more`."""
    # mixed scenes draw base and novel parts alike, whatever their numbers
    groups = [BASE_PARTS] if len(names) == len(BASE_PARTS) else [BASE_PARTS, NOVEL_PARTS]
    items = []
    for _ in range(int(rng.integers(INSTANCES[0], INSTANCES[1] + 1))):
        group = groups[int(rng.integers(len(groups)))]
        name = group[int(rng.integers(len(group)))]
        items.append(Item(parts[name], CLASSES.index(name)))
    items += [Item(parts[name], CLASSES.index(name)) for name in more]
    items += [Item(random_part(rng), -1, float(rng.uniform(0.6, 1.1))) for _ in range(int(rng.choice(DISTRACTORS)))]
    order = rng.permutation(len(items))
    scale = size / 320.0
    reach = (RADIUS[0] * scale, RADIUS[1] * scale)
    return compose(rng, [items[i] for i in order], size, reach, crowding=CROWDING, min_visible=MIN_VISIBLE)


def _annotations(scene: Scene, image_id: int, before: int) -> list[dict[str, object]]:
    shown = [i for i, kind in enumerate(scene.kinds) if kind >= 0]
    if not shown:
        return []
    codes = encode(np.stack([scene.labels == i + 1 for i in shown]))
    return [
        {
            "id": before + row + 1,
            "image_id": image_id,
            "category_id": scene.kinds[i] + 1,
            "segmentation": code,
            "area": float(area),
            "bbox": [float(v) for v in box],
            "iscrowd": 0,
        }
        for row, (i, code, area, box) in enumerate(zip(shown, codes, areas(codes), boxes(codes), strict=True))
    ]
