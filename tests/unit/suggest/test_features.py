"""Image features tell copies of an image from other images, and names near a border between classes are uncertain."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from samif.config import ProposeParams
from samif.dataset.images import read_image
from samif.inference.propose import propose
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.zoo import load_sam
from samif.suggest.features import image_features, name_changes
from samif.suggest.select import NEAR_DUPLICATE
from tests.support.handmade import classifier, draw_dataset, proposals, rectangle

WIDTH = 32
AXES = np.eye(WIDTH, dtype=np.float32)
Pixels = NDArray[np.uint8]


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


CHANGES = {
    "recompressed": recompressed,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "other contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.1),
}


def test_copies_are_near_duplicates_and_other_scenes_are_none(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path, size=192, base_images=5, mixed_images=5)
    loaded = load_sam("tiny", None, None)
    encoder, decoder = ImageEncoder(loaded), InstanceDecoder.of(loaded.sam)

    def features(pixels: Pixels) -> NDArray[np.float64]:
        embedding, frame = encoder.encode([pixels])[0], encoder.frame(pixels)
        return image_features(embedding, frame, propose(decoder, embedding, frame, ProposeParams(points=32)), None)

    scenes = [read_image(dataset.path_of(image)) for image in dataset.images]
    vectors = np.stack([features(scene) for scene in scenes])
    mean = vectors.mean(axis=0)

    def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((x - mean) / np.linalg.norm(x - mean, axis=-1, keepdims=True))

    between = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(between, 0.0)
    assert between.max() < NEAR_DUPLICATE
    for name, change in CHANGES.items():
        for row in (0, 7):
            copy = features(np.asarray(change(Image.fromarray(scenes[row]))))
            assert unit(copy) @ unit(vectors[row]) >= NEAR_DUPLICATE, name


@pytest.mark.parametrize("seed", range(3))
def test_names_between_two_classes_change_more_often(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bolt, nut = rng.normal(size=(2, WIDTH)).astype(np.float32)
    head = classifier({"bolt": bolt.tolist(), "nut": nut.tolist()}, [50.0] * WIDTH)
    masks = [rectangle((40, 40), 2, 2, 9, 9), rectangle((40, 40), 20, 20, 9, 9)]
    sure = name_changes(proposals(masks, np.stack([3 * bolt, 3 * nut])), head)
    between = name_changes(proposals(masks, np.stack([bolt + nut] * 2) / 2), head)
    assert 0.0 <= sure < between <= 1.0


def test_without_a_good_object_nothing_is_uncertain() -> None:
    head = classifier({"bolt": AXES[0].tolist()}, AXES[1].tolist())
    mask = rectangle((40, 40), 2, 2, 9, 9)
    assert name_changes(proposals([]), head) == 0.0
    assert name_changes(proposals([mask], (AXES[:1] + AXES[1:2]) / 2, [0.2]), head) == 0.0
