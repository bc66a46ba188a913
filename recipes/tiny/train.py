"""Train `tiny` from scratch on drawn scenes and write samif/assets/tiny.safetensors.

    python -m recipes.tiny.scenes POOL && python -m recipes.tiny.train POOL --steps 20000 --out tiny.safetensors

Loss per prompt (a point in an object, or on background, half of the latter close to an object):
4 BCE + 2 dice on the single mask, the same on the best of the three multimask answers, IoU regression, objectness.
Beside it, dropped afterwards: a class loss on pooled features and the mask token, so that features tell kinds apart.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from recipes.tiny.scenes import KINDS
from samif.dataset.draw.line import CROWDING, MIN_VISIBLE
from samif.dataset.draw.parts import BASE_PARTS, NOVEL_PARTS, make_parts
from samif.dataset.draw.scene import Item, compose
from samif.sam.compact import CORE, FINE, MID
from samif.sam.decoder import InstanceDecoder
from samif.sam.tiny import IMAGE_SIZE, build_tiny

OBJECTS, BACKGROUNDS = 6, 2
MIN_AREA = 60
"""Pixels; slivers of hidden objects teach nothing."""
MANY = 9
"""Scenes with more objects than this are shown less often."""
MEAN = torch.tensor([123.675, 116.28, 103.53]).reshape(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).reshape(1, 3, 1, 1)


@dataclass
class Batch:
    """What one step learns from.

    `images` (B, 3, S, S) normalised; `points` (B, P, 2); `targets` (B, P, 64, 64) soft; `kind` (B, P), -1 none,
    -2 background; `inside` (B, 32, 32) normalised depth inside objects; `offsets` (B, 2, 32, 32) to the object's
    centre in units of 32 pixels, NaN outside.
    """

    images: Tensor
    points: Tensor
    targets: Tensor
    kind: Tensor
    inside: Tensor
    offsets: Tensor


class Pool(IterableDataset[Batch]):
    """Endless batches of drawn scenes with flips, turns and colour changes."""

    def __init__(self, folders: Sequence[Path], size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self.images = [np.load(folder / "images.npy", mmap_mode="r") for folder in folders]
        self.labels = [np.load(folder / "labels.npy", mmap_mode="r") for folder in folders]
        self.kinds = [np.load(folder / "kinds.npy") for folder in folders]
        # objects outside the library are -1 like empty places, so objects are counted in the labels
        crowded = [np.array([scene[::8, ::8].max() > MANY for scene in labels]) for labels in self.labels]
        self.weights = [np.where(many, 0.3, 1.0) / np.where(many, 0.3, 1.0).sum() for many in crowded]

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            yield self.batch(rng, self.size)

    def batch(self, rng: np.random.Generator, size: int) -> Batch:
        images, points, targets, kinds, inside, offsets = [], [], [], [], [], []
        for _ in range(size):
            pool = int(rng.integers(len(self.kinds)))
            i = int(rng.choice(len(self.kinds[pool]), p=self.weights[pool]))
            image, labels = np.asarray(self.images[pool][i]), np.asarray(self.labels[pool][i])
            turns, flip = int(rng.integers(4)), rng.random() < 0.5
            image, labels = np.rot90(image, turns), np.rot90(labels, turns)
            if flip:
                image, labels = image[:, ::-1], labels[:, ::-1]
            p, t, k = sample_points(rng, labels, self.kinds[pool][i])
            points.append(p), targets.append(t), kinds.append(k)
            images.append(recolour(rng, np.ascontiguousarray(image)))
            inside.append(depth(labels)), offsets.append(centre_offsets(labels))
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
        return Batch(
            (x - MEAN) / STD, torch.from_numpy(np.stack(points)), torch.from_numpy(np.stack(targets)),
            torch.from_numpy(np.stack(kinds)), torch.from_numpy(np.stack(inside)), torch.from_numpy(np.stack(offsets)),
        )  # fmt: skip


def recolour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Gain, gamma, cast and sometimes grey or noise, so that no camera is special."""
    if rng.random() < 0.15:
        image = np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    gain, gamma = rng.uniform(0.7, 1.2) * rng.uniform(0.9, 1.1, 3), rng.uniform(0.7, 1.4)
    # one table per channel: a power per pixel would be a third of the loader's time
    table = (np.clip(np.arange(256)[:, None] / 255.0 * gain, 0.0, 1.0) ** gamma * 255.0).astype(np.float32)
    x = np.stack([table[image[..., channel], channel] for channel in range(3)], axis=-1)
    if rng.random() < 0.2:
        x += rng.standard_normal(x.shape, dtype=np.float32) * (0.03 * 255.0)
    return np.clip(x, 0.0, 255.0)


def soften(mask: np.ndarray) -> np.ndarray:
    """(256, 256) bool -> (64, 64) share of each cell that the mask covers."""
    return mask.reshape(64, 4, 64, 4).mean(axis=(1, 3), dtype=np.float32)


def depth(labels: np.ndarray) -> np.ndarray:
    """(32, 32): distance to the object's edge over its largest, 0 on background."""
    small = labels[4::8, 4::8]
    out = np.zeros(small.shape, np.float32)
    for label in np.unique(small[small > 0]):
        inner = ndimage.distance_transform_edt(np.pad(small == label, 1))[1:-1, 1:-1]
        out = np.maximum(out, inner / inner.max())
    return out.astype(np.float32)


def centre_offsets(labels: np.ndarray) -> np.ndarray:
    """(2, 32, 32): from each cell to the centre of its object, x and y, in units of 32 pixels; NaN on background."""
    small = labels[4::8, 4::8]
    y, x = np.mgrid[0:32, 0:32].astype(np.float32) * 8 + 4
    area = np.maximum(np.bincount(labels.ravel(), minlength=256), 1)
    along = np.arange(labels.shape[0], dtype=np.float64)
    centre_x = np.bincount(labels.ravel(), np.broadcast_to(along, labels.shape).ravel(), 256) / area
    centre_y = np.bincount(labels.ravel(), np.repeat(along, labels.shape[1]), 256) / area
    out = np.stack([centre_x[small] - x, centre_y[small] - y]).astype(np.float32) / 32
    out[:, small == 0] = np.nan
    return out


def sample_points(
    rng: np.random.Generator, labels: np.ndarray, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in objects (small ones as often as large), on background, and on background close to an object."""
    areas = np.bincount(labels.ravel(), minlength=2)
    present = 1 + np.flatnonzero(areas[1:] >= MIN_AREA)
    points, targets, found = [], [], []
    chosen = rng.choice(present, OBJECTS, replace=len(present) < OBJECTS) if len(present) else []
    for label in chosen:
        mask = labels == label
        ys, xs = np.nonzero(mask)
        j = rng.integers(len(ys))
        points.append((xs[j], ys[j])), targets.append(soften(mask)), found.append(kinds[label - 1])
    empty = labels == 0
    near = empty & np.kron(ndimage.maximum_filter(labels[2::4, 2::4], 5) > 0, np.ones((4, 4), bool))
    for place in range(OBJECTS + BACKGROUNDS - len(points)):
        ys, xs = np.nonzero(near if place % 2 and near.any() else empty)
        if not len(ys):
            points.append(points[0]), targets.append(targets[0]), found.append(found[0])
            continue
        j = rng.integers(len(ys))
        points.append((xs[j], ys[j])), targets.append(np.zeros((64, 64), np.float32)), found.append(-2)
    return np.array(points, np.float32) + 0.5, np.stack(targets), np.array(found, np.int64)


class TrainingHeads(nn.Module):
    """Cosine classifier over the library's kinds, and centre offsets; only for training."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(CORE + MID + FINE + CORE, 128)
        self.rows = nn.Parameter(torch.randn(KINDS, 128))
        self.scale = nn.Parameter(torch.tensor(2.5))
        # where the centre of the object under each cell lies: makes the embedding tell neighbours apart
        self.offsets = nn.Sequential(nn.Conv2d(CORE, CORE, 1), nn.ReLU(), nn.Conv2d(CORE, 8, 1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        return self.scale.exp() * F.normalize(self.embed(features), dim=1) @ F.normalize(self.rows, dim=1).T


def pooled(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean of every channel group under soft masks: (B, C, 16, 16), (B, P, 64, 64) -> (B * P, 88)."""
    planes = [
        embeddings[:, :CORE],
        F.pixel_shuffle(embeddings[:, CORE : CORE + 4 * MID], 2),
        F.pixel_shuffle(embeddings[:, CORE + 4 * MID :], 4),
    ]
    parts = []
    for plane in planes:
        weight = F.adaptive_avg_pool2d(targets, plane.shape[-2:]).flatten(2)
        weight = weight / weight.sum(-1, keepdim=True).clamp_min(1e-4)
        parts.append((weight @ plane.flatten(2).transpose(1, 2)).flatten(0, 1))
    return torch.cat(parts, dim=1)


def mask_loss(logits: Tensor, targets: Tensor, balanced: bool) -> Tensor:
    """4 BCE + 2 dice per mask: (..., 64, 64) -> (...)."""
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if balanced:  # plain losses collapse to empty masks before the first shapes are found
        share = targets.mean(dim=(-2, -1), keepdim=True).clamp(0.02, 0.98)
        bce = bce * (targets * 0.5 / share + (1 - targets) * 0.5 / (1 - share))
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * targets).sum((-2, -1)) + 1) / (probability.sum((-2, -1)) + targets.sum((-2, -1)) + 1)
    return 4 * bce.mean((-2, -1)) + 2 * dice


def hard_iou(logits: Tensor, targets: Tensor) -> Tensor:
    """IoU of the thresholded mask with the soft target's majority, (..., 64, 64) -> (...)."""
    a, b = logits > 0, targets > 0.5
    return (a & b).sum((-2, -1)) / (a | b).sum((-2, -1)).clamp_min(1)


def losses(
    decoder: InstanceDecoder, encoder: nn.Module, classes: TrainingHeads, batch: Batch, balanced: bool
) -> tuple[Tensor, dict[str, float]]:
    """The whole loss and the figures that are printed."""
    embeddings = encoder(batch.images)
    answer, objectness = decoder(embeddings, batch.points)
    targets = batch.targets.flatten(0, 1)
    kind = batch.kind.flatten()
    is_object = kind > -2
    single = mask_loss(answer.masks[:, 0].float(), targets, balanced)
    several = mask_loss(answer.masks[:, 1:].float(), targets[:, None].expand(-1, 3, -1, -1), balanced)
    weight = is_object.float()
    masks = (single * (weight + 0.1 * (1 - weight))).mean() + 0.5 * (several.min(dim=1).values * weight).mean()
    true_iou = hard_iou(answer.masks.detach().float(), targets[:, None].expand(-1, 4, -1, -1)) * weight[:, None]
    iou = F.mse_loss(answer.iou.float(), true_iou)
    seen = F.binary_cross_entropy_with_logits(objectness.float(), weight)
    inside = F.binary_cross_entropy_with_logits(decoder.heads.centres(embeddings).float(), batch.inside)
    known = kind >= 0
    features = torch.cat([pooled(embeddings.float(), batch.targets), answer.mask_tokens[:, 0].float()], dim=1)
    naming = F.cross_entropy(classes(features[known]), kind[known]) if known.any() else features.sum() * 0
    guess = classes.offsets(embeddings[:, :CORE]).float()
    somewhere = ~batch.offsets.isnan()
    centring = F.smooth_l1_loss(guess[somewhere], batch.offsets[somewhere], beta=0.25)
    total = masks + 2 * iou + 0.5 * seen + inside + 0.15 * naming + 2 * centring
    figures = {
        "loss": float(total.detach()),
        "iou": float(true_iou[is_object, 0].mean()),
        "naming": float(naming.detach()),
        "seen": float(seen.detach()),
        "centring": float(centring.detach()),
    }
    return total, figures


@torch.no_grad()
def demo_quality(sam: nn.Module, names: tuple[str, ...], scenes: int = 60, seed: int = 99) -> float:
    """Mean IoU in full pixels from one random interior point, over every instance of demo-line scenes of `names`."""
    rng = np.random.default_rng(seed)
    parts = make_parts()
    decoder = InstanceDecoder.of(sam)
    values: list[float] = []
    for _ in range(scenes):
        items = [Item(parts[str(n)], 0) for n in rng.choice(names, int(rng.integers(2, 9)))]
        scene = compose(rng, items, IMAGE_SIZE, (21.0, 42.0), crowding=CROWDING, min_visible=MIN_VISIBLE)
        x = (torch.from_numpy(scene.image.copy()).permute(2, 0, 1)[None].float() - MEAN) / STD
        masks = [scene.labels == i + 1 for i in range(len(scene.kinds))]
        points = []
        for mask in masks:
            ys, xs = np.nonzero(mask)
            j = rng.integers(len(ys))
            points.append((xs[j] + 0.5, ys[j] + 0.5))
        answer, _ = decoder(sam.image_encoder(x), torch.tensor([points], dtype=torch.float32))
        logits = F.interpolate(answer.masks[:, :1], (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False)[
            :, 0
        ]
        for found, mask in zip(logits.numpy() > 0, masks, strict=True):
            values.append(float((found & mask).sum() / max(1, (found | mask).sum())))
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pools", type=Path, nargs="+", help="folders of scenes, drawn from in equal parts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warmup", type=int, default=400, help="steps")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="go on from this checkpoint")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop after this time; the schedule follows the clock"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    pool = Pool(args.pools, args.batch, args.seed)
    batches = iter(DataLoader(pool, batch_size=None, num_workers=1, prefetch_factor=8))
    sam, classes = build_tiny(), TrainingHeads()
    if args.init:
        sam.load_state_dict(load_file(args.init))
    sam.image_encoder.to(memory_format=torch.channels_last)
    decoder = InstanceDecoder.of(sam)
    # the auxiliary "centre" map is the proposal head; the positional Gaussian matrix is a buffer and stays as drawn
    weights = [p for p in [*sam.parameters(), *classes.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=args.rate, weight_decay=0.02, betas=(0.9, 0.98))
    average = copy.deepcopy(sam).eval()
    start, running = time.time(), {}
    step = 0
    while step < args.steps and (time.time() - start) / 60 < args.minutes:
        progress = max(step / args.steps, (time.time() - start) / 60 / args.minutes)
        rate = args.rate * min(1.0, (step + 1) / args.warmup) * (1 - progress) ** 1.0
        for group in optimiser.param_groups:
            group["lr"] = rate
        sam.train()
        with torch.autocast("cpu", torch.bfloat16):
            total, figures = losses(decoder, sam.image_encoder, classes, next(batches), step < 300 and not args.init)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        step += 1
        keep = min(0.999, (1 + step) / (20 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(sam.parameters()), 1 - keep)
            for mean, now in zip(average.buffers(), sam.buffers(), strict=True):
                mean.copy_(now)
        for key, value in figures.items():
            running[key] = 0.98 * running.get(key, value) + 0.02 * value
        if step % 100 == 0:
            print(
                json.dumps(
                    {
                        "step": step,
                        "minutes": round((time.time() - start) / 60, 2),
                        "rate": round(rate, 6),
                        **{k: round(v, 4) for k, v in running.items()},
                    }
                ),
                flush=True,
            )
        if step % 500 == 0 or step == args.steps:
            write(average, args.out)
            quality = {"base": demo_quality(average, BASE_PARTS), "novel": demo_quality(average, NOVEL_PARTS)}
            print(json.dumps({"step": step, **{k: round(v, 4) for k, v in quality.items()}}), flush=True)
    write(average, args.out)
    print(
        json.dumps(
            {
                "steps": step,
                "minutes": round((time.time() - start) / 60, 1),
                "base": demo_quality(average, BASE_PARTS, 150, 5),
                "novel": demo_quality(average, NOVEL_PARTS, 150, 5),
            }
        ),
        flush=True,
    )


def write(sam: nn.Module, path: Path) -> None:
    """The model's tensors as safetensors, renamed into place."""
    tensors = {k: v.detach().contiguous().clone() for k, v in sam.state_dict().items()}
    draft = path.with_suffix(".draft")
    save_file(tensors, draft, metadata={"architecture": "tiny"})
    draft.replace(path)


if __name__ == "__main__":
    main()
