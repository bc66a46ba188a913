"""HTTP interface of the receiver: checks deliveries, queues their requests, reports health."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from flows.http.errors import HttpError
from flows.http.signature import TOLERANCE_SECONDS, check, replayed
from flows.triggers.events import cause_of
from flows.triggers.queue import Queue
from flows.workspace.run_request import request_of
from samif.errors import ConfigError, IntegrityError, ObjectMissing, ServiceUnavailable

MOST_BYTES = 1_000_000
UPLOAD_SECONDS = 15.0


@dataclass(frozen=True)
class Receiver:
    """Settings of a receiver.

    Attributes:
        root: the workspace whose runs it requests.
        secret: shared with the senders.
        prefixes: s3://bucket/prefix; events about other objects start nothing. Without any, all count.
        wake: called when something was queued.
        failure: why queued requests are not carried out at present; none if they are.
        clock: Unix seconds.
    """

    root: Path
    secret: str
    prefixes: Sequence[str] = ()
    wake: Callable[[], None] = lambda: None
    failure: Callable[[], str | None] = lambda: None
    clock: Callable[[], float] = time.time

    def receive(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Check a delivery and queue its request; HTTP status and the state of the request.

        Raises:
            HttpError: the signature is invalid, it is no event, or the workspace or its queue cannot be used.
        """
        now = self.clock()
        delivery = check(headers, body, self.secret)
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            raise HttpError(400, "json", "the body is not JSON; send an S3 event or an MLflow webhook") from None
        try:
            cause = cause_of(payload, delivery.at, self.prefixes)
            if cause is None:
                return 200, "ignored"
            # the data are read when the run starts: an upload of many files must not read them for each event
            request = request_of(self.root, "webhook", f"event: {cause}", cause, with_data=False)
            answer = Queue(self.root).accept(delivery, request, now, 2 * TOLERANCE_SECONDS + 1)
        except (ConfigError, IntegrityError, ObjectMissing, ServiceUnavailable) as error:
            raise HttpError(503, "workspace", f"the workspace takes no request now: {error}") from None
        if answer == "replayed":
            raise replayed()
        if answer == "full":
            raise HttpError(503, "full", "too many requests wait; send it again later", {"Retry-After": "60"})
        if answer == "queued":
            self.wake()
        return (202, "queued") if answer == "queued" else (200, "known")


def build_app(receiver: Receiver) -> FastAPI:
    """Paths of the receiver: `POST /v1/events` for signed events, `/healthz` for anybody."""
    app = FastAPI(title="samif trigger", version=version("samif"), docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HttpError, _refused)

    @app.post("/v1/events")
    async def events(request: Request) -> JSONResponse:
        body = await _body(request)
        status, state = await run_in_threadpool(receiver.receive, request.headers, body)
        return JSONResponse({"state": state}, status)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        if (failure := receiver.failure()) is not None:
            return JSONResponse({"status": "failing", "error": failure}, 503)
        return JSONResponse({"status": "alive"})

    return app


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise HttpError(413, "too_many_bytes", f"the body is longer than {MOST_BYTES} bytes", _CLOSE)
    except TimeoutError:
        raise HttpError(408, "slow", f"the body had not arrived after {UPLOAD_SECONDS:g} seconds", _CLOSE) from None
    except ClientDisconnect:
        raise HttpError(400, "cut_short", "the connection ended before the end of the body") from None
    return bytes(body)


_CLOSE = {"Connection": "close"}


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError)
    return JSONResponse(error.content, error.status, error.headers)
