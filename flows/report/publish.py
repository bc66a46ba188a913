"""What people read after registration: summary.json with versions, and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.report.collect import read_json
from flows.report.page import duration, number, render_page, version
from flows.workspace.layout import Layout
from samif.dataset.coco2014 import CLAIMS
from samif.errors import ObjectMissing
from samif.io import files

if TYPE_CHECKING:
    from rich.table import Table


def publish(layout: Layout, versions: Mapping[str, Any]) -> Path:
    """Write `reports/summary.json` and `reports/index.html` from what the report stage left; the same input gives
    the same bytes.

    Args:
        versions: registered versions, `{"decoder": int | None, "classifiers": {"base" or session: int}}`; what it does
            not name stays null.

    Returns:
        Path of the page.

    Raises:
        ObjectMissing: the report stage has not run.
        IntegrityError: its output is damaged.
    """
    summary, page = (read_json(layout.report / name) for name in ("summary.json", "page.json"))
    summary["decoder"]["version"] = versions["decoder"]
    for entry in (summary["base"], *summary["sessions"]):
        entry["classifier"]["version"] = versions["classifiers"].get(entry["name"])
    try:
        html = render_page(summary, page, layout.report / "images")
    except OSError as error:
        raise ObjectMissing(
            f"cannot read {error.filename}: {error.strerror}; delete {layout.report} and run again"
        ) from None
    layout.reports.mkdir(parents=True, exist_ok=True)
    files.commit(layout.reports / "index.html", html.encode())
    files.commit(layout.reports / "summary.json", (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    return layout.reports / "index.html"


def session_table(summary: Mapping[str, Any]) -> Table:
    """Table of the session chain for a terminal of 80 columns; AP in points, a dash where there is no value."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    table.add_column("session", no_wrap=True, overflow="ellipsis", max_width=16)
    for heading, width in (
        ("version", 7),
        ("classes", 7),
        ("shots", 5),
        ("AP50\nbase", 5),
        ("AP50\nnovel", 5),
        ("AP50\nall", 5),
        ("AP\nall", 5),
        ("unl.\nFP/\nimage", 5),
        ("time", 11),
    ):
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for entry in (summary["base"], *summary["sessions"]):
        shots = entry["shots"]
        ap50 = entry["ap50"]
        cells = [
            entry["name"],
            version(entry["classifier"]["version"]),
            f"{len(entry['classes'])}",
            number(shots, 0),
            *(number(ap50[group]) for group in ("base", "novel", "all")),
            number(entry["ap"]["all"]),
            number(entry["unknown"]["unlabelled_false_positives_per_image"], 2),
            duration(entry["seconds"]),
        ]
        # Text, not str: a name like "[red]" is a name, not markup.
        table.add_row(*(Text(cell) for cell in cells))
    if "protocol" in summary["dataset"]:
        table.caption = CLAIMS[summary["dataset"]["protocol"]]
    return table
