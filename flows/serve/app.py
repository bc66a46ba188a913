"""The HTTP side of a replica: authentication, requests, answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.http.auth import matches
from flows.http.errors import HttpError, busy
from flows.serve.answers import Answer, CanaryStatus, ErrorAnswer, Replicas, ShadowView, Status, instances_of, model_of
from flows.serve.limits import Admission, read_image_bytes
from flows.serve.metrics import Metrics
from flows.serve.replica_status import read_replicas

if TYPE_CHECKING:
    from flows.serve.replica import Outcome, Replica

BEARER = HTTPBearer(auto_error=False)
BINARY = {"schema": {"type": "string", "format": "binary"}}
BODY = {
    "required": True,
    "content": {
        "image/*": BINARY,
        "application/octet-stream": BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {"image": {"type": "string", "format": "binary"}},
            }
        },
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of an operation, for its document."""
    return {status: {"model": ErrorAnswer} for status in statuses}


def build_app(replica: Replica) -> FastAPI:
    """Paths of the service; `/healthz`, `/readyz`, `/openapi.json` and `/v1/refresh` ask for no token."""
    limits = replica.settings.limits
    admission = Admission(limits.queue, replica.metrics.queue.set)
    app = FastAPI(title="samif", version=version("samif"), docs_url=None, redoc_url=None)
    app.add_middleware(CountAnswers, metrics=replica.metrics)
    app.add_exception_handler(HttpError, _refused)
    app.add_exception_handler(HTTPException, _no_such)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _internal_error)

    def allowed(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if not matches(given.credentials if given else None, replica.settings.token_sha256):
            raise HttpError(
                401, "token", "the bearer token is missing or wrong; send 'Authorization: Bearer TOKEN'",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    guarded: dict[str, Any] = {"dependencies": [Depends(allowed)]}

    @app.post(
        "/v1/segment", response_model=Answer, openapi_extra={"requestBody": BODY},
        responses=problems(400, 401, 408, 413, 415, 422, 503), **guarded,
    )  # fmt: skip
    async def segment(
        request: Request,
        score: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False, description="Least score.")] = None,
        part: Annotated[
            str | None,
            Header(alias="X-Samif-Part", description="Id of the part: its images are answered by the same version."),
        ] = None,
    ) -> JSONResponse:
        """Find and name the objects of an image."""
        replica.check_loaded()
        admission.enter()
        work: asyncio.Task[Outcome] | None = None
        try:
            began = time.perf_counter()
            body = await read_image_bytes(request, limits)
            received = time.perf_counter() - began
            replica.metrics.seconds.labels("receive").observe(received)
            work = asyncio.ensure_future(replica.segment(body, score, part))
            try:
                outcome = await asyncio.wait_for(asyncio.shield(work), limits.work_seconds)
            except TimeoutError:
                raise busy(f"there was no answer within {limits.work_seconds:g} seconds; try again") from None
            replica.metrics.seconds.labels("total").observe(time.perf_counter() - began)
            return JSONResponse(_answer(outcome, received))
        finally:
            if work is None or work.done():
                admission.leave()
            else:  # the client left or the time is over, but it still runs: it counts until it ends
                work.add_done_callback(lambda done: _over(done, admission))

    @app.get("/healthz")
    async def healthz() -> Status:
        """Whether the process answers."""
        return Status(status="alive")

    @app.get("/readyz", responses=problems(503))
    async def readyz() -> Status:
        """Whether a model is loaded."""
        replica.check_loaded()
        return Status(status="ready")

    @app.get("/v1/model", response_model=Replicas, responses=problems(401), **guarded)
    def model() -> JSONResponse:
        """What every replica serves, what it served before, and the last version that could not be loaded."""
        return JSONResponse({"replicas": read_replicas(replica.settings.state)})

    @app.get("/v1/shadow", response_model=ShadowView, responses=problems(401), **guarded)
    def shadow() -> JSONResponse:
        """How often the challenger differs from the answers of the champion."""
        settings, views = replica.settings.shadow, read_replicas(replica.settings.state)
        counts: Counter[str] = sum((Counter(view["shadow"]) for view in views), Counter())
        return JSONResponse(
            {
                "ref": settings.ref if settings else None,
                "folder": str(settings.folder) if settings and settings.folder else None,
                "counts": counts,
                "replicas": [view["challenger"] for view in views if view["challenger"]],
            }
        )

    @app.get("/v1/canary", response_model=CanaryStatus, responses=problems(401), **guarded)
    def canary() -> JSONResponse:
        """Whether the canary answers requests, what its checks found, and why it was rolled back."""
        views = read_replicas(replica.settings.state)
        return JSONResponse({"replicas": [view["canary"] for view in views if view["canary"]]})

    @app.post("/v1/refresh", status_code=202)
    async def refresh() -> Status:
        """Ask every replica to poll the alias at once. The body of the request is not read."""
        replica.settings.refresh_request.touch()
        return Status(status="polling")

    @app.get(
        "/metrics", response_class=Response, **guarded,
        responses=problems(401) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )  # fmt: skip
    def metrics() -> Response:
        """For Prometheus, over all replicas."""
        return Response(replica.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    return app


class CountAnswers:
    """Counts what every request was answered with; paths that do not exist share one name."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(path, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # the exception handler outside of this one answers
            self._metrics.requests.labels("other", "500").inc()
            raise


def _answer(outcome: Outcome, received: float) -> dict[str, Any]:
    found = outcome.instances
    return {
        "model": model_of(outcome.version),
        "width": found.width,
        "height": found.height,
        "instances": instances_of(found),
        "timings": {part: round(value, 6) for part, value in ({"receive": received} | outcome.seconds).items()},
    }


def _over(work: asyncio.Task[Outcome], admission: Admission) -> None:
    if not work.cancelled():
        work.exception()  # marks it as retrieved; the answer was given already
    admission.leave()


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError)
    return JSONResponse(error.content, error.status, error.headers)


def _no_such(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    sentence = f"{request.method} {request.url.path}: {error.detail}; see /openapi.json"
    headers = dict(error.headers or {})
    return JSONResponse(HttpError(error.status_code, "no_such_operation", sentence).content, error.status_code, headers)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    sentence = f"{first['loc'][-1]}: {first['msg']}; see /openapi.json"
    return JSONResponse(HttpError(422, "parameter", sentence).content, 422)


def _internal_error(_: Request, error: Exception) -> JSONResponse:
    sentence = f"internal error ({type(error).__name__}); please report it with the image"
    return JSONResponse(HttpError(500, "internal", sentence).content, 500)
