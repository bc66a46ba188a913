"""`samif serve`."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, Workspace, app, console


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="NAME@alias (followed), NAME/VERSION, or a folder.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8090,
    token_file: Annotated[
        Path | None, typer.Option(help="Holds the bearer token; otherwise SAMIF_SERVE_TOKEN, or one is made.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Ask for no token; on loopback only.")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the model.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all / replicas", help="CPU threads of each replica.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=64, help="Pictures encoded at once; above 1 the last bits may differ.")
    ] = 1,
    interval: Annotated[float, typer.Option(min=0.05, max=60, help="Seconds between two looks at the alias.")] = 0.3,
    shadow: Annotated[str | None, typer.Option(help="NAME@alias whose head is compared, unseen by clients.")] = None,
    shadow_folder: Annotated[Path | None, typer.Option(help="Where pictures of disagreement go.")] = None,
    shadow_samples: Annotated[int, typer.Option(min=1, help="Kept pictures per replica, the newest.")] = 100,
    max_mb: Annotated[float, typer.Option(min=0.01, help="Largest body, in MB.")] = 32.0,
    max_megapixels: Annotated[float, typer.Option(min=0.01, max=200, help="Largest picture.")] = 50.0,
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="Time for a body to arrive.")] = 15.0,
    work_seconds: Annotated[float, typer.Option(min=0.1, help="Time for an answer after that.")] = 60.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests in work or waiting, per replica.")] = 32,
    checkpoint: Annotated[str | None, typer.Option(help="The encoder's checkpoint, where it is not tiny.")] = None,
    semantic_checkpoint: Annotated[str | None, typer.Option(help="The semantic encoder's, where there is one.")] = None,
    workspace: Workspace = HERE,
) -> None:
    """Answer pictures over HTTP with the live version; another version goes live without a stop."""
    from flows.serve.auth import digest_of, find_token
    from flows.serve.server import serving, watch
    from flows.serve.settings import Limits, Settings, ShadowSettings

    root = workspace.resolve()
    token, written = find_token(token_file, root / ".samif" / f"serve-{port}.token", host, not no_token)
    state = Path(tempfile.mkdtemp(prefix="samif-serve-"))
    settings = Settings(
        ref=model,
        root=root,
        state=state,
        token_sha256=digest_of(token) if token else None,
        checkpoint=checkpoint,
        semantic_checkpoint=semantic_checkpoint,
        interval=interval,
        threads=threads or max(1, len(os.sched_getaffinity(0)) // replicas),
        batch=batch,
        limits=Limits(int(max_mb * 1e6), int(max_megapixels * 1e6), upload_seconds, work_seconds, queue),
        shadow=ShadowSettings(shadow, shadow_folder, shadow_samples) if shadow else None,
    )
    stop = threading.Event()

    def say(sentence: str) -> None:
        console().print(sentence, soft_wrap=True, markup=False)

    try:
        with serving(settings, host, port, replicas):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            shown = f"[{host}]" if ":" in host else host
            say(f"serving {model} at http://{shown}:{port}/v1/segment; Ctrl-C ends it")
            if written is not None:
                say(f"the bearer token is in {written}")
            watch(settings, say, stop)
            say("ending")
    finally:
        shutil.rmtree(state, ignore_errors=True)
        if written is not None:
            written.unlink(missing_ok=True)
