"""The console's HTTP application: routes with roles, refusals in one sentence, headers, and the files of the page."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from flows.console import (
    import_routes,
    label_routes,
    person_routes,
    point_routes,
    review_routes,
    run_routes,
    set_routes,
    trial_routes,
    version_routes,
)
from flows.console.accounts import Accounts
from flows.console.body import LimitBody
from flows.console.state import Console
from flows.http.errors import HttpError
from flows.runtime.system_errors import system_error
from flows.workspace.lock import BusyError
from samif.errors import ConfigError, DataError, GateFailed, ObjectMissing, SamifError, ServiceUnavailable

logger = logging.getLogger(__name__)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'none'; frame-ancestors 'self'; base-uri 'none'"
)
"""Content security policy of every answer: nothing from outside, and no script but the page's own files."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_STATUS: dict[type[SamifError], tuple[int, str]] = {
    BusyError: (409, "busy"),
    GateFailed: (409, "refused"),
    ObjectMissing: (404, "missing"),
    ServiceUnavailable: (503, "unavailable"),
    ConfigError: (422, "config"),
    DataError: (422, "data"),
}
"""HTTP status and code of refusals; of others 409 and `error`."""


def build_app(console: Console, accounts: Accounts) -> FastAPI:
    """The application over workspaces, for the persons of `accounts`."""
    app = FastAPI(
        title="samif console", version=version("samif"), docs_url=None, redoc_url=None, openapi_url=None
    )  # fmt: skip
    app.state.console, app.state.accounts = console, accounts
    app.add_exception_handler(HttpError, _http_error)
    app.add_exception_handler(SamifError, _refusal)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(Exception, _internal)
    app.middleware("http")(_headers)
    app.add_middleware(LimitBody)
    parts = (person_routes, set_routes, label_routes, run_routes, version_routes, point_routes, review_routes)
    for part in (*parts, import_routes, trial_routes):
        app.include_router(part.routes.router)
    app.mount("/", StaticFiles(directory=str(files("flows") / "console" / "static"), html=True))
    return app


async def _headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError)
    return JSONResponse(error.content, error.status, error.headers)


async def _refusal(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SamifError)
    status, code = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), (409, "error"))
    return JSONResponse(HttpError(status, code, str(error)).content, status)


async def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return JSONResponse(HttpError(422, "shape", f"{where}: {first['msg'].lower()}").content, 422)


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    sentence = "there is no such address" if error.status_code == 404 else str(error.detail).lower()
    return JSONResponse(HttpError(error.status_code, "http", sentence).content, error.status_code, error.headers)


async def _internal(request: Request, error: Exception) -> JSONResponse:
    if (known := system_error(error)) is not None:
        return JSONResponse(HttpError(507, "system", str(known)).content, 507)
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    sentence = f"internal error: {type(error).__name__}; please report it with the lines on the console's terminal"
    return JSONResponse(HttpError(500, "internal", sentence).content, 500, HEADERS)
