"""`samif watch` on streams of the demo line: undisturbed, under light that drifts, and with an unknown part.

    python -m benchmarks.watch [--workspace .] [--seeds 20] [--cache FOLDER] [--page benchmarks/WATCH.md]

The version that is watched is the one before the line's last session; the parts of that session are the unknown ones.
Two references are compared: the validation images that show none of them, and 300 ordinary images. All streams share
a reference and its sampling error; the rate of false alarms is therefore also measured over many references drawn from
all undisturbed images.
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

from benchmarks.watch_streams import CHANGE, DIMMEST, LENGTH, SHARE, Stream, observe_ordinary, observe_stream
from flows.registry.registry import Registry
from flows.runtime.progress import track
from flows.watch.reference import Reference, References
from flows.workspace.layout import Layout
from samif.config import BASE, Params, load_params
from samif.errors import SamifError
from samif.watch.charts import Baseline, Levels
from samif.watch.observe import CLASS_PREFIX, Observation

ORDINARY = 300
AGAINST_EACH = 5
"""Undisturbed streams per resampled reference."""


def alarms(observations: Sequence[Observation], baseline: Baseline) -> dict[str, int]:
    """Statistic -> number of the image at which it first alarmed; all classes together are `classes`."""
    levels, found = Levels.start(baseline), dict[str, int]()
    for number, image in enumerate(observations, start=1):
        levels = levels.after(*baseline.measure(image), baseline)
        for reading in levels.readings(baseline):
            if reading.side:
                found.setdefault("classes" if reading.name.startswith(CLASS_PREFIX) else reading.name, number)
    return found


def row(what: str, against: str, found: Sequence[dict[str, int]], change: int) -> str:
    """A line of the table; times count from the change."""
    early = sum(bool(each) and min(each.values()) <= change for each in found)
    times = sorted(min(each.values()) - change for each in found if each and min(each.values()) > change)
    by = Counter(name for each in found for name, at in each.items() if at > change)
    counts = ", ".join(f"{name} {count}" for name, count in by.most_common()) or "-"
    delay = f"{statistics.median(times):g} ({times[0]} to {times[-1]})" if times else "-"
    cells = [what, against, f"{len(times)} of {len(found)}", delay, counts, str(early)]
    return f"| {' | '.join(cells)} |"


def table(streams: Sequence[Stream], baselines: dict[str, Baseline]) -> list[str]:
    lines = [
        "| stream | reference | alarms | images until the first: median (min to max) | charts that alarmed "
        "| alarms before the change |",
        "|---|---|---|---|---|---|",
    ]
    novel_classes = sorted({stream.novel_class for stream in streams})
    for against, baseline in baselines.items():
        lines.append(row("undisturbed", against, [alarms(s.undisturbed, baseline) for s in streams], 0))
        lines.append(row("light drifts", against, [alarms(s.of("drifted"), baseline) for s in streams], CHANGE))
        novel = [(s.novel_class, alarms(s.of("novel"), baseline)) for s in streams]
        lines.append(row("an unknown part", against, [found for _, found in novel], CHANGE))
        for name in novel_classes:
            lines.append(row(f"- of these, {name}", against, [f for n, f in novel if n == name], CHANGE))
    return lines


def false_alarms(pool: Sequence[Observation], like: Reference, size: int, count: int, params: Params) -> str:
    """A line of the second table: references of `size` images drawn from `pool`, streams drawn from the others."""
    rng, by, shares = np.random.default_rng(size), Counter[str](), list[float]()
    with track(count, "references", f"draw {size} images") as progress:
        for _ in range(count):
            order = rng.permutation(len(pool))
            baseline, _digest = replace(like, observations=[pool[i] for i in order[:size]]).baseline(params)
            found = []
            for _ in range(AGAINST_EACH):
                chosen = rng.choice(order[size:], params.watch.horizon, replace=False)
                found.append(alarms([pool[i] for i in chosen], baseline))
            by.update(name for each in found for name in each)
            shares.append(sum(map(bool, found)) / AGAINST_EACH)
            progress.advance()
    counts = ", ".join(f"{name} {times}" for name, times in by.most_common()) or "-"
    half = 1.96 * statistics.stdev(shares) / math.sqrt(count)
    alarming = sum(share > 0 for share in shares)
    return (
        f"| {size} | {statistics.mean(shares):.3f} ± {half:.3f} | {params.watch.false_alarm:g} "
        f"| {alarming} of {count} | {counts} |"
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
    parser.add_argument("--first-seed", type=int, default=0, help="use other seeds to try other settings")
    parser.add_argument(
        "--cache", type=Path, help="folder of the stored observations (default: .samif/watch-benchmark)"
    )
    parser.add_argument("--references", type=int, default=100, help="resampled to count false alarms")
    parser.add_argument("--page", type=Path)
    chosen = parser.parse_args()
    layout = Layout(chosen.workspace.resolve())
    params = load_params(layout.params)
    registry = Registry(params.registry.tracking_uri, layout.root)
    model, unknown = version_before_last(registry, params)
    cache = chosen.cache or layout.state / "watch-benchmark"
    cache.mkdir(parents=True, exist_ok=True)

    validation = References(layout, params, registry).from_validation(model)
    more = replace(validation, observations=observe_ordinary(layout.root, model, unknown, ORDINARY, cache))
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    streams = []
    with track(len(seeds), "streams", "observe") as progress:
        for seed in seeds:
            streams.append(observe_stream(layout.root, model, unknown, seed, cache))
            progress.advance()
    pool = [*more.observations, *(image for stream in streams for image in stream.undisturbed)]
    sizes = sorted({len(validation.observations), ORDINARY})
    specified = [false_alarms(pool, validation, size, chosen.references, params) for size in sizes]
    text = page(streams, validation, more, model, unknown, params, specified)
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
    specified: Sequence[str],
) -> str:
    watch = params.watch
    baselines = {
        f"{len(each.observations)} {name}": each.baseline(params)[0]
        for each, name in ((validation, "validation images"), (more, "ordinary images"))
    }
    left = [f"{share:.0%}" for share in DIMMEST]
    total = len(more.observations) + LENGTH * len(streams)
    lines = [
        "# Detection delay and false alarms of samif watch", "",
        f"`python -m benchmarks.watch`, {os.cpu_count()} CPUs, Python {platform.python_version()}. Monitored version: "
        f"{model} of the demo line, which does not know {', '.join(unknown)}. {len(streams)} seeds, {LENGTH} images "
        f"per stream; the change begins after {CHANGE}.", "",
        "- **Undisturbed**: scenes generated like the validation images, those without an unknown part, as JPEG.",
        f"- **Light drifts**: the same scenes; over {LENGTH - CHANGE} images the light fades linearly to "
        f"{left[0]}, {left[1]} and {left[2]} of red, green and blue.",
        f"- **An unknown part**: from the change on, {SHARE:.0%} of the images show one part of one class that the "
        "version does not know, among two to eight others.", "",
        f"Limits: an undisturbed stream of {watch.horizon} images raises any alarm with probability "
        f"{watch.false_alarm:g}, so {len(streams)} streams of {LENGTH} are expected to raise about "
        f"{len(streams) * watch.false_alarm * LENGTH / watch.horizon:.1f}. Window {watch.window}. "
        "A disturbed stream that ended without an alarm is a miss. All streams of a row share one reference; for the "
        "variation over references see the last table.", "",
        *table(streams, baselines), "",
        f"Undisturbed streams of {watch.horizon} images, {AGAINST_EACH} per reference; references resampled from the "
        f"{total} undisturbed images above (± is a 95 % interval):", "",
        "| images of the reference | streams with an alarm | specified | references with any | charts that alarmed |",
        "|---|---|---|---|---|",
        *specified, "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
