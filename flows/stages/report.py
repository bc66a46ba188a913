"""Stage `report`: gather numbers and pictures of every classifier, before versions are known."""

from __future__ import annotations

from flows.layout import Layout
from flows.report.collect import collect
from samif.config import Params


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/report/`."""
    collect(layout, params)
