"""The batched decoder against the official one, and its file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor

from samif.errors import SamifError
from samif.sam.compact import DECODED, CompactMaskDecoder
from samif.sam.decode import DetailedDecoder, decode_tokens
from samif.sam.decoder import InstanceDecoder, load_decoder, save_decoder
from samif.sam.heads import InstanceHeads
from samif.sam.tiny import IMAGE_SIZE
from tests.support.handmade import random_tiny, shaken

WIDTH, GRID, SIDE = 32, 8, 128
IMAGES, PROMPTS = 3, 5


@pytest.fixture(scope="module")
def official() -> InstanceDecoder:
    """The official decoder, narrow."""
    torch.manual_seed(0)
    mask_decoder = MaskDecoder(
        transformer_dim=WIDTH,
        transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=64, num_heads=4),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=32,
    )
    narrow = InstanceDecoder(PromptEncoder(WIDTH, (GRID, GRID), (SIDE, SIDE), 16), mask_decoder)
    shaken(narrow)
    return narrow


def random_points(side: int, seed: int = 1) -> Tensor:
    return torch.rand(IMAGES, PROMPTS, 2, generator=torch.Generator().manual_seed(seed)) * side


def random_embeddings(channels: int, grid: int, seed: int = 2) -> Tensor:
    return torch.randn(IMAGES, channels, grid, grid, generator=torch.Generator().manual_seed(seed))


def image(height: int = 96, width: int = 128) -> np.ndarray:
    """Of a size that is resized without rounding, so that both sides mean the same point."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Against the official forward pass


@torch.inference_mode()
def test_images_together_answer_as_one_by_one(official: InstanceDecoder) -> None:
    embeddings, points = random_embeddings(WIDTH, GRID), random_points(SIDE)
    answer, objectness = official(embeddings, points)
    for index in range(IMAGES):
        labels = torch.ones(PROMPTS, 1, dtype=torch.int64)
        prompt = (points[index].unsqueeze(1), labels)
        sparse, dense = official.prompt_encoder(points=prompt, boxes=None, masks=None)
        masks, iou = official.mask_decoder.predict_masks(
            embeddings[index : index + 1], official.prompt_encoder.get_dense_pe(), sparse, dense
        )
        rows = slice(index * PROMPTS, (index + 1) * PROMPTS)
        torch.testing.assert_close(answer.masks[rows], masks, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(answer.iou[rows], iou, atol=1e-5, rtol=1e-5)
    assert answer.masks.shape == (IMAGES * PROMPTS, 4, 4 * GRID, 4 * GRID)
    assert answer.iou_token.shape == (*objectness.shape, WIDTH) == (IMAGES * PROMPTS, WIDTH)


@torch.inference_mode()
def test_a_dense_prompt_may_differ_from_prompt_to_prompt(official: InstanceDecoder) -> None:
    embeddings, points = random_embeddings(WIDTH, GRID), random_points(SIDE)
    sparse = official.embed_points(points.flatten(0, 1))
    dense = torch.randn(IMAGES * PROMPTS, WIDTH, GRID, GRID, generator=torch.Generator().manual_seed(3))
    pe = official.prompt_encoder.get_dense_pe()
    answer = decode_tokens(official.mask_decoder, embeddings, pe, sparse, dense)
    last = slice((IMAGES - 1) * PROMPTS, None)
    masks, _ = official.mask_decoder.predict_masks(embeddings[-1:], pe, sparse[last], dense[last])
    torch.testing.assert_close(answer.masks[last], masks, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_tokens_are_those_that_the_masks_come_from(official: InstanceDecoder) -> None:
    answer, _ = official(random_embeddings(WIDTH, GRID), random_points(SIDE))
    again = official.mask_decoder.iou_prediction_head(answer.iou_token)
    torch.testing.assert_close(answer.iou, again)
    assert answer.mask_tokens.shape == (IMAGES * PROMPTS, 4, WIDTH)
    assert len({token.numpy().tobytes() for token in answer.mask_tokens.flatten(0, 1)}) == IMAGES * PROMPTS * 4


def test_only_tiny_carries_detail_in_its_embedding(official: InstanceDecoder, sam: Sam) -> None:
    assert not isinstance(official.mask_decoder, DetailedDecoder)
    assert isinstance(sam.mask_decoder, DetailedDecoder)


# `tiny` behind the official interfaces


@torch.inference_mode()
def test_official_predictor_answers_as_we_do(sam: Sam, decoder: InstanceDecoder) -> None:
    predictor = SamPredictor(sam)
    predictor.set_image(image())
    points = random_points(IMAGE_SIZE)[:1]
    _, iou, low = predictor.predict_torch(
        points[0].unsqueeze(1), torch.ones(PROMPTS, 1, dtype=torch.int64), multimask_output=True
    )
    answer, _ = decoder(predictor.get_image_embedding(), points)
    torch.testing.assert_close(answer.masks[:, 1:], low, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer.iou[:, 1:], iou, atol=1e-5, rtol=1e-5)
    assert low.std() > 1e-3  # not one constant that everything equals


@torch.inference_mode()
def test_images_of_tiny_together_answer_as_one_by_one(decoder: InstanceDecoder) -> None:
    embeddings, points = random_embeddings(DECODED, 16), random_points(IMAGE_SIZE)
    together, objectness = decoder(embeddings, points)
    for index in range(IMAGES):
        alone, own = decoder(embeddings[index : index + 1], points[index : index + 1])
        rows = slice(index * PROMPTS, (index + 1) * PROMPTS)
        torch.testing.assert_close(together.masks[rows], alone.masks, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(objectness[rows], own, atol=1e-5, rtol=1e-5)


def test_official_mask_generator_runs_on_tiny(sam: Sam, decoder: InstanceDecoder) -> None:
    pixels = image()
    generator = SamAutomaticMaskGenerator(
        sam, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    )
    records = generator.generate(pixels)
    assert records
    predictor = SamPredictor(sam)
    predictor.set_image(pixels)
    points = torch.tensor([record["point_coords"][0] for record in records]) * (IMAGE_SIZE / max(pixels.shape[:2]))
    with torch.inference_mode():
        answer, _ = decoder(predictor.get_image_embedding(), points[None].float())
    for record, ours in zip(records, answer.iou[:, 1:], strict=True):
        assert record["segmentation"].shape == pixels.shape[:2]
        assert (ours - record["predicted_iou"]).abs().min() < 1e-5


# Heads


@pytest.mark.parametrize(("width", "channels", "grid"), [(64, 256, 16), (32, 32, 8)])
def test_shapes_of_heads(width: int, channels: int, grid: int) -> None:
    heads = InstanceHeads(token_dim=width, embedding_dim=channels)
    assert heads.score(torch.zeros(7, width), torch.zeros(7, width)).shape == (7,)
    assert heads.centres(torch.zeros(3, channels, grid, grid)).shape == (3, 2 * grid, 2 * grid)


def test_a_decoder_has_one_set_of_heads(official: InstanceDecoder, decoder: InstanceDecoder) -> None:
    assert isinstance(decoder.mask_decoder, CompactMaskDecoder)
    assert decoder.heads is decoder.mask_decoder.instance_heads
    assert official.heads is official.instance_heads
    for one, prefix in ((decoder, "mask_decoder.instance_heads."), (official, "instance_heads.")):
        names = [name for name in one.state_dict() if "instance_heads" in name]
        assert names and all(name.startswith(prefix) for name in names)


# Its file


def test_reading_gives_back_what_was_written(decoder: InstanceDecoder, tmp_path: Path) -> None:
    path = tmp_path / "new" / "decoder.safetensors"
    save_decoder(decoder, "tiny", path)
    found, architecture = load_decoder(path)
    assert architecture == "tiny"
    assert not found.training and not any(parameter.requires_grad for parameter in found.parameters())
    ours, theirs = decoder.state_dict(), found.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    embeddings, points = random_embeddings(DECODED, 16), random_points(IMAGE_SIZE)
    with torch.inference_mode():
        assert torch.equal(decoder(embeddings, points)[0].masks, found(embeddings, points)[0].masks)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_prompts_of_one_image_add_up_their_gradients_in_their_order(decoder: InstanceDecoder) -> None:
    """Threads that race here end in other bits each time, and in another decoder."""
    embeddings, points = torch.randn(1, DECODED, 16, 16), torch.rand(1, 24, 2) * IMAGE_SIZE
    finetuned = copy.deepcopy(decoder).requires_grad_(True)

    def gradients() -> list[Tensor]:
        finetuned.zero_grad()
        masks = finetuned(embeddings, points)[0].masks
        masks.square().mean().backward()
        return [
            weight.grad for weight in finetuned.mask_decoder.output_upscaling.parameters() if weight.grad is not None
        ]

    first = gradients()
    assert len(first) == len([*finetuned.mask_decoder.output_upscaling.parameters()])
    for _ in range(5):
        assert all(map(torch.equal, first, gradients()))


def test_an_official_decoder_is_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = InstanceDecoder(
        PromptEncoder(256, (64, 64), (1024, 1024), 16),
        MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
    )
    save_decoder(full, "vit_b", tmp_path / "decoder.safetensors")
    found, architecture = load_decoder(tmp_path / "decoder.safetensors")
    assert architecture == "vit_b" and found.image_size == 1024
    ours, theirs = full.state_dict(), found.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_equal_decoders_give_equal_bytes(decoder: InstanceDecoder, tmp_path: Path) -> None:
    save_decoder(decoder, "tiny", tmp_path / "a")
    save_decoder(InstanceDecoder.of(random_tiny()), "tiny", tmp_path / "b")
    save_decoder(InstanceDecoder.of(random_tiny(seed=1)), "tiny", tmp_path / "c")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c


def test_a_decoder_can_be_read_by_whoever_may_read_new_files(decoder: InstanceDecoder, tmp_path: Path) -> None:
    save_decoder(decoder, "tiny", tmp_path / "decoder")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "decoder").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (lambda whole: whole[: len(whole) // 2], "is damaged"),
        (lambda whole: b"", "is damaged"),
        (lambda whole: b"not safetensors at all", "is damaged"),
    ],
    ids=["missing", "half", "empty", "text"],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    decoder: InstanceDecoder, tmp_path: Path, content: object, said: str
) -> None:
    path = tmp_path / "decoder.safetensors"
    if callable(content):
        save_decoder(decoder, "tiny", path)
        path.write_bytes(content(path.read_bytes()))
    with pytest.raises(SamifError, match=said) as refusal:
        load_decoder(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_other_weights_are_refused(decoder: InstanceDecoder, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(SamifError, match="is not a decoder of samif"):
        load_decoder(tmp_path / "foreign")
    save_decoder(decoder, "vit_b", tmp_path / "wrong")
    with pytest.raises(SamifError, match="does not fit the 'vit_b' decoder") as refusal:
        load_decoder(tmp_path / "wrong")
    assert "\n" not in str(refusal.value)
