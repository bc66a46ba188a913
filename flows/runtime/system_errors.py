"""Errors of the operating system as one sentence: a full disk, missing rights, a read-only file system, limits."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from flows.runtime.tuning import out_of_memory
from samif.errors import OutOfMemory, SamifError, SystemRefused

_AGAIN = "then run the same command again; finished stages are kept"

_SENTENCES = {
    errno.ENOSPC: f"there is no space left on the disk{{at}}; free some, {_AGAIN}",
    errno.EDQUOT: f"the disk quota of this user is used up{{at}}; free some space or ask for more, {_AGAIN}",
    errno.EFBIG: "a file would be larger than this user or file system allows{at}; raise the limit (ulimit -f), or use "
    "another disk",
    errno.EROFS: "the file system is read-only{at}; use a folder that can be written, or mount it for writing",
    errno.EACCES: "permission denied{at}; give this user the right to read and write there, or use another folder",
    errno.EPERM: "the system does not permit it{at}; give this user the right to read and write there, or use another "
    "folder",
    errno.ENAMETOOLONG: "a file name or path is too long for the file system{at}; use shorter names",
    errno.EILSEQ: "the file system does not take the characters of a file name{at}; rename the file",
    errno.EMFILE: f"this process has too many open files; raise the limit (ulimit -n 4096), {_AGAIN}",
    errno.ENFILE: f"this machine has too many open files; close other programs, {_AGAIN}",
    errno.EAGAIN: "this user may start no more processes or threads; end others or raise the limit (ulimit -u), "
    + _AGAIN,
    errno.EIO: "the disk cannot be read or written{at} (input/output error); check the disk and its cable or network",
    errno.ESTALE: f"a network file system was lost{{at}}; mount it again, {_AGAIN}",
    errno.ENODEV: f"a device is not there any more{{at}}; mount it again, {_AGAIN}",
    errno.ENOTDIR: "a part of a path is a file, not a folder{at}; correct the path",
    errno.EISDIR: "a folder is in the place of a file{at}; move it away",
    errno.ELOOP: "a link leads back to itself{at}; remove the link",
    errno.ETXTBSY: f"a file is in use{{at}}; wait for the other program to end, {_AGAIN}",
}
"""Sentence of each error number; {at} is the place where there is one."""

# Libraries in Rust and C, and databases, give only a text.
_TEXTS = {
    r"\(os error (\d+)\)": None,
    r"\[[Ee]rrno (\d+)\]": None,
    r"[Nn]o space left on device|database or disk is full": errno.ENOSPC,
    r"[Dd]isk quota exceeded": errno.EDQUOT,
    r"Read-only file system|attempt to write a readonly database": errno.EROFS,
    r"[Tt]oo many open files": errno.EMFILE,
    r"can't start new thread": errno.EAGAIN,
}


def system_error(error: BaseException) -> SamifError | None:
    """The error for a person if `error`, or one of its causes, is the operating system's refusal, else None."""
    for cause in _chain(error):
        if isinstance(cause, SamifError):
            return cause
        if (full := out_of_memory(cause)) is not None:
            return full
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return OutOfMemory(f"out of memory; stop other processes, {_AGAIN}")
        if isinstance(cause, FileNotFoundError) and "No usable temporary directory" in str(cause):
            return SystemRefused(
                "no folder for temporary files can be written; free space in /tmp, or set TMPDIR to a folder with space"
            )
        number = cause.errno if isinstance(cause, OSError) and cause.errno is not None else _number_in(str(cause))
        if number in _SENTENCES:
            return SystemRefused(_SENTENCES[number].format(at=_place(cause)))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its declared causes; also the one that Ray brings from a worker. Not the context, in which another
    error may have been dealt with."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, getattr(current, "cause", None)]
        waiting += [value for value in current.args if isinstance(value, BaseException)]


def _number_in(text: str) -> int | None:
    for pattern, number in _TEXTS.items():
        if found := re.search(pattern, text):
            return number or int(found[1])
    return None


def _place(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str) or not name:
        return ""
    return f" ({name if len(name) <= 120 else name[:60] + '...' + name[-57:]})"


def sentence_of(error: Exception) -> str:
    """An error for people: its own sentence, or its kind and what it says."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, SamifError) else f"{type(error).__name__}: {text}"
