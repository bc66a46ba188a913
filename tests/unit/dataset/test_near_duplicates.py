"""Planted near-duplicates are found whatever was done to them; different scenes are not accused."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from samif.dataset.images import read_image
from samif.dataset.model import Dataset
from samif.dataset.near_duplicates import NearDuplicates, Thumbnails, difference, groups_of, near_duplicates, thumbnail

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photos(scenes: Dataset) -> list[Pixels]:
    return [read_image(scenes.path_of(image)) for image in scenes.images]


def jpeg(image: Image.Image, quality: int) -> Pixels:
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.12),
    "moved": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 2, 0, 1, 1)),
    "cropped": lambda image: image.crop((2, 2, image.width, image.height)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_near_duplicate_is_the_only_pair(photos: list[Pixels], change: str) -> None:
    copy = jpeg(CHANGES[change](Image.fromarray(photos[2])), 70)
    found = near_duplicates([thumbnail(pixels) for pixels in (*photos, copy)])
    assert [(pair.first, pair.second) for pair in found] == [(2, len(photos))]


@pytest.mark.parametrize("change", CHANGES)
def test_one_image_is_compared_with_others(photos: list[Pixels], change: str) -> None:
    copy = jpeg(CHANGES[change](Image.fromarray(photos[2])), 70)
    found = Thumbnails([thumbnail(pixels) for pixels in (*photos, copy)])
    last = len(photos)
    assert found.is_near(last, range(last)) and found.is_near(2, [0, last])
    assert not found.is_near(last, [n for n in range(last) if n != 2]) and not found.is_near(0, [])


def test_different_scenes_are_not_accused(photos: list[Pixels]) -> None:
    assert near_duplicates([thumbnail(pixels) for pixels in photos]) == []
    assert near_duplicates([]) == [] and near_duplicates([thumbnail(photos[0])]) == []


def test_one_other_part_before_a_fixed_camera_is_another_image() -> None:
    """Nearly all of the two images is equal."""
    rng = np.random.default_rng(0)
    tote = np.clip(rng.normal(120, 10, (160, 160, 3)) + np.linspace(-30, 30, 160)[:, None, None], 0, 255)
    one, other = tote.astype(np.uint8), tote.astype(np.uint8)
    one[40:70, 50:75] = (200, 40, 30)
    other[90:110, 100:140] = (30, 60, 200)
    assert near_duplicates([thumbnail(one), thumbnail(other)]) == []


def test_what_is_equal_to_the_same_image_is_one_group() -> None:
    pairs = [NearDuplicates(0, 1, 0.1), NearDuplicates(1, 3, 0.2)]
    groups = groups_of(5, pairs)
    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups.tolist())) == 3
    assert len(set(groups_of(4, []).tolist())) == 4


def test_uniform_images_have_no_difference() -> None:
    grey = np.full((40, 60, 3), 90, dtype=np.uint8)
    assert difference(thumbnail(grey), thumbnail(grey + np.uint8(1))) < 0.01
