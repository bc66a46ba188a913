"""Train neck and decoder of `photo` on photographs and composites.

    python -m recipes.photo.train POOL --init START.safetensors --minutes 600 --folder runs/photo
    python -m recipes.photo.train POOL --resume --minutes 600 --folder runs/photo

Loss per prompt (points, boxes, two points, a point and a box): balanced 4 BCE + 2 dice on the single mask, the same on
the best of the three multimask answers, regression of the IoU, objectness; and the depth map of the point proposals.
The rate warms up, stays, and falls to nothing over the last part of the time. A checkpoint every few minutes holds
weights, their running average and the optimiser; `photo.safetensors` holds the average, which is what ships.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from recipes.photo.dataset import Batch, Samples
from recipes.photo.evaluate import one_click_iou
from recipes.photo.weights import load, save
from samif.sam.compact import DECODED
from samif.sam.decode import predict_masks, prepare_image, run_transformer
from samif.sam.decoder import InstanceDecoder

EVERY_MINUTES = 6.0
ALL = (0, 1, 2, 3)


def prompt_tokens(decoder: InstanceDecoder, points: Tensor, labels: Tensor) -> Tensor:
    """Prompts (N, T, 2) with labels (N, T), boxes being two points -> tokens (N, T, D), as the official encoder."""
    encoder = decoder.prompt_encoder
    tokens = encoder.pe_layer.forward_with_coords(points, encoder.input_image_size)
    kinds = torch.stack([encoder.not_a_point_embed.weight[0], *(e.weight[0] for e in encoder.point_embeddings)])
    return tokens * (labels >= 0).unsqueeze(-1) + kinds[labels + 1]


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """4 BCE + 2 dice per mask: (..., M, M) -> (...). Small masks weigh more in BCE, without emptying the others."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    share = targets.mean((-2, -1), keepdim=True).clamp(0.02, 0.98)
    weight = (targets * 0.5 / share + (1 - targets) * 0.5 / (1 - share)).clamp(max=6)
    bce = bce * (0.5 + 0.5 * weight)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * targets).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    return 4 * bce.mean((-2, -1)) + 2 * dice


def hard_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of the thresholded mask with the target's majority, (..., M, M) -> (...)."""
    a, b = logits > 0, targets > 0.5
    return (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp_min(1)


def losses(sam: Sam, decoder: InstanceDecoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """The whole loss and the figures that are printed."""
    embeddings = sam.image_encoder(batch.images)[:, :DECODED]
    shared = prepare_image(decoder.mask_decoder, embeddings, decoder.prompt_encoder.get_dense_pe(), decoder._no_mask)
    total, values = embeddings.new_zeros(()), {}
    first = batch.pairs.shape[1]
    groups = {
        "pair": (batch.pairs, batch.pair_labels, slice(0, first)),
        "triple": (batch.triples, batch.triple_labels, slice(first, None)),
    }
    prompts = batch.targets.shape[1]
    for name, (points, labels, columns) in groups.items():
        tokens = prompt_tokens(decoder, points.flatten(0, 1), labels.flatten(0, 1))
        answer = run_transformer(decoder.mask_decoder, shared, tokens)
        masks = predict_masks(decoder.mask_decoder, shared, answer, ALL).float()
        targets, weight = batch.targets[:, columns].flatten(0, 1), batch.is_object[:, columns].flatten()
        single = mask_loss(masks[:, 0], targets) * (weight + 0.1 * (1 - weight))
        several = mask_loss(masks[:, 1:], targets[:, None].expand(-1, 3, -1, -1)).min(dim=1).values * weight
        true_iou = hard_iou(masks.detach(), targets[:, None].expand(-1, 4, -1, -1)) * weight[:, None]
        quality = F.mse_loss(answer.iou.float(), true_iou)
        logits = decoder.heads.score(answer.iou_token, answer.mask_tokens[:, 0]).float()
        objectness = F.binary_cross_entropy_with_logits(logits, weight)
        part = single.mean() + 0.5 * several.mean() + 2 * quality + 0.3 * objectness
        total = total + part * points.shape[1] / prompts
        values[f"iou_{name}"] = float((true_iou[:, 0] * weight).sum() / weight.sum().clamp_min(1))
        values[f"objectness_{name}"] = float(objectness.detach())
    maps = F.binary_cross_entropy_with_logits(decoder.heads.centres(embeddings).float(), batch.depth, reduction="none")
    inside = (maps * batch.depth_weight).sum() / batch.depth_weight.sum().clamp_min(1)
    total = total + 0.7 * inside
    return total, {"loss": float(total.detach()), "inside": float(inside.detach()), **values}


class Run:
    """Weights, their running average, the optimiser and how far they are."""

    def __init__(self, sam: Sam, rate: float) -> None:
        self.sam, self.average = sam, copy.deepcopy(sam).eval()
        self.weights = [p for p in sam.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.weights, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
        self.step, self.minutes = 0, 0.0

    def save(self, folder: Path) -> None:
        """Write what `resume` reads, and the average as weights to ship."""
        part = folder / "checkpoint.part"
        state = {"sam": self.sam.state_dict(), "average": self.average.state_dict()}
        progress = {"step": self.step, "minutes": self.minutes}
        torch.save({**state, "optimiser": self.optimiser.state_dict(), **progress}, part)
        part.replace(folder / "checkpoint.pt")
        save(self.average, folder / "photo.safetensors")

    def resume(self, folder: Path) -> None:
        """Go on where `save` left off."""
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        self.sam.load_state_dict(state["sam"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.minutes = state["step"], state["minutes"]

    def follow(self) -> None:
        """Move the average towards the weights."""
        keep = min(0.999, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.sam.parameters()), 1 - keep)
            for mine, theirs in zip(self.average.buffers(), self.sam.buffers(), strict=True):
                mine.copy_(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="folder with instances.json and images/")
    parser.add_argument("--folder", type=Path, required=True, help="of checkpoint, weights and log")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --folder")
    parser.add_argument("--minutes", type=float, default=600.0, help="of this call")
    parser.add_argument("--decay", type=float, default=0.3, help="last part of the time, over which the rate falls")
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--warmup", type=int, default=150, help="steps")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate", type=Path, nargs="*", default=[], help="folders to measure at each checkpoint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    run = Run(load(args.init), args.rate)
    if args.resume:
        run.resume(args.folder)
    run.sam.image_encoder.to(memory_format=torch.channels_last)
    decoder = InstanceDecoder.of(run.sam)
    samples = Samples(args.pool, args.batch, args.seed + run.step)
    batches = iter(DataLoader(samples, batch_size=None, num_workers=1, prefetch_factor=8))
    begin, first, before, saved = time.time(), run.step, run.minutes, 0.0
    smooth: dict[str, float] = {}
    run.sam.train()
    while (minutes := (time.time() - begin) / 60) < args.minutes:
        left = 1 - minutes / args.minutes
        rate = args.rate * min(1, (run.step - first + 1) / args.warmup) * min(1, left / max(args.decay, 1e-9))
        for group in run.optimiser.param_groups:
            group["lr"] = rate
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss, values = losses(run.sam, decoder, batch)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(run.weights, 1.0)
        run.optimiser.step()
        run.step += 1
        run.minutes = before + minutes
        run.follow()
        smooth = {k: 0.98 * smooth.get(k, v) + 0.02 * v for k, v in values.items()}
        if run.step % 50 == 0:
            shown = {k: round(v, 4) for k, v in smooth.items()}
            print(json.dumps({"step": run.step, "minutes": round(run.minutes, 1), "rate": rate, **shown}), flush=True)
        if minutes - saved >= EVERY_MINUTES:
            saved = minutes
            run.save(args.folder)
            for folder in args.validate:
                print(folder.name, json.dumps(one_click_iou(run.average, folder, 25)), flush=True)
    run.save(args.folder)


if __name__ == "__main__":
    main()
