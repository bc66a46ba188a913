"""What `dvc plots` draws: the data of the plots in dvc.yaml, and the images of the last classifier."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samif.evaluate.model import Confusion, Evaluation, Naming

MOST_OBJECTS = 10_000
"""Rows of the confusion plot, which counts them in the browser."""

Rows = list[dict[str, Any]]


def write_plots(folder: Path, evaluations: Mapping[str, Evaluation], images: Path) -> None:
    """Write `sessions.json`, `names.json`, `classes.json`, `confusion.json` and `images/`; the folder is replaced.

    Args:
        evaluations: of the base classifier and every session, in order.
        images: folder of the images of the last classifier.
    """
    last = list(evaluations.values())[-1]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(images, folder / "images")
    for name, rows in {
        "sessions": _sessions(evaluations),
        "names": _names(last.naming),
        "classes": _classes(last),
        "confusion": confusion_rows(last.confusion),
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _sessions(evaluations: Mapping[str, Evaluation]) -> Rows:
    return [
        {"session": number, "classifier": name, **evaluation.ap.model_dump()}
        for number, (name, evaluation) in enumerate(evaluations.items())
    ]


def _names(naming: Naming | None) -> Rows:
    """The curve as far as the report shows it: up to twice the false names that are allowed, or that there are."""
    rows: Rows = []
    if naming is not None:
        most = 2.0 * max(naming.limit or 0.0, naming.rates.false_names.high)
        rows = [
            {"false_names_per_1000_images": at.false_names.value, "named_percent": 100.0 * at.named.value}
            for at in naming.curve
            if at.named is not None and at.false_names.value <= most
        ]
    # DVC refuses a plot without any row
    return rows or [{"false_names_per_1000_images": None, "named_percent": None}]


def _classes(evaluation: Evaluation) -> Rows:
    return [
        {"class": name, "AP": score.ap, "AP50": score.ap50, "group": score.group, "instances": score.instances}
        for name, score in evaluation.per_class.items()
    ]


def confusion_rows(confusion: Confusion) -> Rows:
    """One row per object and per false detection, as DVC's confusion plot counts rows.

    Of more than MOST_OBJECTS each cell has its share of them, rounded up so that rare errors stay.
    """
    total = sum(map(sum, confusion.matrix))
    share = min(1.0, MOST_OBJECTS / max(1, total))
    return [
        {"actual": actual, "predicted": predicted}
        for actual, counts in zip(confusion.labels, confusion.matrix, strict=True)
        for predicted, count in zip(confusion.labels, counts, strict=True)
        for _ in range(math.ceil(count * share))
    ] or [{"actual": confusion.labels[-1], "predicted": confusion.labels[-1]}]
