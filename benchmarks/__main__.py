"""`make bench`: run every comparison, print the table, write RESULTS.md.

python -m benchmarks
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from rich.console import Console

from benchmarks import decoder, evaluation

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measure, print, record."""
    lines = ["| what | against | ours | theirs | ratio (min, median, max) | |", "|---|---|---|---|---|---|"]
    for module in (decoder, evaluation):
        c = module.run()
        low, middle, high = c.ratio
        lines.append(
            f"| {c.name} | {c.other} | {c.ours_s * 1e3:.0f} ms | {c.other_s * 1e3:.0f} ms "
            f"| {low:.2f}, **{middle:.2f}**, {high:.2f} | {c.note} |"
        )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    head = f"# Results\n\n`make bench` on {machine}. Ratios are taken pair by pair in one run.\n\n"
    RESULTS.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    Console().print("\n".join(lines), soft_wrap=True)


if __name__ == "__main__":
    main()
