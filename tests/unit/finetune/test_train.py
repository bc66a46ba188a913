"""A few steps of fine-tuning a decoder of random weights on drawn scenes."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samif.config import PretrainDecoderParams
from samif.dataset.images import read_image
from samif.dataset.model import Dataset, ImageRecord
from samif.errors import SamifError
from samif.finetune import train
from samif.finetune.quality import measure
from samif.finetune.train import DistributedContext, TrainingResult, finetune, run_worker
from samif.finetune.training_set import TrainingSet, choose, planned_steps, read_views
from samif.masks.rle import decode
from samif.sam.decoder import InstanceDecoder
from samif.sam.encoder import ImageEncoder
from samif.sam.frame import Frame, split_views
from tests.support.handmade import loaded

Read = Callable[[Sequence[ImageRecord]], Tensor]


@pytest.fixture(scope="module")
def read(encoder: ImageEncoder, scenes: Dataset) -> Read:
    with torch.no_grad():
        embeddings = {p.id: encoder.encode([read_image(scenes.path_of(p))])[0].clone() for p in scenes.images}
    return lambda images: torch.stack([embeddings[image.id] for image in images])


@pytest.fixture
def everything(scenes: Dataset) -> frozenset[str]:
    return frozenset(a.category for p in scenes.images for a in p.annotations)


def params(steps: int = 15, **changes: object) -> PretrainDecoderParams:
    given = {"steps": steps, "images_per_step": 2, "learning_rate": 0.02, **changes}
    return PretrainDecoderParams.model_validate(given)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def with_objectness(decoder: InstanceDecoder, bias: float, masks: bool = True) -> InstanceDecoder:
    """The decoder saying "object" (or "nothing") to every prompt, and where wanted with an empty mask."""
    changed = copy.deepcopy(decoder)
    with torch.no_grad():
        last = changed.heads.objectness[-1]
        last.weight.zero_()
        last.bias.fill_(bias)
        if not masks:
            for mlp in changed.mask_decoder.output_hypernetworks_mlps:
                mlp.layers[-1].weight.zero_()
                mlp.layers[-1].bias.zero_()
    return changed


def test_the_loss_falls_and_only_the_decoder_moves(
    decoder: InstanceDecoder, encoder: ImageEncoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    start = with_objectness(decoder, 5.0, masks=False)  # nothing right, so that whatever is learnt is better
    before, eyes = state(start), state(encoder.sam.image_encoder)
    advanced: list[int] = []
    finetuned = finetune(start, scenes.images[:3], everything, read, params(), advanced.append)
    losses = [row["loss"] for row in finetuned.curve]
    assert [row["step"] for row in finetuned.curve] == list(range(1, 16)) and advanced == [1] * 15
    assert all(math.isfinite(value) for row in finetuned.curve for value in row.values())
    assert losses[-1] < 0.8 * losses[0]
    assert finetuned.kept == "after" and finetuned.after.score >= finetuned.before.score
    assert same(state(start), before) and same(state(encoder.sam.image_encoder), eyes)
    assert same(state(finetuned.decoder.prompt_encoder), state(start.prompt_encoder))
    moved = state(finetuned.decoder.mask_decoder)
    assert not torch.equal(
        moved["transformer.layers.0.mlp.lin1.weight"], before["mask_decoder.transformer.layers.0.mlp.lin1.weight"]
    )
    assert not torch.equal(
        moved["instance_heads.proposal.4.weight"], before["mask_decoder.instance_heads.proposal.4.weight"]
    )
    assert not finetuned.decoder.training and not any(p.requires_grad for p in finetuned.decoder.parameters())


def test_a_decoder_that_got_worse_is_not_kept(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    """Silent everywhere before; prompted in objects only, it learns to answer everywhere."""
    start = with_objectness(decoder, -1.0)
    before = state(start)
    finetuned = finetune(
        start, scenes.images[:3], everything, read, params(steps=10, background_points=1, object_points=12)
    )
    assert finetuned.before.background_silent == 1.0 and finetuned.after.score < finetuned.before.score
    assert finetuned.kept == "before" and finetuned.decoder is start and same(state(start), before)


def test_equal_seeds_give_equal_decoders(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    start = with_objectness(decoder, 5.0, masks=False)
    a, b, c = (finetune(start, scenes.images[:3], everything, read, params(3, seed=seed)) for seed in (0, 0, 1))
    assert a.curve == b.curve and same(state(a.decoder), state(b.decoder))
    assert a.curve != c.curve


def test_some_images_are_held_out_of_many(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    finetuned = finetune(decoder, scenes.images, everything, read, params(1))
    assert finetuned.before.images == finetuned.after.images == 1
    assert finetune(decoder, scenes.images[:3], everything, read, params(1)).before.images == 3


@pytest.mark.parametrize("classes", [frozenset(), frozenset({"no such part"})])
def test_no_image_to_learn_from_is_refused(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, classes: frozenset[str]
) -> None:
    with pytest.raises(SamifError, match="no training image shows an instance of a class to learn") as refusal:
        finetune(decoder, scenes.images, classes, read, params(1))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("steps", "epochs", "images", "planned"),
    [(10, 2, 40, 10), (10, 2, 39, 9), (10, 2, 20, 5), (10, 2, 1, 1), (1, 20, 100, 1)],
)
def test_images_are_not_shown_too_often(steps: int, epochs: int, images: int, planned: int) -> None:
    assert planned_steps(params(steps, max_epochs=epochs, images_per_step=8), images) == planned


def test_a_step_in_parts_is_the_same_step(
    decoder: InstanceDecoder,
    scenes: Dataset,
    read: Read,
    everything: frozenset[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Official embeddings are sixteen times as large, so that their steps go image by image."""
    whole = finetune(decoder, scenes.images[:3], everything, read, params(3))
    monkeypatch.setattr(train, "CELLS_AT_ONCE", 1)
    parts = finetune(decoder, scenes.images[:3], everything, read, params(3))
    for a, b in zip(whole.curve, parts.curve, strict=True):
        assert a == pytest.approx(b, rel=0.01, abs=0.001)


# Several workers


def together(workers: int, *given: object, steps: int) -> TrainingResult:
    """Fine-tuned by workers that are threads."""
    barrier = threading.Barrier(workers, timeout=60)
    written: list[Tensor | None] = [None] * workers

    def work(rank: int) -> TrainingResult | None:
        def all_reduce(tensor: Tensor) -> None:
            written[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(torch.stack([one for one in written if one is not None]).sum(0))
            barrier.wait()

        distributed = DistributedContext(rank, workers, all_reduce)
        try:
            if rank > 0:
                return run_worker(*given, distributed)  # type: ignore[arg-type]
            return finetune(*given, advanced.append, distributed)  # type: ignore[arg-type]
        except BaseException:
            barrier.abort()
            raise

    advanced: list[int] = []
    with ThreadPoolExecutor(workers) as pool:
        finetuned, *others = pool.map(work, range(workers))
    assert finetuned is not None and others == [None] * (workers - 1) and advanced == [1] * steps
    return finetuned


@pytest.mark.parametrize(("workers", "cells"), [(3, train.CELLS_AT_ONCE), (2, 1)])
def test_a_team_takes_the_steps_of_one(
    decoder: InstanceDecoder,
    scenes: Dataset,
    read: Read,
    everything: frozenset[str],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    cells: int,
) -> None:
    """In float32, up to the order in which numbers are added; whatever images differ in, each weighs the same."""
    monkeypatch.setattr(train, "training_autocast", lambda _: torch.autocast("cpu", enabled=False))
    monkeypatch.setattr(train, "CELLS_AT_ONCE", cells)
    start = with_objectness(decoder, 5.0, masks=False)
    given = (start, scenes.images, everything, read, params(4, images_per_step=3, learning_rate=0.005))
    alone, distributed = finetune(*given), together(workers, *given, steps=4)
    for a, b in zip(alone.curve, distributed.curve, strict=True):
        assert a == pytest.approx(b, abs=2e-4)
    begun, one, other = state(start), state(alone.decoder), state(distributed.decoder)
    moved = math.sqrt(sum(float((one[name] - begun[name]).square().sum()) for name in one))
    apart = math.sqrt(sum(float((one[name] - other[name]).square().sum()) for name in one))
    assert alone.kept == distributed.kept == "after" and 0 < apart < 0.01 * moved


@pytest.mark.parametrize(("images", "workers"), [(8, 1), (8, 2), (8, 3), (3, 3)])
def test_every_image_of_a_step_is_shared_out_once(images: int, workers: int) -> None:
    shares = [range(images)[DistributedContext(rank, workers).share(images)] for rank in range(workers)]
    assert [index for share in shares for index in share] == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1 and min(map(len, shares)) > 0


@pytest.mark.parametrize("cells", [train.CELLS_AT_ONCE, 1])
def test_one_worker_gives_the_bits_that_it_gave_before_there_were_teams(
    decoder: InstanceDecoder,
    scenes: Dataset,
    read: Read,
    everything: frozenset[str],
    monkeypatch: pytest.MonkeyPatch,
    cells: int,
) -> None:
    monkeypatch.setattr(train, "CELLS_AT_ONCE", cells)
    given = (with_objectness(decoder, 5.0, masks=False), scenes.images[:3], everything, read, params(4))
    now = finetune(*given)
    monkeypatch.setattr(train, "_accumulate", lambda *given: before_accumulate(*given[:3]))
    before = finetune(*given)
    assert now.kept == "after" and now.curve == before.curve and same(state(now.decoder), state(before.decoder))


def before_accumulate(decoder: InstanceDecoder, embeddings: Tensor, batch: train._Batch) -> tuple[float, float]:
    """As it stood when one worker was all there was."""
    images, prompts = batch.points.shape[:2]
    at_once = max(1, train.CELLS_AT_ONCE // (prompts * embeddings.shape[-1] ** 2))
    sums = np.zeros(2)
    for start in range(0, images, at_once):
        rows = slice(start, min(start + at_once, images))
        loss, iou = before_loss(decoder, embeddings[rows], batch.images(rows))
        share = len(embeddings[rows]) / images
        (loss * share).backward()  # type: ignore[no-untyped-call]
        sums += share * np.array([float(loss.detach()), iou])
    return float(sums[0]), float(sums[1])


def before_loss(decoder: InstanceDecoder, embeddings: Tensor, batch: train._Batch) -> tuple[Tensor, float]:
    with train.training_autocast():
        answer, objectness = decoder(embeddings, batch.points, train.SINGLE_MASK)
        centre_logits = decoder.heads.centres(embeddings).float()
    logits, targets, weight = answer.masks[:, 0].float(), batch.targets, batch.is_object.float()
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((-2, -1))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    mask = ((4 * bce + 2 * dice) * weight).sum() / weight.sum().clamp_min(1.0)
    with torch.no_grad():
        found, true = logits > 0, targets > 0.5
        iou = (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp_min(1)
    regression = (((answer.iou[:, 0].float() - iou) ** 2) * weight).sum() / weight.sum().clamp_min(1.0)
    seen = F.binary_cross_entropy_with_logits(objectness.float(), weight)
    centres = F.binary_cross_entropy_with_logits(centre_logits, batch.depth, reduction="none")
    learnable = (~batch.ignored).float()
    proposal = (centres * learnable).sum() / learnable.sum().clamp_min(1.0)
    total = mask + 2 * regression + 0.5 * seen + proposal
    return total, float((iou * weight).sum() / weight.sum().clamp_min(1.0))


# Quality


@pytest.mark.parametrize(("bias", "silent"), [(-1.0, 1.0), (1.0, 0.0)])
def test_silence_is_objectness_below_one_half(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str], bias: float, silent: float
) -> None:
    quality = measure(with_objectness(decoder, bias, masks=False), scenes.images[:2], everything, read, seed=0)
    assert quality.background_silent == silent and quality.iou_base == 0.0 and quality.iou_other is None
    assert quality.score == 0.5 * silent
    assert quality.recall_base == 0.0 and quality.recall_other is None


def test_quality_is_told_apart_by_learnt_and_other_classes(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    one = scenes.images[0].annotations[0].category
    whole = measure(decoder, scenes.images, everything, read, seed=0)
    parted = measure(decoder, scenes.images, frozenset({one}), read, seed=0)
    shown = [a.category == one for p in scenes.images for a in p.annotations]
    assert parted.iou_other is not None
    both = (parted.iou_base * sum(shown) + parted.iou_other * (len(shown) - sum(shown))) / len(shown)
    assert both == pytest.approx(whole.iou_base)


def test_half_of_a_steps_views_are_tiles(scenes: Dataset, encoder: ImageEncoder, everything: frozenset[str]) -> None:
    """Labels, embedding and targets of a chosen tile are those of the same crop."""
    tiled = ImageEncoder(loaded(encoder.sam), tiles=2)
    seen = {p.id: tiled.encode([read_image(scenes.path_of(p))])[0] for p in scenes.images}
    training_set = TrainingSet.of(
        scenes.images, everything, lambda images: torch.stack([seen[i.id] for i in images]),
        params(1, images_per_step=4), tiles=2,
    )  # fmt: skip
    chosen = choose(training_set)
    assert [shown.view > 0 for shown in chosen] == [False, False, True, True]
    embeddings = read_views(training_set, chosen)
    for shown, embedding in zip(chosen, embeddings, strict=True):
        view, expected = split_views(seen[shown.image.id], Frame(shown.image.height, shown.image.width, 256, 2))[
            shown.view
        ]
        assert torch.equal(embedding, expected)
        assert (shown.labels.height, shown.labels.width) == (view.frame.height, view.frame.width)
        whole = {a.id: decode([a.rle])[0] for a in shown.image.annotations}
        for a in shown.labels.annotations:
            assert np.array_equal(decode([a.rle])[0], view.cut(whole[a.id]))


def test_a_decoder_learns_from_tiles(
    decoder: InstanceDecoder, scenes: Dataset, encoder: ImageEncoder, everything: frozenset[str]
) -> None:
    tiled = ImageEncoder(loaded(encoder.sam), tiles=2)
    seen = {p.id: tiled.encode([read_image(scenes.path_of(p))])[0].clone() for p in scenes.images[:3]}
    start = with_objectness(decoder, 5.0, masks=False)

    def read_tiled(images: Sequence[ImageRecord]) -> Tensor:
        return torch.stack([seen[image.id] for image in images])

    finetuned = finetune(start, scenes.images[:3], everything, read_tiled, params(15), tiles=2)
    losses = [row["loss"] for row in finetuned.curve]
    assert finetuned.kept == "after" and losses[-1] < 0.8 * losses[0]


def test_multimask_answers_are_finetuned_where_wanted(
    decoder: InstanceDecoder, scenes: Dataset, read: Read, everything: frozenset[str]
) -> None:
    """The best of the three moves; without, all three stay as they are."""
    start = with_objectness(decoder, 5.0, masks=False)
    single, several = (
        finetune(start, scenes.images[:3], everything, read, params(20, multimask=more)) for more in (False, True)
    )
    heads = [f"mask_decoder.output_hypernetworks_mlps.{n}.layers.2.weight" for n in (1, 2, 3)]
    moved = [
        {head for head in heads if not torch.equal(state(found.decoder)[head], state(start)[head])}
        for found in (single, several)
    ]
    assert not moved[0] and moved[1]
    losses = [row["loss"] for row in several.curve]
    assert several.kept == "after" and losses[-1] < 0.8 * losses[0]
