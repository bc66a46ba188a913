"""Rows of a committed shard, checked whenever they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from flows.store.shard import ShardManifest
from flows.store.storage import Lost, View
from samif.errors import SamifError

if TYPE_CHECKING:
    import torch


class OpenShard:
    """A committed shard; rows are checked whenever they are read."""

    def __init__(self, manifest: ShardManifest, view: View, refuse: Callable[[ShardManifest, str], SamifError]) -> None:
        self.manifest = manifest
        self._layout, self._view, self._refuse = manifest.layout, view, refuse
        self._sums = np.array(manifest.row_sums, np.int64)

    def check(self, rows: Sequence[int]) -> None:
        """Bring rows (ascending, each once) into memory and compare them with their sums.

        Raises:
            SamifError: the data is gone, torn or changed; it was discarded, so that the next run computes it again.
        """
        try:
            wrong = self._wrong(rows)
            if wrong:
                self._view.fill([self._layout.span(row, count) for row, count in _runs(wrong)])
                wrong = self._wrong(wrong)
        except Lost as error:
            raise self._refuse(self.manifest, str(error)) from None
        if wrong:
            told = "row" if len(wrong) == 1 else "rows"
            which = ", ".join(f"{row}" if count == 1 else f"{row} to {row + count - 1}" for row, count in _runs(wrong))
            raise self._refuse(self.manifest, f"its {told} {which} do not match their checksums")

    def copy(self, row: int, out: torch.Tensor) -> None:
        """Rows from `row` on, which were checked, into `out` (count, C, h, w)."""
        self._layout.decode(self._view.memory, row, out)

    def _wrong(self, rows: Sequence[int]) -> list[int]:
        memory = self._view.memory
        wrong: list[int] = []
        for row, count in _runs(rows):
            differ = self._layout.sums(memory, row, count) != self._sums[row : row + count]
            wrong.extend(row + at for at in np.flatnonzero(differ).tolist())
        return wrong


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending rows as (first, count) of what is without a gap."""
    runs: list[tuple[int, int]] = []
    for row in rows:
        if runs and row == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    return runs
