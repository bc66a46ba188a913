"""Memory and thread settings of a process that works with tensors, and errors that mean that memory ran out."""

from __future__ import annotations

import contextlib
import ctypes
import os

from samif.errors import OutOfMemory

# By default glibc maps each large tensor anew and takes the page faults again.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES = 1 << 30
_MMAP_BYTES = 32 << 20  # the most that glibc takes

_REMEDY = "finished stages are kept"


def tune_process() -> None:
    """Set up memory and threads of this process and, through the environment, of the processes that it starts: stages
    and the workers of a private Ray cluster. Call it before torch is loaded.

    Freed memory is reused instead of returned to the system, which makes proposals with `tiny` 3 to 12 % faster.
    OpenMP's threads sleep while they wait: by default they spin, and with another process on one of their cores a
    session of half a minute took seven minutes. infra/Dockerfile sets the same variables for the nodes of a cluster.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(_TRIM_BYTES))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(_MMAP_BYTES))
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        libc.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The error for a person if `error` means that memory ran out, else None; torch need not be loaded."""
    if isinstance(error, OutOfMemory):
        return error
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.partition(".")[0] == "torch":
        return OutOfMemory(
            "out of GPU memory; stop other processes that use the GPU, or compute on the CPU with "
            f"CUDA_VISIBLE_DEVICES= before the command; {_REMEDY}"
        )
    # PyTorch's CPU allocator has no error class of its own.
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return OutOfMemory(f"out of memory; stop other processes and run the same command again; {_REMEDY}")
    return None
