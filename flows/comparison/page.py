"""The page of a comparison: verdict first, then numbers, then the images on which two versions disagree.

One self-contained HTML file in the style of the report, no script, nothing from outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from flows.comparison.examiner import Examination
from flows.report.images import draw_detections, draw_truth, shrink, to_jpeg
from flows.report.page import IMAGE_BUDGET, data_uri, environment
from samif.dataset.model import Dataset
from samif.evaluate.matching import Matched, match_all
from samif.versions.compare import Change, Comparison, Disagreement, ScoredVersion, disagreements
from samif.versions.verdict import Verdict

WORSE_IMAGES, BETTER_IMAGES = 8, 4
ANSWERS = {"passed": "may go live", "unclear": "needs a person's decision", "failed": "is refused"}
TITLES = {"base": "Base classes", "novel": "Novel classes", "all": "All known classes"}


def render_comparison(examination: Examination, before: str, after: str) -> str:
    """The page as HTML text.

    Args:
        before, after: the versions as people write them, `demo-classifier/2`.
    """
    verdict, comparison = examination.verdict, examination.comparison
    albums: dict[str, Any] = {"worse": [], "better": [], "differing": 0, "dropped": 0}
    one = examination.before.measured if examination.before else None
    if one is not None and examination.after.measured is not None and examination.dataset is not None:
        albums = _albums(examination.dataset, one, examination.after.measured)
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            before=before,
            after=after,
            verdict=verdict,
            answer=ANSWERS[verdict.outcome],
            headline=headline(examination),
            command=_command(verdict, after),
            comparison=comparison,
            groups=_rows(TITLES, comparison.groups, verdict) if comparison else [],
            classes=_class_rows(comparison, verdict, examination) if comparison else [],
            scale=_scale(comparison) if comparison else 1.0,
            added=_added(comparison, examination) if comparison else [],
            albums=albums,
            sides={"before": examination.before, "after": examination.after},
        )
    )


def headline(examination: Examination) -> str:
    """What decides, in one sentence."""
    verdict, comparison = examination.verdict, examination.comparison
    for outcome in ("failed", "unclear"):
        reasons = verdict.reasons(outcome)
        if reasons:
            more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
            return reasons[0] + more
    if comparison is None:
        return "nothing is live yet; the version is what its card says and its evaluation was reproduced"
    known = comparison.groups["all"]
    gained = f", {len(comparison.added)} new classes" if len(comparison.added) > 1 else ""
    gained = ", 1 new class" if len(comparison.added) == 1 else gained
    if known.change is None:
        return f"the versions share no class{gained}"
    word = "no worse" if known.change >= 0 or known.is_noise else "within the limits"
    return f"known classes {known.change:+.1f} {comparison.metric.upper()}: {word}{gained}"


def _command(verdict: Verdict, after: str) -> str:
    command = f"samif registry promote {after}"
    if verdict.outcome == "unclear":
        return f"{command} --approve YOUR-NAME --verdict {verdict.digest[:12]}"
    return f"{command} --verdict {verdict.digest[:12]}" if verdict.outcome == "passed" else ""


def _rows(titles: Mapping[str, str], changes: Mapping[str, Change], verdict: Verdict) -> list[dict[str, Any]]:
    """Rows of the change table: values, interval and the gate's outcome."""
    outcome = {check.subject: check.outcome for check in verdict.checks if check.name == "drop"}
    return [
        {
            "name": titles[key],
            "before": change.before,
            "after": change.after,
            "change": change.change,
            "low": change.low,
            "high": change.high,
            "noise": change.is_noise,
            "same": change.is_none,
            "instances": change.instances,
            "outcome": outcome.get(key, "skipped"),
        }
        for key, change in changes.items()
        if key in titles
    ]


def _class_rows(comparison: Comparison, verdict: Verdict, examination: Examination) -> list[dict[str, Any]]:
    """Every class that both know, the worst change first."""
    rows = _rows({name: name for name in comparison.classes}, comparison.classes, verdict)
    of = examination.after.status.registered.per_class
    for row in rows:
        row["group"] = of[row["name"]].group if row["name"] in of else "base"
    return sorted(rows, key=lambda row: (row["change"] is None, row["change"] or 0.0))


def _added(comparison: Comparison, examination: Examination) -> list[dict[str, Any]]:
    """Classes that only the newer version knows, the best first."""
    of = examination.after.status.registered.per_class
    rows = [{"name": name, "value": getattr(of[name], comparison.metric)} for name in comparison.added if name in of]
    return sorted(rows, key=lambda row: -(row["value"] or 0.0))


def _scale(comparison: Comparison) -> float:
    """Points from the middle to either end of the interval bars: a round number that holds nearly all of them."""
    ends = [
        abs(value)
        for change in (*comparison.groups.values(), *comparison.classes.values())
        for value in (change.low, change.high, change.change)
        if value is not None
    ]
    widest = float(np.percentile(ends, 95)) if ends else 1.0
    return next((step for step in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if step >= widest), 100.0)


def _albums(dataset: Dataset, before: ScoredVersion, after: ScoredVersion) -> dict[str, Any]:
    """The images on which the versions differ most, worst regressions first, inlined until the budget is spent."""
    found = disagreements(_matched(dataset, before), _matched(dataset, after))
    worse = [item for item in found if item.worse > item.better]
    better = [item for item in found if item.better >= item.worse]
    left, dropped = IMAGE_BUDGET, 0
    albums: dict[str, Any] = {"differing": len(found), "images": len(dataset.images)}
    for key, items, count in (("worse", worse, WORSE_IMAGES), ("better", better, BETTER_IMAGES)):
        cards = []
        for item in items[:count]:
            card, size = _card(dataset, item)
            if size > left:
                dropped += 1
                continue
            left -= size
            cards.append(card)
        albums |= {key: cards, f"{key}_count": len(items)}
    return albums | {"dropped": dropped}


def _matched(dataset: Dataset, side: ScoredVersion) -> list[Matched]:
    evaluation = side.evaluation
    known = [*evaluation.classes.base, *evaluation.classes.novel]
    return match_all(dataset, side.detections, known, evaluation.operating_score)


def _card(dataset: Dataset, item: Disagreement) -> tuple[dict[str, Any], int]:
    small = shrink(dataset, item.image)
    moved = item.lost | item.won
    truth = item.after if len(item.after.truth) >= len(item.before.truth) else item.before
    panels = {
        "labels": draw_truth(small, truth, [a.id in moved for a in truth.truth]),
        "before": draw_detections(small, item.before, _shown(item.before, moved, item.gone_false_positives)),
        "after": draw_detections(small, item.after, _shown(item.after, moved, item.new_false_positives)),
    }
    jpegs = {name: to_jpeg(pixels) for name, pixels in panels.items()}
    names = {a.id: a.category for a in (*item.before.truth, *item.after.truth)}
    card = {
        "image": item.image.file_name,
        "width": small.shape[1],
        "height": small.shape[0],
        "says": {
            "lost": _counted(names[i] for i in item.lost),
            "found now": _counted(names[i] for i in item.won),
            "new false positives": _counted(item.after.detections[i].category for i in item.new_false_positives),
            "false positives gone": _counted(item.before.detections[i].category for i in item.gone_false_positives),
        },
        **{name: data_uri(jpeg) for name, jpeg in jpegs.items()},
    }
    return card, sum(map(len, jpegs.values()))


def _shown(side: Matched, moved: frozenset[int], false_positives: frozenset[int]) -> list[bool]:
    """Per detection: it found an object that the other version lacks, or is a false positive of this version alone."""
    return [
        index in false_positives or (matched_gt is not None and side.truth[matched_gt].id in moved)
        for index, matched_gt in enumerate(side.matched_gt)
    ]


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in sorted(Counter(names).items()))
