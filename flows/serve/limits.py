"""Keeping a request inside its limits: room in the queue, a body of bounded size in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from flows.http.errors import HttpError, busy
from flows.serve.settings import Limits

PLAIN_TYPES = ("application/octet-stream", "")
MULTIPART = "multipart/form-data"


class Admission:
    """Counts requests in work or waiting; the next one beyond `most` is refused at once.

    Args:
        changed: called with the count whenever it changes.
    """

    def __init__(self, most: int, changed: Callable[[int], None] = lambda _: None) -> None:
        self._most, self._changed, self._count = most, changed, 0

    def enter(self) -> None:
        """Take a place; whoever does calls `leave` once.

        Raises:
            HttpError: 503 with Retry-After, there is none.
        """
        if self._count >= self._most:
            raise busy(f"{self._most} requests are waiting already; try again in a second")
        self._count += 1
        self._changed(self._count)

    def leave(self) -> None:
        self._count -= 1
        self._changed(self._count)


async def read_image_bytes(request: Request, limits: Limits) -> bytes:
    """The bytes of the image in a request: its body, or the one file of a multipart form.

    Raises:
        HttpError: 4xx; the body is too long, too slow, empty, of another type, or no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind in PLAIN_TYPES or kind == MULTIPART or kind.startswith("image/")):
        raise HttpError(
            415, "media_type", "the body is not said to be an image; send it as image/*, application/octet-stream or "
            "multipart/form-data",
        )  # fmt: skip
    body = await _read_body(request, limits)
    if kind == MULTIPART:
        body = await _only_file(request.headers, body)
    if not body:
        raise HttpError(400, "empty", "there is no image in the request; send its bytes as the body")
    return body


async def _read_body(request: Request, limits: Limits) -> bytes:
    said = request.headers.get("content-length", "")
    too_long = HttpError(
        413, "too_many_bytes", f"the body is longer than {limits.bytes} bytes; send a smaller image",
        {"Connection": "close"},
    )  # fmt: skip
    if said.isdecimal() and (len(said) > 18 or int(said) > limits.bytes):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.upload_seconds):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.bytes:
                    raise too_long
    except TimeoutError:
        raise HttpError(
            408, "slow", f"the body had not arrived after {limits.upload_seconds:g} seconds; send it faster",
            {"Connection": "close"},
        ) from None  # fmt: skip
    except ClientDisconnect:
        raise HttpError(400, "cut_short", "the connection ended before the body did; send it again") from None
    if said.isdecimal() and int(said) != len(body):
        raise HttpError(400, "cut_short", f"{said} bytes were announced and {len(body)} came; send it again")
    return bytes(body)


async def _only_file(headers: Headers, body: bytes) -> bytes:
    """The file in a form; its name is not looked at."""

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(headers, stream(), max_files=1, max_fields=4).parse()  # type: ignore[arg-type]
    except (MultiPartException, FormParserError, ValueError, KeyError, LookupError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HttpError(
            400, "form", f"the multipart form cannot be read ({reason}); send the image as the body"
        ) from None
    try:
        uploads = [item for _, item in form.multi_items() if isinstance(item, UploadFile)]
        if not uploads:
            raise HttpError(400, "form", "the form has no file; give the image as a part with a file name")
        return await uploads[0].read()
    finally:
        await form.close()
