"""The result of a protocol run: rows for a terminal, protocol.json, protocol.md and a plot over the shots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from samif.config import BASE, Params
from samif.evaluate.published_baselines import Published, beside, protocol_of
from samif.io import files
from samif.protocol.run import Score
from samif.protocol.summary import Mean, Row, summarise

HEADINGS = ["shots", "after", "base AP", "novel AP", "all AP", "forgot", "unlabelled FP", "s/class"]


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """One line per row under HEADINGS: means with the half width of their 95 % intervals."""
    return [
        [
            "-" if row.session == BASE else str(row.shots),
            row.session,
            *(_text(row.measures[name], 1) for name in ("base_ap", "novel_ap", "all_ap")),
            _text(row.forgetting, 1),
            *(_mean(row.measures[name]) for name in ("unlabelled_false_positives_per_image", "seconds_per_class")),
        ]
        for row in rows
    ]


def peers_beside(params: Params, shots: Sequence[int]) -> tuple[list[Published], list[Published]]:
    """Published numbers for these shots: those of the very protocol of this run, and those on other data."""
    found = beside(protocol_of(params))
    wanted = set(shots)
    return (
        [peer for peer in found.comparable if peer.shots in wanted],
        [peer for peer in found.published_other_data if peer.shots in wanted],
    )


def write(folder: Path, params: Params, scores: Sequence[Score]) -> None:
    """Write `protocol.json`, `protocol.md` and `protocol.png` into a folder, each whole or not at all."""
    rows = summarise(scores)
    comparable, other = peers_beside(params, sorted({row.shots for row in rows}))
    content: dict[str, Any] = {
        "schema": 1,
        "line": params.line,
        "protocol": protocol_of(params),
        "rows": [asdict(row) for row in rows],
        "published": [asdict(peer) for peer in comparable],
        "published_on_other_data": [asdict(peer) for peer in other],
        "scores": [score.model_dump(mode="json") for score in scores],
    }
    files.commit(folder / "protocol.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    files.commit(folder / "protocol.md", _markdown(params, rows, comparable, other).encode())
    with files.written(folder / "protocol.png") as draft:
        _plot(draft, params, rows)


def _markdown(params: Params, rows: Sequence[Row], comparable: Sequence[Published], other: Sequence[Published]) -> str:
    seeds = max(row.seeds for row in rows)
    lines = [
        f"# {params.line}: K shots, {seeds} draws each\n",
        "Means over the draws with 95 % intervals (Student's t); AP in points; unlabelled FP: false positives on "
        "unlabelled objects per image; forgot: points of base AP on images with base objects only, lost since the base "
        "classifier.\n",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(line)} |" for line in cells(rows)),
    ]
    for title, peers in (
        ("Published, same protocol", comparable),
        ("Published on other data or another protocol: not comparable", other),
    ):
        if peers:
            lines += [
                f"\n## {title}\n",
                "| | protocol | shots | base AP | novel AP | source |",
                "|---|---|---|---|---|---|",
            ]
            lines += [
                f"| {p.name} | {p.protocol} | {p.shots} | {'-' if p.base_ap is None else p.base_ap} | {p.novel_ap} | "
                f"{p.source} |"
                for p in peers
            ]
    return "\n".join(lines) + "\n"


def _plot(path: Path, params: Params, rows: Sequence[Row]) -> None:
    """AP of base, novel and all classes after the last session over the number of shots, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    last = rows[-1].session
    shown = [row for row in rows if row.session == last]
    base = next((row for row in rows if row.session == BASE), None)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, colour in (("base", "#2a6f97"), ("novel", "#d1495b"), ("all", "#6c757d")):
        points = [(row.shots, mean) for row in shown if (mean := row.measures[f"{name}_ap"]) is not None]
        axes.errorbar(
            [shots for shots, _ in points], [mean.mean for _, mean in points],
            yerr=[mean.half or 0.0 for _, mean in points], marker="o", capsize=3, color=colour, label=name,
        )  # fmt: skip
    if base is not None and (before := base.measures["base_ap"]) is not None:
        axes.axhline(before.mean, color="#2a6f97", linestyle=":", linewidth=1, label="base, before the sessions")
    ticks = sorted({row.shots for row in shown})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("labelled objects per new class")
    axes.set_ylabel("AP")
    axes.set_title(f"{params.line}, after session {last}")
    axes.grid(alpha=0.3)
    axes.legend()
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png")


def _text(mean: Mean | None, digits: int) -> str:
    if mean is None:
        return "-"
    half = "" if mean.half is None else f" ±{mean.half:.{digits}f}"
    return f"{mean.mean:.{digits}f}{half}"


def _mean(mean: Mean | None) -> str:
    return "-" if mean is None else f"{mean.mean:.2f}"
