"""Compare, promote and roll back the versions of a workspace's line: what the command line and the console do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.comparison.examiner import Examination, Examiner
from flows.comparison.page import render_comparison
from flows.registry.live_state import Live, Term
from flows.registry.promotion import Promotions
from flows.registry.promotion_request import Evidence, Request
from flows.registry.registry import Registry
from flows.registry.verification import complaints, verify
from flows.registry.version_ref import parse_ref
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.errors import ConfigError, IntegrityError
from samif.io import files

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A workspace and its registry."""

    layout: Layout
    params: Params
    registry: Registry

    def promotions(self, model: str, say: Say = lambda _: None) -> Promotions:
        """Promotion and rollback of a registered classifier."""
        return self.registry.promotions(model.removesuffix("-classifier"), self.params, say)


@dataclass(frozen=True)
class Compared:
    """Two versions that were examined, the file of the page, and the MLflow run that keeps both."""

    before: str
    after: str
    examination: Examination
    page: Path
    run: str


def open_registry(workspace: Path) -> Opened:
    """The workspace with its registry.

    Raises:
        SamifError: there is no workspace.
    """
    layout = Layout(workspace.resolve())
    params = load_params(layout.params)
    return Opened(layout, params, Registry(params.registry.tracking_uri, layout.root))


def compare_versions(opened: Opened, before: str, after: str, page: Path | None = None) -> Compared:
    """Score two versions on the same images, evaluate the gates, write the page and keep it.

    Args:
        before, after: NAME/VERSION or NAME@alias.
        page: the file; none means reports/compare/BEFORE-AFTER.html.

    Raises:
        SamifError: they are one version, or cannot be examined.
    """
    names = [version_name(*opened.registry.resolve(ref)) for ref in (before, after)]
    if names[0] == names[1]:
        raise ConfigError(f"{before} and {after} are both {names[0]}; name two versions")
    examiner = Examiner(opened.layout, opened.params, opened.registry)
    examination = examiner.examine(names[1], names[0])
    html = render_comparison(examination, names[0], names[1])
    numbers = "-".join(name.rpartition("/")[2] for name in names)
    path = page or opened.layout.reports / "compare" / f"{numbers}.html"
    files.commit(path, html.encode())
    return Compared(names[0], names[1], examination, path, examiner.keep(examination, html))


def promote_version(
    opened: Opened, ref: str, request: Request, say: Say = lambda _: None, from_canary: bool = False
) -> tuple[str, Live]:
    """Make a version live; the registered model and the state afterwards. See `Promotions.promote`.

    Args:
        from_canary: only after a canary of it has run for long enough, whose numbers go into the journal; `ref` without
            alias and number is then the newest version that was a canary.

    Raises:
        GateFailed: also where the canary was rolled back, or has run too short.
    """
    if from_canary:
        found, records = parse_ref(ref), opened.registry.canaries(parse_ref(ref).line)
        if found.alias is None and found.number is None:
            ref = version_name(found.model, records.newest())
        request = replace(request, canary=records.passed(opened.registry.resolve(ref)[1]))
    name, number = opened.registry.resolve(ref)
    examiner = Examiner(opened.layout, opened.params, opened.registry)

    def evidence_on(champion: int | None) -> Evidence:
        return examiner.evidence(version_name(name, number), version_name(name, champion) if champion else None)

    return name, opened.promotions(name, say).promote(number, request, evidence_on)


def roll_back(opened: Opened, ref: str, request: Request, say: Say = lambda _: None) -> tuple[str, Live]:
    """Restore the version that was live before; the registered model and the state afterwards. See
    `Promotions.rollback`."""
    model = opened.registry.resolve(ref)[0]

    def check(number: int) -> str:
        name = version_name(model, number)
        found = complaints(verify(opened.registry, name))
        if found:
            raise IntegrityError(
                f"{name} is not what its card says ({'; '.join(found)}); promote another version instead"
            )
        return opened.registry.show(name).card.digest

    return model, opened.promotions(model, say).rollback(request, check)


def version_name(name: str, number: int) -> str:
    """A version as people write it."""
    return f"{name}/{number}"


def term_content(term: Term) -> dict[str, Any]:
    """A term of the history as JSON content."""
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
        "canary": decision.canary,
    }
