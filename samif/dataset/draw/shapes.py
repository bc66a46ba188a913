"""Outlines in a unit frame: closed polygons as float arrays (P, 2), x and y about in [-1, 1]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]


def ellipse(rx: float, ry: float, cx: float = 0.0, cy: float = 0.0, points: int = 40) -> Polygon:
    """Ellipse with half axes `rx`, `ry` about (`cx`, `cy`)."""
    angle = np.linspace(0.0, 2.0 * math.pi, points, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def circle(r: float, cx: float = 0.0, cy: float = 0.0) -> Polygon:
    """Circle of radius `r`."""
    return ellipse(r, r, cx, cy)


def regular(sides: int, r: float = 1.0, turn: float = 0.0) -> Polygon:
    """Regular polygon with corners at radius `r`."""
    angle = turn + np.arange(sides) * (2.0 * math.pi / sides)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)


def star(tips: int, outer: float, inner: float, flat: float = 0.0, turn: float = 0.0) -> Polygon:
    """Star or cogwheel: `tips` teeth between two radii; `flat` is the share of a tooth that is level on top."""
    step = 2.0 * math.pi / tips
    offsets = [(-0.25 - 0.25 * flat, inner), (-0.25 * flat, outer), (0.25 * flat, outer), (0.25 + 0.25 * flat, inner)]
    if flat == 0.0:
        offsets = [(-0.5, inner), (0.0, outer)]
    angle = np.array([turn + (i + o) * step for i in range(tips) for o, _ in offsets])
    radius = np.array([r for _ in range(tips) for _, r in offsets])
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def box(w: float, h: float, cx: float = 0.0, cy: float = 0.0, turn: float = 0.0, round_to: float = 0.0) -> Polygon:
    """Rectangle of full width `w` and height `h`, turned about its centre, with corners rounded by `round_to`."""
    if round_to > 0.0:
        r = min(round_to, w / 2, h / 2)
        quarter = np.linspace(0.0, math.pi / 2, 6)
        corners = [(w / 2 - r, h / 2 - r, 0.0), (-w / 2 + r, h / 2 - r, 0.5), (-w / 2 + r, -h / 2 + r, 1.0)]
        corners.append((w / 2 - r, -h / 2 + r, 1.5))
        points = np.array([(x + r * math.cos(q + k * math.pi), y + r * math.sin(q + k * math.pi))
                           for x, y, k in corners for q in quarter])  # fmt: skip
    else:
        points = np.array([(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)])
    return np.asarray(rotate(points, turn) + np.array([cx, cy]))


def blob(rng: np.random.Generator, waves: int = 5, roughness: float = 0.25) -> Polygon:
    """Closed smooth curve: radius as a random Fourier series of `waves` terms."""
    angle = np.linspace(0.0, 2.0 * math.pi, 64, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(2, 2 + waves):
        radius += rng.normal(0.0, roughness / k) * np.cos(k * angle + rng.uniform(0.0, 2.0 * math.pi))
    radius = np.clip(radius, 0.25, None)
    radius /= radius.max()
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def stroke(path: Sequence[tuple[float, float]], width: float) -> list[Polygon]:
    """A thick polyline as boxes and round joints."""
    parts: list[Polygon] = [circle(width / 2, x, y) for x, y in path]
    for (x0, y0), (x1, y1) in pairwise(path):
        length, turn = math.hypot(x1 - x0, y1 - y0), math.atan2(y1 - y0, x1 - x0)
        parts.append(box(length, width, (x0 + x1) / 2, (y0 + y1) / 2, turn))
    return parts


def arc(radius: float, start: float, stop: float, points: int = 14) -> list[tuple[float, float]]:
    """Points of a circular arc between two angles in radians, as a path for `stroke`."""
    return [(radius * math.cos(a), radius * math.sin(a)) for a in np.linspace(start, stop, points)]


def rotate(points: Polygon, turn: float) -> Polygon:
    """Turn points about the origin by `turn` radians."""
    c, s = math.cos(turn), math.sin(turn)
    return np.asarray(points @ np.array([[c, s], [-s, c]]))
