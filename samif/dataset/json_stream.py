"""The lists of a JSON object, one element at a time: a file of any size in a few megabytes of memory.

The standard library parses each element (`JSONDecoder.raw_decode`), which is as quick as parsing the whole and gives
the same values and the same messages.
"""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LIST, OTHER = object(), object()

_CHUNK = 1 << 20
_NEAR = 64
"""What ends so close to the end of what was read may only lack the rest."""
_BLANK = " \t\n\r"


class NotAnObject(Exception):
    """The file is empty, or holds something else than a JSON object."""


def elements(path: Path) -> Iterator[tuple[str, Any]]:
    """(key, element) of each list of the object in a file: UTF-8, UTF-16 or UTF-32, also as gzip.

    A key whose value is no list comes once, with OTHER as its element, and a key comes with LIST before the elements of
    its list.

    Raises:
        NotAnObject: it is no JSON object.
        json.JSONDecodeError, RecursionError: it is not JSON; `pos`, `lineno` and `colno` are those in the file.
        UnicodeDecodeError: it is not text; `start` is the position in the file, `object` one byte.
        OSError, EOFError, zlib.error: it cannot be read.
    """
    with path.open("rb") as file:
        zipped = file.peek(2)[:2] == b"\x1f\x8b"
        with gzip.open(file) if zipped else file as content:
            yield from _Parser(content.read).elements()


class _Parser:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        start = read(_CHUNK)
        encoding = json.detect_encoding(start)
        self._read, self._next = read, start
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._decode = json.JSONDecoder().raw_decode
        self._bytes = 0
        self._text, self._at, self._ended = "", 0, False
        self._before, self._line, self._column = 0, 1, 0  # characters, lines and columns before the text at hand

    def elements(self) -> Iterator[tuple[str, Any]]:
        if self._next[:2] == b"PK":  # a zip archive, which is not text either
            raise NotAnObject
        if self._peek() != "{":
            raise NotAnObject
        self._at += 1
        if self._peek() == "}":
            self._at += 1
        else:
            while True:
                if self._peek() != '"':
                    raise self._error("Expecting property name enclosed in double quotes", self._at)
                key = self._value()
                self._expect(":", "Expecting ':' delimiter")
                yield from self._list(key)
                if self._peek() == "}":
                    self._at += 1
                    break
                self._expect(",", "Expecting ',' delimiter")
        if self._peek():
            raise self._error("Extra data", self._at)

    def _list(self, key: str) -> Iterator[tuple[str, Any]]:
        if self._peek() != "[":
            self._value()
            yield key, OTHER
            return
        yield key, LIST
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            yield key, self._value()
            if self._peek() == "]":
                self._at += 1
                return
            self._expect(",", "Expecting ',' delimiter")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unfinished = error.pos >= len(self._text) - _NEAR or error.msg.startswith("Unterminated string")
                if unfinished and self._more():
                    continue
                raise self._error(error.msg, error.pos) from None
            if end >= len(self._text) - _NEAR and self._more():  # a number may go on, as 1 in 1.5
                continue
            self._at = end
            return value

    def _peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _BLANK:
                at += 1
            self._at = at
            if at < len(text):
                return text[at]
            if not self._more():
                return ""

    def _expect(self, wanted: str, otherwise: str) -> None:
        if self._peek() != wanted:
            raise self._error(otherwise, self._at)
        self._at += 1

    def _more(self) -> bool:
        """Read on, at least as much as is at hand, and forget what was parsed; False at the end."""
        if self._ended:
            return False
        size = max(_CHUNK, len(self._text) - self._at)
        content, self._next = self._next or self._read(size), b""
        pending = self._bytes - len(self._decoder.getstate()[0])
        try:
            more = self._decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.start + 1]
            at = pending + error.start
            raise UnicodeDecodeError(error.encoding, bad, at, at + 1, error.reason) from None
        self._bytes += len(content)
        self._ended = not content
        lines = self._text.count("\n", 0, self._at)
        self._column = self._at - self._text.rfind("\n", 0, self._at) - 1 if lines else self._column + self._at
        self._line += lines
        self._before += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return True

    def _error(self, message: str, at: int) -> json.JSONDecodeError:
        error = json.JSONDecodeError(message, self._text, at)
        if error.lineno == 1:
            error.colno += self._column
        error.lineno += self._line - 1
        error.pos = at + self._before
        error.args = (f"{message}: line {error.lineno} column {error.colno} (char {error.pos})",)
        error.doc = ""
        return error
