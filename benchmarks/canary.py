"""Canaries that are worse on purpose and equal ones, on a real service: when each is rolled back, and failed requests.

    python -m benchmarks.canary [--streams 20] [--page benchmarks/CANARY.md]

Everything runs on this machine and on a line made for it: the shipped encoder, a random decoder, and versions of its
classifier. No two requests have the same image. The rule alone is simulated beside that.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import textwrap
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flows.registry.registry import Registry
from samif.watch.canary import BOUNDS, ENOUGH, FALSE_ALARM
from tests.support.canary_line import CHALLENGERS, GOOD, CanaryLine, canaries, image, wait_for
from tests.support.canary_streams import EQUAL, LARGE, draw, stopped_at
from tests.support.served_line import Service

CLIENTS, PERCENT, REF = 2, 50, "demo@challenger"
GOOD_REQUESTS = ENOUGH
"""Requests to a canary that is not worse, per stream."""
SPREAD = {"objects named": 0.1, "names changed": 0.1, "confidence": 0.05, "unknown share": 0.05}
SIMULATED, LENGTH = 1000, 1000
_ABOUT = (
    "`python -m benchmarks.canary`, {machine}, Python {python}. A real service (`samif serve` with `--canary`, one "
    f"replica, {CLIENTS} clients without a pause, {PERCENT} % of the requests to the canary), a registry on "
    "SQLite, the encoder `tiny` with a random decoder. Each stream has new images and begins without evidence. "
    f"It ends when the canary is rolled back, or after {GOOD_REQUESTS} requests to it. The promise is {ENOUGH} "
    f"requests for a large effect, and a rate of false alarms of {FALSE_ALARM:g}."
)
EXPLAINED = {
    "names nothing": "what the champion names is unknown to it",
    "names wrongly": "each class has the row of another one",
    "less certain": "a temperature of 2 instead of 20",
    "slower": "0.15 s more for each image",
    "raises errors": "an exception for each third image",
    "equal": "the champion, registered again",
}


@dataclass
class Stream:
    """The answers while one canary ran: status and version; requests to it when it was rolled back, or none."""

    answers: list[tuple[int, int]] = field(default_factory=list)
    stopped: int | None = None
    why: str = ""

    @property
    def failed(self) -> int:
        return sum(status != 200 for status, _ in self.answers)


def run(line: CanaryLine, served: Service, kind: str, first: int) -> Stream:
    """One stream with new images, from `first`, and new evidence; then the canary is off."""
    number, stream, end = line.numbers[kind], Stream(), threading.Event()
    records = line.registry.canaries("demo")
    line.alias("challenger", number)
    wait_for(served, "running", number)

    def ask(seed: int) -> None:
        while not end.is_set():
            answered = served.segment(image(seed))
            stream.answers.append((answered.status_code, answered.json().get("model", {}).get("version", 0)))
            seed += CLIENTS

    clients = [threading.Thread(target=ask, args=(first + i,)) for i in range(CLIENTS)]
    for client in clients:
        client.start()
    while (view := canaries(served)[0])["state"] == "running" and view["requests"] < GOOD_REQUESTS:
        time.sleep(0.05)
    end.set()
    for client in clients:
        client.join()
    view = canaries(served)[0]
    attempt = records.read(number).attempt
    if view["state"] == "rolled back":
        stream.stopped, stream.why = view["requests"], view["why"].partition(":")[0]
        while records.read(number).refused is None:
            time.sleep(0.1)
    else:
        records.roll_back(number, attempt, REF, "the stream has ended", {})
    records.retry(f"demo/{number}", "benchmark")
    return stream


def table(streams: dict[str, list[Stream]]) -> list[str]:
    rows = [
        "| challenger | what it does | rolled back | requests to it until then: median (min to max) | by | requests | "
        "failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, found in streams.items():
        stopped = [stream.stopped for stream in found if stream.stopped is not None]
        when = f"{statistics.median(stopped):g} ({min(stopped)} to {max(stopped)})" if stopped else "-"
        by = ", ".join(f"{why} {n}" for why, n in Counter(s.why for s in found if s.why).most_common()) or "-"
        total, failed = sum(len(s.answers) for s in found), sum(s.failed for s in found)
        share = f"{len(stopped)} of {len(found)}"
        rows.append(f"| {kind} | {EXPLAINED[kind]} | {share} | {when} | {by} | {total} | {failed} |")
    return rows


def simulated() -> list[str]:
    """The rule alone, on drawn observations."""
    rng = np.random.default_rng(0)
    rows = ["| effect | check | requests until the stop: median | 99 % of streams | max |", "|---|---|---|---|---|"]
    for effect, (check, mean, spread) in LARGE.items():
        at = stopped_at(check, draw(rng, check, mean, spread, (SIMULATED, 5 * ENOUGH)))
        median, most = np.quantile(at, (0.5, 0.99))
        rows.append(f"| {effect} | {check} | {median:.0f} | {most:.0f} | {at.max()} |")
    lines = []
    for name, means in (("of equal quality on a busy machine", EQUAL), ("exactly at all bounds", BOUNDS)):
        stopped = np.zeros(SIMULATED, dtype=bool)
        for check in BOUNDS:
            streams = draw(rng, check, means[check], SPREAD.get(check, 0.0), (SIMULATED, LENGTH))
            stopped |= stopped_at(check, streams) <= LENGTH
        lines.append(f"- A version {name}: {int(stopped.sum())} of {SIMULATED} streams of {LENGTH} requests stopped.")
    return [*rows, "", *lines]


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--page", type=Path, default=Path(__file__).with_name("CANARY.md"))
    args = parser.parse_args()
    streams: dict[str, list[Stream]] = {kind: [] for kind in CHALLENGERS}
    with tempfile.TemporaryDirectory(prefix="samif-bench-") as folder:
        empty = Path(folder) / "empty"
        empty.mkdir()
        _ = Registry(None, empty)._store.client
        line = CanaryLine(Path(folder) / "line", empty / ".samif" / "mlflow.db")
        with line.serving("--percent", str(PERCENT)) as served:
            for number in range(args.streams):
                for i, kind in enumerate(CHALLENGERS):
                    found = run(line, served, kind, 10**6 * (number * len(CHALLENGERS) + i + 1))
                    streams[kind].append(found)
                    print(number + 1, kind, found.stopped, found.why, len(found.answers), found.failed, flush=True)
                args.page.write_text(page(streams), encoding="utf-8")


def page(streams: dict[str, list[Stream]]) -> str:
    worse = [stream for kind, found in streams.items() if kind != GOOD for stream in found]
    late = sum(stream.stopped is None or stream.stopped > ENOUGH for stream in worse)
    return "\n".join(
        [
            "# Canaries that are worse on purpose, and equal ones",
            "",
            textwrap.fill(_ABOUT.format(machine=platform.machine(), python=platform.python_version()), 120),
            "",
            *table(streams),
            "",
            f"Worse versions that were not rolled back within {ENOUGH} requests to them: {late} of {len(worse)}.",
            "",
            "## The rule alone",
            "",
            f"{SIMULATED} streams of drawn observations each (tests/support/canary_streams.py), every check by itself:",
            "",
            *simulated(),
            "",
        ]
    )


if __name__ == "__main__":
    main()
