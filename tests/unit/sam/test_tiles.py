"""Tiles: parts of an image that are encoded beside the whole, for small objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.modeling import Sam

from samif.sam.encoder import ImageEncoder, preprocessing_digest
from samif.sam.frame import TILE_OVERLAP, Frame, split_views, view_count, views
from tests.support.handmade import loaded

sides = st.integers(1, 400)


def image(height: int, width: int) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(sides, sides, st.integers(2, 4))
def test_tiles_cover_the_image_and_have_one_size(height: int, width: int, tiles: int) -> None:
    whole, *parts = views(Frame(height, width, 64, tiles))
    assert (whole.x, whole.y, whole.frame) == (0, 0, Frame(height, width, 64))
    assert len(parts) + 1 == view_count(tiles) and len({part.frame for part in parts}) == 1
    seen = np.zeros((height, width), dtype=int)
    for part in parts:
        assert part.x + part.frame.width <= width and part.y + part.frame.height <= height
        part.cut(seen)[...] += 1
    assert seen.min() >= 1


@given(st.integers(40, 400), st.integers(40, 400), st.integers(2, 4), st.data())
def test_what_is_no_larger_than_the_overlap_is_whole_in_a_tile(
    height: int, width: int, tiles: int, data: st.DataObject
) -> None:
    _, *parts = views(Frame(height, width, 64, tiles))
    h = max(1, int(TILE_OVERLAP * parts[0].frame.height) - 1)
    w = max(1, int(TILE_OVERLAP * parts[0].frame.width) - 1)
    y, x = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    assert any(
        part.x <= x and x + w <= part.x + part.frame.width and part.y <= y and y + h <= part.y + part.frame.height
        for part in parts
    )


@pytest.mark.parametrize("size", [(96, 128), (211, 317), (31, 200), (1, 90)], ids=str)
def test_each_view_is_encoded_like_an_image_of_its_own(sam: Sam, encoder: ImageEncoder, size: tuple[int, int]) -> None:
    with_tiles = ImageEncoder(loaded(sam), tiles=2)
    pixels = image(*size)
    embedding = with_tiles.encode([pixels])[0]
    assert tuple(embedding.shape) == with_tiles.embedding_shape == (5 * 256, *encoder.embedding_shape[1:])
    (whole, seen), *parts = split_views(embedding, with_tiles.frame(pixels))
    assert torch.equal(seen, encoder.encode([pixels])[0])
    for view, seen in parts:
        alone = encoder.encode([np.ascontiguousarray(view.cut(pixels.transpose(2, 0, 1)).transpose(1, 2, 0))])[0]
        # a side may be resized to one pixel more or less
        assert float((seen - alone).norm() / alone.norm()) < 0.25
    assert whole.frame == encoder.frame(pixels)


def test_images_of_several_sizes_go_together(sam: Sam) -> None:
    with_tiles = ImageEncoder(loaded(sam), tiles=2)
    images = [image(96, 128), image(64, 64)]
    together = with_tiles.encode(images)
    for row, pixels in zip(together, images, strict=True):
        torch.testing.assert_close(row, with_tiles.encode([pixels])[0], atol=1e-4, rtol=1e-4)


def test_tiles_are_part_of_what_names_an_embedding() -> None:
    digests = {preprocessing_digest(256, "float32", tiles) for tiles in (1, 2, 3)}
    assert len(digests) == 3 and preprocessing_digest(256, "float32") in digests
