"""`samif serve`."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import HERE, Checkpoint, SemanticCheckpoint, app, console, whoami
from samif.errors import ConfigError

if TYPE_CHECKING:
    from flows.serve.routes import Route


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="NAME@alias (polled), NAME/VERSION, or a folder. One model is served at /; several at /NAME each, "
            "with separate replicas, and one that cannot be loaded is retried.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8090,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token; default SAMIF_SERVE_TOKEN, or a generated one.")
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Require no token; on loopback only.")] = False,
    replicas: Annotated[
        str, typer.Option(metavar="N|N-M", help="Replicas of each model; N-M: as many as the load asks for.")
    ] = "1",
    target_requests: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            show_default="2 x batch",
            help="Requests in work or waiting per replica, for --replicas N-M.",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, show_default="all / replicas of all lines", help="CPU threads of each replica.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=64, help="Images encoded at once; above 1 the last bits of results may differ.")
    ] = 1,
    interval: Annotated[float, typer.Option(min=0.05, max=60, help="Seconds between two polls of the alias.")] = 0.3,
    shadow: Annotated[
        list[str] | None,
        typer.Option(help="NAME@alias for shadow deployment: scored without returning its answers; once per line."),
    ] = None,
    shadow_folder: Annotated[
        Path | None,
        typer.Option(help="Folder for images on which the two versions disagree; NAME/ per line if there are several."),
    ] = None,
    shadow_samples: Annotated[int, typer.Option(min=1, help="Images kept per replica, the newest.")] = 100,
    canary: Annotated[
        list[str] | None,
        typer.Option(help="NAME@alias that answers --percent of the requests, and is rolled back by rule; per line."),
    ] = None,
    percent: Annotated[float, typer.Option(min=0.1, max=50, help="Share of the requests for --canary.")] = 10.0,
    retry_canary: Annotated[
        bool, typer.Option("--retry-canary", help="Allow the canary that was rolled back last to start again.")
    ] = False,
    keep: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps some answers with their images; NAME/ per line if there are several."),
    ] = None,
    keep_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the answers kept, drawn by chance.")] = 0.01,
    keep_unknown: Annotated[
        bool, typer.Option("--keep-unknown", help="Also keep every answer with an unknown object.")
    ] = False,
    keep_uncertain: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            show_default="none",
            help="Also keep answers of which at least this share of the names changes under feature dropout.",
        ),
    ] = None,
    keep_images: Annotated[int, typer.Option(min=1, help="Most images kept; the oldest are removed.")] = 1000,
    keep_mb: Annotated[float, typer.Option(min=0.01, help="Most MB kept; the oldest are removed.")] = 1000.0,
    max_mb: Annotated[float, typer.Option(min=0.01, help="Largest request body, in MB.")] = 32.0,
    max_megapixels: Annotated[float, typer.Option(min=0.01, max=200, help="Largest image, in megapixels.")] = 50.0,
    upload_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds for the request body to arrive.")] = 15.0,
    work_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds for the response after that.")] = 60.0,
    queue: Annotated[int, typer.Option(min=1, help="Requests processed or waiting, per replica.")] = 32,
    checkpoint: Checkpoint = None,
    semantic_checkpoint: SemanticCheckpoint = None,
    write_config: Annotated[
        Path | None,
        typer.Option(help="Serve nothing; write a Ray Serve config file for 'serve deploy' on an existing cluster."),
    ] = None,
    workspace: Annotated[
        list[Path],
        typer.Option(
            "--workspace",
            "-w",
            show_default="here",
            help="Folder with params.yaml: once for all lines, or once per line, in the order of the models.",
        ),
    ] = [HERE],  # noqa: B006  (typer copies it)
) -> None:
    """Serve a model over HTTP and follow its alias without a restart."""
    from flows.artifacts.kept_answers import KeptAnswers
    from flows.http.auth import bearer_token, digest_of
    from flows.runtime.writable import check_folder
    from flows.serve.config_file import write_serve_config
    from flows.serve.routes import routes_of
    from flows.serve.server import serving, watch
    from flows.serve.settings import CanarySettings, KeepSettings, Limits, ReplicaCount, Settings, ShadowSettings

    roots = [folder.resolve() for folder in workspace]
    lines = routes_of(models, roots, shadow or [], canary or [])
    if retry_canary and not canary:
        raise ConfigError("--retry-canary is for --canary; give that too")
    count = ReplicaCount.parse(replicas, target_requests)
    alone = len(lines) == 1
    limits = Limits(int(max_mb * 1e6), int(max_megapixels * 1e6), upload_seconds, work_seconds, queue)
    kept = {line.name: keep if alone else keep / line.name for line in lines} if keep is not None else {}
    threads = threads or (1 if write_config else max(1, len(os.sched_getaffinity(0)) // (len(lines) * count.most)))

    def say(sentence: str) -> None:
        console().print(sentence, soft_wrap=True, markup=False)

    def kept_of(line: Route) -> KeepSettings | None:
        if line.name not in kept:
            return None
        place = kept[line.name].resolve()
        return KeepSettings(place, keep_share, keep_unknown, keep_uncertain, keep_images, int(keep_mb * 1e6))

    def settings_of(line: Route, state: Path, token: str | None) -> Settings:
        folder = shadow_folder if alone or shadow_folder is None else shadow_folder / line.name
        return Settings(
            ref=line.ref,
            root=line.root,
            state=state / line.name,
            token_sha256=digest_of(token) if token else None,
            checkpoint=checkpoint,
            semantic_checkpoint=semantic_checkpoint,
            interval=interval,
            threads=threads,
            batch=batch,
            limits=limits,
            shadow=ShadowSettings(line.shadow, folder and folder.resolve(), shadow_samples) if line.shadow else None,
            keep=kept_of(line),
            canary=CanarySettings(line.canary, percent) if line.canary else None,
            name=line.name,
            route=line.route,
            wait_for_model=not alone,
        )

    if write_config is not None:
        if token_file is not None or no_token:
            raise ConfigError(
                "--write-config takes neither --token-file nor --no-token: the file holds no token, the nodes "
                "have it in SAMIF_SERVE_TOKEN"
            )
        folder = Path(tempfile.gettempdir()) / f"samif-serve-{port}"
        write_serve_config(write_config, [settings_of(line, folder, None) for line in lines], folder, count, host, port)
        say(f"{write_config} is written; set SAMIF_SERVE_TOKEN on the nodes, then: serve deploy {write_config}")
        return
    for folder in kept.values():
        check_folder(folder, "--keep")
        KeptAnswers(folder).create()
    if shadow_folder is not None:
        check_folder(shadow_folder, "--shadow-folder")
        shadow_folder.mkdir(parents=True, exist_ok=True)  # so that 'samif console' can be given it
    if retry_canary:
        _allow_again(lines)
    made = roots[0] / ".samif" / f"serve-{port}.token"
    stop = threading.Event()

    with (
        bearer_token(token_file, made, host, not no_token) as (token, written),
        tempfile.TemporaryDirectory(prefix="samif-serve-", ignore_cleanup_errors=True) as state,
    ):
        settings = [settings_of(line, Path(state), token) for line in lines]
        with serving(settings, host, port, count, say) as applications:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            if alone:
                say(f"serving {lines[0].ref} at {address}/v1/segment; Ctrl-C ends it")
            else:
                for line in lines:
                    say(f"{line.ref} at {address}{line.route}/v1/segment")
                say(f"serving {len(lines)} lines; Ctrl-C ends it")
            if written is not None:
                say(f"the bearer token is in {written}")
            watch(applications, say, stop)
            say("ending")


def _allow_again(lines: Sequence[Route]) -> None:
    """Allow the canary of each line that was rolled back last to start again."""
    from flows.comparison.decide import open_registry
    from flows.registry.version_ref import parse_ref

    for line in lines:
        if line.canary is not None:
            model = parse_ref(line.canary)
            version = open_registry(line.root).registry.canaries(model.line).retry(line.canary, whoami())
            said = "nothing was rolled back" if version is None else f"{model.model}/{version} may be a canary again"
            console().print(said, soft_wrap=True, markup=False)
