"""The metrics that `dvc metrics` and `dvc exp` show: few numbers per classifier, and a summary of the chain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samif.evaluate.model import Evaluation

DIGITS = 4
"""Of a number in a file: more would make differences of no meaning."""


def classifier_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """AP and AP50 in points by group, unknown rejection, and names at the operating point; null where there is no
    value."""
    rates = None if evaluation.naming is None else evaluation.naming.rates
    named = None if rates is None or rates.named is None else 100.0 * rates.named.value
    return {
        "AP": evaluation.ap.model_dump(),
        "AP50": evaluation.ap50.model_dump(),
        "unknown_auroc": evaluation.unknown.auroc,
        "named_percent": named,
        "false_names_per_1000_images": None if rates is None else rates.false_names.value,
    }


def summary_metrics(base: Evaluation, last: Evaluation, training: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of the last classifier, what the sessions cost the base classes, and the quality of the decoder.

    Args:
        training: content of training.json.
    """
    before, after = base.base_only.ap, last.base_only.ap
    return {
        "classes": len(last.per_class),
        **classifier_metrics(last),
        "base_AP_change": None if before is None or after is None else after - before,
        "decoder_iou": training["quality"]["after"]["iou_base"],
    }


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write a metrics file; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(metrics), indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
