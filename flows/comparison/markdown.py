"""What the newest version would change, as a Markdown table for a pull request."""

from __future__ import annotations

from flows.comparison.examiner import Examination
from flows.comparison.page import headline
from flows.report.page import number, signed
from samif.versions.compare import Change, Comparison

_MOST_CLASSES = 40


def markdown(examination: Examination, candidate: str, live: str | None) -> str:
    """The verdict, its reasons, and scores by group and class, changed most first.

    Args:
        candidate: as people write it, `demo-classifier/3`.
        live: the version that it was compared with; none where nothing is live.
    """
    verdict = examination.verdict
    lines = [f"### {candidate} against {live or 'nothing live'}: {verdict.outcome}", ""]
    if live is not None:
        lines += [_cell(headline(examination)), ""]
    for outcome in ("failed", "unclear"):
        lines += [f"- **{outcome}**: {_cell(reason)}" for reason in verdict.reasons(outcome)]
    if lines[-1]:
        lines.append("")
    lines += _table(examination.comparison) if examination.comparison else _scores(examination)
    lines += ["", f"verdict `{verdict.digest[:12]}`"]
    return "\n".join(lines) + "\n"


def _table(comparison: Comparison) -> list[str]:
    metric = comparison.metric.upper()
    rows = [_row(f"**{group}**", change) for group, change in comparison.groups.items()]
    changed = sorted(comparison.classes.items(), key=lambda item: item[1].change or 0.0)
    rows += [_row(_cell(name), change) for name, change in changed[:_MOST_CLASSES]]
    head = [f"| class | objects | {metric} before | after | change | interval |", "|---|--:|--:|--:|--:|---|"]
    more = [f"\n{len(changed) - _MOST_CLASSES} more classes changed less."] if len(changed) > _MOST_CLASSES else []
    new = [f"\nnew: {_cell(', '.join(comparison.added))}"] if comparison.added else []
    names = [("rightly named, %", comparison.named), ("false names per 1,000 images", comparison.false_names)]
    says = [f"\n{what}: {number(c.before)} to {number(c.after)}" for what, c in names if c is not None]
    return head + rows + more + new + says


def _row(name: str, change: Change) -> str:
    interval = "" if change.low is None or change.high is None else f"{signed(change.low)} to {signed(change.high)}"
    noise = " (noise)" if change.is_noise and not change.is_none else ""
    cells = [name, str(change.instances), number(change.before), number(change.after), signed(change.change)]
    return f"| {' | '.join([*cells, interval + noise])} |"


def _scores(examination: Examination) -> list[str]:
    evaluation = examination.after.status.registered
    head = ["| classes | AP | AP50 |", "|---|--:|--:|"]
    groups = ("base", "novel", "all")
    return head + [
        f"| **{group}** | {number(getattr(evaluation.ap, group))} | {number(getattr(evaluation.ap50, group))} |"
        for group in groups
    ]


def _cell(text: str) -> str:
    """Text with Markdown's special characters escaped."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~@" else c for c in " ".join(text.split()))
