"""A workspace whose stages run on two images made by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from flows.registry.model_files import find_model
from flows.stages import run_stage
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.inference.load import ModelFiles

CLASSES = {"bolt": (200, 40, 40), "gear": (40, 60, 220), "hook": (40, 200, 60)}


def draw(folder: Path, seed: int, classes: tuple[str, ...] = tuple(CLASSES)) -> dict[str, str]:
    """Two images, wide and tall, with two squares of each class, and their labels; where they lie."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (height, width) in enumerate(((96, 128), (128, 96)), start=1):
        pixels = np.full((height, width, 3), 110, dtype=np.uint8)
        places = [(top, left) for top in range(6, height - 25, 31) for left in range(6, width - 25, 31)]
        for count, place in enumerate(rng.permutation(len(places))[: 2 * len(classes)]):
            (top, left), name = places[place], classes[count % len(classes)]
            pixels[top : top + 22, left : left + 22] = CLASSES[name]
            corners = [left, top, left + 22, top, left + 22, top + 22, left, top + 22]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": list(CLASSES).index(name) + 1,
                    "segmentation": [corners],
                    "bbox": [left, top, 22, 22],
                    "area": 484,
                    "iscrowd": 0,
                }
            )
        noisy = (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content))
    return {"images": str(folder / "images"), "annotations": str(folder / "labels.json")}


@dataclass(frozen=True)
class Line:
    """A workspace whose stages have run as far as a test says."""

    layout: Layout
    params: Params

    def run(self, *stages: str, session: str | None = None) -> None:
        for stage in stages:
            run_stage(stage, session, self.layout, self.params)

    def changed(self, **sections: Any) -> Line:
        """The same workspace under other parameters."""
        return write(self.layout.root, self.params.model_dump() | sections)

    def bundle(self, name: str) -> ModelFiles:
        return find_model(str(self.layout.classifier(name)), self.layout, None)


def write_small(root: Path, **sections: Any) -> Line:
    """A workspace `ws` that knows bolt and gear, with images beside it and parameters that take seconds; `sections` add
    to these or replace single ones of them."""
    content: dict[str, Any] = {
        "line": "demo",
        "dataset": {"train": draw(root / "train", 0), "val": draw(root / "val", 1), "base_classes": ["bolt", "gear"]},
        "encoder": {"name": "tiny"},
        "pretrain_decoder": {"steps": 2, "images_per_step": 2},
        "propose": {"points": 12, "min_objectness": 0.0},
        "train_base": {"background_prototypes": 2},
        "incremental": {"prompts_per_shot": 2, "rotations": [90]},
    }
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section
    return write(root / "ws", content)


def write(root: Path, content: dict[str, Any]) -> Line:
    params = Params.model_validate(content)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params.model_dump(mode="json"), file)
    return Line(Layout(root), load_params(root / "params.yaml"))
