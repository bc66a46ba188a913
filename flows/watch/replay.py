"""Is the live version still what it was when it was registered? All is looked at again: the files of the registry, the
frozen images, their embeddings, and the scores on them. Any difference is a complaint."""

from __future__ import annotations

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
from samif.dataset.images import image_sha256, read_image
from samif.dataset.model import Dataset
from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.versions.card import evaluation_digest

TOLERANCE = {"float16": 0.002, "int8": 0.03}
"""How far an embedding may lie from the stored one, relative to its length: what rounding in the store makes of it."""
BFLOAT16_TOLERANCE = 0.01
"""More where the encoder itself works in bfloat16, whose sums differ between machines."""


def replay(layout: Layout, params: Params, registry: Registry, ref: str) -> Replayed:
    """Verify a version, hash the frozen images, encode some of them again, and score it on all of them.

    What is damaged is a complaint, not an error: this is how it is found.
    """
    began = time.monotonic()
    found = [*complaints(verify(registry, ref))]
    images = encoded = 0
    try:
        scorer = Scorer(layout, params, registry)
        images = len(scorer.dataset.images)
        found += _images(scorer.dataset)
        encoded, apart = _encoded_again(layout, params)
        found += apart
        found += _scores(scorer, registry, ref)
    except SamifError as error:
        found.append(f"it could not be scored again: {error}")
    return Replayed(
        time=datetime.now(UTC), model=ref, complaints=tuple(found), images=images, encoded=encoded,
        seconds=round(time.monotonic() - began, 1),
    )  # fmt: skip


def _images(dataset: Dataset) -> list[str]:
    changed = []
    with track(len(dataset.images), "images", "hash the frozen images") as progress:
        for image in dataset.images:
            try:
                if image_sha256(dataset.path_of(image)) != image.sha256:
                    changed.append(image.file_name)
            except SamifError:
                changed.append(image.file_name)
            progress.advance()
    return [f"frozen images: {_listed(changed)} gone or changed"] if changed else []


def _encoded_again(layout: Layout, params: Params) -> tuple[int, list[str]]:
    """Some images from their files through the encoder: their embeddings must be the stored ones."""
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
            except SamifError:  # already among the complaints
                continue
            stored = source.read([image])[0]
            difference = float((encoder.encode([pixels])[0] - stored).norm() / stored.norm().clamp_min(1e-12))
            if not difference <= allowed:
                apart.append(image.file_name)
                worst = max(worst, difference) if difference == difference else float("inf")
            progress.advance()
    what = f"embeddings: {_listed(apart)} encoded again differ from the stored ones, by {worst:.2%} at most"
    return count, [f"{what} ({allowed:.2%} is allowed)"] if apart else []


def _scores(scorer: Scorer, registry: Registry, ref: str) -> list[str]:
    folder = registry.download(ref)
    registered = Evaluation.load(folder / "evaluation.json")
    if registered.dataset != scorer.dataset.digest:
        return [
            f"scores: the frozen images are now {scorer.dataset.digest[:12]}, it was scored on "
            f"{registered.dataset[:12]}; run again to score it on these"
        ]
    now = scorer.measure(ref).evaluation
    if evaluation_digest(now) == evaluation_digest(registered):
        return []
    moved = {
        name: (score.ap50, now.per_class[name].ap50)
        for name, score in registered.per_class.items()
        if name in now.per_class and score != now.per_class[name]
    }
    totals = f"AP50 of all was {_points(registered.ap50.all)}, is {_points(now.ap50.all)}"
    if not moved:
        return [f"scores: {totals}; no class differs, but counts of false tags or confusions do"]
    name, (before, after) = max(moved.items(), key=lambda item: abs((item[1][0] or 0.0) - (item[1][1] or 0.0)))
    return [f"scores: {totals}; {len(moved)} classes differ, {name} most ({_points(before)}, now {_points(after)})"]


def _points(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.2f}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
