"""Label files as JSON or XML, in any Unicode encoding, with one sentence for what cannot be read."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from samif.errors import DataError


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is a gzip file.

    Raises:
        DataError: the file cannot be read, is empty or damaged.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is a damaged gzip file; copy it again from its origin") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name a file of labels") from None
    if not data.strip():
        raise DataError(f"{path} is empty; export the labels again")
    return data


def read_text(path: Path) -> str:
    """The text of a file: UTF-8 or UTF-16 with a byte order mark, else Latin-1."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_json(path: Path) -> Any:
    """Raises DataError: the file cannot be read or is not JSON."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); export the labels again") from None


def read_xml(path: Path) -> ElementTree.Element:
    """Raises DataError: the file cannot be read or is not XML."""
    try:
        return ElementTree.fromstring(read_bytes(path))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not XML ({error}); export the labels again") from None
