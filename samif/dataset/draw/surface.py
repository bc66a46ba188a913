"""Textures: smooth noise and the backgrounds that parts lie on."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.float32]


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth value noise (size, size), about zero mean and unit spread, `cells` bumps across."""
    cells = max(2, min(cells, size))
    grid = Image.fromarray(rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32), mode="F")
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def background(rng: np.random.Generator, size: int, markings: bool = True) -> NDArray[np.float32]:
    """A bench, belt or tray (size, size, 3) in 0..1.

    Flat markings (lines, stains, printed patches) are part of it: they are what a segmenter must leave alone.
    """
    colour = _muted(rng)
    field = np.zeros((size, size), dtype=np.float32)
    kind = rng.choice(["plain", "cloudy", "brushed", "wood", "weave", "speckle", "tiles", "ribbed"])
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    turn = rng.uniform(0.0, math.pi)
    along = x * math.cos(turn) + y * math.sin(turn)
    if kind == "cloudy":
        field += 0.08 * noise(rng, size, int(rng.integers(4, 14)))
    elif kind == "brushed":
        streaks = rng.normal(0.0, 1.0, 3 * size).astype(np.float32)
        field += 0.05 * streaks[np.clip(along + size, 0, 3 * size - 1).astype(np.int64)]
    elif kind == "wood":
        wobble = 6.0 * noise(rng, size, 4)
        field += 0.07 * np.sin((along + wobble) * rng.uniform(0.1, 0.5)) + 0.03 * noise(rng, size, size // 4)
    elif kind == "weave":
        pitch = rng.uniform(0.5, 1.6)
        field += rng.uniform(0.02, 0.07) * (np.sin(x * pitch) * np.sin(y * pitch))
    elif kind == "speckle":
        field += 0.05 * noise(rng, size, size // 2) + 0.04 * noise(rng, size, size // 5)
    elif kind == "tiles":
        pitch = int(rng.integers(18, 70))
        seam = ((x.astype(np.int64) + int(rng.integers(pitch))) % pitch < 2) | ((y.astype(np.int64)) % pitch < 2)
        field += np.where(seam, rng.choice([-0.15, 0.12]), 0.0) + 0.02 * noise(rng, size, 10)
    elif kind == "ribbed":
        field += rng.uniform(0.03, 0.1) * np.sign(np.sin(along * rng.uniform(0.15, 0.6)))
    field += 0.02 * noise(rng, size, size // 3)
    surface = colour[None, None, :] + field[..., None] * (0.7 + 0.6 * colour[None, None, :])
    if rng.random() < 0.3:
        surface = surface + 0.05 * noise(rng, size, 3)[..., None] * rng.uniform(0.5, 1.5, 3).astype(np.float32)
    if markings and rng.random() < 0.5:
        surface = _mark(rng, surface.astype(np.float32), size)
    return np.clip(surface, 0.0, 1.0).astype(np.float32)


def light(rng: np.random.Generator, size: int, strength: float = 0.35) -> Field:
    """Uneven lighting (size, size): a multiplicative ramp with a soft hot spot."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    turn = rng.uniform(0.0, 2.0 * math.pi)
    ramp = 1.0 + strength * rng.uniform(0.0, 1.0) * (x * math.cos(turn) + y * math.sin(turn))
    spot = (x - rng.uniform(-0.5, 0.5)) ** 2 + (y - rng.uniform(-0.5, 0.5)) ** 2
    return np.asarray(ramp * (1.0 + strength * rng.uniform(0.0, 0.5) * np.exp(-spot / 0.12)), dtype=np.float32)


def _muted(rng: np.random.Generator) -> NDArray[np.float32]:
    grey = rng.uniform(0.08, 0.9)
    cast = rng.normal(0.0, 0.07 if rng.random() < 0.7 else 0.2, 3)
    return np.asarray(np.clip(grey + cast, 0.03, 0.97), dtype=np.float32)


def _mark(rng: np.random.Generator, surface: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Lines, stains and printed patches, flat: without shading or shadow."""
    layer = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(layer)
    for _ in range(int(rng.integers(1, 5))):
        x0, y0, x1, y1 = rng.uniform(-0.2 * size, 1.2 * size, 4)
        if rng.random() < 0.6:
            draw.line([x0, y0, x1, y1], fill=255, width=int(rng.integers(1, 7)))
        else:
            r = rng.uniform(0.05, 0.35) * size
            draw.ellipse([x0 - r, y0 - r, x0 + r, y0 + r * rng.uniform(0.2, 1.0)], fill=255)
    blur = rng.choice([0.5, 2.0, 8.0])
    cover = np.asarray(layer.filter(ImageFilter.GaussianBlur(float(blur))), dtype=np.float32) / 255.0
    tone = surface.mean(axis=(0, 1)) + rng.normal(0.0, 0.12, 3).astype(np.float32)
    weight = (cover * rng.uniform(0.2, 0.8))[..., None]
    return np.asarray(surface * (1.0 - weight) + tone * weight)
