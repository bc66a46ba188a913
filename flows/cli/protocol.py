"""`samif protocol`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, app, console, print_json, print_rows
from flows.workspace.layout import Layout
from samif.config import load_params


@app.command()
def protocol(
    shots: Annotated[str, typer.Option(help="Labelled objects per new class.", metavar="K,K,...")] = "1,5,10,30",
    seeds: Annotated[int, typer.Option(min=1, help="Random draws per number of shots.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Folder for protocol.json, .md and .png.", show_default="reports/protocol")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Measure a workspace with several numbers of shots and random draws; features are computed once.

    An interrupted run continues.
    """
    from flows.protocol.flow import Plan, run_protocol
    from flows.protocol.report import HEADINGS, cells, peers_beside, write
    from samif.protocol.summary import summarise

    layout = Layout(workspace.resolve())
    params = load_params(layout.params)
    scores = run_protocol(layout, params, Plan(_numbers(shots), tuple(range(seeds))))
    folder = out or layout.reports / "protocol"
    write(folder, params, scores)
    rows = summarise(scores)
    if as_json:
        print_json(rows)
        return
    print_rows(HEADINGS, cells(rows), right=tuple(HEADINGS[2:]), whole=tuple(HEADINGS[:2]))
    console().print(
        "mean ± half of the 95 % interval; AP in points; forgot: base AP lost since the base classifier; "
        "unlabelled FP: false positives on unlabelled objects, per image"
    )
    comparable, other = peers_beside(params, [row.shots for row in rows])
    for title, peers in (("published, same protocol", comparable), ("published, not comparable", other)):
        if peers:
            console().print(f"\n{title}")
            lines = [
                [
                    p.name,
                    p.protocol,
                    str(p.shots),
                    *("-" if ap is None else f"{ap:.1f}" for ap in (p.base_ap, p.novel_ap)),
                ]
                for p in peers
            ]
            numbers = ("shots", "base AP", "novel AP")
            print_rows(["", "protocol", *numbers], lines, right=numbers)
    console().print(f"\nall numbers: {folder / 'protocol.json'}, plot: {folder / 'protocol.png'}", soft_wrap=True)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no list of numbers such as 1,5,10") from None
    if not found or min(found) < 1:
        raise typer.BadParameter(f"'{text}': every number of shots must be 1 or more")
    return found
