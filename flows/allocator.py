"""glibc's allocator, set for tensors: by default every large one is mapped anew and page-faulted in again."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES = 1 << 30
_MMAP_BYTES = 32 << 20  # the most that glibc takes


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of returning it: 3 to 12 % off proposals with `tiny`."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
