"""`samif registry prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, print_json, print_rows, whoami
from flows.cli.promotion import Who, Why
from flows.cli.registry import open_registry, registry_app


@registry_app.command()
def prune(
    days: Annotated[
        float, typer.Option(min=1.0, help="Keep versions that a run registered or had again in so many days.")
    ] = 30.0,
    champions: Annotated[int, typer.Option(min=2, help="Keep the last so many versions that were live.")] = 5,
    live_days: Annotated[float, typer.Option(min=0.0, help="Keep versions that were live in so many days.")] = 90.0,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete them; without this option they are only listed.")
    ] = False,
    why: Why = "",
    who: Who = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """List or delete versions of this line that nobody needs, with their files in the registry.

    Kept besides: versions with an alias, the newest version, and what a kept version was built on and made with. The
    journal says what was removed, by whom and why.
    """
    from rich.filesize import decimal

    from flows.registry.promotion_request import Request
    from flows.registry.retention import Retention

    opened = open_registry(workspace)
    pruning = opened.registry.prune(opened.params.line, opened.params, Retention(days, champions, live_days))
    items = pruning.remove(Request(who=who or whoami(), why=why)) if delete else pruning.look()
    if as_json:
        print_json({"line": opened.params.line, "deleted": delete, "items": items})
        return
    verb = "removed" if delete else "to remove"
    print_rows(
        ["version", "session", "registered", "size", "", "because"],
        [[i.name, i.session, i.seen, decimal(i.bytes), "kept" if i.kept else verb, i.reason] for i in items],
        right=("size",),
        whole=("registered", ""),
    )
    size = decimal(sum(item.bytes for item in items if not item.kept))
    told = f"removed {size}" if delete else f"{size} could go, nothing was removed: add --delete"
    console().print(f"{opened.params.line}: {told}", soft_wrap=True, markup=False)
