"""The report page: view model and rendering. One self-contained HTML file, no script, nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.report.charts import over_false_names, over_sessions, over_steps
from samif.dataset.coco2014 import CLAIMS
from samif.evaluate.matching import KINDS

HEATMAP_CLASSES = 30
"""Above this many classes the confusion matrix becomes a list of the most frequent confusions."""
TOP_CONFUSIONS = 20
IMAGE_BUDGET = 4_200_000
"""Bytes of JPEG on the page; base64 makes a third more of them, and the page stays below 6 MB."""
DASH = "–"
GROUPS = ("base", "novel", "all")
KIND_TITLES = {"hits": "Hits", "misses": "Misses", "false_positives": "False positives"}


def render_page(summary: Mapping[str, Any], page: Mapping[str, Any], images: Path) -> str:
    """The page as HTML text.

    Args:
        summary: content of summary.json, versions filled in where they are known.
        page: content of page.json of the report stage.
        images: folder of the images that `page` names, in a folder per classifier.
    """
    entries = [summary["base"], *summary["sessions"]]
    newest, base = entries[-1], entries[0]
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            summary=summary,
            page=page,
            entries=entries,
            newest=newest,
            claim=CLAIMS.get(summary["dataset"].get("protocol")),
            forgetting=_difference(newest["ap"]["base"], base["ap"]["base"]),
            forgetting_base_only=_difference(newest["base_only"]["ap"], base["base_only"]["ap"]),
            score_charts=_score_charts(entries),
            naming=page["naming"],
            naming_chart=over_false_names(page["naming"]) if page["naming"] else "",
            named_classes=_named_classes(page["naming"]),
            classes=_classes(summary),
            heatmap=_heatmap(page["confusion"]),
            confusions=_confusions(page["confusion"]),
            decoder_charts=_decoder_charts(page["decoder"]["curve"]),
            decoder_rows=_decoder_rows(page["decoder"]["quality"]),
            albums=_albums(entries, page["images"], images),
        )
    )


def environment() -> Environment:
    """Templates of pages for people, with the filters that write numbers."""
    made = Environment(
        loader=PackageLoader("flows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": number, "signed": signed, "duration": duration, "version": version}
    return made


def number(value: float | None, digits: int = 1) -> str:
    """`value` with fixed decimals; a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 1) -> str:
    """`value` with its sign; a dash where there is none, no sign on what rounds to zero."""
    if value is None:
        return DASH
    text = f"{value:+.{digits}f}"
    return f"{0.0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds in the unit that a person would use."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def version(value: int | None) -> str:
    """`v7`, or a dash for a classifier that is not registered."""
    return DASH if value is None else f"v{value}"


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _score_charts(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = [entry["name"] for entry in entries]
    return {
        title: over_sessions(names, {group: [entry[key][group] for entry in entries] for group in GROUPS}, title)
        for title, key in (("AP50", "ap50"), ("AP", "ap"))
    }


def _named_classes(naming: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Rows of the table of names: the class with the most false names first."""
    if naming is None:
        return []
    rows = [
        {
            "name": name,
            "score": of_class["score"],
            "named": None if of_class["rates"]["named"] is None else 100.0 * of_class["rates"]["named"]["value"],
            "false_names": of_class["rates"]["false_names"]["value"],
        }
        for name, of_class in naming["classes"].items()
    ]
    return sorted(rows, key=lambda row: (-row["false_names"], row["named"] is None, row["named"] or 0.0))


def _classes(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the class table: novel classes first, in each group the lowest AP first, classes without AP last."""
    base = summary["base"]
    newest = [base, *summary["sessions"]][-1]
    origin = {name: entry["name"] for entry in summary["sessions"] for name in entry["classes"]}
    rows = [
        {
            "name": name,
            "group": "novel" if name in origin else "base",
            "session": origin.get(name, base["name"]),
            "change": _difference(score["ap"], base["per_class"].get(name, {}).get("ap")),
            **score,
        }
        for name, score in newest["per_class"].items()
    ]
    return sorted(rows, key=lambda row: (row["group"] == "base", row["ap"] is None, row["ap"] or 0.0))


def _heatmap(confusion: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Rows with counts and their share of the row; None where there are too many classes to read."""
    labels = confusion["labels"]
    if len(labels) - 1 > HEATMAP_CLASSES:
        return None
    return [
        {
            "name": label,
            "cells": [
                {"count": count, "share": count / max(1, sum(row)), "right": column == at, "predicted": labels[column]}
                for column, count in enumerate(row)
            ],
        }
        for at, (label, row) in enumerate(zip(labels, confusion["matrix"], strict=True))
    ]


def _confusions(confusion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent errors, as truth, prediction, count and share of the truth's row."""
    labels = confusion["labels"]
    cells = [
        {"truth": labels[row], "predicted": labels[column], "count": count, "share": count / sum(counts)}
        for row, counts in enumerate(confusion["matrix"])
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return sorted(cells, key=lambda cell: -cell["count"])[:TOP_CONFUSIONS]


def _decoder_charts(curve: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    steps = [point["step"] for point in curve]
    return {
        "Loss": over_steps(steps, [point["loss"] for point in curve], "loss"),
        "Mask IoU": over_steps(steps, [point["mask_iou"] for point in curve], "mask IoU", top=1.0),
    }


def _decoder_rows(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    before, after = quality.get("before") or {}, quality.get("after") or {}
    titles = {
        "iou_base": ("Outline of base parts", "overlap (IoU) of mask and true outline for one click on a part"),
        "iou_other": ("Outline of other parts", "the same for parts that the decoder was not fine-tuned on"),
        "recall_base": ("Base parts found", "share of base parts that proposals outline, over IoU 0.5 to 0.95"),
        "recall_other": ("Other parts found", "the same for parts that the decoder was not fine-tuned on"),
        "background_silent": ("Silence on background", "share of clicks on background that rightly give no object"),
    }
    return [
        {
            "title": title,
            "caption": caption,
            "before": before.get(key),
            "after": after.get(key),
            "change": _difference(after.get(key), before.get(key)),
        }
        for key, (title, caption) in titles.items()
    ]


def _albums(
    entries: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]], folder: Path
) -> list[dict[str, Any]]:
    """Images by session, newest first, inlined until the budget of the page is spent."""
    left = IMAGE_BUDGET
    albums = []
    for entry in reversed(entries):
        kinds: list[dict[str, Any]] = []
        dropped = 0
        for kind in KINDS:
            cards = []
            for item in images:
                if (item["session"], item["kind"]) != (entry["name"], kind):
                    continue
                both = [(folder / entry["name"] / item[side]).read_bytes() for side in ("truth", "prediction")]
                size = sum(map(len, both))
                if size > left:
                    dropped += 1
                    continue
                left -= size
                cards.append({**item, "truth": data_uri(both[0]), "prediction": data_uri(both[1])})
            kinds.append({"kind": kind, "title": KIND_TITLES[kind], "cards": cards})
        albums.append({"entry": entry, "kinds": kinds, "dropped": dropped})
    return albums


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the source of an image inside a page."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
