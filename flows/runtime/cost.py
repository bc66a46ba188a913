"""What a process costs: seconds of processors and GPUs, its duration, and the memory of the largest process.

Counted are this process, the processes that it waited for, and Ray workers, which no process here waits for: each
reports its own time with its results.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import AwareDatetime, Field

from samif.config import Strict


class Cost(Strict):
    """Cost of a stage, or of several: seconds add up, and the largest memory stays.

    Attributes:
        began, ended: of the process; of several, of the first and the last.
        gpu_seconds: wall time x devices that were held; 0 where none was.
        peak_memory_mb: largest resident memory of a single process, in MB.
        made: SHA-256 of the file that the stage is known by; none where it has none.
    """

    began: Annotated[AwareDatetime, Field(strict=False)]  # text in a run record
    ended: Annotated[AwareDatetime, Field(strict=False)]
    wall_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory_mb: float
    made: str | None = None

    @property
    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.wall_seconds:.1f} s, {self.cpu_seconds:.1f} CPU seconds, {self.gpu_seconds:.1f} GPU seconds, "
            f"at most {self.peak_memory_mb:,.0f} MB in one process"
        )

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers by name."""
        return self.model_dump(include={"wall_seconds", "cpu_seconds", "gpu_seconds", "peak_memory_mb"})


Usage = tuple[float, float]
"""Processor seconds of a worker since its last report, and its peak memory in MB."""


class _Workers:
    """What Ray workers have reported to this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.cpu_seconds = self.gpu_seconds = self.peak_memory_mb = 0.0

    def add(self, usage: Usage) -> None:
        with self._lock:
            self.cpu_seconds += usage[0]
            self.peak_memory_mb = max(self.peak_memory_mb, usage[1])

    def hold_gpus(self, seconds: float, count: float) -> None:
        """Workers have held so many GPUs for so long."""
        with self._lock:
            self.gpu_seconds += seconds * count


WORKERS = _Workers()


class UsageMeter:
    """In a worker: what it has used since it was last asked."""

    def __init__(self) -> None:
        self._lock, self._reported = threading.Lock(), 0.0

    def read(self) -> Usage:
        with self._lock:
            now = _processor(resource.RUSAGE_SELF) + _processor(resource.RUSAGE_CHILDREN)
            used, self._reported = now - self._reported, now
            return used, _peak_mb()


def cost_of_process(made: str | None = None) -> Cost:
    """The cost of this process up to now, with its children and its Ray workers."""
    wall, ended = _age(), datetime.now(UTC)
    cpu = _processor(resource.RUSAGE_SELF) + _processor(resource.RUSAGE_CHILDREN) + WORKERS.cpu_seconds
    return Cost(
        began=ended - timedelta(seconds=wall),
        ended=ended,
        wall_seconds=round(wall, 3),
        cpu_seconds=round(cpu, 3),
        gpu_seconds=round(WORKERS.gpu_seconds + (wall if _has_used_gpu() else 0.0), 3),
        peak_memory_mb=round(max(_peak_mb(), WORKERS.peak_memory_mb), 1),
        made=made,
    )


def total(costs: Iterable[Cost]) -> Cost | None:
    """The sum of several; none of none."""
    parts = list(costs)
    if not parts:
        return None
    return Cost(
        began=min(part.began for part in parts),
        ended=max(part.ended for part in parts),
        wall_seconds=round(sum(part.wall_seconds for part in parts), 3),
        cpu_seconds=round(sum(part.cpu_seconds for part in parts), 3),
        gpu_seconds=round(sum(part.gpu_seconds for part in parts), 3),
        peak_memory_mb=max(part.peak_memory_mb for part in parts),
    )


def read_cost(path: Path) -> Cost | None:
    """The cost that a stage left; none where it left none, as for one that was restored."""
    try:
        return Cost.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _age() -> float:
    """Seconds since this process was started; psutil knows that to a second only."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # no /proc, as on macOS
        return max(0.0, time.time() - float(psutil.Process().create_time()))


def _processor(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _peak_mb() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    try:  # of this program alone: the other number also counts the program that it was started by
        own = int(re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[0])
    except (OSError, IndexError):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return max(own, children) * unit / 1e6


def _has_used_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
