"""Runs: start, watch, cancel; sessions: add and remove."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body

from flows.console.access import Person, Routes
from flows.console.state import At
from flows.console.texts import Line
from flows.workspace.edit import remove_session
from samif.config import BASE

routes = Routes()
Why = Annotated[Line, Body(embed=True)]


@routes.get("/workspaces/{workspace}/run", "viewer")
def status(place: At) -> dict[str, Any]:
    """The run that the console started, and the record of the latest run."""
    sessions = place.params.sessions
    return place.runs.status() | {
        "sessions": [{"name": BASE, "classes": list(place.params.dataset.base_classes), "background": False}]
        + [{"name": n, "classes": list(s.classes), "background": s.background} for n, s in sessions.items()]
    }


@routes.post("/workspaces/{workspace}/run", "operator")
def start(place: At, account: Person, why: Why = "") -> dict[str, Any]:
    """Start `samif run`."""
    place.actions.add(account, "run", why=why)
    place.runs.start(account.name, why)
    return status(place)


@routes.delete("/workspaces/{workspace}/run", "operator")
def cancel(place: At, account: Person) -> dict[str, Any]:
    """Interrupt the run; what it has computed is kept."""
    if place.runs.cancel():
        place.actions.add(account, "cancel run")
    return status(place)


@routes.delete("/workspaces/{workspace}/sessions/{name}", "operator")
def remove(place: At, account: Person, name: str) -> dict[str, Any]:
    """Remove the last session from params.yaml."""
    remove_session(place.layout.root, name)
    place.actions.add(account, "remove session", session=name)
    return status(place)
