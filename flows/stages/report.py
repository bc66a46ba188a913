"""Stage `report`: collect metrics and images of every classifier, before versions are known."""

from __future__ import annotations

from flows.report.collect import collect
from flows.workspace.layout import Layout
from samif.config import Params


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/report/`, `artifacts/plots/` and `artifacts/metrics.json`."""
    collect(layout, params)
