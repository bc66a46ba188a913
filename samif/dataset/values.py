"""Values of a COCO record as tools write them: numbers in quotes, 1.0 for 1, names with line breaks."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

_WHOLE = re.compile(r"[+-]?\d{1,19}(\.0*)?")
_LARGEST = 2**62
"""Ids beyond this are numbered anew, which leaves room for the new numbers in 64 bits."""

_FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "": False}

Key = int | str
"""What an id is compared by: a whole number in any clothing is that number, everything else a text."""


def get(record: object, key: str, default: object = None) -> Any:
    """A value of a record that may not even be an object."""
    return record.get(key, default) if isinstance(record, dict) else None


def whole(value: object) -> int | None:
    """12 for 12, 12.0, "12" and "12.0"; None for true, 1.5, text and numbers beyond 64 bits."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        number = int(value.strip().partition(".")[0])
    return number if number is not None and abs(number) <= _LARGEST else None


def number_of(value: object) -> float | None:
    """A finite number, also one in quotes; None for true, NaN, Infinity and everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # text; an integer beyond the range of float
        return None
    return number if math.isfinite(number) else None


def key_of(value: object) -> Key | None:
    """What an id is compared by; None where there is no id."""
    if (number := whole(value)) is not None:
        return number
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    return text_of(str(value)) if isinstance(value, str) else repr(value)[:60]


def flag_of(value: object) -> bool | None:
    """`iscrowd` as 0, 1, true, "1" or null; None for anything else."""
    if value is None:
        return False
    if isinstance(value, bool | int | float):
        return bool(value) if value in (0, 1) else None
    return _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None


def text_of(value: object) -> str | None:
    """A name on one line, without blanks around it and in Unicode's composed form (macOS writes the other); a number
    as its digits. None for what cannot be written or passed to the file system."""
    if not isinstance(value, str):
        number = whole(value)
        return None if number is None else str(number)
    name = unicodedata.normalize("NFC", re.sub(r"[\t\r\n]+", " ", value).strip())
    odd = any(ord(character) < 32 or "\ud800" <= character <= "\udfff" for character in name)
    return None if odd or not name else name


def file_name_of(value: object) -> str | None:
    """A file name exactly as it is written, None for what the file system cannot take."""
    if not isinstance(value, str) or not value.strip() or any(ord(character) < 32 for character in value):
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in value) else value


def new_ids(taken: Iterable[int]) -> Iterator[int]:
    """Numbers above all of `taken`, one after the other."""
    number = max(taken, default=0)
    number = max(number, 0)
    while True:
        number += 1
        yield number
