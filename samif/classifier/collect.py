"""What a classifier learns from: samples of labelled objects and of background, each with the image it comes from.

Shape legend: S samples of one instance, N samples, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from samif.classifier.heads import Array
from samif.classifier.samples import background_rows, features_of, instance_samples
from samif.config import FeaturePart, TrainBaseParams
from samif.dataset.model import Dataset, ImageRecord
from samif.inference.propose import Proposals
from samif.sam.decoder import InstanceDecoder


@dataclass(frozen=True)
class Instance:
    """Samples (S, D) of one labelled object, and the id of its image."""

    image: int
    samples: Array


@dataclass(frozen=True)
class BaseSamples:
    """What base training learns from.

    Attributes:
        instances: per class, in row order.
        background: samples (N, D) of proposals that show no labelled object.
        background_images: the image of each (N,).
    """

    instances: Mapping[str, Sequence[Instance]]
    background: Array
    background_images: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.background_images.shape != self.background.shape[:1]:
            raise ValueError(
                f"expected an image for each of {len(self.background)} samples, got {self.background_images.shape}"
            )

    @property
    def images(self) -> list[int]:
        """Ids of all images, ascending."""
        shown = {instance.image for instances in self.instances.values() for instance in instances}
        return sorted(shown | set(self.background_images.tolist()))

    def of(self, images: frozenset[int]) -> BaseSamples:
        """What these images show; a class may be left without an instance."""
        rows = np.isin(self.background_images, list(images))
        return BaseSamples(
            {name: [i for i in instances if i.image in images] for name, instances in self.instances.items()},
            self.background[rows],
            self.background_images[rows],
        )

    def columns(self, columns: NDArray[np.int64]) -> BaseSamples:
        """The same samples with some of their features."""
        return BaseSamples(
            {
                name: [Instance(i.image, i.samples[:, columns]) for i in instances]
                for name, instances in self.instances.items()
            },
            self.background[:, columns],
            self.background_images,
        )


def collect_base(
    dataset: Dataset,
    decoder: InstanceDecoder,
    classes: Sequence[str],
    read: Callable[[ImageRecord], tuple[Tensor, Tensor | None]],
    proposals_of: Callable[[ImageRecord], Proposals],
    parts: Sequence[FeaturePart],
    params: TrainBaseParams,
    advance: Callable[[int], None] = lambda _: None,
    tiles: int = 1,
) -> BaseSamples:
    """Samples of every labelled object of `classes`, and of the proposals that show none.

    Args:
        read: an image -> its embedding (V * C, h, w), and its semantic features (S, g, g) where `parts` names them.
        parts: features to take; `params.features` or more.
        advance: called with 1 for each image that is done.
        tiles: tiles per image side that embeddings were made with.
    """
    learnt = frozenset(classes)
    instances: dict[str, list[Instance]] = {name: [] for name in classes}
    background: list[Array] = []
    images: list[int] = []
    for image in dataset.images:
        rng = np.random.default_rng([params.seed, image.id])
        labelled = [a for a in image.annotations if a.category in learnt and not a.crowd]
        if labelled:
            embedding, semantic = read(image)
            found = instance_samples(
                decoder, embedding, image, labelled, params.prompts_per_object, parts, rng, semantic, tiles
            )
            for annotation, samples in zip(labelled, found, strict=True):
                instances[annotation.category].append(Instance(image.id, samples))
        candidates = proposals_of(image)
        if len(candidates):
            negatives = candidates.take(background_rows(candidates, image.annotations, learnt))
            background.append(features_of(negatives, parts))
            images += [image.id] * len(negatives)
        advance(1)
    width = next((i.samples.shape[1] for found in instances.values() for i in found), 0)
    return BaseSamples(
        instances,
        np.concatenate([np.zeros((0, width), np.float32), *background]),
        np.array(images, dtype=np.int64),
    )
