"""Geometry of the page's line charts, in SVG user units: the template only draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 92.0, 14.0, 30.0
LABEL_GAP = 15.0
LETTER = 6.6


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Line:
    """One series: `paths` are polyline points, broken where a value is missing; `label_y` is the end label's height."""

    name: str
    paths: tuple[str, ...]
    dots: tuple[Dot, ...]
    last: str
    label_y: float | None


@dataclass(frozen=True)
class Chart:
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    bottom: float = HEIGHT - BOTTOM


def over_sessions(names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> Chart:
    """A chart of points (0-100) per step of the session chain, one dot per value."""
    count = len(names)
    slot = (WIDTH - LEFT - RIGHT) / max(1, count - 1)
    letters = max(4, int(slot / LETTER) - 1)
    every = math.ceil(6 * LETTER / slot) if count > 1 else 1
    labels = {
        float(at): name if len(name) <= letters * every else name[: letters * every - 1] + "…"
        for at, name in enumerate(names)
        if at % every == 0
    }
    lines = {name: list(zip(map(float, range(count)), values, strict=True)) for name, values in series.items()}
    titles = [f"{name}: " for name in names]
    return _chart(lines, labels, _nice_top(lines), titles, digits=1)


def over_steps(name: str, steps: Sequence[float], values: Sequence[float | None], top: float | None = None) -> Chart:
    """A chart of one quantity over training steps, thinned to about 200 points; `top` fixes the upper end."""
    stride = max(1, len(steps) // 200)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1} - {-1})
    points = [(float(steps[at]), values[at]) for at in kept]
    first, last = (points[0][0], points[-1][0]) if points else (0.0, 1.0)
    labels = {at: f"{at:.0f}" for at in (first, (first + last) / 2, last)}
    return _chart({name: points}, labels, top or _nice_top({name: points}), None, digits=2)


def _nice_top(lines: Mapping[str, Sequence[tuple[float, float | None]]]) -> float:
    """The least 1, 2, 2.5 or 5 times a power of ten, in quarters, that is not below any value."""
    highest = max((value for points in lines.values() for _, value in points if value is not None), default=0.0)
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(factor * power for factor in (1, 2, 3, 4, 6, 8, 10) if factor * power >= highest * 0.999999)


def _chart(
    lines: Mapping[str, Sequence[tuple[float, float | None]]],
    labels: Mapping[float, str],
    top: float,
    titles: Sequence[str] | None,
    digits: int,
) -> Chart:
    low, high = min(labels, default=0.0), max((at for points in lines.values() for at, _ in points), default=1.0)
    span = high - low

    def x_of(value: float) -> float:
        share = (value - low) / span if span else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - min(1.0, max(0.0, value / top)) * (HEIGHT - BOTTOM - TOP), 1)

    drawn = []
    for name, points in lines.items():
        paths: list[list[str]] = [[]]
        dots = []
        for at, value in points:
            if value is None:
                paths.append([])
                continue
            paths[-1].append(f"{x_of(at)},{y_of(value)}")
            if titles is not None:
                dots.append(Dot(x_of(at), y_of(value), f"{titles[int(at)]}{name} {value:.{digits}f}"))
        final = next((value for _, value in reversed(points) if value is not None), None)
        drawn.append(
            Line(
                name,
                tuple(" ".join(path) for path in paths if len(path) > 1),
                tuple(dots),
                "" if final is None else f"{final:.{digits}f}",
                None if final is None else y_of(final),
            )
        )
    quarters = [top * part / 4 for part in range(5)]
    return Chart(
        x_ticks=tuple(Tick(x_of(at), text) for at, text in labels.items()),
        y_ticks=tuple(Tick(y_of(value), f"{value:g}") for value in quarters),
        lines=_spread(drawn),
    )


def _spread(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Push end labels apart so that none covers another, keeping their order."""
    labelled = sorted((line for line in lines if line.label_y is not None), key=lambda line: line.label_y or 0.0)
    heights: list[float] = []
    for line in labelled:
        wanted = line.label_y or 0.0
        heights.append(max(wanted, heights[-1] + LABEL_GAP) if heights else wanted)
    surplus = max(0.0, heights[-1] - (HEIGHT - BOTTOM)) if heights else 0.0
    moved = {line.name: round(height - surplus, 1) for line, height in zip(labelled, heights, strict=True)}
    return tuple(Line(line.name, line.paths, line.dots, line.last, moved.get(line.name)) for line in lines)
