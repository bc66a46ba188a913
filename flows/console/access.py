"""Routes of the console, each with the least role that may use it, and the check of a request's person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request

from flows.console.accounts import Account, Accounts, Role
from flows.http.errors import HttpError

Handler = TypeVar("Handler", bound=Callable[..., Any])
ROLE_KEY = "x-role"
"""Key of the OpenAPI document of a route that names its least role; `anybody` needs no token."""
ANYBODY = "anybody"
HEADER = "x-samif-console"
"""Header of every request that changes something: pages of other origins cannot send it without being allowed to."""


class Routes:
    """A router whose every route names a role."""

    def __init__(self) -> None:
        self.router = APIRouter()

    def get(self, path: str, role: Role, **options: Any) -> Callable[[Handler], Handler]:
        return self._route("GET", path, role, options)

    def post(self, path: str, role: Role, **options: Any) -> Callable[[Handler], Handler]:
        return self._route("POST", path, role, options)

    def put(self, path: str, role: Role, **options: Any) -> Callable[[Handler], Handler]:
        return self._route("PUT", path, role, options)

    def delete(self, path: str, role: Role, **options: Any) -> Callable[[Handler], Handler]:
        return self._route("DELETE", path, role, options)

    def open(self, method: str, path: str, **options: Any) -> Callable[[Handler], Handler]:
        """A route that needs no token."""
        return self._add(method, path, ANYBODY, options)

    def _route(self, method: str, path: str, role: Role, options: dict[str, Any]) -> Callable[[Handler], Handler]:
        def check(account: Person) -> None:
            if not account.may(role):
                raise HttpError(
                    403, "role", f"{account.name} is {account.role}, and this needs the role {role}; ask for it"
                )

        return self._add(method, path, role, options | {"dependencies": [Depends(check)]})

    def _add(self, method: str, path: str, role: str, options: dict[str, Any]) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            extra = {ROLE_KEY: role}
            self.router.add_api_route(f"/api{path}", handler, methods=[method], openapi_extra=extra, **options)
            return handler

        return add


def cookie_of(request: Request) -> str:
    """Name of the cookie that holds the token: one per port, since browsers do not tell ports apart."""
    return f"samif-console-{request.url.port or 0}"


def token_of(request: Request) -> str | None:
    """The token of a request, from its header or cookie."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.cookies.get(cookie_of(request))


def person(request: Request) -> Account:
    """Who sent a request.

    Raises:
        HttpError: 401 without a valid token; 403 where a request that changes something lacks HEADER.
    """
    accounts: Accounts = request.app.state.accounts
    token = token_of(request)
    account = accounts.find(token) if token else None
    if account is None:
        raise HttpError(
            401, "token", "a valid token is needed; open the address that 'samif console' printed",
            {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip
    if request.method not in ("GET", "HEAD") and HEADER not in request.headers:
        raise HttpError(403, "origin", f"a request that changes something needs the header {HEADER}; send it")
    return account


Person = Annotated[Account, Depends(person)]
