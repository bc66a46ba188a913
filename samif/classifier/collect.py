"""What a classifier learns from: samples of labelled objects and of background, each with the picture it comes from.

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
from samif.dataset.model import Dataset, Picture
from samif.inference.propose import Proposals
from samif.sam.decoder import InstanceDecoder


@dataclass(frozen=True)
class Instance:
    """Samples (S, D) of one labelled object, and the id of its picture."""

    picture: int
    samples: Array


@dataclass(frozen=True)
class BaseSamples:
    """What base training learns from.

    Attributes:
        instances: per class, in row order.
        background: samples (N, D) of proposals that show no labelled object.
        background_pictures: the picture of each (N,).
    """

    instances: Mapping[str, Sequence[Instance]]
    background: Array
    background_pictures: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.background_pictures.shape != self.background.shape[:1]:
            raise ValueError(
                f"expected a picture for each of {len(self.background)} samples, got {self.background_pictures.shape}"
            )

    @property
    def pictures(self) -> list[int]:
        """Ids of all pictures, ascending."""
        shown = {instance.picture for instances in self.instances.values() for instance in instances}
        return sorted(shown | set(self.background_pictures.tolist()))

    def of(self, pictures: frozenset[int]) -> BaseSamples:
        """What these pictures show; a class may be left without an instance."""
        rows = np.isin(self.background_pictures, list(pictures))
        return BaseSamples(
            {name: [i for i in instances if i.picture in pictures] for name, instances in self.instances.items()},
            self.background[rows],
            self.background_pictures[rows],
        )

    def columns(self, columns: NDArray[np.int64]) -> BaseSamples:
        """The same samples with some of their features."""
        return BaseSamples(
            {
                name: [Instance(i.picture, i.samples[:, columns]) for i in instances]
                for name, instances in self.instances.items()
            },
            self.background[:, columns],
            self.background_pictures,
        )


def collect_base(
    dataset: Dataset,
    decoder: InstanceDecoder,
    classes: Sequence[str],
    read: Callable[[Picture], tuple[Tensor, Tensor | None]],
    proposals_of: Callable[[Picture], Proposals],
    parts: Sequence[FeaturePart],
    params: TrainBaseParams,
    advance: Callable[[int], None] = lambda _: None,
) -> BaseSamples:
    """Samples of every labelled object of `classes`, and of the proposals that show none.

    Args:
        read: a picture -> its embedding (C, h, w), and its semantic features (S, g, g) where `parts` names them.
        parts: features to take; `params.features` or more.
        advance: called with 1 for each picture that is done.
    """
    learnt = frozenset(classes)
    instances: dict[str, list[Instance]] = {name: [] for name in classes}
    background: list[Array] = []
    pictures: list[int] = []
    for picture in dataset.pictures:
        rng = np.random.default_rng([params.seed, picture.id])
        labelled = [a for a in picture.annotations if a.category in learnt and not a.crowd]
        if labelled:
            embedding, semantic = read(picture)
            found = instance_samples(
                decoder, embedding, picture, labelled, params.prompts_per_object, parts, rng, semantic
            )
            for annotation, samples in zip(labelled, found, strict=True):
                instances[annotation.category].append(Instance(picture.id, samples))
        candidates = proposals_of(picture)
        if len(candidates):
            negatives = candidates.take(background_rows(candidates, picture.annotations, learnt))
            background.append(features_of(negatives, parts))
            pictures += [picture.id] * len(negatives)
        advance(1)
    width = next((i.samples.shape[1] for found in instances.values() for i in found), 0)
    return BaseSamples(
        instances,
        np.concatenate([np.zeros((0, width), np.float32), *background]),
        np.array(pictures, dtype=np.int64),
    )
