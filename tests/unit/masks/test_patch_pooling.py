"""Cover of a patch grid by masks, against a count of sub-pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from samif.masks.patch_pooling import cover, mean_under
from tests.support.handmade import rectangle, rle


def counted(mask: NDArray[np.bool_], cells: int) -> NDArray[np.float64]:
    """Each pixel in `cells` x `cells` parts, so that borders of cells fall between parts: the share that is set."""
    side = max(mask.shape)
    square = np.zeros((side, side))
    square[: mask.shape[0], : mask.shape[1]] = mask
    fine = square.repeat(cells, axis=0).repeat(cells, axis=1)
    return fine.reshape(cells, side, cells, side).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [(40, 40), (31, 40), (40, 17), (7, 40), (1, 9)])
@pytest.mark.parametrize("cells", [1, 4, 7, 37])
def test_cover_is_the_area_of_the_mask_in_each_cell(shape: tuple[int, int], cells: int) -> None:
    mask = np.random.default_rng(cells).random(shape) < 0.4
    mask[0, 0] = True
    np.testing.assert_allclose(cover([rle(mask)], cells)[0], counted(mask, cells), atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)], ids=["wide", "tall"])
def test_no_weight_falls_on_padding(shape: tuple[int, int]) -> None:
    """A mask of the whole image, 8 cells a side: what the cells of the padding hold does not show."""
    whole = rle(np.ones(shape, dtype=bool))
    share = cover([whole], 8)[0]
    rows, columns = (-(-side * 8 // 40) for side in shape)
    assert (share[:rows, :columns] > 0).all()
    assert share.sum() == pytest.approx(share[:rows, :columns].sum()) == pytest.approx(64 * 24 / 40)
    features = torch.ones(3, 8, 8)
    features[:, rows:, :], features[:, :, columns:] = 1e6, 1e6
    np.testing.assert_allclose(mean_under(features, [whole]), np.ones((1, 3)), rtol=1e-6)


def test_a_thin_mask_is_weighed_by_what_it_covers() -> None:
    """A scratch of one pixel through two cells of ten: it counts as much as a bar would, and no other cell counts."""
    features = torch.arange(16.0).reshape(1, 4, 4)
    scratch, bar = rectangle((40, 40), 13, 2, 1, 12), rectangle((40, 40), 10, 2, 10, 12)
    expected = (8 * 4 + 4 * 5) / 12  # 8 pixels in cell 4, 4 in cell 5
    np.testing.assert_allclose(mean_under(features, [rle(scratch), rle(bar)]), [[expected]] * 2, rtol=1e-6)
    assert mean_under(features, [rle(rectangle((40, 40), 39, 39, 1, 1))]).tolist() == [[15.0]]


def test_masks_are_pooled_one_by_one_and_none_gives_none() -> None:
    features = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    masks = [rle(rectangle((30, 20), top, 3, 5, 9)) for top in (0, 11, 25)]
    together = mean_under(features, masks)
    np.testing.assert_allclose(together, np.concatenate([mean_under(features, [mask]) for mask in masks]), rtol=1e-5)
    assert mean_under(features, []).shape == (0, 5)
    assert mean_under(features, [rle(np.zeros((30, 20), dtype=bool))]).tolist() == [[0.0] * 5]
