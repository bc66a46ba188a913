"""Put sprites on a background: touching, overlapping, shadowed, lit and noisy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from samif.dataset.draw.part import Part, Pose, Sprite, render
from samif.dataset.draw.surface import background, light


@dataclass(frozen=True)
class Scene:
    """`image` (S, S, 3) uint8; `labels` (S, S) uint8, 0 background, i + 1 where instance i is seen;
    `kinds` the index handed in for each instance (-1: a distractor)."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    kinds: tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """Something to place: the part, its kind (-1 for a distractor) and its relative size."""

    part: Part
    kind: int
    size: float = 1.0


def compose(
    rng: np.random.Generator,
    items: Sequence[Item],
    size: int,
    radius: tuple[float, float],
    crowding: float = 0.4,
    min_visible: float = 0.45,
    jitter: float = 1.0,
    backdrop: Callable[[np.random.Generator, int], NDArray[np.float32]] = background,
) -> Scene:
    """Draw a scene of `size` pixels square.

    Args:
        radius: range of an instance's radius in pixels before its own relative size.
        crowding: probability that an instance is pushed against one that already lies there.
        min_visible: an item whose placing would leave itself or another less visible than this is moved or left out.
        jitter: how much instances of one part differ in proportion and colour; 1 is natural.
    """
    canvas = backdrop(rng, size)
    lamp = rng.uniform(0.0, 2.0 * math.pi)
    shadow_strength = rng.uniform(0.1, 0.6)
    labels = np.zeros((size, size), dtype=np.uint8)
    full: list[int] = []
    kinds: list[int] = []
    centres: list[tuple[float, float, float]] = []
    for item in items:
        reach = min(rng.uniform(*radius) * item.size, 0.6 * size)
        pose = Pose(
            turn=rng.uniform(0.0, 2.0 * math.pi),
            radius=reach,
            squeeze=math.exp(rng.normal(0.0, 0.04 * jitter)),
            shear=rng.normal(0.0, 0.03 * jitter),
            tint=tuple(rng.normal(0.0, 0.03 * jitter) + rng.normal(0.0, 0.012 * jitter, 3)),
            light=lamp,
        )
        sprite = render(item.part, pose, rng)
        for _ in range(8):
            x, y = _place(rng, size, reach, centres, crowding)
            if _fits(sprite, labels, full, x, y, min_visible):
                _shadow(canvas, sprite, x, y, lamp, reach, shadow_strength)
                full.append(_paste(canvas, labels, sprite, x, y, len(full) + 1))
                kinds.append(item.kind)
                centres.append((x, y, reach))
                break
    return Scene(_expose(rng, canvas, size), labels, tuple(kinds))


def _place(
    rng: np.random.Generator, size: int, reach: float, centres: list[tuple[float, float, float]], crowding: float
) -> tuple[float, float]:
    margin = min(0.55 * reach, 0.4 * size)
    if centres and rng.random() < crowding:
        cx, cy, other = centres[int(rng.integers(len(centres)))]
        turn, gap = rng.uniform(0.0, 2.0 * math.pi), (other + reach) * rng.uniform(0.55, 1.0)
        x, y = cx + gap * math.cos(turn), cy + gap * math.sin(turn)
        return float(np.clip(x, margin, size - margin)), float(np.clip(y, margin, size - margin))
    return float(rng.uniform(margin, size - margin)), float(rng.uniform(margin, size - margin))


def _window(shape: tuple[int, ...], size: int, x: float, y: float) -> tuple[slice, slice, slice, slice]:
    """Slices of the canvas and of the sprite where they meet."""
    h, w = shape[:2]
    x0, y0 = round(x) - w // 2, round(y) - h // 2
    cx0, cy0, cx1, cy1 = max(x0, 0), max(y0, 0), min(x0 + w, size), min(y0 + h, size)
    return slice(cy0, cy1), slice(cx0, cx1), slice(cy0 - y0, cy1 - y0), slice(cx0 - x0, cx1 - x0)


def _fits(sprite: Sprite, labels: NDArray[np.uint8], full: list[int], x: float, y: float, min_visible: float) -> bool:
    rows, cols, srows, scols = _window(sprite.alpha.shape, labels.shape[0], x, y)
    solid = sprite.alpha[srows, scols] > 0.5
    if solid.sum() < max(30, min_visible * (sprite.alpha > 0.5).sum()):
        return False
    covered = np.bincount(labels[rows, cols][solid], minlength=len(full) + 1)
    seen = np.bincount(labels.ravel(), minlength=len(full) + 1)
    return all(seen[i + 1] - covered[i + 1] >= min_visible * area for i, area in enumerate(full) if covered[i + 1])


def _shadow(
    canvas: NDArray[np.float32], sprite: Sprite, x: float, y: float, lamp: float, reach: float, strength: float
) -> None:
    spread = max(1.5, 0.08 * reach)
    soft = Image.fromarray((sprite.alpha * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(spread))
    alpha = np.asarray(soft, dtype=np.float32) / 255.0
    away = 0.09 * reach
    x, y = x - away * math.cos(lamp + math.pi), y - away * math.sin(lamp + math.pi)
    rows, cols, srows, scols = _window(alpha.shape, canvas.shape[0], x, y)
    canvas[rows, cols] *= 1.0 - strength * alpha[srows, scols, None]


def _paste(
    canvas: NDArray[np.float32], labels: NDArray[np.uint8], sprite: Sprite, x: float, y: float, label: int
) -> int:
    """Blend the sprite in; returns its full area in pixels, inside the image."""
    rows, cols, srows, scols = _window(sprite.alpha.shape, canvas.shape[0], x, y)
    alpha = sprite.alpha[srows, scols]
    canvas[rows, cols] += alpha[..., None] * (sprite.rgb[srows, scols] - canvas[rows, cols])
    solid = alpha > 0.5
    labels[rows, cols][solid] = label
    return int(solid.sum())


def _expose(rng: np.random.Generator, canvas: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    lit = canvas * light(rng, size)[..., None] * rng.uniform(0.8, 1.15)
    lit = lit + rng.normal(0.0, rng.uniform(0.003, 0.025), lit.shape).astype(np.float32)
    image = Image.fromarray((np.clip(lit, 0.0, 1.0) * 255).astype(np.uint8))
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.8))))
    return np.asarray(image)
