"""Prompting a batch of pictures: our decoder over all of them at once, the official predictor one by one."""

from __future__ import annotations

import torch
from segment_anything import SamPredictor

from benchmarks.measure import Comparison, compare
from samif.sam.decoder import InstanceDecoder
from samif.sam.zoo import load_sam

PICTURES, POINTS = 8, 16


def run() -> Comparison:
    """Masks and tokens of 8 pictures x 16 points from given embeddings, `tiny` weights."""
    torch.manual_seed(0)
    sam = load_sam("tiny").sam
    decoder = InstanceDecoder.of(sam)
    predictor = SamPredictor(sam)
    with torch.inference_mode():
        embeddings = sam.image_encoder(torch.randn(PICTURES, 3, 256, 256))
    points = torch.rand(PICTURES, POINTS, 2) * 256
    labels = torch.ones(POINTS, 1, dtype=torch.int64)

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        return decoder(embeddings, points)[0].masks

    @torch.inference_mode()
    def official() -> list[torch.Tensor]:
        answers = []
        for picture in range(PICTURES):
            predictor.features, predictor.is_image_set = embeddings[picture : picture + 1], True
            predictor.original_size = predictor.input_size = (256, 256)
            answers.append(predictor.predict_torch(points[picture].unsqueeze(1), labels, return_logits=True)[2])
        return answers

    worst = (ours()[:, 1:] - torch.cat(official())).abs().max().item()
    note = f"{PICTURES} pictures x {POINTS} points, {torch.get_num_threads()} threads; largest difference {worst:.1e}"
    return compare("prompt decoder", ours, official, "official SamPredictor", note)
