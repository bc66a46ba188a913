"""Measuring the images of a data set for advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from flows.advice.run_outputs import RunOutputs
from flows.runtime.progress import Tracker, say, track
from flows.workspace.layout import Split
from samif.advice.advise import Advice, Measured, advise
from samif.advice.traits import measure_traits
from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.dataset.near_duplicates import thumbnail
from samif.errors import IntegrityError, ObjectMissing, ServiceUnavailable

MOST_IMAGES = 1000
"""Images of a split whose pixels are read, spread evenly over it: at 0.1 s an image, a minute or two. Objects and
images are counted over all of them."""
MISSING = (ObjectMissing, IntegrityError, ServiceUnavailable)
"""Errors of what a run left: advice is then given without it."""


def give_advice(
    train: Dataset, splits: Mapping[Split, Dataset], outputs: RunOutputs | None, held_out: bool = False
) -> Advice:
    """Advice about the images of `train`, and their relation to the split `val` if there is one; see `advise`."""
    images = {split: chosen(dataset.images) for split, dataset in splits.items()}
    with track(sum(map(len, images.values())), "images", "measure images") as progress:
        measured = list(_measure(splits, images, outputs, progress))
    return advise(train, measured, held_out)


def chosen(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """At most MOST_IMAGES of them."""
    if len(images) <= MOST_IMAGES:
        return list(images)
    return [images[row] for row in np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int)]


def _measure(
    splits: Mapping[Split, Dataset],
    images: Mapping[Split, Sequence[ImageRecord]],
    outputs: RunOutputs | None,
    progress: Tracker,
) -> Iterator[Measured]:
    for split, shown in images.items():
        for image in shown:
            pixels = read_image(splits[split].path_of(image))
            labels = [a for a in image.annotations if not a.crowd]
            features, doubted = None, []
            if outputs is not None and labels:
                try:
                    features, doubted = outputs.features(image, labels), outputs.bad_masks(image, labels)
                except MISSING as error:
                    say(f"names and masks are judged only in part: {error}")
                    outputs = None
            yield Measured(split, image, thumbnail(pixels), measure_traits(image, pixels), features, doubted)
            progress.advance()
