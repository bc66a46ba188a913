"""The encoder against the official predictor, and the frames that images, prompts and masks live in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from samif.masks.rle import decode
from samif.masks.upscale import encode_upscaled
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, grid_points
from tests.support.handmade import loaded, rectangle

SIZES = [(256, 256), (300, 200), (211, 317), (64, 48), (31, 500), (513, 512)]
sides = st.integers(8, 300)


def image(height: int, width: int) -> np.ndarray:
    """A ramp with a disc and noise."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([255 * x / width, 255 * y / height, 100 + 0 * x], axis=-1)
    rgb[(y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 4) ** 2] = (200, 40, 90)
    return (rgb + np.random.default_rng(height).normal(0, 5, rgb.shape)).clip(0, 255).astype(np.uint8)


# Embeddings


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_embedding_is_that_of_the_official_predictor(sam: Sam, encoder: ImageEncoder, size: tuple[int, int]) -> None:
    predictor = SamPredictor(sam)
    predictor.set_image(image(*size))
    embedding = encoder.encode([image(*size)])
    assert embedding.dtype == torch.float32 and tuple(embedding.shape[1:]) == encoder.embedding_shape
    torch.testing.assert_close(embedding, predictor.get_image_embedding(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (1, 200), (3, 257)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_images_are_resized_as_officially_to_the_last_bit(encoder: ImageEncoder, size: tuple[int, int]) -> None:
    official = ResizeLongestSide(encoder.image_size).apply_image(image(*size))
    np.testing.assert_array_equal(encoder.prepare(image(*size)).permute(1, 2, 0).numpy(), official)


def test_images_of_any_sizes_go_together(encoder: ImageEncoder) -> None:
    images = [image(*size) for size in SIZES]
    together = encoder.encode(images)
    for row, alone in zip(together, images, strict=True):
        torch.testing.assert_close(row, encoder.encode([alone])[0], atol=1e-4, rtol=1e-4)


def test_a_strided_image_is_the_same_image(encoder: ImageEncoder) -> None:
    turned = np.rot90(image(60, 90))
    assert torch.equal(encoder.encode([turned]), encoder.encode([np.ascontiguousarray(turned)]))


@pytest.mark.parametrize("hardware", [True, False])
def test_bfloat16_is_left_to_hardware(
    sam: Sam, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch, hardware: bool
) -> None:
    """On a processor without it one product takes a hundred times as long: float32 is what a run can wait for."""
    monkeypatch.setattr("samif.sam.encoder.multiplies_bfloat16", lambda device: hardware)
    asked = ImageEncoder(loaded(sam), "bfloat16")
    shown = image(64, 48)
    rounded = not torch.equal(asked.encode([shown]), encoder.encode([shown]))
    assert rounded == hardware
    torch.testing.assert_close(asked.encode([shown]), encoder.encode([shown]), atol=0.1, rtol=0.1)
    assert asked.preprocessing_digest != encoder.preprocessing_digest


def test_frame_takes_height_before_width(encoder: ImageEncoder) -> None:
    assert encoder.frame(image(60, 90)) == Frame(height=60, width=90, image_size=256)


# Frames


@pytest.mark.parametrize(
    ("frame", "point", "expected"),
    [
        (Frame(128, 256, 256), (10.0, 20.0), (10.0, 20.0)),
        (Frame(512, 1024, 256), (10.0, 20.0), (2.5, 5.0)),
        (Frame(100, 50, 1024), (50.0, 100.0), (512.0, 1024.0)),
    ],
)
def test_image_pixels_become_encoder_pixels(
    frame: Frame, point: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert frame.to_encoder(torch.tensor(point)).tolist() == list(expected)


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((0.0, 0.0), True),
        ((255.9, 127.9), True),
        ((255.9, 128.0), False),
        ((256.0, 10.0), False),
        ((5.0, 200.0), False),
    ],
)
def test_padding_is_outside(point: tuple[float, float], inside: bool) -> None:
    assert bool(Frame(100, 200, 256).inside(torch.tensor(point))) is inside


def test_low_masks_hold_the_share_of_each_cell() -> None:
    mask = torch.from_numpy(rectangle((4, 8), 0, 0, 3, 2))[None]  # 8 x 8 when padded, cells of 2 x 2
    low = Frame(4, 8, 256).low_masks(mask, 4)
    assert low.shape == (1, 4, 4)
    assert low[0].tolist() == [[1.0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@given(height=sides, width=sides, resolution=st.sampled_from([3, 64, 256]), seed=st.integers(0, 99))
def test_low_masks_are_those_of_an_interpolation_by_area(height: int, width: int, resolution: int, seed: int) -> None:
    """Bit for bit, for masks that cover a part of the image, all of it, or nothing."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, height, width)) < 0.5
    masks[0, : rng.integers(0, height)] = masks[0, :, : rng.integers(0, width)] = False
    masks[2] = bool(seed % 2)
    found = Frame(height, width, 256).low_masks(torch.from_numpy(masks), resolution)
    side = max(height, width)
    padded = torch.nn.functional.pad(torch.from_numpy(masks).float(), (0, side - width, 0, side - height))
    expected = torch.nn.functional.interpolate(padded[:, None], (resolution, resolution), mode="area")[:, 0]
    assert torch.equal(found, expected)


@given(height=sides, width=sides, data=st.data())
def test_masks_come_back_from_low_resolution(height: int, width: int, data: st.DataObject) -> None:
    """To within a cell on every side."""
    box_height, box_width = data.draw(st.integers(4, height)), data.draw(st.integers(4, width))
    top = data.draw(st.integers(0, height - box_height))
    left = data.draw(st.integers(0, width - box_width))
    mask = torch.from_numpy(rectangle((height, width), top, left, box_height, box_width))
    frame = Frame(height, width, 256)
    low = frame.low_masks(mask[None], 64) - 0.5
    back = torch.from_numpy(decode(encode_upscaled(low.numpy(), height, width))[0])
    cell = int(np.ceil(max(height, width) / 64)) + 1
    for y, x in (back != mask).nonzero().tolist():
        near_row = min(abs(y - top), abs(y - (top + box_height))) <= cell
        near_column = min(abs(x - left), abs(x - (left + box_width))) <= cell
        assert near_row or near_column


@given(height=sides, width=sides, image_size=st.sampled_from([256, 1024]), side=st.integers(1, 12))
def test_the_grid_covers_the_image_evenly(height: int, width: int, image_size: int, side: int) -> None:
    frame = Frame(height, width, image_size)
    points = grid_points(side, frame)
    assert points.shape == (side * side, 2)
    assert frame.inside(points).all() and (points > 0).all()
    back = points / frame.scale  # image pixels
    assert torch.allclose(back.mean(dim=0), torch.tensor([width / 2, height / 2]), rtol=1e-4)
    assert torch.allclose(back[0], torch.tensor([width, height]) / (2 * side), rtol=1e-4)
    assert len(points.unique(dim=0)) == side * side
