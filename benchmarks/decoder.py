"""Prompting: one mask a point from given embeddings, ours against the official predictor with the same weights."""

from __future__ import annotations

import torch
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from benchmarks.measure import Comparison, compare
from samif.inference.propose import CELLS_AT_ONCE
from samif.sam.decoder import InstanceDecoder
from samif.sam.zoo import load_sam


def run() -> list[Comparison]:
    """`tiny`, and the decoder that the official three share with random weights; 64 points in one image."""
    torch.manual_seed(0)
    official = Sam(
        nn.Identity(),
        PromptEncoder(256, (64, 64), (1024, 1024), 16),
        MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 2048)),
    )
    official.image_encoder.img_size = 1024
    tiny = load_sam("tiny").sam
    with torch.inference_mode():
        embedding = tiny.image_encoder(torch.randn(1, 3, 256, 256))
    return [
        _compare("`tiny`", tiny, embedding),
        _compare("vit_b, vit_l, vit_h", official.eval(), torch.randn(1, 256, 64, 64)),
    ]


def _compare(what: str, sam: Sam, embedding: Tensor, prompts: int = 64) -> Comparison:
    decoder, predictor = InstanceDecoder.of(sam).eval(), SamPredictor(sam)
    side = decoder.image_size
    points = torch.rand(1, prompts, 2) * side
    at_once = max(1, CELLS_AT_ONCE["cpu"] // embedding[0, 0].numel())

    @torch.inference_mode()
    def ours() -> Tensor:
        context = decoder.prepare_image(embedding)
        return torch.cat(
            [
                decoder.predict_masks(context, decoder.run_transformer(context, c)[0])
                for c in torch.split(points, at_once, dim=1)
            ]
        )

    @torch.inference_mode()
    def official() -> Tensor:
        predictor.features, predictor.is_image_set = embedding, True
        predictor.original_size = predictor.input_size = (side, side)
        labels = torch.ones(prompts, 1, dtype=torch.int64)
        masks: Tensor = predictor.predict_torch(points[0].unsqueeze(1), labels, multimask_output=False)[2]
        return masks

    difference = float((ours() - official()).abs().max() / official().abs().max())
    note = f"{prompts} points, {torch.get_num_threads()} threads; difference {difference:.0e} of the largest logit"
    return compare(f"mask per point, {what}", ours, official, "official SamPredictor", note, rounds=5)
