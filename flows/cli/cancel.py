"""`samif cancel`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, app, console, print_json


@app.command()
def cancel(
    patience: Annotated[float, typer.Option(min=1.0, help="Seconds to wait until it has ended.")] = 60.0,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Stop the run of this workspace, as Ctrl-C does, and its submitted jobs; finished stages are kept.

    Exits 1 if nothing is under way, or if it has not ended in time.
    """
    from flows.submit.cancel import cancel as cancel_all

    said = cancel_all(workspace, patience)
    if as_json:
        print_json({"cancelled": said})
        return
    for sentence in said:
        console().print(sentence, soft_wrap=True, markup=False)
