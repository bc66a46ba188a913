"""`samif registry compare | promote | rollback | history`: which version is live, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.app import HERE, AsJson, Workspace, console, print_json, print_rows, whoami
from flows.cli.registry import Opened, open_registry, registry_app
from samif.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from flows.registry.live_state import Live, Term
    from flows.registry.promotion import Promotions
    from samif.versions.compare import Change, Comparison

Why = Annotated[str, typer.Option(help="Reason, for the journal.")]
Who = Annotated[str | None, typer.Option(help="Who requests it.", show_default="you")]


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
    from flows.comparison.examiner import Examiner
    from flows.comparison.page import headline, render_comparison
    from samif.io import files

    opened = open_registry(workspace)
    names = [_written(*opened.registry.resolve(ref)) for ref in (before, after)]
    if names[0] == names[1]:
        raise ConfigError(f"{before} and {after} are both {names[0]}; name two versions")
    examiner = Examiner(opened.layout, opened.params, opened.registry)
    examination = examiner.examine(names[1], names[0])
    numbers = "-".join(name.rpartition("/")[2] for name in names)
    path = html or opened.layout.reports / "compare" / f"{numbers}.html"
    page = render_comparison(examination, *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.commit(path, page.encode())
    run = examiner.keep(examination, page)
    verdict = examination.verdict
    if as_json:
        content = {"verdict": verdict, "outcome": verdict.outcome, "digest": verdict.digest, "page": path, "run": run}
        print_json(content | {"comparison": examination.comparison})
        return
    out = console()
    out.print(f"{names[1]} against {names[0]}: {verdict.outcome.upper()}", style="bold")
    out.print(headline(examination), soft_wrap=True, markup=False)
    if examination.comparison is not None:
        _print_changes(examination.comparison)
    out.print(f"verdict {verdict.digest[:12]}, kept in MLflow run {run}")
    out.print(str(path), soft_wrap=True, markup=False)


@registry_app.command()
def promote(
    ref: Annotated[str, typer.Argument(help="NAME/VERSION, or NAME@challenger.")],
    approve: Annotated[str | None, typer.Option(metavar="PERSON", help="Who approves the verdict.")] = None,
    verdict: Annotated[str, typer.Option(help="First digits of the approved verdict.")] = "",
    why: Why = "",
    who: Who = None,
    force: Annotated[
        bool, typer.Option("--force", help="Override gates and approval; recorded in the journal.")
    ] = False,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a version live: verify its checksums, evaluate the gates, move the alias, write the journal."""
    from flows.comparison.examiner import Examiner
    from flows.registry.promotion import Request

    opened = open_registry(workspace)
    name, number = opened.registry.resolve(ref)
    examiner = Examiner(opened.layout, opened.params, opened.registry)
    request = Request(
        who=who or whoami(), why=why, approve=approve, verdict=verdict, force=force,
        always_ask=opened.params.gates.approval == "always",
    )  # fmt: skip

    def evidence_on(champion: int | None) -> Any:
        return examiner.evidence(_written(name, number), _written(name, champion) if champion else None)

    live = _promotions(opened, name).promote(number, request, evidence_on)
    _print_live(name, live, as_json)


@registry_app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    why: Why = "",
    who: Who = None,
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """Restore the version that was live before; repeated rollbacks go further back."""
    from flows.registry.promotion import Request
    from flows.registry.verification import complaints, verify

    opened = open_registry(workspace)
    model = opened.registry.resolve(name)[0]

    def check(number: int) -> str:
        found = complaints(verify(opened.registry, _written(model, number)))
        if found:
            raise IntegrityError(
                f"{_written(model, number)} is not what its card says ({'; '.join(found)}); "
                "promote another version instead"
            )
        return opened.registry.show(_written(model, number)).card.digest

    live = _promotions(opened, model).rollback(Request(who=who or whoami(), why=why), check)
    _print_live(model, live, as_json)


@registry_app.command()
def history(
    name: Annotated[str, typer.Argument(help="NAME of the line or its classifier.")],
    workspace: Workspace = HERE,
    as_json: AsJson = False,
) -> None:
    """List the live versions over time, with who and why; verifies the journal."""
    opened = open_registry(workspace)
    model = opened.registry.resolve(name)[0]
    chain, live, alias = _promotions(opened, model).state()
    if as_json:
        terms = [_term(term) for term in live.terms]
        unfinished = live.unfinished.model_dump(mode="json") if live.unfinished else None
        content = {"model": model, "live": live.version, "previous": live.previous, "alias": alias, "history": terms}
        print_json(content | {"unfinished": unfinished, "journal": {"entries": len(chain.entries), "head": chain.head}})
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
    if live.unfinished is not None:
        act = f"the {live.unfinished.kind} of version {live.unfinished.version} by {live.unfinished.who}"
        console().print(f"unfinished: {act}; the next promote or rollback carries it out", soft_wrap=True, markup=False)
    elif alias != live.version:
        console().print(
            f"alias 'champion' stands at {alias}, not by the journal; the next promote or rollback puts it back",
            soft_wrap=True,
        )


def _promotions(opened: Opened, model: str) -> Promotions:
    return opened.registry.promotions(
        model.removesuffix("-classifier"),
        opened.params,
        lambda line: console().print(line, soft_wrap=True, markup=False),
    )


def _written(name: str, number: int) -> str:
    return f"{name}/{number}"


def _print_live(model: str, live: Live, as_json: bool) -> None:
    term = live.terms[-1]
    if as_json:
        print_json({"model": model, "live": live.version, "previous": live.previous, "term": _term(term)})
        return
    out = console()
    if term.decision.forced:
        out.print("FORCED over: " + "; ".join(term.decision.overrode), style="bold red", soft_wrap=True, markup=False)
    back = f"; a rollback leads to {live.previous}" if live.previous else ""
    out.print(f"{_written(model, term.version)} is live{back}", style="bold")


def _term(term: Term) -> dict[str, Any]:
    decision = term.decision
    return {
        "version": term.version,
        "since": term.since.isoformat(timespec="seconds"),
        "until": term.until.isoformat(timespec="seconds") if term.until else None,
        "how": term.how,
        "who": decision.who,
        "why": decision.why,
        "approved_by": decision.approved_by,
        "forced": decision.forced,
        "overrode": list(decision.overrode),
        "card": decision.card,
        "verdict": decision.verdict,
        "outcome": decision.outcome,
        "evidence": decision.evidence,
    }


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
