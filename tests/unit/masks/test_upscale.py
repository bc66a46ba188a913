"""Masks in image pixels from low-resolution logits: equal to interpolating all of the image."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from samif.masks.rle import areas, decode
from samif.masks.upscale import encode_upscaled, upscaled

sides = st.integers(1, 400)


def blobs(cells: int, seed: int, smooth: float) -> NDArray[np.float32]:
    """Logits (6, cells, cells) of rising threshold: from everything set to nothing."""
    noise = np.random.default_rng(seed).normal(size=(6, cells, cells))
    smoothed = np.stack([gaussian_filter(plane, smooth) for plane in noise])
    smoothed /= smoothed.std() + 1e-9
    return (smoothed - np.linspace(-6, 6, 6)[:, None, None]).astype(np.float32)


@given(
    height=sides,
    width=sides,
    cells=st.sampled_from([16, 64, 128, 256]),
    seed=st.integers(0, 99),
    smooth=st.sampled_from([0.0, 1.0, 6.0]),
)
def test_masks_are_those_of_the_interpolated_image(
    height: int, width: int, cells: int, seed: int, smooth: float
) -> None:
    logits = blobs(cells, seed, smooth)
    side = max(height, width)
    whole = F.interpolate(torch.from_numpy(logits)[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    expected = whole[:, :height, :width].numpy()
    found = decode(encode_upscaled(logits, height, width))
    assert all((upscaled(one, height, width) == mask).all() for one, mask in zip(logits, found, strict=True))
    different = found != (expected > 0)
    assert np.abs(expected[different]).max(initial=0.0) < 1e-5  # the last bit of the arithmetic


def test_masks_are_cut_at_the_padding() -> None:
    logits = np.full((2, 8, 8), -1.0, np.float32)
    logits[1, :, 4:] = 1.0  # the right half of the padded square
    nothing, right = decode(encode_upscaled(logits, 10, 16))
    assert nothing.shape == (10, 16) and not nothing.any()
    assert right[:, 9:].all() and not right[:, :7].any()


def test_an_object_on_the_padding_alone_is_empty() -> None:
    logits = np.full((1, 8, 8), -1.0, np.float32)
    logits[0, 6:] = 1.0
    assert areas(encode_upscaled(logits, 4, 16)).tolist() == [0]


def test_no_masks_give_no_codes() -> None:
    assert encode_upscaled(np.zeros((0, 8, 8), np.float32), 10, 16) == []
