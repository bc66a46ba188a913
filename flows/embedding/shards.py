"""Division of images into shards, each of which is made when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

Shard = tuple[tuple[Path, str], ...]
"""Path and SHA-256 of each image of a shard."""


class Shards(Sequence[Shard]):
    """`count` shards of nearly equal size.

    Args:
        images: path and SHA-256 of each image.
        places: (n,) which of them, in the order of the shards.
    """

    def __init__(self, images: Sequence[tuple[Path, str]], places: npt.NDArray[np.int64], count: int) -> None:
        self._images, self._places, self._count = images, places, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Shard: ...
    @overload
    def __getitem__(self, at: slice) -> list[Shard]: ...
    def __getitem__(self, at: int | slice) -> Shard | list[Shard]:
        if isinstance(at, slice):
            return [self[number] for number in range(*at.indices(self._count))]
        if not 0 <= at < self._count:
            raise IndexError(at)
        start, end = (len(self._places) * number // self._count for number in (at, at + 1))
        found = (self._images[place] for place in self._places[start:end].tolist())
        return tuple((path.absolute(), sha256) for path, sha256 in found)


def divide(
    images: Sequence[tuple[Path, str]], places: npt.NDArray[np.int64], largest: int, workers: int
) -> Sequence[Shard]:
    """Shards of nearly equal size, none above `largest` images, the same number for each worker."""
    rounds = -(-len(places) // (largest * workers))
    return Shards(images, places, min(len(places), rounds * workers))
