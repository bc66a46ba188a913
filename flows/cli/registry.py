"""`samif registry list | show | verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, group, print_json, print_rows
from samif.errors import IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from flows.comparison.decide import Opened

registry_app = group("registry", "Model versions: list, verify, compare, promote, roll back.")


def open_registry(workspace: Path) -> Opened:
    """The workspace with its registry; SamifError where there is no workspace."""
    from flows.comparison.decide import open_registry as open_here

    return open_here(workspace)


def tell_hand_move(opened: Opened, *refs: str) -> None:
    """One sentence where one of the references is the live version, and its alias was moved past the journal."""
    from flows.registry.promotion import CHAMPION
    from flows.registry.version_ref import parse_ref

    for ref in refs:
        if ref.endswith(f"@{CHAMPION}") and (moved := opened.registry.hand_move(parse_ref(ref).line)) is not None:
            console().print(moved, soft_wrap=True, markup=False)


@registry_app.command("list")
def list_(workspace: Workspace = HERE, as_json: AsJson = False) -> None:
    """List the classifier versions of this line, oldest first."""
    opened = open_registry(workspace)
    rows = opened.registry.versions(opened.params.line)
    if as_json:
        print_json(rows)
        return
    from flows.report.page import number

    print_rows(
        ["version", "session", "classes", "AP50 base", "novel", "all", "registered", "aliases"],
        [
            [
                str(r.version), r.session, str(r.classes), *(number(r.ap50[g]) for g in ("base", "novel", "all")),
                r.created[:10], ", ".join(r.aliases),
            ]
            for r in rows
        ],
        right=("version", "classes", "AP50 base", "novel", "all"),
        whole=("session", "registered"),
    )  # fmt: skip
    for row in rows:
        if row.canary is not None:
            console().print(f"version {row.version}: {row.canary}", soft_wrap=True, markup=False)
    tell_hand_move(opened, f"{opened.params.line}@champion")
    if deleted := [str(row.version) for row in rows if row.run_deleted]:
        console().print(
            f"the MLflow run of version {', '.join(deleted)} was deleted: restore it there before its files go",
            soft_wrap=True,
        )


@registry_app.command()
def show(
    ref: Annotated[str, typer.Argument(help="NAME, NAME/VERSION or NAME@alias.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Show scores, lineage and files of one version."""
    details = open_registry(workspace).registry.show(ref)
    if as_json:
        print_json(details)
        return
    from flows.report.page import number

    card, row = details.card, details.row
    reason = f": {card.provenance.why}" if card.provenance.why else ""
    facts = [
        ["version", f"{details.name}/{row.version}" + (f" ({', '.join(row.aliases)})" if row.aliases else "")],
        ["session", f"{card.name}, after {card.after or 'nothing'}"],
        ["classes", ", ".join(card.classes)],
        ["AP base / novel / all", " / ".join(number(row.ap[g]) for g in ("base", "novel", "all"))],
        ["AP50 base / novel / all", " / ".join(number(row.ap50[g]) for g in ("base", "novel", "all"))],
        ["decoder", f"version {row.decoder_version}, SHA-256 {card.decoder.sha256}"],
        ["encoder", f"{card.encoder.name}, {card.encoder.digest}"],
        ["data set", card.identity.dataset],
        ["card", card.digest],
        ["registered", f"{row.created} by {card.provenance.who}{reason}"],
        ["cost", _cost(details.metrics)],
        ["commit", card.provenance.commit or "-"],
        ["files", ", ".join(f for f in details.files if not f.startswith(("images/", "figures/")))],
        ["images", str(sum(f.startswith(("images/", "figures/")) for f in details.files))],
    ]
    print_rows(["", details.name], facts)
    console().print(f"MLflow run {details.run_id}")


def _cost(metrics: dict[str, float]) -> str:
    """Session and evaluation together."""

    def of(name: str) -> list[float]:
        return [metrics[key] for part in ("session", "evaluate") if (key := f"cost/{part}.{name}") in metrics]

    if not of("wall_seconds"):
        return "-"
    sums = {name: sum(of(f"{name}_seconds")) for name in ("wall", "cpu", "gpu")}
    peak = max(of("peak_memory_mb"))
    return f"{sums['wall']:.1f} s, {sums['cpu']:.1f} CPU seconds, {sums['gpu']:.1f} GPU seconds, {peak:,.0f} MB"


@registry_app.command()
def verify(
    ref: Annotated[str, typer.Argument(help="NAME/VERSION, NAME or NAME@alias.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Verify all checksums of a version and of its inputs where available; exits 1 on a mismatch."""
    from flows.registry.verification import verify as check

    opened = open_registry(workspace)
    items = check(opened.registry, ref, (opened.layout, opened.params))
    if as_json:
        print_json(items)
    else:
        print_rows(["item", "state", "what was found"], [[i.name, i.state, i.detail] for i in items], whole=("state",))
        tell_hand_move(opened, ref)
    wrong = [item for item in items if item.state == "differs"]
    if wrong:
        raise IntegrityError(
            f"{ref} is not what its card says: {', '.join(item.name for item in wrong)} "
            f"differ{'s' if len(wrong) == 1 else ''}; restore the registry from a backup or register the version again"
        )
