"""Figures of one classifier as image files, for the pages of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from samif.evaluate.model import Confusion, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELS = 60
"""Classes whose names fit beside a figure."""


def write_figures(folder: Path, evaluation: Evaluation) -> None:
    """Write `confusion.png` and `ap_per_class.png` into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "confusion": _confusion(evaluation.confusion),
        "ap_per_class": _ap_per_class(evaluation),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})


def _confusion(confusion: Confusion) -> Figure:
    """Shares of each true class, so that rare classes are seen as well."""
    import numpy as np

    counts = np.array(confusion.matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    size = len(confusion.labels)
    figure = _figure(size, 3.0 + 0.3 * min(size, MOST_LABELS))
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    if size <= MOST_LABELS:
        axes.set_xticks(range(size), confusion.labels, rotation=90)
        axes.set_yticks(range(size), confusion.labels)
    axes.set(xlabel="predicted", ylabel="actual", title="Confusion, share of the actual class")
    figure.colorbar(shown, shrink=0.8)
    return figure


def _ap_per_class(evaluation: Evaluation) -> Figure:
    rows = sorted((score.ap, name, score.group) for name, score in evaluation.per_class.items() if score.ap is not None)
    figure = _figure(len(rows), 6.0)
    axes = figure.add_subplot()
    colours = ["#2b6cd4" if group == "base" else "#c9610f" for _, _, group in rows]
    axes.barh(range(len(rows)), [ap for ap, _, _ in rows], color=colours)
    axes.set_yticks(*((range(len(rows)), [name for _, name, _ in rows]) if len(rows) <= MOST_LABELS else ([], [])))
    axes.set(xlabel="AP (points)", xlim=(0, 100), title="AP per class: base blue, novel orange")
    return figure


def _figure(rows: int, width: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 2.0 + 0.3 * min(max(rows, 1), MOST_LABELS)), layout="constrained")
