"""Pooling on maps made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from samif.masks.pooling import MASKS_AT_ONCE, _largest, planes, pool
from samif.sam.compact import CORE, DECODED, FINE, MID


def ramp() -> Tensor:
    """(2, 4, 4): cell number, and minus it."""
    numbers = torch.arange(16.0).reshape(4, 4)
    return torch.stack([numbers, -numbers])


def mask(rows: slice, columns: slice, resolution: int = 16) -> Tensor:
    out = torch.zeros(1, resolution, resolution)
    out[0, rows, columns] = 1.0
    return out


def test_mean_spread_and_top_under_whole_cells() -> None:
    found = pool(ramp(), mask(slice(4, 8), slice(0, 8)))  # cells 4 and 5
    assert found.tolist() == [[4.5, -4.5, 0.5, 0.5, 5.0, -4.0]]


def test_a_cell_counts_by_the_share_that_is_covered() -> None:
    found = pool(ramp(), mask(slice(0, 4), slice(0, 5)))  # cell 0 whole, a quarter of cell 1
    assert found[0, 0].item() == pytest.approx(0.2)
    assert found[0, 2].item() == pytest.approx((0.2 * 0.8) ** 0.5)
    assert found[0, 4].item() == 0.0  # cell 1 is covered less than half as well: it is no top


@pytest.mark.parametrize(("columns", "top"), [(6, 1.0), (5, 0.0)])
def test_top_takes_cells_covered_half_as_well_as_the_best(columns: int, top: float) -> None:
    assert pool(ramp(), mask(slice(0, 4), slice(0, columns)))[0, 4].item() == top


def test_a_thin_object_keeps_its_features() -> None:
    """One low-resolution pixel wide: a sixteenth of a cell at a time, and weighed as if it were all there is."""
    thin, thick = mask(slice(0, 16), slice(5, 6)), mask(slice(0, 16), slice(4, 8))
    torch.testing.assert_close(pool(ramp(), thin), pool(ramp(), thick))
    assert pool(ramp(), mask(slice(9, 10), slice(9, 10))).tolist() == [[10.0, -10.0, 0.0, 0.0, 10.0, -10.0]]


def test_masks_are_pooled_one_by_one() -> None:
    first, second = mask(slice(0, 4), slice(0, 4)), mask(slice(8, 16), slice(3, 11))
    together = pool(ramp(), torch.cat([first, second]))
    torch.testing.assert_close(together, torch.cat([pool(ramp(), first), pool(ramp(), second)]))


def test_a_gpu_s_way_to_the_top_gives_the_same_bits() -> None:
    values, inner = torch.randn(6, 25), torch.rand(2 * MASKS_AT_ONCE + 1, 25) > 0.7
    inner[:, 3] = True  # no mask is without cells
    assert torch.equal(_largest(values, inner), torch.stack([values[:, row].amax(dim=1) for row in inner]))


def test_an_empty_mask_gives_finite_features() -> None:
    assert pool(ramp(), torch.zeros(1, 16, 16)).isfinite().all()


def test_planes_of_tiny_are_its_three_strides() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(CORE, 16), (MID, 32), (FINE, 64)]
    core, mid, fine = (torch.randn(2, channels, side, side, generator=generator) for channels, side in shapes)
    packed = torch.cat([core, F.pixel_unshuffle(mid, 2), F.pixel_unshuffle(fine, 4)], dim=1)
    for found, expected in zip(planes(packed), (core, mid, fine), strict=True):
        assert torch.equal(found, expected)
    assert pool(packed[0], mask(slice(0, 9), slice(0, 9), 64)).shape == (1, 3 * (CORE + MID + FINE))


def test_an_official_embedding_is_one_plane() -> None:
    embeddings = torch.zeros(1, DECODED, 64, 64)
    assert [plane.shape for plane in planes(embeddings)] == [embeddings.shape]
