"""Where the segmenter is prompted, and which answers stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from samif.config import ProposeParams
from samif.dataset.images import read_image
from samif.dataset.model import Dataset
from samif.inference.propose import (
    CELLS_AT_ONCE,
    LARGEST_IN_TILE,
    Proposals,
    predict_points,
    prompt_points,
    propose,
    small_and_whole,
)
from samif.masks.pooling import pool
from samif.masks.rle import boxes, decode, overlaps
from samif.masks.upscale import encode_upscaled
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, grid_points, split_views, views
from samif.sam.zoo import load_sam
from tests.support.handmade import pixels, proposals, rectangle

FRAME = Frame(160, 160, 256)


@pytest.fixture(scope="module")
def embedding(encoder: ImageEncoder, scenes: Dataset) -> Tensor:
    return encoder.encode([read_image(scenes.path_of(scenes.images[0]))])[0]


def params(**given: object) -> ProposeParams:
    return ProposeParams.model_validate({"min_objectness": 0.0, **given})


def with_heads(decoder: InstanceDecoder, objectness: float | None = None, column: int | None = None) -> InstanceDecoder:
    """The decoder with a constant objectness logit, or with a proposal map that follows one embedding channel."""
    changed = copy.deepcopy(decoder)
    with torch.no_grad():
        if objectness is not None:
            changed.heads.objectness[-1].weight.zero_()
            changed.heads.objectness[-1].bias.fill_(objectness)
        if column is not None:
            first, second, third = (changed.heads.proposal[i] for i in (0, 2, 4))
            for layer in (first, second, third):
                layer.weight.zero_()
                layer.bias.zero_()
            first.weight[0, column], second.weight[0, 0, 1, 1], third.weight[:, 0] = 1.0, 1.0, 1.0
    return changed


# Prompts


def test_the_grid_is_uniform(decoder: InstanceDecoder, embedding: Tensor) -> None:
    points = prompt_points(decoder, embedding, FRAME, params(prompts="grid", grid=5))
    assert torch.equal(points, grid_points(5, FRAME))


def test_peaks_of_the_map_are_prompted_first(decoder: InstanceDecoder) -> None:
    """Two peaks, then what lies next to the higher one."""
    embedding = torch.zeros(256, 16, 16)
    embedding[3, 2, 10], embedding[3, 12, 4] = 5.0, 3.0
    flat = torch.linspace(-0.5, -1.5, 16)
    embedding[3] += flat[:, None] + flat[None, :]
    points = prompt_points(with_heads(decoder, column=3), embedding, FRAME, params(points=8))
    assert {tuple(point.tolist()) for point in points} >= {
        (x, y)
        for left, top in ((160.0, 32.0), (64.0, 192.0))
        for x in (left + 4, left + 12)
        for y in (top + 4, top + 12)
    }


@pytest.mark.parametrize(("asked", "got"), [(1, 1), (64, 64), (1000, 32 * 16)])
def test_as_many_points_as_asked_for_and_as_the_image_has(decoder: InstanceDecoder, asked: int, got: int) -> None:
    """Half of the padded square is image; the map has 32 x 32 places."""
    wide = Frame(100, 200, 256)
    embedding = torch.randn(256, 16, 16, generator=torch.Generator().manual_seed(0))
    points = prompt_points(decoder, embedding, wide, params(points=asked))
    assert points.shape == (got, 2) and wide.inside(points).all()
    assert len(points.unique(dim=0)) == got


# Answers


def test_answers_come_in_the_order_of_the_points(decoder: InstanceDecoder, embedding: Tensor) -> None:
    at_once = CELLS_AT_ONCE["cpu"] // 16**2
    count = at_once + 3  # more than go at once
    points = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * 256
    found, usable = predict_points(decoder, embedding, FRAME, points)
    assert len(found) == count and usable.shape == (count,)
    for row in (0, at_once, count - 1):
        with torch.inference_mode():
            answer, objectness = decoder(embedding[None], points[row : row + 1][None])
        assert found.iou[row] == pytest.approx(float(answer.iou[0, 0].clamp(0, 1)), abs=1e-5)
        assert found.objectness[row] == pytest.approx(float(objectness.sigmoid()), abs=1e-5)
        np.testing.assert_allclose(found.tokens[row], answer.mask_tokens[0, 0].numpy(), atol=1e-4)
        low = (answer.masks[:, 0] > 0).float()
        np.testing.assert_allclose(found.pooled[row], pool(embedding, low)[0].numpy(), atol=1e-3)
        full = decode(encode_upscaled(answer.masks[:, 0].numpy(), FRAME.height, FRAME.width))[0]
        assert (decode([found.masks[row]])[0] != full).mean() < 0.01


def test_an_empty_answer_is_of_no_use(decoder: InstanceDecoder, embedding: Tensor) -> None:
    silent = copy.deepcopy(decoder)
    for mlp in silent.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].weight.zero_()
        mlp.layers[-1].bias.zero_()
    points = grid_points(2, FRAME)
    found, usable = predict_points(silent, embedding, FRAME, points)
    assert len(found) == 4 and not usable.any() and np.isfinite(found.pooled).all()
    assert len(propose(silent, embedding, FRAME, params())) == 0


# Proposals


@pytest.mark.parametrize(("least", "some"), [(0.49, True), (0.5, True), (0.51, False)])
def test_only_objects_are_proposed(decoder: InstanceDecoder, embedding: Tensor, least: float, some: bool) -> None:
    found = propose(with_heads(decoder, objectness=0.0), embedding, FRAME, params(min_objectness=least))
    assert bool(len(found)) is some


def test_best_come_first_apart_and_not_too_many(decoder: InstanceDecoder, embedding: Tensor) -> None:
    every = propose(decoder, embedding, FRAME, params(duplicate_iou=0.6, max_proposals=1000))
    assert len(every) > 3
    assert (np.diff(every.quality) <= 0).all()
    assert (overlaps(every.masks, every.masks) - np.eye(len(every))).max() <= 0.6
    few = propose(decoder, embedding, FRAME, params(duplicate_iou=0.6, max_proposals=3))
    assert few.masks == every.masks[:3] and np.array_equal(few.tokens, every.tokens[:3])


def test_masks_are_in_image_pixels(decoder: InstanceDecoder, embedding: Tensor) -> None:
    found = propose(decoder, embedding, Frame(90, 211, 256), params())
    assert len(found) and all(mask["size"] == [90, 211] for mask in found.masks)


# Tiles and multimask answers


def test_small_objects_of_tiles_join_those_of_the_whole_image(scenes: Dataset) -> None:
    """What tiles add with the shipped weights is small and no duplicate."""
    sam = load_sam("tiny")
    with_tiles, decoder = ImageEncoder(sam, tiles=2), InstanceDecoder.of(sam.sam)
    pixels = read_image(scenes.path_of(scenes.images[0]))
    embedding, frame = with_tiles.encode([pixels])[0], with_tiles.frame(pixels)
    given = params(duplicate_iou=0.6, max_proposals=1000, min_objectness=0.2)
    alone = propose(decoder, split_views(embedding, frame)[0][1], FRAME, given)
    found = propose(decoder, embedding, frame, given)
    assert (overlaps(found.masks, found.masks) - np.eye(len(found))).max() <= 0.6
    assert (np.diff(found.quality) <= 0).all()
    ours = {mask["counts"] for mask in alone.masks}
    added = [mask for mask in found.masks if mask["counts"] not in ours]
    assert added and all(mask["size"] == [frame.height, frame.width] for mask in added)
    cell = views(frame)[1].frame.width / 64
    assert boxes(added)[:, 2:].max() <= LARGEST_IN_TILE * max(frame.height, frame.width) + cell
    assert len(propose(decoder, embedding, frame, params(max_proposals=5))) == 5


def test_a_tile_answers_for_small_objects_that_it_does_not_cut() -> None:
    frame = Frame(160, 200, 256, 2)
    _, first, *_, last = views(frame)
    w, h = first.frame.width, first.frame.height
    here = np.array([[0, 0, 20, 20], [w - 20, 30, 20, 10], [30, h - 10, 10, 10], [5, 5, 80, 20], [30, 30, 10, 10]])
    # at the image's own border; cut on the right; cut below; large; inside
    assert small_and_whole(here.astype(float), first, frame).tolist() == [True, False, False, False, True]
    assert small_and_whole(here.astype(float), last, frame).tolist() == [False, True, True, False, True]


def test_multimask_answers_are_proposed_too(decoder: InstanceDecoder, embedding: Tensor) -> None:
    given = params(duplicate_iou=1.0, max_proposals=1000, points=4)
    single, several = (
        propose(decoder, embedding, FRAME, given.model_copy(update={"multimask": more})) for more in (False, True)
    )
    assert len(single) < len(several) <= 16
    found = {mask["counts"]: row for row, mask in enumerate(several.masks)}
    for row, mask in enumerate(single.masks):
        same = found[mask["counts"]]
        np.testing.assert_allclose(several.tokens[same], single.tokens[row], atol=1e-4)
        np.testing.assert_allclose(several.pooled[same], single.pooled[row], atol=1e-3)
        assert several.objectness[same] == pytest.approx(single.objectness[row], abs=1e-5)


# The record


def test_rows_must_be_as_many_as_masks() -> None:
    one = proposals([pixels((4, 4), 3)])
    with pytest.raises(ValueError, match=r"expected 1 rows as there are masks, got \{'iou': 2\}"):
        Proposals(one.masks, np.zeros(2, np.float32), one.objectness, one.tokens, one.pooled)


def test_semantic_features_are_pooled_under_each_mask_and_go_with_their_rows() -> None:
    two = proposals([rectangle((8, 8), 0, 0, 4, 4), rectangle((8, 8), 4, 0, 4, 8)])
    seen = two.with_semantic(torch.arange(8.0).reshape(2, 2, 2))  # two features of 2 x 2 cells
    assert two.semantic is None and two.with_semantic(None) is two and seen.semantic is not None
    assert seen.semantic.tolist() == [[0.0, 4.0], [2.5, 6.5]]
    taken = seen.take(np.array([1]))
    assert taken.semantic is not None and taken.semantic.tolist() == [[2.5, 6.5]]
    with pytest.raises(ValueError, match=r"got \{'semantic': 1\}"):
        Proposals(two.masks, two.iou, two.objectness, two.tokens, two.pooled, seen.semantic[:1])


def test_taking_keeps_rows_together() -> None:
    three = proposals([pixels((4, 4), n) for n in (1, 2, 3)], np.eye(3, dtype=np.float32), [0.1, 0.2, 0.3])
    taken = three.take(np.array([2, 0]))
    assert taken.masks == [three.masks[2], three.masks[0]]
    assert taken.iou.tolist() == three.iou[[2, 0]].tolist() and taken.tokens.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert len(three.take(np.zeros(0, dtype=np.int64))) == 0


def test_quality_is_predicted_iou_times_objectness() -> None:
    one = proposals([pixels((4, 4), 3)], quality=[0.5])
    half = Proposals(one.masks, one.iou, one.objectness / 2, one.tokens, one.pooled)
    assert half.quality.tolist() == [0.25]
