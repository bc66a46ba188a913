"""The limit of a request's body."""

from __future__ import annotations

import contextlib

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.http.errors import HttpError

MOST_BYTES = 64_000_000
"""Of a body: an image file, or the labels of an image."""


class _TooLong(Exception):
    pass


class LimitBody:
    """Refuses longer bodies with 413 before they are in memory, whether their length is announced or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received, begun = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MOST_BYTES:
                raise _TooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            if received <= MOST_BYTES or begun:  # else it says that the body cannot be parsed
                begun = True
                await send(message)

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        error = HttpError(413, "too_many_bytes", f"the body is longer than {MOST_BYTES} bytes; send a smaller one")
        refusal = JSONResponse(error.content, error.status, {"Connection": "close"})
        if announced.isdigit() and int(announced) > MOST_BYTES:
            await refusal(scope, receive, send)
            return
        with contextlib.suppress(_TooLong):
            await self._app(scope, counted, noted)
        if received > MOST_BYTES and not begun:
            await refusal(scope, receive, send)
