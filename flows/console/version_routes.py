"""Versions: what is live, the comparison with its verdict, promotion with reason and approval, rollback."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Body, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from flows.comparison.decide import (
    Opened,
    compare_versions,
    open_registry,
    promote_version,
    roll_back,
    term_content,
    version_name,
)
from flows.comparison.page import headline
from flows.console.access import Person, Routes
from flows.console.accounts import Account
from flows.console.approvals import Approvals, PromotionRequest
from flows.console.state import At, Place
from flows.console.texts import Line
from flows.registry.promotion_request import Request
from samif.errors import GateFailed, ObjectMissing

routes = Routes()
Number = Annotated[int, Field(ge=1, le=1_000_000_000)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]
_PAGE_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Promotion(_Body):
    """A version to promote, why, the verdict that was looked at, and whether who promotes approves it too."""

    version: Number
    why: Line = ""
    verdict: Digest = ""
    approve: bool = False


class Asked(_Body):
    """A promotion that an approver is asked for; `about` is the gate's sentence."""

    version: Number
    why: Line = ""
    verdict: Digest
    about: Annotated[str, Field(max_length=4000)] = ""


@routes.get("/workspaces/{workspace}/versions", "viewer")
def versions(place: At) -> dict[str, Any]:
    """The versions of the line, newest first, what is live, the history, and the promotions that wait for approval."""
    opened = open_registry(place.layout.root)
    policy = {"approval": opened.params.gates.approval, "approver": opened.params.gates.approver}
    content: dict[str, Any] = {"line": opened.params.line, "policy": policy, "versions": [], "live": None,
                               "previous": None, "alias": None, "history": [], "requests": []}  # fmt: skip
    try:
        rows = opened.registry.versions(opened.params.line)
    except ObjectMissing:
        return content
    _, live, alias = opened.promotions(f"{opened.params.line}-classifier").state()
    return content | {
        "versions": [asdict(row) for row in reversed(rows)],
        "live": live.version,
        "previous": live.previous,
        "alias": alias,
        "history": [term_content(term) for term in reversed(live.terms)],
        "requests": [request.model_dump() for request in Approvals(place.state).all()],
    }


@routes.post("/workspaces/{workspace}/versions/compare", "viewer")
def compare(place: At, before: Annotated[Number, Body()], after: Annotated[Number, Body()]) -> dict[str, Any]:
    """Score two versions on the same images, and evaluate the gates."""
    opened = open_registry(place.layout.root)
    compared = compare_versions(opened, _ref(opened, before), _ref(opened, after))
    verdict = compared.examination.verdict
    return {
        "before": compared.before,
        "after": compared.after,
        "outcome": verdict.outcome,
        "headline": headline(compared.examination),
        "digest": verdict.digest,
        "checks": [check.model_dump(mode="json") for check in verdict.checks],
    }


@routes.get("/workspaces/{workspace}/versions/page", "viewer", response_class=HTMLResponse)
def page(place: At, before: Annotated[Number, Query()], after: Annotated[Number, Query()]) -> Response:
    """The page of a comparison that was made."""
    path = place.layout.reports / "compare" / f"{before}-{after}.html"
    if not path.is_file():
        raise ObjectMissing(f"versions {before} and {after} were not compared yet; compare them first")
    return HTMLResponse(path.read_text(encoding="utf-8"), headers={"Content-Security-Policy": _PAGE_POLICY})


@routes.post("/workspaces/{workspace}/versions/promote", "operator")
def promote(place: At, account: Person, wanted: Annotated[Promotion, Body()]) -> dict[str, Any]:
    """Make a version live, as `samif registry promote` does; a gate that refuses says why."""
    approve = account.name if wanted.approve else None
    if approve and not account.may("approver"):
        raise GateFailed(f"{account.name} is {account.role} and may not approve; ask an approver")
    return _promoted(place, account, wanted.version, wanted.why, wanted.verdict, account.name, approve)


@routes.post("/workspaces/{workspace}/versions/requests", "operator")
def ask(place: At, account: Person, asked: Annotated[Asked, Body()]) -> dict[str, Any]:
    """Ask an approver for a promotion."""
    opened = open_registry(place.layout.root)
    opened.registry.resolve(_ref(opened, asked.version))
    request = Approvals(place.state).add(asked.version, asked.verdict, account.name, asked.why, asked.about)
    place.actions.add(account, "ask for promotion", version=asked.version, why=asked.why, verdict=asked.verdict)
    return request.model_dump()


@routes.post("/workspaces/{workspace}/versions/requests/{request_id}/approve", "approver")
def approve(place: At, account: Person, request_id: str) -> dict[str, Any]:
    """Approve a promotion that somebody asked for, and carry it out in their name."""
    found = Approvals(place.state).find(request_id)
    done = _promoted(place, account, found.version, found.why, found.verdict, found.who, account.name)
    Approvals(place.state).remove(request_id)
    return done


@routes.delete("/workspaces/{workspace}/versions/requests/{request_id}", "operator")
def withdraw(place: At, account: Person, request_id: str) -> dict[str, Any]:
    """Take a request off the list."""
    found: PromotionRequest = Approvals(place.state).find(request_id)
    Approvals(place.state).remove(request_id)
    place.actions.add(account, "withdraw request", version=found.version, asked_by=found.who)
    return {"version": found.version}


@routes.post("/workspaces/{workspace}/versions/rollback", "operator")
def rollback(place: At, account: Person, why: Annotated[Line, Body(embed=True)] = "") -> dict[str, Any]:
    """Restore the version that was live before, as `samif registry rollback` does."""
    opened, said = open_registry(place.layout.root), list[str]()
    _, live = roll_back(opened, opened.params.line, Request(who=account.name, why=why), said.append)
    place.actions.add(account, "roll back", version=live.version, why=why)
    return {"live": live.version, "previous": live.previous, "notes": said}


def _promoted(
    place: Place, account: Account, version: int, why: str, verdict: str, who: str, approver: str | None
) -> dict[str, Any]:
    opened, said = open_registry(place.layout.root), list[str]()
    request = Request(
        who=who, why=why, approve=approver, verdict=verdict, always_ask=opened.params.gates.approval == "always"
    )  # fmt: skip
    facts = {"version": version, "why": why, "for": who}
    try:
        _, live = promote_version(opened, _ref(opened, version), request, said.append)
    except GateFailed as error:
        place.actions.add(account, "promotion refused", **facts, refusal=str(error))
        raise
    place.actions.add(account, "promote", **facts)
    return {"live": live.version, "previous": live.previous, "notes": said}


def _ref(opened: Opened, number: int) -> str:
    return version_name(f"{opened.params.line}-classifier", number)
