"""What people read of a version, a run and a model on MLflow's own pages, as Markdown."""

from __future__ import annotations

from typing import Any

from flows.runtime.cost import Cost
from samif.evaluate.model import Evaluation
from samif.versions.card import Card

MOST_NAMES = 12


def describe_version(card: Card, session: dict[str, Any], evaluation: Evaluation, cost: Cost | None = None) -> str:
    """What a version knows, how good it is, who made it and why."""
    knows = f"{card.name}: {len(card.classes)} classes"
    if card.after is not None:
        new = session.get("classes") or []
        shots = f" from {session['shots']} shots each" if session.get("shots") else ""
        knows += f", built on '{card.after}'" + (f"; new{shots}: {_few(new)}" if new else "")
    rows = [knows, ""]
    rows += ["| on the validation images | base | novel | all |", "|---|---|---|---|"]
    rows += [
        f"| {name} | " + " | ".join(_points(getattr(scores, group)) for group in ("base", "novel", "all")) + " |"
        for name, scores in (("AP", evaluation.ap), ("AP50", evaluation.ap50))
    ]
    if evaluation.naming is not None and evaluation.naming.rates.named is not None:
        rates = evaluation.naming.rates
        false = rates.false_names.value
        named = f"{100.0 * evaluation.naming.rates.named.value:.1f} % of the objects are rightly named"
        rows += ["", f"At its operating point {named}, with {false:.0f} false names per 1,000 images."]
    if cost is not None:
        rows += ["", f"Session and evaluation took {cost.line}."]
    made = f"Made by {card.provenance.who} with samif {card.provenance.samif}"
    rows += ["", made + (f": {card.provenance.why}" if card.provenance.why else "")]
    return "\n".join(rows)


def describe_decoder(line: str, training: dict[str, Any]) -> str:
    """The frozen decoder of a line.

    Args:
        training: content of training.json, empty where there is none.
    """
    text = f"Mask decoder of line {line}, frozen: its classifiers name it by its SHA-256."
    if training.get("quality"):
        before, after = (training["quality"][when]["iou_base"] for when in ("before", "after"))
        steps = f" in {training['steps']} steps" if "steps" in training else ""
        text += f" Finetuned{steps}: mean mask IoU from one point {before:.3f} before, {after:.3f} after."
    return text


def describe_classifiers(line: str) -> str:
    """The registered model of a line's classifiers."""
    return (
        f"Classifiers of line {line}. The alias `champion` marks the live version; `samif registry promote` and "
        "`samif registry rollback` move it and write the journal. An alias that is moved here instead is shown by "
        f"`samif registry history {line}`.\n\nUse: `mlflow.pyfunc.load_model('models:/{line}-classifier@champion')`"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
