"""A workspace as the stages before the report leave it: drawn blobs and plausible numbers, no weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.quarantine import Quarantine
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.model import Annotation, Category, Dataset, ImageRecord
from samif.evaluate.model import Evaluation
from samif.inference.overlay import class_colour
from samif.masks.rle import Rle, encode

PARTS = (
    "hex bolt",
    "hex nut",
    "washer",
    "spring washer",
    "bearing",
    "bushing",
    "circlip",
    "dowel pin",
    "gear",
    "grub screw",
    "o-ring",
    "pulley",
    "rivet",
    "spacer",
    "t-nut",
    "wing nut",
    "cable gland",
    "standoff",
)
SIDE = 256


def build(
    root: Path, classes: tuple[str, ...] = PARTS, novel: tuple[int, ...] = (3, 2), images: int = 12, seed: int = 0
) -> tuple[Layout, Params]:
    """A workspace in which every stage before the report has run: drawn blobs, plausible numbers, no weights."""
    rng = np.random.default_rng(seed)
    layout = Layout(root)
    base = list(classes[: len(classes) - sum(novel)])
    sessions, after, start = {}, "base", len(base)
    for index, count in enumerate(novel, start=1):
        sessions[f"s{index}"] = {"after": after, "classes": list(classes[start : start + count]), "shots": 10}
        after, start = f"s{index}", start + count
    params = Params.model_validate(
        {"line": "demo-line", "dataset": {"drawn": {}, "base_classes": base}, "sessions": sessions}
    )
    val = _draw(layout.drawn / "val" / "images", classes, images, rng)
    val.save(layout.index("val"))
    _draw(layout.drawn / "train" / "images", classes, 3, rng).save(layout.index("train"))
    encoder = EncoderIdentity(name="tiny", digest=hashlib.sha256(b"encoder").hexdigest())
    EmbeddingManifest(encoder=encoder, preprocessing="p", shape=(256, 8, 8), images=()).save(layout.embeddings)
    for stage in ("dataset", "embed"):
        Quarantine(policy="refuse", images=()).save(layout.quarantine(stage))
    layout.decoder.mkdir(parents=True)
    (layout.decoder / "decoder.safetensors").write_bytes(b"decoder")
    steps = range(0, 401, 10)
    curve = [
        {"step": s, "loss": 0.3 + 1.2 * np.exp(-s / 90) + rng.normal(0, 0.03), "mask_iou": 0.86 - 0.5 * np.exp(-s / 70)}
        for s in steps
    ]
    after_finetuning = {
        "iou_base": 0.861,
        "iou_other": 0.842,
        "recall_base": 0.7,
        "recall_other": 0.6,
        "background_silent": 0.978,
    }
    before_finetuning = {
        "iou_base": 0.523,
        "iou_other": 0.531,
        "background_silent": 0.104,
    }  # of a version without recall
    quality = {"before": before_finetuning, "after": after_finetuning}
    write_json(
        layout.decoder / "training.json",
        {"schema": 1, "classes": "base", "steps": 400, "seconds": 263.2, "curve": curve, "quality": quality},
    )
    known = list(params.dataset.base_classes)
    for step, name in enumerate(("base", *sessions)):
        known = [*known, *(params.sessions[name].classes if name != "base" else [])]
        folder = layout.classifier(name)
        folder.mkdir(parents=True)
        (folder / "classifier.safetensors").write_bytes(name.encode())
        write_json(folder / "session.json", {"seconds": 41.7 if name == "base" else 2.3 + step})
        _evaluate(layout, val, name, base, known[len(base) :], rng)
    return layout, params


def _draw(folder: Path, classes: tuple[str, ...], count: int, rng: np.random.Generator) -> Dataset:
    folder.mkdir(parents=True)
    images = []
    for number_ in range(count):
        tone = int(rng.integers(60, 200))
        image = Image.fromarray(np.clip(rng.normal(tone, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8))
        annotations: list[Annotation] = []
        for slot in rng.permutation(9)[:6]:
            x, y = 46 + 82 * int(slot % 3), 46 + 82 * int(slot // 3)
            radius = int(rng.integers(14, 34))
            name = classes[int(rng.integers(len(classes)))]
            mask = Image.new("L", (SIDE, SIDE))
            sides = 3 + len(name) % 6
            ImageDraw.Draw(mask).regular_polygon((x, y, radius), sides, rotation=int(rng.integers(90)), fill=255)
            shade = tuple(int(0.5 * value + 60) for value in class_colour(name))
            image.paste(Image.new("RGB", image.size, shade), mask=mask)
            annotations.append(annotate(100 * number_ + len(annotations), name, np.asarray(mask) > 0))
        path = folder / f"{number_:04d}.png"
        image.save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        images.append(ImageRecord(number_ + 1, path.name, SIDE, SIDE, digest, tuple(annotations)))
    return Dataset(folder, tuple(Category(i + 1, name) for i, name in enumerate(classes)), tuple(images))


def rle(mask: np.ndarray) -> Rle:
    return encode(mask[None])[0]


def annotate(identity: int, name: str, mask: np.ndarray, crowd: bool = False) -> Annotation:
    return Annotation(identity, name, rle(mask), crowd, (0.0, 0.0, 1.0, 1.0), float(mask.sum()))


def _evaluate(
    layout: Layout, val: Dataset, name: str, base: list[str], novel: list[str], rng: np.random.Generator
) -> None:
    known = [*base, *novel]
    ids = {category.name: category.id for category in val.categories}
    labels = [*known, "background"]
    matrix = np.zeros((len(labels), len(labels)), int)
    detections = []
    for image in val.images:
        for annotation in image.annotations:
            seen = annotation.category in known
            luck = rng.random()
            if luck < (0.12 if seen else 0.8):
                matrix[labels.index(annotation.category) if seen else -1, -1] += seen
                continue
            said = annotation.category if seen and luck < 0.88 else known[int(rng.integers(len(known)))]
            matrix[labels.index(annotation.category) if seen else -1, labels.index(said)] += 1
            detections.append(
                {
                    "image_id": image.id,
                    "category_id": ids[said],
                    "segmentation": annotation.rle,
                    "bbox": [0, 0, 1, 1],
                    "score": float(rng.uniform(0.35, 0.99)),
                }
            )
    scores = {cls: float(rng.uniform(45, 90)) for cls in known}
    if known[0] in scores:
        scores[known[0]] = 3.0

    def mean(group: list[str]) -> float | None:
        return float(np.mean([scores[cls] for cls in group])) if group else None

    per_class = {
        cls: {
            "ap": scores[cls],
            "ap50": min(100.0, scores[cls] + 9),
            "instances": int(matrix[at].sum()),
            "group": "base" if cls in base else "novel",
        }
        for at, cls in enumerate(known)
    }
    ap = {"base": mean(base), "novel": mean(novel), "all": mean(known)}
    unknown = len(val.categories) - len(known)
    auroc, false_positives = (0.91, 0.25) if unknown else (None, None)
    rejection = {"auroc": auroc, "unlabelled_false_positives_per_image": false_positives, "objects": unknown}
    evaluation = Evaluation.model_validate(
        {
            "schema": 1,
            "name": name,
            "classes": {"base": base, "novel": novel},
            "images": len(val.images),
            "dataset": val.digest,
            "ap": ap,
            "ap50": {key: v and min(100.0, v + 9) for key, v in ap.items()},
            "per_class": per_class,
            "base_only": {"images": 5, "ap": 61.25, "ap50": 70.5},
            "unknown": rejection,
            "confusion": {"labels": labels, "matrix": matrix.tolist()},
            "naming": naming_of(known),
            "operating_score": 0.3,
            "seconds": 4.5,
        }
    )
    evaluation.save(layout.evaluation(name) / "evaluation.json")
    write_json(layout.evaluation(name) / "detections.json", detections)


def naming_of(known: list[str]) -> dict[str, Any]:
    """Names at an operating point of 100 false names per 1,000 images, and a curve through it."""

    def rates(score: float | None, named: float, false: float) -> dict[str, Any]:
        return {
            "score": score,
            "named": {"value": named, "low": named / 2, "high": min(1.0, 1.2 * named)},
            "false_names": {"value": false, "low": false / 2, "high": 2 * false + 30},
        }

    return {
        "limit": 100.0,
        "rates": rates(0.2, 0.8, 90.0),
        "classes": {cls: {"score": 0.2, "rates": rates(0.2, 0.8, 5.0)} for cls in known},
        "curve": [rates(step / 10, 1.0 - step / 10, 400.0 * (1 - step / 10) ** 2) for step in range(10, -1, -1)],
    }


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
