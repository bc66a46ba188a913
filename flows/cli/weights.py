"""`samif weights list | pull | verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import AsJson, console, group, print_json, print_rows

weights_app = group("weights", "SAM checkpoints.")


@weights_app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List architectures and the weights on this machine."""
    from flows.loaders.checkpoints import list_weights

    rows = list_weights()
    if as_json:
        print_json(rows)
        return
    print_rows(
        ["name", "parameters", "embedding", "pixels", "here"],
        [
            [r.name, f"{r.parameters / 1e6:.1f} M", "x".join(map(str, r.embedding)), str(r.image_size),
             str(r.path) if r.path else ("ships with samif" if r.present else "no")]
            for r in rows
        ],
        right=("parameters", "pixels"),
    )  # fmt: skip


@weights_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="mobile_sam, vit_b, vit_l or vit_h.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Path, http(s):// or s3:// address; default SAMIF_WEIGHTS_URI.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256.")] = None,
) -> None:
    """Fetch a checkpoint into the cache and verify it."""
    from flows.loaders.checkpoints import pull as pull_weights

    pulled = pull_weights(name, source, sha256)
    out = console()
    out.print(f"{pulled.name}: {pulled.path}", soft_wrap=True)
    remark = "" if pulled.published else " (not the published file: set encoder.sha256)"
    out.print(f"SHA-256 {pulled.sha256}{remark}")


@weights_app.command()
def verify(
    target: Annotated[str, typer.Argument(help="An architecture, or a file.")],
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256.")] = None,
) -> None:
    """Verify SHA-256 and layout of weights."""
    from flows.loaders.checkpoints import verify as verify_weights

    found = verify_weights(target, sha256)
    which = "published" if found.published else "not the published"
    console().print(f"{found.name}: SHA-256 {found.sha256}, {which} weights")
