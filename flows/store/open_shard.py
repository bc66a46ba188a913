"""Rows of a committed shard; their checksums are verified on every read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flows.store.shard import ShardManifest
from flows.store.storage import View
from samif.errors import IntegrityError, ObjectMissing

if TYPE_CHECKING:
    import torch


class OpenShard:
    """A committed shard.

    Args:
        refuse: discards the damaged shard and makes the error for it, from the manifest and the reason.
    """

    def __init__(
        self, manifest: ShardManifest, view: View, refuse: Callable[[ShardManifest, str], IntegrityError]
    ) -> None:
        self.manifest = manifest
        self._layout, self._view, self._refuse = manifest.layout, view, refuse
        self._sums = np.array(manifest.row_sums, np.int64)

    def check(self, rows: Sequence[int]) -> None:
        """Read rows (ascending, each once) into memory and compare their checksums.

        Raises:
            IntegrityError: the data is missing, truncated or changed; it was discarded, so the next run computes it.
        """
        try:
            wrong = self._wrong(rows)
            if wrong:
                self._view.fill([self._layout.span(row, count) for row, count in _runs(wrong)])
                wrong = self._wrong(wrong)
        except ObjectMissing as error:
            raise self._refuse(self.manifest, str(error)) from None
        if wrong:
            told = "row" if len(wrong) == 1 else "rows"
            which = ", ".join(f"{row}" if count == 1 else f"{row} to {row + count - 1}" for row, count in _runs(wrong))
            raise self._refuse(self.manifest, f"its {told} {which} do not match their checksums")

    def copy(self, row: int, out: torch.Tensor) -> None:
        """Copy rows from `row` on, which `check` has verified, to `out` (count, C, h, w)."""
        self._layout.decode(self._view.memory, row, out)

    def _wrong(self, rows: Sequence[int]) -> list[int]:
        memory = self._view.memory
        wrong: list[int] = []
        for row, count in _runs(rows):
            differ = self._layout.sums(memory, row, count) != self._sums[row : row + count]
            wrong.extend(row + at for at in np.flatnonzero(differ).tolist())
        return wrong


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending rows as (first, count) of each range without a gap."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and row == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    return runs
