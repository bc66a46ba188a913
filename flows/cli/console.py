"""`samif console`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.app import HERE, app, console, whoami


@app.command("console")
def serve_console(
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of images to label, of the first workspace; repeat for several.",
            show_default="folders labelled before",
        ),
    ] = None,
    shadow_folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder of 'samif serve --shadow-folder', whose images are reviewed.", show_default="none reviewed"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8092,
    accounts: Annotated[
        Path | None,
        typer.Option(
            help="File with a line ROLE NAME TOKEN per person; roles: viewer, labeller, operator, approver.",
            show_default="you, with a generated token",
        ),
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    workspace: Annotated[
        list[Path],
        typer.Option("--workspace", "-w", show_default="here", help="Folder with params.yaml; repeat for several."),
    ] = [HERE],  # noqa: B006  (typer copies it)
) -> None:
    """Label images, review errors, compare and promote versions in a browser."""
    from flows.console.server import Address, serve
    from flows.console.state import open_console

    address = Address(host, port, tls_certificate, tls_key)
    opened = open_console(workspace, images or [], shadow_folder)
    serve(opened, address, accounts, whoami(), lambda line: console().print(line, soft_wrap=True, markup=False))
