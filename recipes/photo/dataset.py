"""Training samples for `photo`: crops of photographs, composites of cut-out objects, and drawn objects.

Labelling of the photographs is rarely exhaustive, so only composites on drawn backgrounds and a few sources say what is
background. Shape legend: B images, S = 512 pixels, P prompts, T tokens of a prompt, M = 128 mask cells a side,
D = 64 cells a side of the depth map.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask
from scipy import ndimage
from torch import Tensor
from torch.utils.data import IterableDataset

from samif.dataset.draw.part import Pose, render
from samif.dataset.draw.surface import background
from samif.dataset.draw.variety import random_part
from samif.sam.photo import IMAGE_SIZE as S

MASK_CELLS, DEPTH_CELLS = 128, 64
POINTS, BOXES, EXTRA, BACKGROUND = 6, 2, 2, 2
"""Prompts of an image: object points, boxes, two-point prompts, and of the object points how many lie on background
where that is known."""
MIN_AREA = 80
"""Pixels at 512 px; slivers teach nothing."""
EXHAUSTIVE = ("pellets", "screws", "breadboard")
"""Sources whose unlabelled pixels are background."""
COARSE = ("plasticwaste", "dogscats", "strawberries", "smallthings", "trashbags", "homedepot")
"""Sources with outlines too rough, or contents too mixed, to be cut out and pasted."""
MOST_MASKS = 24

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]
ABSENT, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Labels of prompt tokens, as the official prompt encoder numbers them."""


@dataclass
class Batch:
    """What one step learns from.

    Attributes:
        images: (B, 3, S, S) in -1..1.
        pairs, pair_labels: prompts of two tokens (B, P2, 2, 2) as (x, y) and (B, P2, 2).
        triples, triple_labels: prompts of three tokens (B, P3, 3, 2) and (B, P3, 3).
        targets: the masks of pairs, then triples (B, P2 + P3, M, M), share of each cell.
        is_object: (B, P2 + P3), 0 where the answer must be nothing.
        depth, depth_weight: (B, D, D) depth inside objects, 1 at the deepest, and how much each cell counts.
    """

    images: Tensor
    pairs: Tensor
    pair_labels: Tensor
    triples: Tensor
    triple_labels: Tensor
    targets: Tensor
    is_object: Tensor
    depth: Tensor
    depth_weight: Tensor


@dataclass
class View:
    """One square training image: `pixels` (S, S, 3), object `masks` (S, S), whether all objects are among them, and
    which pixels belong to the image, not to the padding."""

    pixels: Pixels
    masks: list[Mask]
    exhaustive: bool
    valid: Mask


class Photographs:
    """A folder with `instances.json` and `images/`, decoded once and kept as bytes."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
        labels = defaultdict(list)
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                labels[annotation["image_id"]].append(annotation["segmentation"])
        self.records = [(folder / "images" / r["file_name"], r, labels[r["id"]]) for r in content["images"]]
        self.records = [record for record in self.records if record[2]]
        self._pixels: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self.records)

    def source(self, index: int) -> str:
        """The repository that an image comes from, by the prefix of its name."""
        return self.records[index][0].name.split("_")[0]

    def pixels(self, index: int) -> Pixels:
        """RGB (H, W, 3)."""
        if index not in self._pixels:
            with Image.open(self.records[index][0]) as file:
                self._pixels[index] = np.asarray(file.convert("RGB"))
        return self._pixels[index]

    def codes(self, index: int) -> list[dict[str, Any]]:
        """Run-length codes of the image's objects."""
        _, record, segmentations = self.records[index]
        height, width = record["height"], record["width"]
        codes = []
        for segmentation in segmentations:
            if isinstance(segmentation, list):
                codes.append(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width)))
            elif isinstance(segmentation["counts"], list):
                codes.append(coco_mask.frPyObjects(segmentation, height, width))
            else:
                codes.append(segmentation)
        return codes


class Samples(IterableDataset[Batch]):
    """Endless batches; `seed` decides all of them."""

    def __init__(self, folder: Path, size: int, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        draw = Sampler(Photographs(self.folder), np.random.default_rng(self.seed))
        while True:
            samples = [draw.sample() for _ in range(self.size)]
            yield Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)))


class Sampler:
    """Draws views and their prompts."""

    def __init__(self, photographs: Photographs, rng: np.random.Generator) -> None:
        self.photographs, self.rng = photographs, rng
        self._cuttable = [i for i in range(len(photographs)) if photographs.source(i) not in COARSE]
        exhaustive = [photographs.source(i) in EXHAUSTIVE for i in range(len(photographs))]
        weight = np.where(exhaustive, 1.5, 1.0)
        self._weight = weight / weight.sum()

    def sample(self) -> tuple[NDArray[Any], ...]:
        """One image's share of a `Batch`, in the order of its fields."""
        while True:
            kind = self.rng.random()
            view = self._crop() if kind < 0.55 else self._composite(on_photograph=kind < 0.7)
            if view is None or not view.masks:
                continue
            view = self._turned(view)
            pixels = self._recoloured(view.pixels)
            pixels[~view.valid] = 0.0  # padding, after normalisation
            depth, weight = depth_targets(view)
            return pixels.transpose(2, 0, 1), *self._prompts(view), depth, weight

    def _crop(self, index: int | None = None) -> View | None:
        """A part of a photograph, resized to 0.7 to 1 of the square; sometimes a small part, as a second look sees."""
        rng = self.rng
        i = int(rng.choice(len(self.photographs), p=self._weight)) if index is None else index
        pixels, codes = self.photographs.pixels(i), self.photographs.codes(i)
        h, w = pixels.shape[:2]
        share = rng.uniform(0.2, 0.5) if rng.random() < 0.2 else rng.uniform(0.5, 1.0)
        side = max(64, int(max(h, w) * share))
        ch, cw = min(h, side), min(w, side)
        y, x = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
        scale = S / max(ch, cw) * rng.uniform(0.7, 1.0)
        size = max(1, int(cw * scale)), max(1, int(ch * scale))
        exhaustive = self.photographs.source(i) in EXHAUSTIVE
        if len(codes) > MOST_MASKS and not exhaustive:
            codes = [codes[j] for j in rng.choice(len(codes), MOST_MASKS, replace=False)]
        boxes = coco_mask.toBbox(codes)
        meets = (boxes[:, 0] < x + cw) & (boxes[:, 0] + boxes[:, 2] > x)
        meets &= (boxes[:, 1] < y + ch) & (boxes[:, 1] + boxes[:, 3] > y)
        masks = []
        for code in (code for code, there in zip(codes, meets, strict=True) if there):
            whole = coco_mask.decode(code)
            part = whole[y : y + ch, x : x + cw]
            seen = int(part.sum())
            sliver = seen < 20 or (seen < 0.4 * int(whole.sum()) and seen < 400)
            if sliver and not exhaustive:
                continue
            mask = padded(np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST)) > 0)
            if mask.sum() >= (MIN_AREA if not exhaustive else 1):
                masks.append(mask)
        if not any(mask.sum() >= MIN_AREA for mask in masks):
            return None
        view = np.zeros((S, S, 3), np.uint8)
        resized = Image.fromarray(pixels[y : y + ch, x : x + cw]).resize(size, Image.Resampling.BILINEAR)
        view[: size[1], : size[0]] = np.asarray(resized)
        return View(view, masks, exhaustive, padded(np.ones((size[1], size[0]), bool)))

    def _composite(self, on_photograph: bool) -> View | None:
        """Objects cut out of photographs, and drawn ones, pasted over each other."""
        rng = self.rng
        if on_photograph:
            view = self._crop()
            if view is None:
                return None
        else:
            canvas = (background(rng, S) * 255).astype(np.uint8)
            view = View(canvas, [], True, np.ones((S, S), bool))
        canvas = view.pixels.astype(np.float32)
        masks, areas = list(view.masks), [int(mask.sum()) for mask in view.masks]
        typical = np.exp(rng.uniform(np.log(22), np.log(150)))
        count = int(rng.integers(2, 7)) if on_photograph else int(rng.integers(3, 14))
        limit = view.valid.any(axis=1).sum(), view.valid.any(axis=0).sum()
        for _ in range(count):
            side = float(np.clip(typical * np.exp(rng.normal(0.0, 0.5)), 12, 260))
            rgb, alpha = self._drawn(side) if rng.random() < 0.3 else self._cutout(side)
            h, w = alpha.shape
            if h < 4 or w < 4 or h > limit[0] or w > limit[1]:
                continue
            y, x = int(rng.integers(limit[0] - h + 1)), int(rng.integers(limit[1] - w + 1))
            if masks and rng.random() < 0.4:  # beside or over another object
                near = masks[int(rng.integers(len(masks)))]
                ys, xs = np.nonzero(near[::4, ::4])
                if len(ys):
                    j = int(rng.integers(len(ys)))
                    y = int(np.clip(4 * ys[j] - h // 2 + rng.normal(0, h / 3), 0, limit[0] - h))
                    x = int(np.clip(4 * xs[j] - w // 2 + rng.normal(0, w / 3), 0, limit[1] - w))
            place = slice(y, y + h), slice(x, x + w)
            if rng.random() < 0.6:
                shadow = ndimage.uniform_filter(np.roll(alpha, (max(1, h // 20),) * 2, (0, 1)), max(2, h // 12))
                canvas[place] *= 1.0 - rng.uniform(0.1, 0.5) * shadow[..., None]
            canvas[place] += alpha[..., None] * (rgb - canvas[place])
            solid = alpha > 0.5
            for mask in masks:
                mask[place] &= ~solid
            new = np.zeros((S, S), bool)
            new[place] = solid
            masks.append(new)
            areas.append(int(solid.sum()))
        kept = []
        for mask, area in zip(masks, areas, strict=True):
            seen = int(mask.sum())
            if view.exhaustive or (seen >= MIN_AREA and seen >= 0.35 * area):
                kept.append(mask)
        if not any(mask.sum() >= MIN_AREA for mask in kept):
            return None
        return View(np.clip(canvas, 0, 255).astype(np.uint8), kept, view.exhaustive, view.valid)

    def _cutout(self, side: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """An object of a photograph, turned and resized to about `side` pixels (root of its area): RGB and alpha."""
        rng = self.rng
        while True:
            i = self._cuttable[int(rng.integers(len(self._cuttable)))]
            codes = self.photographs.codes(i)
            code = codes[int(rng.integers(len(codes)))]
            area = float(coco_mask.area(code))
            x, y, w, h = (int(v) for v in coco_mask.toBbox(code))
            height, width = code["size"]
            cut_off = x <= 1 or y <= 1 or x + w >= width - 1 or y + h >= height - 1
            if area < 500 or min(w, h) < 8 or (cut_off and rng.random() < 0.8):
                continue
            part = coco_mask.decode(code)[y : y + h, x : x + w]
            scale = min(side / np.sqrt(area), 1.6)
            size = max(4, round(w * scale)), max(4, round(h * scale))
            if max(size) > 1.4 * S:
                continue
            rgba = np.dstack([self.photographs.pixels(i)[y : y + h, x : x + w], part * 255])
            sprite = Image.fromarray(rgba).resize(size, Image.Resampling.BILINEAR)
            sprite = sprite.rotate(float(rng.uniform(0, 360)), Image.Resampling.BILINEAR, expand=True)
            if rng.random() < 0.5:
                sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            cells = np.asarray(sprite, dtype=np.float32)
            alpha = ndimage.uniform_filter(cells[..., 3], 2) / 255.0
            rgb = cells[..., :3] * rng.uniform(0.75, 1.2)
            return np.clip(rgb, 0, 255), np.clip(alpha * 1.6 - 0.3, 0, 1)

    def _drawn(self, side: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A drawn object of about `side` pixels."""
        rng = self.rng
        sprite = render(random_part(rng), Pose(turn=rng.uniform(0, 2 * np.pi), radius=max(6.0, side * 0.7)), rng)
        return sprite.rgb * 255.0, sprite.alpha

    def _turned(self, view: View) -> View:
        turns = int(self.rng.integers(4)) if self.rng.random() < 0.35 else 0
        step = -1 if self.rng.random() < 0.5 else 1

        def turn(a: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(np.rot90(a, turns)[:, ::step])

        masks = [turn(m) for m in view.masks]
        return View(turn(view.pixels), masks, view.exhaustive, turn(view.valid))

    def _recoloured(self, pixels: Pixels) -> NDArray[np.float32]:
        """Gain, gamma, cast, sometimes grey, blur or noise; normalised to -1..1."""
        rng = self.rng
        if rng.random() < 0.1:
            pixels = np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
        if rng.random() < 0.2:
            blurred = Image.fromarray(pixels).filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 1.2))))
            pixels = np.asarray(blurred)
        gain, gamma = rng.uniform(0.75, 1.2) * rng.uniform(0.92, 1.08, 3), rng.uniform(0.75, 1.3)
        levels = np.arange(256)[:, None] / 255.0 * gain
        table = (np.clip(levels, 0.0, 1.0) ** gamma * 2.0 - 1.0).astype(np.float32)
        return np.stack([table[pixels[..., c], c] for c in range(3)], axis=-1)

    def _prompts(self, view: View) -> tuple[NDArray[Any], ...]:
        """Pairs, their labels, triples, their labels, targets, is_object."""
        rng = self.rng
        large = [mask for mask in view.masks if mask.sum() >= MIN_AREA]
        count = POINTS + BOXES + EXTRA
        chosen = [large[i] for i in rng.choice(len(large), count, replace=len(large) < count)]
        targets = [soft(mask) for mask in chosen]
        is_object = np.ones(count, np.float32)
        pairs, pair_labels = np.zeros((POINTS + BOXES, 2, 2), np.float32), np.zeros((POINTS + BOXES, 2), np.int64)
        free = view.valid & ~np.logical_or.reduce(view.masks) if view.exhaustive else None
        spare = BACKGROUND if free is not None and free.any() else 0
        for i in range(POINTS):
            if i < spare:
                point = self._background_point(free, view.masks, close=i % 2 == 0)
                targets[i], is_object[i] = np.zeros((MASK_CELLS, MASK_CELLS), np.float32), 0.0
            else:
                point = self._inside(chosen[i])
            pairs[i, 0], pair_labels[i] = point, (POSITIVE, ABSENT)
        for i in range(POINTS, POINTS + BOXES):
            pairs[i], pair_labels[i] = self._box(chosen[i]), (TOP_LEFT, BOTTOM_RIGHT)
        triples, triple_labels = np.zeros((EXTRA, 3, 2), np.float32), np.zeros((EXTRA, 3), np.int64)
        for i in range(EXTRA):
            mask = chosen[POINTS + BOXES + i]
            triples[i, 0] = self._inside(mask)
            if i == 0:
                outside = self._just_outside(mask, view.valid) if rng.random() < 0.6 else None
                triples[i, 1] = self._inside(mask) if outside is None else outside
                triple_labels[i] = (POSITIVE, POSITIVE if outside is None else NEGATIVE, ABSENT)
            else:
                triples[i, 1:], triple_labels[i] = self._box(mask), (POSITIVE, TOP_LEFT, BOTTOM_RIGHT)
        return pairs, pair_labels, triples, triple_labels, np.stack(targets), is_object

    def _inside(self, mask: Mask) -> NDArray[np.float32]:
        ys, xs = np.nonzero(mask)
        j = int(self.rng.integers(len(ys)))
        return np.array([xs[j] + 0.5, ys[j] + 0.5], np.float32)

    def _just_outside(self, mask: Mask, valid: Mask) -> NDArray[np.float32] | None:
        """A point close to an object; None where it fills the image."""
        reach = max(2, int(0.15 * np.sqrt(mask.sum())) // 4)
        ring = ndimage.maximum_filter(mask[2::4, 2::4], 2 * reach + 1) & ~mask[2::4, 2::4] & valid[2::4, 2::4]
        ys, xs = np.nonzero(ring)
        if not len(ys):
            return None
        j = int(self.rng.integers(len(ys)))
        return np.array([4 * xs[j] + 2.5, 4 * ys[j] + 2.5], np.float32)

    def _background_point(self, free: Mask, masks: list[Mask], close: bool) -> NDArray[np.float32]:
        where = free[2::4, 2::4]
        if close:
            covered = np.logical_or.reduce(masks)[2::4, 2::4]
            near = where & ndimage.maximum_filter(covered, 7)
            where = near if near.any() else where
        if not where.any():
            return self._inside(free)
        ys, xs = np.nonzero(where)
        j = int(self.rng.integers(len(ys)))
        return np.array([4 * xs[j] + 2.5, 4 * ys[j] + 2.5], np.float32)

    def _box(self, mask: Mask) -> NDArray[np.float32]:
        """Corners (2, 2), each off by up to a tenth of the box."""
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        corners = np.array([[xs[0], ys[0]], [xs[-1] + 1, ys[-1] + 1]], np.float32)
        noise = self.rng.normal(0.0, 0.05, (2, 2)) * (corners[1] - corners[0])
        return np.clip(corners + noise, 0, S).astype(np.float32)


def padded(mask: Mask) -> Mask:
    """(h, w) -> (S, S), in the top left corner."""
    out = np.zeros((S, S), bool)
    out[: mask.shape[0], : mask.shape[1]] = mask
    return out


def soft(mask: Mask) -> NDArray[np.float32]:
    """(S, S) -> share of each of (M, M) cells."""
    step = S // MASK_CELLS
    return mask.reshape(MASK_CELLS, step, MASK_CELLS, step).mean(axis=(1, 3), dtype=np.float32)


def depth_targets(view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth inside objects (D, D), and the weight of each cell: 1 inside objects and on known background, 0.3 close
    around the objects of a view that is not labelled exhaustively, 0 elsewhere."""
    step = S // DEPTH_CELLS
    half = step // 2
    depth = np.zeros((DEPTH_CELLS, DEPTH_CELLS), np.float32)
    covered = np.zeros((DEPTH_CELLS, DEPTH_CELLS), bool)
    for mask in view.masks:
        small = mask[half::step, half::step].copy()
        if not small.any():
            ys, xs = np.nonzero(mask)
            if not len(ys):
                continue
            small[int(ys.mean()) // step, int(xs.mean()) // step] = True
        inner = ndimage.distance_transform_edt(np.pad(small, 1))[1:-1, 1:-1]
        depth = np.maximum(depth, (inner / inner.max()).astype(np.float32))
        covered |= small
    valid = view.valid[half::step, half::step]
    if view.exhaustive:
        return depth, valid.astype(np.float32)
    ring = ndimage.maximum_filter(covered, 3) & ~covered & valid
    return depth, covered.astype(np.float32) + 0.3 * ring
