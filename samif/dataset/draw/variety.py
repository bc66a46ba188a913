"""Endless random objects: what the shipped `tiny` segmenter learns single objects from.

None of these is a part of the demo line: silhouettes, holes, details and colours are all drawn at random.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np

from samif.dataset.draw.part import Colour, Layer, Part
from samif.dataset.draw.shapes import Polygon, arc, blob, box, circle, ellipse, regular, rotate, star, stroke


def random_part(rng: np.random.Generator) -> Part:
    """Draw a new kind of object: body, holes, details, palette and surface at random."""
    layers = [Layer("add", polygon, 0, 0.0) for polygon in _body(rng)]
    for _ in range(int(rng.choice([0, 0, 1, 2, 3, 4]))):
        layers.append(Layer("paint", _detail(rng), int(rng.integers(0, 3)), float(rng.uniform(-0.8, 1.0))))
    if rng.random() < 0.4:
        if rng.random() < 0.6:
            layers.append(Layer("cut", circle(rng.uniform(0.15, 0.55))))
        else:
            count, ring, r = int(rng.integers(2, 7)), rng.uniform(0.35, 0.7), rng.uniform(0.08, 0.18)
            turns = np.arange(count) * 2 * math.pi / count
            layers += [Layer("cut", circle(r, ring * math.cos(t), ring * math.sin(t))) for t in turns]
    main = _colour(rng)
    second = _near(rng, main) if rng.random() < 0.5 else _colour(rng)
    return Part(
        layers=tuple(layers),
        palette=(main, second, _colour(rng)),
        gloss=float(rng.choice([0.0, 0.2, 0.6])),
        grain=float(rng.uniform(0.0, 0.12)),
        brushed=float(rng.choice([0.0, 0.0, 0.06])),
        relief=float(rng.uniform(0.2, 1.4)),
    )


def _body(rng: np.random.Generator) -> list[Polygon]:
    turn = rng.uniform(0, 2 * math.pi)
    kind = rng.choice(["blob", "regular", "star", "cog", "box", "ellipse", "union", "stroke", "arc", "comb", "bar"])
    if kind == "blob":
        return [blob(rng, int(rng.integers(2, 9)), rng.uniform(0.1, 0.8))]
    if kind == "regular":
        return [regular(int(rng.integers(3, 10)), 1.0) * np.array([1.0, rng.uniform(0.4, 1.0)])]
    if kind == "star":
        return [star(int(rng.integers(3, 12)), 1.0, rng.uniform(0.35, 0.8))]
    if kind == "cog":
        return [star(int(rng.integers(4, 18)), 1.0, rng.uniform(0.7, 0.9), rng.uniform(0.3, 1.0))]
    if kind == "box":
        return [box(2.0, 2.0 * rng.uniform(0.3, 1.0), turn=turn, round_to=float(rng.choice([0.0, 0.1, 0.4]))) * 0.8]
    if kind == "ellipse":
        return [rotate(ellipse(1.0, rng.uniform(0.3, 1.0)), turn)]
    if kind == "bar":
        width = rng.uniform(0.12, 0.4)
        head = circle(rng.uniform(0.15, 0.4), -0.7) if rng.random() < 0.5 else box(0.3, rng.uniform(0.3, 0.8), -0.8)
        return [box(1.9, width, turn=0.0, round_to=0.05), head]
    if kind == "comb":
        teeth = int(rng.integers(3, 8))
        pitch = 1.8 / teeth
        depth = rng.uniform(0.5, 1.3)
        bars = [box(pitch * rng.uniform(0.4, 0.6), depth, -0.9 + (i + 0.5) * pitch, 0.1) for i in range(teeth)]
        return [box(1.8, 0.35, 0.0, -depth / 2 + 0.1), *bars]
    if kind == "stroke":
        path = [(float(x), float(y)) for x, y in rng.uniform(-0.85, 0.85, (int(rng.integers(2, 5)), 2))]
        return stroke(path, rng.uniform(0.15, 0.45))
    if kind == "arc":
        path = arc(0.75, 0.0, rng.uniform(1.5, 6.2))
        if rng.random() < 0.4:
            path.append((path[-1][0] + rng.uniform(-0.6, 0.2), path[-1][1] + rng.uniform(-0.5, 0.5)))
        return stroke(path, rng.uniform(0.15, 0.4))
    pieces: list[Polygon] = []
    for _ in range(int(rng.integers(2, 5))):
        cx, cy = rng.uniform(-0.45, 0.45, 2)
        if rng.random() < 0.5:
            pieces.append(box(rng.uniform(0.3, 1.4), rng.uniform(0.25, 0.9), cx, cy, turn, 0.05))
        else:
            pieces.append(ellipse(rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), cx, cy))
    # a bridge through the centre keeps the object in one piece
    pieces.append(box(0.8, 0.3, turn=turn))
    return pieces


def _detail(rng: np.random.Generator) -> Polygon:
    cx, cy = rng.uniform(-0.4, 0.4, 2) * (rng.random() < 0.6)
    kind = rng.choice(["disc", "box", "stripe", "polygon"])
    if kind == "disc":
        return circle(rng.uniform(0.1, 0.65), cx, cy)
    if kind == "box":
        return box(rng.uniform(0.15, 1.0), rng.uniform(0.15, 0.8), cx, cy, rng.choice([0.0, rng.uniform(0, 3)]))
    if kind == "stripe":
        return box(2.4, rng.uniform(0.06, 0.3), cx, cy, rng.uniform(0, math.pi))
    return np.asarray(regular(int(rng.integers(3, 8)), rng.uniform(0.15, 0.6), rng.uniform(0, 6)) + np.array([cx, cy]))


def _colour(rng: np.random.Generator) -> Colour:
    """Half metals and plastics near grey, half anything."""
    saturation = rng.uniform(0.0, 0.2) if rng.random() < 0.5 else rng.uniform(0.2, 0.95)
    return colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.1, 0.95))


def _near(rng: np.random.Generator, colour: Colour) -> Colour:
    r, g, b = np.clip(np.array(colour) * rng.uniform(0.5, 1.4), 0.02, 0.98)
    return float(r), float(g), float(b)
