"""`samif watch` on streams of the demo line: undisturbed, under light that drifts, and with an unknown part.

    python -m benchmarks.watch [--workspace .] [--seeds 20] [--cache FOLDER] [--page benchmarks/WATCH.md]

The version that is watched is the one before the line's last session; the parts of that session are the unknown ones.
It is watched twice: against the validation images that show none of them, and against 300 ordinary images. All
undisturbed streams are held against the same reference, so what is unlucky about it they share; how often an alarm is
false is therefore also measured over many references drawn from all undisturbed images.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.watch_streams import CHANGE, DIMMEST, LENGTH, SHARE, Stream, look, ordinary
from flows.registry.registry import Registry
from flows.runtime.progress import track
from flows.watch.reference import Reference, References
from flows.workspace.layout import Layout
from samif.config import BASE, Params, load_params
from samif.errors import SamifError
from samif.watch.charts import Levels, Normal
from samif.watch.observe import CLASS_PREFIX, Observation

ORDINARY = 300
AGAINST_EACH = 5
"""Undisturbed streams held against each drawn reference."""


def alarms(seen: Sequence[Observation], normal: Normal) -> dict[str, int]:
    """Statistic -> number of the image at which it first alarmed; all classes together are `classes`."""
    levels, found = Levels.start(normal), dict[str, int]()
    for number, image in enumerate(seen, start=1):
        levels = levels.after(*normal.measure(image), normal)
        for reading in levels.readings(normal):
            if reading.side:
                found.setdefault("classes" if reading.name.startswith(CLASS_PREFIX) else reading.name, number)
    return found


def row(what: str, against: str, found: Sequence[dict[str, int]], change: int) -> str:
    """A line of the table; times count from the change."""
    early = sum(bool(each) and min(each.values()) <= change for each in found)
    times = sorted(min(each.values()) - change for each in found if each and min(each.values()) > change)
    by = Counter(name for each in found for name, at in each.items() if at > change)
    told = ", ".join(f"{name} {count}" for name, count in by.most_common()) or "-"
    delay = f"{statistics.median(times):g} ({times[0]} to {times[-1]})" if times else "-"
    cells = [what, against, f"{len(times)} of {len(found)}", delay, told, str(early)]
    return f"| {' | '.join(cells)} |"


def table(streams: Sequence[Stream], normals: dict[str, Normal]) -> list[str]:
    lines = [
        "| stream | reference | alarms | images until the first: median (min to max) | charts that alarmed "
        "| alarms before the change |",
        "|---|---|---|---|---|---|",
    ]
    strangers = sorted({stream.stranger for stream in streams})
    for against, normal in normals.items():
        lines.append(row("undisturbed", against, [alarms(s.calm, normal) for s in streams], 0))
        lines.append(row("light drifts", against, [alarms(s.of("dark"), normal) for s in streams], CHANGE))
        strange = [(s.stranger, alarms(s.of("strange"), normal)) for s in streams]
        lines.append(row("an unknown part", against, [found for _, found in strange], CHANGE))
        for name in strangers:
            lines.append(row(f"- of these, {name}", against, [f for n, f in strange if n == name], CHANGE))
    return lines


def false_alarms(pool: Sequence[Observation], like: Reference, size: int, count: int, params: Params) -> str:
    """A line of the second table: references of `size` images drawn from `pool`, streams drawn from the others."""
    rng, by, shares = np.random.default_rng(size), Counter[str](), list[float]()
    with track(count, "references", f"draw {size} images") as progress:
        for _ in range(count):
            order = rng.permutation(len(pool))
            normal, _digest = replace(like, seen=[pool[i] for i in order[:size]]).normal(params)
            found = []
            for _ in range(AGAINST_EACH):
                chosen = rng.choice(order[size:], params.watch.horizon, replace=False)
                found.append(alarms([pool[i] for i in chosen], normal))
            by.update(name for each in found for name in each)
            shares.append(sum(map(bool, found)) / AGAINST_EACH)
            progress.advance()
    told = ", ".join(f"{name} {times}" for name, times in by.most_common()) or "-"
    half = 1.96 * statistics.stdev(shares) / math.sqrt(count)
    unlucky = sum(share > 0 for share in shares)
    return (
        f"| {size} | {statistics.mean(shares):.3f} ± {half:.3f} | {params.watch.false_alarm:g} "
        f"| {unlucky} of {count} | {told} |"
    )


def version_before_last(registry: Registry, params: Params) -> tuple[str, tuple[str, ...]]:
    """The newest version of the session before the last one, and the classes that it does not know."""
    if not params.sessions:
        raise SamifError("this workspace has no session, so every part is known; use the demo line")
    names = [BASE, *params.sessions]
    rows = [r for r in registry.versions(params.line) if r.session == names[-2]]
    if not rows:
        raise SamifError(f"no version of session '{names[-2]}' is registered; run 'samif run'")
    return f"{params.line}/{rows[-1].version}", tuple(params.sessions[names[-1]].classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("."), help="a finished demo line")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0, help="other seeds are for trying other settings")
    parser.add_argument("--cache", type=Path, help="folder of what was seen (default: .samif/watch-benchmark)")
    parser.add_argument("--references", type=int, default=100, help="drawn to count false alarms")
    parser.add_argument("--page", type=Path)
    chosen = parser.parse_args()
    layout = Layout(chosen.workspace.resolve())
    params = load_params(layout.params)
    registry = Registry(params.registry.tracking_uri, layout.root)
    model, unknown = version_before_last(registry, params)
    cache = chosen.cache or layout.state / "watch-benchmark"
    cache.mkdir(parents=True, exist_ok=True)

    validation = References(layout, params, registry).make(model)
    more = replace(validation, seen=ordinary(layout.root, model, unknown, ORDINARY, cache))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    streams = []
    with track(len(seeds), "streams", "look") as progress:
        for seed in seeds:
            streams.append(look(layout.root, model, unknown, seed, cache))
            progress.advance()
    pool = [*more.seen, *(image for stream in streams for image in stream.calm)]
    sizes = sorted({len(validation.seen), ORDINARY})
    promise = [false_alarms(pool, validation, size, chosen.references, params) for size in sizes]
    text = page(streams, validation, more, model, unknown, params, promise)
    print(text)
    if chosen.page:
        chosen.page.write_text(text, encoding="utf-8")


def page(
    streams: Sequence[Stream],
    validation: Reference,
    more: Reference,
    model: str,
    unknown: Sequence[str],
    params: Params,
    promise: Sequence[str],
) -> str:
    watch = params.watch
    normals = {
        f"{len(each.seen)} {name}": each.normal(params)[0]
        for each, name in ((validation, "validation images"), (more, "ordinary images"))
    }
    left = ", ".join(f"{share:.0%}" for share in DIMMEST)
    lines = [
        "# Detection delay and false alarms of samif watch", "",
        f"`python -m benchmarks.watch`, {os.cpu_count()} CPUs, Python {platform.python_version()}. Monitored version: "
        f"{model} of the demo line, which does not know {', '.join(unknown)}. {len(streams)} seeds, {LENGTH} images "
        f"per stream; the change begins after {CHANGE}.", "",
        "- **Undisturbed**: scenes generated like the validation images, those without an unknown part, as JPEG.",
        f"- **Light drifts**: the same scenes; over {LENGTH - CHANGE} images the light fades linearly to {left} "
        "of red, green and blue.",
        f"- **An unknown part**: from the change on, {SHARE:.0%} of the images show one part of one class that the "
        "version does not know, among two to eight others.", "",
        f"Limits: an undisturbed stream of {watch.horizon} images raises any alarm with probability "
        f"{watch.false_alarm:g}, so {len(streams)} streams of {LENGTH} are expected to raise about "
        f"{len(streams) * watch.false_alarm * LENGTH / watch.horizon:.1f}. Window {watch.window}. "
        "A disturbed stream that ended without an alarm is a miss. All streams of a row share one reference; for "
        "the variation over references see the last table.", "",
        *table(streams, normals), "",
        f"Undisturbed streams of {watch.horizon} images, {AGAINST_EACH} per reference; references resampled "
        f"from the {len(more.seen) + LENGTH * len(streams)} undisturbed images above (± is a 95 % interval):", "",
        "| images of the reference | streams with an alarm | specified | references with any | charts that alarmed |",
        "|---|---|---|---|---|",
        *promise, "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
