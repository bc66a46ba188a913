"""`samif trigger serve | list | comparison`, and `work`, which `serve` starts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows

trigger_app = group("trigger", "Runs started by external events.")

Address = Annotated[str | None, typer.Option(help="Run on the Ray cluster at http://HEAD:8265.", show_default="here")]
Shared = Annotated[list[Path] | None, typer.Option(help="Folder that the cluster has at the same path.")]


@trigger_app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8091,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the secret shared with the senders.", show_default="SAMIF_WEBHOOK_SECRET"),
    ] = None,
    prefix: Annotated[
        list[str] | None,
        typer.Option(help="s3://bucket/prefix whose events start runs; repeat for several.", show_default="all"),
    ] = None,
    address: Address = None,
    shared: Shared = None,
    workspace: Workspace = HERE,
) -> None:
    """Receive signed events (MLflow webhooks, S3 events) at POST /v1/events and start runs, one at a time."""
    from flows.http.signature import find_secret
    from flows.triggers.app import Receiver
    from flows.triggers.server import serve as listen
    from flows.triggers.server import worker_command
    from flows.workspace.run_request import request_of

    root = workspace.resolve()
    request_of(root, "webhook", with_data=False)  # refuses a folder that is no workspace
    receiver = Receiver(root, find_secret(secret_file), tuple(prefix or ()))
    listen(receiver, host, port, worker_command(root, address, shared or ()), _say)


@trigger_app.command("list")
def list_(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """List the requests of events and the runs that served them."""
    from flows.triggers.queue import Queue
    from flows.triggers.worker import summary

    found = Queue(workspace).all()
    if as_json:
        print_json([summary(item) for item in found])
        return
    rows = [
        [
            f"{datetime.fromtimestamp(item.at, UTC):%Y-%m-%d %H:%M}",
            item.state,
            item.request.cause or "-",
            item.run or "-",
        ]
        for item in found
    ]
    print_rows(["asked", "state", "because of", "run"], rows, whole=("asked", "state"))


@trigger_app.command(hidden=True)
def work(address: Address = None, shared: Shared = None, workspace: Workspace = HERE) -> None:
    """Run once for all waiting requests."""
    from flows.triggers.worker import run_locally, run_on_cluster, work

    root = workspace.resolve()
    work(root, run_on_cluster(address, shared or (), _say) if address else run_locally(_say))


@trigger_app.command()
def comparison(workspace: Workspace = HERE) -> None:
    """Compare the newest version with the live one; print a Markdown table for a pull request."""
    from flows.cli.registry import open_registry
    from flows.comparison.examiner import Examiner
    from flows.comparison.markdown import markdown

    opened = open_registry(workspace)
    name, newest = opened.registry.resolve(opened.params.line)
    live = opened.registry.aliases(opened.params.line).get("champion")
    if live == newest:
        print(f"{name}/{newest} is live already; there is nothing newer to compare.")
        return
    candidate, champion = f"{name}/{newest}", f"{name}/{live}" if live else None
    examination = Examiner(opened.layout, opened.params, opened.registry).examine(candidate, champion)
    print(markdown(examination, candidate, champion), end="")


def _say(sentence: str) -> None:
    console().print(sentence, soft_wrap=True, markup=False)
