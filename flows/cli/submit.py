"""`samif submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, app, console, print_json, whoami


@app.command()
def submit(
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="Job API of a Ray cluster, http://HEAD:8265.")
    ],
    workspace: Workspace = HERE,
    who: Annotated[
        str | None, typer.Option(help="Who requests the run, for the registry.", show_default="login name")
    ] = None,
    why: Annotated[str, typer.Option(help="Reason of the run, for the registry.")] = "",
    attempt: Annotated[int, typer.Option(min=1, help="A new number starts the same request again.")] = 1,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Start the request again if its last attempt failed; for schedules.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stream the log until the run ends.")] = True,
    shared: Annotated[
        list[Path] | None, typer.Option(help="Folder that the cluster has at the same path; repeat for several.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1.0, help="Seconds without a response after which the head node counts as lost.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Execute `samif run` on a Ray cluster; the same request again attaches to the existing job.

    Requests are the same if parameters, data (annotation files, images, checkpoint files) and samif are the same. If
    that job has succeeded, nothing is run, and the command says so. The run's dvc.lock is written to the workspace,
    unless the one there has been changed meanwhile.

    The job receives the samif package and the workspace's small files. Images, embeddings, DVC remote and registry must
    be reachable from both sides: s3:// addresses, an MLflow server, or folders named with --shared. Credentials are not
    sent: set RAY_AUTH_TOKEN here, and AWS_* and MLFLOW_TRACKING_* here and on the cluster's nodes.
    """
    from flows.submit.submit import submit as submit_run
    from flows.workspace.run_request import request_of

    if retry_failed and attempt != 1:
        raise typer.BadParameter("give either --attempt or --retry-failed", param_hint="--retry-failed")
    out = console()
    request = request_of(workspace, who or whoami(), why)
    done = submit_run(
        workspace, request, address,
        attempt=None if retry_failed else attempt, follow=follow, shared=shared or (), patience=patience,
        say=(lambda _: None) if as_json else (lambda line: out.print(line, soft_wrap=True, markup=False)),
        write=(lambda _: None) if as_json else (lambda piece: print(piece, end="", flush=True)),
    )  # fmt: skip
    if as_json:
        print_json(done)
        return
    if done.dvc_lock is None:
        out.print(f"it is {done.status.lower()}; the same command without --no-follow attaches", markup=False)
        return
    out.print(f"log, record and reports: {done.folder}", soft_wrap=True, markup=False)
