"""Answers that `samif serve --keep` would have kept, written without a service."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from PIL import Image

from flows.artifacts.kept_answers import Instance, KeptAnswer, KeptAnswers, Reason, new_name
from samif.masks.rle import Rle, boxes

ROOM = 10**9
"""Bytes that no test fills."""


def instance(label: str, mask: Rle, score: float = 0.9) -> Instance:
    """An object of an answer; `unknown` is an unknown one."""
    content = {"segmentation": mask, "bbox": boxes([mask])[0].tolist(), "label": label, "score": score}
    return Instance.model_validate(content | {"unknown": label == "unknown"})


def answer_to(
    body: bytes,
    classes: Sequence[str] = ("bolt", "gear"),
    instances: Sequence[Instance] = (),
    reasons: Sequence[Reason] = ("share",),
    model: str = "demo-classifier/1",
) -> KeptAnswer:
    """The answer of a version to an image file."""
    with Image.open(BytesIO(body)) as image:
        width, height = image.size
    return KeptAnswer(
        time=datetime.now(UTC),
        image=new_name(".png"),
        sha256=hashlib.sha256(body).hexdigest(),
        width=width,
        height=height,
        model=model,
        classes=tuple(classes),
        score=0.3,
        reasons=tuple(reasons),
        uncertainty=None,
        instances=tuple(instances),
    )


def keep(folder: Path, body: bytes, answer: KeptAnswer, images: int = 1000, size: int = ROOM) -> bool:
    """Keep an answer in a folder, which is made where it is missing."""
    kept = KeptAnswers(folder)
    kept.create()
    return kept.add(answer, body, images, size)
