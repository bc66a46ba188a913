"""Clicks and boxes -> the mask of one object."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from samif.inference.interactive import Click, PromptedImage, Prompts, part_around
from samif.masks.rle import encode_whole
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, View
from samif.sam.zoo import load_sam

HEIGHT, WIDTH = 192, 256


def scene() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A dark plate with two bright discs, and the masks (2, H, W) of the discs."""
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    discs = np.stack([(x - 70) ** 2 + (y - 90) ** 2 < 36**2, (x - 185) ** 2 + (y - 110) ** 2 < 30**2])
    rng = np.random.default_rng(0)
    pixels = rng.normal(60, 3, (HEIGHT, WIDTH, 3))
    pixels[discs[0]] = (210, 190, 60)
    pixels[discs[1]] = (80, 140, 220)
    return pixels.clip(0, 255).astype(np.uint8), discs


def prompted(name: str, x: int = 0, y: int = 0, width: int = WIDTH, height: int = HEIGHT) -> PromptedImage:
    """The scene, or a part of it, seen by an encoder that ships with samif and its own decoder."""
    encoder = ImageEncoder(load_sam(name))
    decoder = InstanceDecoder.of(encoder.sam).eval().requires_grad_(False)
    cut = np.ascontiguousarray(scene()[0][y : y + height, x : x + width])
    view = View(x, y, Frame(height, width, encoder.image_size))
    return PromptedImage(decoder, encoder.encode([cut])[0], view, HEIGHT, WIDTH, name == "photo")


@pytest.fixture(scope="module")
def image() -> PromptedImage:
    return prompted("photo")


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_click_outlines_the_object_under_it(image: PromptedImage) -> None:
    _, discs = scene()
    for disc, (x, y) in zip(discs, ((70, 90), (185, 110)), strict=True):
        found = image.answer(Prompts((Click(x, y, True),)))
        assert found.mask.shape == (HEIGHT, WIDTH) and iou(found.mask, disc) > 0.95
        assert 0.0 <= found.iou <= 1.0


def test_a_second_object_is_added_as_a_part_and_taken_off_again(image: PromptedImage) -> None:
    _, discs = scene()
    first, second = Click(70, 90, True), Click(185, 110, True)
    one = image.answer(Prompts((first,)))
    both = image.answer(Prompts((first, second)), one.mask)
    assert iou(both.mask, discs.any(axis=0)) > 0.95
    again = image.answer(Prompts((first, second, Click(185, 112, False))), both.mask)
    assert not again.mask[112, 185] and iou(again.mask, discs[0]) > 0.9


def test_every_last_click_is_agreed_with(image: PromptedImage) -> None:
    """Also where the decoder does not: a disc about the click is changed."""
    rng = np.random.default_rng(1)
    clicks: tuple[Click, ...] = (Click(70, 90, True),)
    mask = image.answer(Prompts(clicks)).mask
    for _ in range(12):
        x, y = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        clicks = (*clicks, Click(x, y, not mask[int(y), int(x)]))
        mask = image.answer(Prompts(clicks), mask).mask
        assert mask[int(y), int(x)] == clicks[-1].foreground


@pytest.mark.parametrize(("name", "least"), [("photo", 0.95), ("tiny", 0.55)])
def test_a_box_is_a_prompt_of_its_own(name: str, least: float) -> None:
    """Also for a decoder that was trained on points alone."""
    found = prompted(name).answer(Prompts(box=(34.0, 54.0, 72.0, 72.0)))
    assert iou(found.mask, scene()[1][0]) > least


def test_what_was_drawn_by_hand_outside_of_a_part_stays() -> None:
    _, discs = scene()
    part = prompted("photo", 20, 40, 100, 100)
    found = part.answer(Prompts((Click(70, 90, True),)))
    assert iou(found.mask, discs[0]) > 0.95
    drawn = np.zeros((HEIGHT, WIDTH), dtype=bool)
    drawn[:10, 200:] = True
    later = part.answer(Prompts((Click(70, 90, True),)), drawn | found.mask)
    assert later.mask[:10, 200:].all()


def test_a_mask_has_the_features_of_a_proposal(image: PromptedImage) -> None:
    _, discs = scene()
    proposal = image.proposal(discs[0])
    assert len(proposal) == 1 and proposal.tokens.shape == (1, 64) and np.isfinite(proposal.pooled).all()
    assert not np.allclose(proposal.pooled, image.proposal(discs[1]).pooled)


@pytest.mark.parametrize(
    ("top", "left", "size", "expected"),
    [
        (90, 120, 10, (93, 63, 64, 64)),
        (0, 0, 10, (0, 0, 64, 64)),
        (182, 246, 10, (192, 128, 64, 64)),
        (60, 60, 40, (20, 20, 120, 120)),
        (10, 10, 70, None),
    ],
)
def test_a_small_object_is_seen_better_in_a_part(
    top: int, left: int, size: int, expected: tuple[int, int, int, int] | None
) -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + size, left : left + size] = True
    assert part_around(encode_whole(mask)) == expected
    assert part_around(encode_whole(np.zeros((HEIGHT, WIDTH), dtype=bool))) is None
