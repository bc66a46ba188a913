"""Uploads that nobody means well with, as raw requests: what each sends and what it may be answered."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO

from PIL import Image

from tests.support.served_line import TOKEN, png

Codes = tuple[int, ...]
NOTHING = 0
"""The connection was closed without an answer: allowed only where the request was no HTTP."""


def head(
    method: str = "POST", path: str = "/v1/segment", kind: str = "image/png", token: str = TOKEN, **more: str
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: samif", "Connection: close"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if kind:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def sent(body: bytes, kind: str = "image/png", **more: str) -> bytes:
    """A whole request with this body."""
    return head(kind=kind, Content_Length=str(len(body)), **more) + body


def form(name: str, body: bytes, boundary: str = "xx", end: str = "--") -> bytes:
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    return sent(part + body + f"\r\n--{boundary}{end}\r\n".encode(), f"multipart/form-data; boundary={boundary}")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, pixels: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is so large, whatever there is of it."""
    facts = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(kind: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **more: object) -> bytes:
    out = BytesIO()
    Image.new(mode, size).save(out, kind, **more)  # type: ignore[arg-type]
    return out.getvalue()


def animated(kind: str, frames: int = 200) -> bytes:
    images = [Image.new("RGB", (32, 24), (i, 0, 0)) for i in range(frames)]
    out = BytesIO()
    images[0].save(out, kind, save_all=True, append_images=images[1:])
    return out.getvalue()


GOOD = png()
BOMB = zlib.compress(bytes(64 << 20), 9)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"

CASES: dict[str, tuple[Callable[[], bytes], Codes]] = {
    "a good image": (lambda: sent(GOOD), (200,)),
    "a good form": (lambda: form("a.png", GOOD), (200,)),
    "no body": (lambda: sent(b""), (400,)),
    "no length and no body": (lambda: head(), (400,)),
    "text": (lambda: sent(b"no image at all"), (422,)),
    "text said to be text": (lambda: sent(b"hello", "text/plain"), (415,)),
    "json": (lambda: sent(b"{}", "application/json"), (415,)),
    "zeros": (lambda: sent(bytes(100_000)), (422,)),
    "svg with a file in it": (lambda: sent(SVG, "image/svg+xml"), (422,)),
    "postscript": (lambda: sent(EPS, "image/eps"), (422,)),
    "cut in half": (lambda: sent(GOOD[: len(GOOD) // 2]), (422,)),
    "signature only": (lambda: sent(GOOD[:8]), (422,)),
    "jpeg cut": (lambda: sent(saved("JPEG", (400, 400))[:-200], "image/jpeg"), (422,)),
    "image then a program": (lambda: sent(GOOD + b"MZ" + bytes(9000)), (200,)),
    "program then image": (lambda: sent(b"#!/bin/sh\n" + GOOD), (422,)),
    "image that is a zip too": (lambda: sent(saved("GIF") + b"PK\x05\x06" + bytes(18), "image/gif"), (200,)),
    "60000 x 60000 by its header": (lambda: sent(png_header(60_000, 60_000)), (422,)),
    "4294967295 x 1": (lambda: sent(png_header(2**31 - 1, 1)), (422,)),
    "0 x 0": (lambda: sent(png_header(0, 0)), (422,)),
    "a strip": (lambda: sent(saved("PNG", (20_000, 1))), (422,)),
    "bomb above the pixel limit": (lambda: sent(png_header(8_000, 8_000, BOMB)), (422,)),
    "bomb under the pixel limit": (lambda: sent(png_header(900, 900, BOMB)), (200, 422)),
    "text chunk that inflates": (
        lambda: sent(GOOD[:33] + chunk(b"zTXt", b"k\0\0" + BOMB) + GOOD[33:]), (200, 422),
    ),
    "colour profile that inflates": (
        lambda: sent(GOOD[:33] + chunk(b"iCCP", b"k\0\0" + BOMB) + GOOD[33:]), (200, 422),
    ),
    "wrong checksum": (lambda: sent(GOOD[:40] + b"\xff\xff" + GOOD[42:]), (422,)),
    "animated gif": (lambda: sent(animated("GIF"), "image/gif"), (200,)),
    "animated webp": (lambda: sent(animated("WEBP"), "image/webp"), (200,)),
    "many pages of tiff": (lambda: sent(animated("TIFF"), "image/tiff"), (200,)),
    "tiff whose pages go round": (lambda: sent(b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "image/tiff"), (422,)),
    "sixteen bits": (lambda: sent(saved("PNG", mode="I;16")), (200,)),
    "cmyk": (lambda: sent(saved("JPEG", mode="CMYK"), "image/jpeg"), (200,)),
    "broken exif": (lambda: sent(saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), "image/jpeg"), (200, 422)),
    "length above the limit": (lambda: head(Content_Length=str(10**11)), (413,)),
    "length of a hundred digits": (lambda: head(Content_Length="9" * 100), (400, 413)),
    "negative length": (lambda: head(Content_Length="-5") + GOOD, (400,)),
    "two lengths": (lambda: head(Content_Length="5, 6") + GOOD, (400,)),
    "length beyond the body": (lambda: head(Content_Length="50000") + GOOD, (400, 408)),
    "length short of the body": (lambda: head(Content_Length="10") + GOOD, (422,)),
    "more than the limit in chunks": (
        lambda: head(Transfer_Encoding="chunked") + (b"80000\r\n" + bytes(0x80000) + b"\r\n") * 6, (413,),
    ),
    "garbage for chunks": (lambda: head(Transfer_Encoding="chunked") + b"zz\r\nwhat\r\n", (400, NOTHING)),
    "chunks that never end": (lambda: head(Transfer_Encoding="chunked") + b"5\r\nhello\r\n", (400, 408)),
    "length and chunks": (
        lambda: head(Transfer_Encoding="chunked", Content_Length="3") + b"0\r\n\r\n", (400, NOTHING),
    ),
    "traversal in the name": (lambda: form("../../../etc/passwd", GOOD), (200,)),
    "zero byte in the name": (lambda: form("a\0.png", GOOD), (200, 400)),
    "name of 60 kB": (lambda: form("a" * 60_000, GOOD), (200, 400)),
    "form without an end": (lambda: form("a.png", GOOD, end=""), (200, 400)),
    "form of another boundary": (
        lambda: sent(b"--yy\r\n\r\nx\r\n--yy--", "multipart/form-data; boundary=xx"), (400,),
    ),
    "form without a boundary": (lambda: sent(GOOD, "multipart/form-data"), (400,)),
    "form of nothing": (lambda: sent(b"", "multipart/form-data; boundary=xx"), (400,)),
    "form of a hundred files": (
        lambda: sent(
            b'--xx\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\nx\r\n' * 100 + b"--xx--\r\n",
            "multipart/form-data; boundary=xx",
        ),
        (400,),
    ),
    "form of a hundred fields": (
        lambda: sent(
            b'--xx\r\nContent-Disposition: form-data; name="p"\r\n\r\nx\r\n' * 100 + b"--xx--\r\n",
            "multipart/form-data; boundary=xx",
        ),
        (400,),
    ),
    "header of 100 kB": (lambda: sent(GOOD, X_Long="a" * 100_000), (200, 400, 431, NOTHING)),
    "a thousand headers": (lambda: sent(GOOD, **{f"X-{i}": "a" for i in range(1000)}), (200, 400, 431, NOTHING)),
    "no http": (lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), (400, NOTHING)),
    "wrong method": (lambda: head("DELETE"), (405,)),
    "made-up method": (lambda: head("BREW"), (400, 405)),
    "another path": (lambda: head(path="/v1/../../etc/passwd"), (404, 405)),
    "score that is no number": (lambda: head(path="/v1/segment?score=nan", Content_Length="0"), (422,)),
    "no token": (lambda: sent(GOOD).replace(b"Authorization", b"X-Nothing"), (401,)),
    "wrong token": (lambda: sent(GOOD).replace(TOKEN.encode(), b"wrong"), (401,)),
    "token beyond ascii": (lambda: sent(GOOD).replace(TOKEN.encode(), b"\xff\xfe\xc3\xa4"), (401, 400)),
    "unknown encoding of the body": (lambda: sent(GOOD, Content_Encoding="gzip"), (200, 415, 422)),
}  # fmt: skip


def answer(port: int, request: bytes, seconds: float = 30.0) -> int:
    """Send a raw request and read to the end; the status, or NOTHING."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), seconds) as link:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            link.sendall(request)
        with suppress(ConnectionResetError):
            while piece := link.recv(1 << 16):
                got += piece
    first = bytes(got[:12]).split(b" ")
    return int(first[1]) if len(first) > 1 and first[1].isdigit() else NOTHING
