"""SHA-256 of many image files in 32 bytes each, instead of a string each.

Shape legend: N keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Self, overload

import numpy as np
import numpy.typing as npt

KEY_BYTES = 32
CHUNK = 1 << 16
"""Keys that are strings at a time."""

Raw = npt.NDArray[np.uint8]
"""(N, 32) the bytes of the digests."""


class ImageKeys(Sequence[str]):
    """N digests, read as hexadecimal strings; immutable and picklable."""

    def __init__(self, raw: Raw) -> None:
        self.raw = np.ascontiguousarray(raw, np.uint8).reshape(-1, KEY_BYTES)

    @classmethod
    def of(cls, images: Iterable[str]) -> Self:
        """Keys from strings of 64 hexadecimal digits.

        Raises:
            ValueError: one is something else.
        """
        if isinstance(images, cls):
            return images
        rest, parts = iter(images), [np.zeros((0, KEY_BYTES), np.uint8)]
        while some := [bytes.fromhex(image) for image in islice(rest, CHUNK)]:
            if {len(key) for key in some} != {KEY_BYTES}:
                raise ValueError("an image is named by 64 hexadecimal digits")
            parts.append(np.frombuffer(b"".join(some), np.uint8).reshape(-1, KEY_BYTES))
        return cls(np.concatenate(parts))

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> ImageKeys: ...
    def __getitem__(self, at: int | slice) -> str | ImageKeys:
        return ImageKeys(self.raw[at]) if isinstance(at, slice) else self.raw[at].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            text = self.raw[start : start + CHUNK].tobytes().hex()
            for at in range(0, len(text), 2 * KEY_BYTES):
                yield text[at : at + 2 * KEY_BYTES]

    def __contains__(self, image: object) -> bool:
        return isinstance(image, str) and bool(self.hold([image])[0])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ImageKeys):
            return np.array_equal(self.raw, other.raw)
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ImageKeys({len(self)})"

    @property
    def words(self) -> npt.NDArray[np.bytes_]:
        """(N,) the same memory as byte strings, which compare and sort as the keys do."""
        return self.raw.view(f"S{KEY_BYTES}")[:, 0]

    @property
    def ascend(self) -> bool:
        """Whether the keys ascend and none occurs twice."""
        words = self.words
        return bool((words[1:] > words[:-1]).all())

    def hold(self, images: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(n,) whether each of n images is among the keys, which ascend."""
        wanted = ImageKeys.of(images).words
        if not len(self):
            return np.zeros(len(wanted), np.bool_)
        at = np.minimum(np.searchsorted(self.words, wanted), len(self) - 1)
        found: npt.NDArray[np.bool_] = self.words[at] == wanted
        return found

    def once(self) -> npt.NDArray[np.int64]:
        """Places of the keys' first occurrences, in the order of the keys."""
        return np.unique(self.words, return_index=True)[1].astype(np.int64)
