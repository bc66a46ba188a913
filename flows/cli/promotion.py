"""`samif registry compare | promote | rollback | history`: which version is live, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, print_json, print_rows, whoami
from flows.cli.registry import open_registry, registry_app, tell_hand_move
from samif.errors import ConfigError

if TYPE_CHECKING:
    from flows.comparison.decide import Opened
    from flows.registry.live_state import Live, Term
    from flows.registry.promotion_request import Request
    from samif.versions.compare import Change, Comparison

Why = Annotated[str, typer.Option(help="Reason, for the journal.")]
Who = Annotated[str | None, typer.Option(help="Who requests it.", show_default="you")]
Approve = Annotated[str | None, typer.Option(metavar="PERSON", help="Who approves the verdict.")]
Approved = Annotated[str, typer.Option(help="First digits of the approved verdict.")]
Force = Annotated[bool, typer.Option("--force", help="Override gates and approval; recorded in the journal.")]


@registry_app.command()
def compare(
    before: Annotated[str, typer.Argument(help="The live or older version: NAME/VERSION or NAME@alias.")],
    after: Annotated[str, typer.Argument(help="The newer version.")],
    html: Annotated[
        Path | None, typer.Option(help="Output file.", show_default="reports/compare/BEFORE-AFTER.html")
    ] = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Score two versions on the same images: verdict of the gates, change per class, images that differ."""
    from flows.comparison.decide import compare_versions
    from flows.comparison.page import headline

    opened = open_registry(workspace)
    compared = compare_versions(opened, before, after, html)
    examination, path, run = compared.examination, compared.page, compared.run
    verdict = examination.verdict
    if as_json:
        content = {"verdict": verdict, "outcome": verdict.outcome, "digest": verdict.digest, "page": path, "run": run}
        print_json(content | {"comparison": examination.comparison})
        return
    out = console()
    out.print(f"{compared.after} against {compared.before}: {verdict.outcome.upper()}", style="bold")
    out.print(headline(examination), soft_wrap=True, markup=False)
    if examination.comparison is not None:
        _print_changes(examination.comparison)
    out.print(f"verdict {verdict.digest[:12]}, kept in MLflow run {run}")
    out.print(str(path), soft_wrap=True, markup=False)
    tell_hand_move(opened, before, after)


@registry_app.command()
def promote(
    ref: Annotated[
        str, typer.Argument(help="NAME/VERSION, or NAME@challenger; NAME with --from-canary: the newest canary.")
    ],
    from_canary: Annotated[
        bool, typer.Option("--from-canary", help="Only if its canary has run long enough; journals what it measured.")
    ] = False,
    approve: Approve = None,
    verdict: Approved = "",
    why: Why = "",
    who: Who = None,
    force: Force = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a version live: verify its checksums, evaluate the gates, move the alias, write the journal."""
    from flows.registry.promotion_request import Request

    request = Request(who=who or whoami(), why=why, approve=approve, verdict=verdict, force=force)
    _promote(open_registry(workspace), ref, request, as_json, from_canary)


@registry_app.command()
def adopt(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    approve: Approve = None,
    verdict: Approved = "",
    why: Why = "",
    who: Who = None,
    force: Force = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Promote the version that the alias was moved to by hand in MLflow; the alias stays there meanwhile."""
    from flows.registry.promotion_request import Request

    opened = open_registry(workspace)
    model = opened.registry.resolve(name)[0]
    if opened.registry.hand_move(model.removesuffix("-classifier")) is None:
        raise ConfigError(f"alias 'champion' of {model} stands by the journal; there is nothing to adopt")
    request = Request(who=who or whoami(), why=why, approve=approve, verdict=verdict, force=force, adopt=True)
    _promote(opened, f"{model}@champion", request, as_json)


@registry_app.command()
def repair(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    why: Why = "",
    who: Who = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Put the alias back where the journal says, if it was moved by hand in MLflow."""
    from flows.registry.promotion_request import Request

    opened = open_registry(workspace)
    model = opened.registry.resolve(name)[0]
    say = (lambda _: None) if as_json else _say
    at, live = opened.promotions(model, say).repair(Request(who=who or whoami(), why=why))
    if as_json:
        print_json({"model": model, "live": live.version, "previous": live.previous, "alias_was": at})
    elif at == live.version:
        console().print(f"alias 'champion' of {model} stands by the journal; nothing to repair", soft_wrap=True)


@registry_app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    why: Why = "",
    who: Who = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Restore the version that was live before; repeated rollbacks go further back."""
    from flows.comparison.decide import roll_back
    from flows.registry.promotion_request import Request

    _print_live(*roll_back(open_registry(workspace), name, Request(who=who or whoami(), why=why), _say), as_json)


@registry_app.command()
def history(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """List the live versions over time, with who and why; verifies the journal."""
    from flows.comparison.decide import term_content

    opened = open_registry(workspace)
    model = opened.registry.resolve(name)[0]
    chain, live, alias = opened.promotions(model).state()
    canaries = [entry for entry in chain.entries if entry.kind in ("refuse", "retry")]
    if as_json:
        terms = [term_content(term) for term in live.terms]
        unfinished = live.unfinished.model_dump(mode="json") if live.unfinished else None
        content = {"model": model, "live": live.version, "previous": live.previous, "alias": alias, "history": terms}
        content["canaries"] = [entry.model_dump(mode="json") for entry in canaries]
        journal = {"entries": len(chain.entries), "head": chain.head}
        print_json(content | {"pruned": sorted(live.pruned), "unfinished": unfinished, "journal": journal})
        return
    if not live.terms:
        console().print(f"no version of {model} was ever live")
    else:
        print_rows(
            ["since", "until", "version", "how", "by", "why"],
            [_cells(term) for term in reversed(live.terms)],
            right=("version",),
            whole=("since", "until", "how"),
        )
    for entry in canaries:
        what = "was rolled back" if entry.kind == "refuse" else f"is allowed again by {entry.who}"
        said = f"{entry.time:%Y-%m-%d %H:%M} canary {entry.version} {what}: {entry.why}"
        console().print(said, soft_wrap=True, markup=False)
    for entry in chain.entries:
        if entry.kind == "prune":
            reason = f": {entry.why}" if entry.why else ""
            _say(f"{entry.time:%Y-%m-%d %H:%M} removed versions {_numbers(entry.pruned)} by {entry.who}{reason}")
    if live.unfinished is not None:
        act = f"the {live.unfinished.kind} of version {live.unfinished.version} by {live.unfinished.who}"
        console().print(f"unfinished: {act}; the next promote or rollback carries it out", soft_wrap=True, markup=False)
    elif (moved := opened.registry.hand_move(model.removesuffix("-classifier"))) is not None:
        _say(moved)


def _numbers(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions[:20])) + (f" and {len(versions) - 20} more" if len(versions) > 20 else "")


def _promote(opened: Opened, ref: str, request: Request, as_json: bool, from_canary: bool = False) -> None:
    from flows.comparison.decide import promote_version

    asked = replace(request, always_ask=opened.params.gates.approval == "always")
    _print_live(*promote_version(opened, ref, asked, _say, from_canary), as_json)


def _say(line: str) -> None:
    console().print(line, soft_wrap=True, markup=False)


def _print_live(model: str, live: Live, as_json: bool) -> None:
    from flows.comparison.decide import term_content, version_name

    term = live.terms[-1]
    if as_json:
        print_json({"model": model, "live": live.version, "previous": live.previous, "term": term_content(term)})
        return
    out = console()
    if term.decision.forced:
        out.print("FORCED over: " + "; ".join(term.decision.overrode), style="bold red", soft_wrap=True, markup=False)
    back = f"; a rollback leads to {live.previous}" if live.previous else ""
    out.print(f"{version_name(model, term.version)} is live{back}", style="bold")


def _cells(term: Term) -> list[str]:
    decision = term.decision
    by = decision.who + (f", approved by {decision.approved_by}" if decision.approved_by else "")
    why = "; ".join(filter(None, (decision.why, *(f"OVERRODE {reason}" for reason in decision.overrode))))
    return [
        f"{term.since:%Y-%m-%d %H:%M}",
        f"{term.until:%Y-%m-%d %H:%M}" if term.until else "now",
        str(term.version),
        f"{term.how}, FORCED" if decision.forced else term.how,
        by,
        why or "-",
    ]


def _print_changes(comparison: Comparison) -> None:
    from flows.report.page import number, signed

    def row(name: str, change: Change) -> list[str]:
        interval = "-" if change.low is None else f"{signed(change.low)} to {signed(change.high)}"
        noise = "same" if change.is_none else "noise" if change.is_noise else ""
        return [
            name, str(change.instances), number(change.before), number(change.after), signed(change.change), interval,
            noise,
        ]  # fmt: skip

    changed = sorted(comparison.classes.items(), key=lambda item: item[1].change or 0.0)
    rows = [row(f"all {group}" if group != "all" else "all", comparison.groups[group]) for group in comparison.groups]
    rows += [row(name, change) for name, change in changed]
    metric = comparison.metric.upper()
    print_rows(
        ["class", "objects", f"{metric} before", "after", "change", "interval", "says"],
        rows,
        right=("objects", f"{metric} before", "after", "change"),
        whole=("interval", "says"),
    )
    for what, change in (
        ("rightly named, %", comparison.named),
        ("false names per 1,000 images", comparison.false_names),
    ):
        if change is not None:
            _, _, before, after, difference, interval, noise = row(what, change)
            console().print(
                f"{what}: {before} to {after} ({difference}, interval {interval}) {noise}".rstrip(), soft_wrap=True
            )
    if comparison.added:
        console().print(f"new: {', '.join(comparison.added)}", soft_wrap=True, markup=False)
