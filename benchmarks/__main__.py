"""`make bench`: run the comparisons (all, or those named), print the table, write RESULTS.md (after each comparison,
so that what was measured stays where a later one fails).

python -m benchmarks [NAME ...] [--images FOLDER --annotations FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import decoder, embedding_flow, encoder, evaluation, everything, store, store_index
from benchmarks.measure import Comparison
from flows.runtime.tuning import tune_process

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="some of the comparisons")
    parser.add_argument("--images", type=Path, help="folder of images to segment completely, besides the demo line")
    parser.add_argument("--annotations", type=Path, help="their COCO file")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write (default: RESULTS.md)")
    args = parser.parse_args()
    comparisons: dict[str, Callable[[], Iterable[Comparison]]] = {
        "encoder": encoder.run,
        "decoder": decoder.run,
        "everything": lambda: everything.run(args.images, args.annotations),
        "evaluation": evaluation.run,
        "store": store.run,
        "store_index": lambda: [store_index.run()],
        "embedding_flow": embedding_flow.run,
    }
    if unknown := set(args.names) - comparisons.keys():
        parser.error(f"there is no comparison {', '.join(sorted(unknown))}; choose from {', '.join(comparisons)}")
    tune_process()
    out, found = Console(), list[Comparison]()
    for name in args.names or comparisons:
        with out.status(f"measuring: {name}"):
            for comparison in comparisons[name]():
                found.append(comparison)
                args.out.write_text(_page(found, args.names), encoding="utf-8")
                out.print(" | ".join(_cells(comparison)[:5]), highlight=False, soft_wrap=True)
    _print(found)


def _cells(c: Comparison) -> list[str]:
    low, middle, high = (f"{ratio:.2f}" for ratio in c.ratio)
    return [c.name, c.other, _time(c.ours_s), _time(c.other_s), f"{middle} ({low} to {high})", c.note]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _page(found: Sequence[Comparison], names: Sequence[str]) -> str:
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    rows = [
        ["what", "against", "ours", "theirs", "ratio: median (least to most)", ""],
        ["---"] * 6,
        *map(_cells, found),
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    command = f"python -m benchmarks {' '.join(names)}" if names else "make bench"
    return f"# Results\n\n`{command}` on {machine}. Ratios are taken pair by pair in one run.\n\n{table}\n"


def _print(found: Sequence[Comparison]) -> None:
    table = Table("what", "against", "ours", "theirs", "ratio", "note")
    for comparison in found:
        table.add_row(*_cells(comparison))
    Console().print(table)


if __name__ == "__main__":
    main()
