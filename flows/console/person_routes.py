"""Who is there: enter with a token, leave, and what the workspaces and their journals are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Query, Request, Response

from flows.console.access import Person, Routes, cookie_of
from flows.console.accounts import ROLES, Accounts
from flows.console.state import At, Console
from flows.http.errors import HttpError

routes = Routes()
_AGE_SECONDS = 30 * 86400


@routes.open("POST", "/session", status_code=204)
def enter(request: Request, token: Annotated[str, Body(embed=True, max_length=500)]) -> Response:
    """Check a token, and keep it in a cookie that scripts cannot read."""
    accounts: Accounts = request.app.state.accounts
    if accounts.find(token) is None:
        raise HttpError(401, "token", "this is not a valid token; open the address that 'samif console' printed")
    response = Response(status_code=204)
    response.set_cookie(
        cookie_of(request), token, max_age=_AGE_SECONDS, httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


@routes.open("DELETE", "/session", status_code=204)
def leave(request: Request) -> Response:
    """Forget the token in the cookie."""
    response = Response(status_code=204)
    response.delete_cookie(cookie_of(request))
    return response


@routes.get("/me", "viewer")
def me(request: Request, account: Person) -> dict[str, Any]:
    """The person, what the role includes, and the workspaces."""
    console: Console = request.app.state.console
    return {
        "name": account.name,
        "role": account.role,
        "roles": [role for role in ROLES if account.may(role)],
        "workspaces": [{"id": p.id, "line": p.line, "root": str(p.layout.root)} for p in console.places],
    }


@routes.get("/workspaces/{workspace}/actions", "viewer")
def actions(place: At, count: Annotated[int, Query(ge=1, le=500)] = 100) -> list[dict[str, Any]]:
    """The newest actions of the console, newest first."""
    return place.actions.newest(count)
