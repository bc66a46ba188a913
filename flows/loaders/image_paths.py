"""Paths and digests of the images of data sets, read from their indexes as they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import Self, overload

import numpy as np
import numpy.typing as npt

from samif.dataset.model import Dataset

Item = tuple[Path, str]


class ImagePaths(Sequence[Item]):
    """(path, SHA-256) of each image of some data sets, in their order; no list of them is in memory."""

    def __init__(self, datasets: Sequence[Dataset], places: npt.NDArray[np.int64] | None = None) -> None:
        self._datasets = [dataset.without_labels() for dataset in datasets]
        self._starts = np.cumsum([0, *(len(dataset.images) for dataset in self._datasets)])
        self._places = places

    def without(self, images: Collection[str]) -> Self:
        """Those whose SHA-256 is none of these."""
        kept = np.fromiter((sha256 not in images for _, sha256 in self), np.bool_, len(self))
        here = np.arange(len(self)) if self._places is None else self._places
        return type(self)(self._datasets, here[kept])

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._places is None else len(self._places)

    def __iter__(self) -> Iterator[Item]:
        every = chain.from_iterable(((d.path_of(image), image.sha256) for image in d.images) for d in self._datasets)
        if self._places is None:
            return every
        chosen = np.zeros(int(self._starts[-1]), np.bool_)
        chosen[self._places] = True
        return compress(every, chosen)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> list[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | list[Item]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at] if self._places is None else int(self._places[at])
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        dataset = self._datasets[number]
        image = dataset.images[place - int(self._starts[number])]
        return dataset.path_of(image), image.sha256
