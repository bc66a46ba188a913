"""An error that says that memory ran out, told from all others."""

from __future__ import annotations

from typing import Literal

Memory = Literal["memory", "GPU memory"]


def full_memory(error: BaseException) -> Memory | None:
    """Which memory was full, if that is what an error says; torch need not be loaded."""
    if type(error).__name__ == "OutOfMemoryError" and type(error).__module__.partition(".")[0] == "torch":
        return "GPU memory"
    # PyTorch's allocator of the CPU has no error class of its own.
    return "memory" if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) else None
