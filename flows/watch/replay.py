"""Scores the live version again: the files of the registry, the validation images, their embeddings and the scores are
compared with those of the registration."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import numpy as np

from flows.comparison.scorer import Scorer
from flows.loaders.inputs import encoder_of, source_of
from flows.registry.registry import Registry
from flows.registry.verification import complaints, verify
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.watch.records import Replayed
from flows.workspace.layout import Layout
from samif.config import Params
from samif.dataset.images import ImageError, image_sha256, read_image
from samif.dataset.model import Dataset
from samif.errors import DataError, IntegrityError, ObjectMissing
from samif.evaluate.model import Evaluation
from samif.versions.gates import moved_classes

logger = logging.getLogger(__name__)

TOLERANCE = {"float16": 0.002, "int8": 0.03}
"""Largest difference of an embedding from the stored one, relative to its norm: the rounding of the store."""
BFLOAT16_TOLERANCE = 0.01
"""Added where the encoder itself computes in bfloat16, whose sums differ between machines."""


def replay(layout: Layout, params: Params, registry: Registry, ref: str) -> Replayed:
    """Verify a version, hash the validation images, encode some of them again, and score the version on all of them.

    Damaged and missing files are differences, not errors.

    Raises:
        ServiceUnavailable: the registry or the store does not answer.
    """
    began = time.monotonic()
    differences = [*complaints(verify(registry, ref))]
    images = encoded = 0
    try:
        scorer = Scorer(layout, params, registry)
        images = len(scorer.dataset.images)
        differences += _changed_images(scorer.dataset)
        encoded, apart = _encode_again(layout, params)
        differences += apart
        differences += _changed_scores(scorer, registry, ref)
    except (DataError, IntegrityError, ObjectMissing) as error:
        logger.warning("replay of %s failed", ref, exc_info=True)
        differences.append(f"it could not be scored again: {error}")
    return Replayed(
        time=datetime.now(UTC), model=ref, differences=tuple(differences), images=images, encoded=encoded,
        seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip


def _changed_images(dataset: Dataset) -> list[str]:
    changed = []
    with track(len(dataset.images), "images", "hash the validation images") as progress:
        for image in dataset.images:
            try:
                if image_sha256(dataset.path_of(image)) != image.sha256:
                    changed.append(image.file_name)
            except ImageError:
                changed.append(image.file_name)
            progress.advance()
    return [f"validation images: {_listed(changed)} missing or changed"] if changed else []


def _encode_again(layout: Layout, params: Params) -> tuple[int, list[str]]:
    """Encode some images from their files and compare with the stored embeddings; how many, and the differences."""
    source = source_of(layout, params, "val")
    count = min(params.watch.replay_images, len(source.dataset.images))
    if not count:
        return 0, []
    encoder = encoder_of(params.encoder, device_here())
    allowed = TOLERANCE[params.encoder.stored_as] + BFLOAT16_TOLERANCE * (encoder.precision == "bfloat16")
    chosen = [source.dataset.images[i] for i in np.linspace(0, len(source.dataset.images) - 1, count).astype(int)]
    apart, worst = [], 0.0
    with track(count, "images", "encode again") as progress:
        for image in chosen:
            try:
                pixels = read_image(source.dataset.path_of(image), sha256=image.sha256)
            except ImageError:
                logger.debug("%s is not encoded again: it is missing or changed", image.file_name)
                continue
            stored = source.read([image])[0]
            difference = float((encoder.encode([pixels])[0] - stored).norm() / stored.norm().clamp_min(1e-12))
            if not difference <= allowed:
                apart.append(image.file_name)
                worst = max(worst, difference) if difference == difference else float("inf")
            progress.advance()
    what = f"embeddings: {_listed(apart)} encoded again differ from the stored ones, by {worst:.2%} at most"
    return count, [f"{what} ({allowed:.2%} is allowed)"] if apart else []


def _changed_scores(scorer: Scorer, registry: Registry, ref: str) -> list[str]:
    """The scores that moved by more than the gates tolerate: another processor moves them in the last digits."""
    folder = registry.download(ref)
    registered = Evaluation.load(folder / "evaluation.json")
    if registered.dataset != scorer.dataset.digest:
        return [
            f"scores: the validation images are now {scorer.dataset.digest[:12]}, at registration they were "
            f"{registered.dataset[:12]}; run again to score the version on these"
        ]
    now = scorer.measure(ref).evaluation
    moved = moved_classes(registered, now)
    if not moved:
        return []
    before, after = ({n: e.per_class[n].ap if n in e.per_class else None for n in moved} for e in (registered, now))
    name = max(moved, key=lambda n: abs((before[n] or 0.0) - (after[n] or 0.0)))
    return [
        f"scores: AP of all classes was {_points(registered.ap.all)}, is {_points(now.ap.all)}; {len(moved)} classes "
        f"differ, {name} most ({_points(before[name])}, now {_points(after[name])})"
    ]


def _points(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
