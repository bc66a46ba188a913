"""Samples from proposals and from prompts inside labelled instances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samif.classifier.samples import background_rows, features_of, instance_samples
from samif.config import FeaturePart
from samif.dataset.images import read_image
from samif.dataset.model import Dataset
from samif.errors import SamifError
from samif.inference.propose import Proposals
from samif.masks.patch_pooling import mean_under
from samif.masks.pooling import pool
from samif.masks.rle import decode
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, split_views
from tests.support.handmade import annotation, loaded, pixels, proposals, rectangle

SHAPE = (20, 20)
OBJECT = pixels(SHAPE, 100)
LEARNT = frozenset({"bolt"})


# Background


@pytest.mark.parametrize(("covered", "is_background"), [(29, True), (30, False), (31, False)])
def test_a_proposal_is_background_below_an_iou_of_three_tenths(covered: int, is_background: bool) -> None:
    """Pixels of the object and nothing else: the IoU is their share of its 100."""
    found = background_rows(proposals([pixels(SHAPE, covered)]), [annotation(1, "bolt", OBJECT)], LEARNT)
    assert found.tolist() == ([0] if is_background else [])


@pytest.mark.parametrize(("category", "crowd"), [("hook", False), ("bolt", True), ("hook", True)])
@pytest.mark.parametrize(("covered", "is_background"), [(29, True), (30, False)])
def test_a_proposal_on_an_ignored_region_is_nothing(
    category: str, crowd: bool, covered: int, is_background: bool
) -> None:
    """100 pixels of which so many lie on the region: their own share counts, not the region's."""
    found = background_rows(
        proposals([pixels(SHAPE, 100, start=200 - covered)]),
        [annotation(1, category, pixels(SHAPE, 200), crowd=crowd)],
        LEARNT,
    )
    assert found.tolist() == ([0] if is_background else [])


def test_rows_are_indices_of_the_proposals() -> None:
    masks = [OBJECT, pixels(SHAPE, 50, 300), pixels(SHAPE, 60), pixels(SHAPE, 20, 350)]
    assert background_rows(proposals(masks), [annotation(1, "bolt", OBJECT)], LEARNT).tolist() == [1, 3]
    assert background_rows(proposals(masks), [], LEARNT).tolist() == [0, 1, 2, 3]
    assert background_rows(proposals([]), [annotation(1, "bolt", OBJECT)], LEARNT).tolist() == []


# Features


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["token"], [1, 2]),
        (["pooled"], [3]),
        (["token", "pooled"], [1, 2, 3]),
        (["pooled", "token"], [3, 1, 2]),
        (["semantic", "token"], [4, 5, 1, 2]),
    ],
)
def test_parts_stand_side_by_side_in_their_order(parts: list[FeaturePart], expected: list[float]) -> None:
    one = proposals([OBJECT])
    columns = (np.array([values], np.float32) for values in ([1, 2], [3], [4, 5]))
    every = Proposals(one.masks, one.iou, one.objectness, *columns)
    assert features_of(every, parts).tolist() == [expected]


def test_proposals_without_semantic_features_are_refused_where_they_are_needed() -> None:
    with pytest.raises(SamifError, match="needs semantic features and these proposals have none"):
        features_of(proposals([OBJECT]), ["token", "semantic"])


# Instances


def test_each_instance_gets_samples_of_its_own(
    decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset
) -> None:
    image = max(scenes.images, key=lambda p: len(p.annotations))
    embedding = encoder.encode([read_image(scenes.path_of(image))])[0]

    def samples(count: int, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        chosen = image.annotations[:count]
        return instance_samples(decoder, embedding, image, chosen, 3, ["token", "pooled"], rng)

    found = samples(3, 0)
    assert len(found) == 3
    assert all(1 <= len(rows) <= 3 and rows.shape[1] == found[0].shape[1] for rows in found)
    assert all(np.array_equal(a, b) for a, b in zip(found, samples(3, 0), strict=True))
    assert samples(0, 0) == []


def test_where_no_answer_fits_features_are_pooled_under_the_label(
    decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset
) -> None:
    """A segmenter of random weights finds no part, so that every sample comes from the label."""
    image = scenes.images[0]
    embedding = encoder.encode([read_image(scenes.path_of(image))])[0]
    found = instance_samples(decoder, embedding, image, image.annotations, 2, ["pooled"], np.random.default_rng(0))
    masks = torch.from_numpy(decode([a.rle for a in image.annotations]))
    low = Frame(image.height, image.width, encoder.image_size).low_masks(masks, 64)
    expected = pool(embedding, low).numpy()
    assert [rows.shape for rows in found] == [(1, expected.shape[1])] * len(expected)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)


def test_semantic_features_are_pooled_under_the_same_mask(
    decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset
) -> None:
    """No answer fits, so under the label; and the other parts are what they are without."""
    image = scenes.images[0]
    embedding = encoder.encode([read_image(scenes.path_of(image))])[0]
    semantic = torch.randn(6, 7, 7, generator=torch.Generator().manual_seed(0))

    def samples(*parts: FeaturePart) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.concatenate(
            instance_samples(decoder, embedding, image, image.annotations, 2, list(parts), rng, semantic)
        )

    expected = mean_under(semantic, [a.rle for a in image.annotations])
    np.testing.assert_allclose(samples("semantic"), expected, atol=1e-5)
    np.testing.assert_array_equal(samples("token", "semantic")[:, -6:], samples("semantic"))


def test_a_small_instance_gets_samples_of_its_tile_too(
    decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset
) -> None:
    """No answer fits, so that there is one sample per view, pooled under the label in that view."""
    image = scenes.images[0]
    tiled = ImageEncoder(loaded(encoder.sam), tiles=2)
    embedding = tiled.encode([read_image(scenes.path_of(image))])[0]
    small = annotation(1, "small", rectangle((image.height, image.width), 10, 10, 12, 12))
    large = annotation(2, "large", rectangle((image.height, image.width), 10, 10, 90, 90))
    rng = np.random.default_rng(0)
    found = instance_samples(decoder, embedding, image, [small, large], 2, ["pooled"], rng, tiles=2)
    assert [len(rows) for rows in found] == [2, 1]
    views = split_views(embedding, Frame(image.height, image.width, encoder.image_size, 2))
    for row, (view, seen) in zip(found[0], views[:2], strict=True):
        mask = torch.from_numpy(np.ascontiguousarray(view.cut(decode([small.rle]))))
        expected = pool(seen, view.frame.low_masks(mask, 64))[0].numpy()
        np.testing.assert_allclose(row, expected, atol=1e-4)
