"""A service under load: 20 switches between two versions, the cost above `segment()`, and rounds of hostile uploads.

    python -m benchmarks.serving [--swaps 20] [--rounds 20] [--page benchmarks/SERVING.md]

Everything runs on this machine and on a line made for it: the shipped encoder, a random decoder, two classifiers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from flows.inference.predict import load_segmenter
from flows.registry.model_files import find_model
from flows.registry.registry import Registry
from samif.dataset.images import read_image
from tests.support.hostile import CASES, answer
from tests.support.served_line import ServedLine, Service, png, service

CLIENTS = 2
WAIT_SECONDS = 60.0
IMAGES = [png(seed, 320, 320) for seed in range(4)]


@dataclass
class Load:
    """Clients that ask without a pause, and what they were answered: (when, status, version, image, instances)."""

    service: Service
    answers: list[tuple[float, int, int, int, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self.stopping.is_set():
            for number, image in enumerate(IMAGES):
                try:
                    got = self.service.segment(image)
                    content = got.json()
                    found = json.dumps(content["instances"])
                    self.answers.append((time.monotonic(), got.status_code, content["model"]["version"], number, found))
                except Exception as error:
                    self.failed.append(f"{type(error).__name__}: {error}")

    def first_of(self, version: int, since: float) -> float:
        """Seconds from `since` to the first answer of that version."""
        place = len(self.answers)
        while time.monotonic() < since + WAIT_SECONDS:
            for when, _, of, _, _ in self.answers[place:]:
                if of == version:
                    return when - since
            time.sleep(0.002)
        raise RuntimeError(f"no answer of version {version} in {WAIT_SECONDS:g} s")


def swaps(line: ServedLine, running: Service, count: int) -> dict[str, str]:
    """Move the alias under load; how long each switch took, and whether any answer was wrong or missing."""
    before = running.replicas[0]["loads"]
    seconds = []
    with Load(running) as load:
        time.sleep(2.0)
        for number in range(count):
            version = 2 - number % 2
            line.alias("champion", version)
            seconds.append(load.first_of(version, time.monotonic()))
            time.sleep(0.5)
    after = running.replicas[0]["loads"]
    found: dict[tuple[int, int], set[str]] = {}
    for _, _, version, image, instances in load.answers:
        found.setdefault((version, image), set()).add(instances)
    mixed = sum(len(texts) - 1 for texts in found.values())
    same = sum(found.get((1, i)) == found.get((2, i)) for i in range(len(IMAGES)))
    failed = len(load.failed) + sum(status != 200 for _, status, *_ in load.answers)
    return {
        f"{count} switches, {CLIENTS} clients: requests": f"{len(load.answers)}",
        "failed requests": f"{failed}",
        "responses that do not match their version": f"{mixed} (images on which both versions agree: {same})",
        "seconds from the alias change to the first response": spread(seconds),
        "parts read from files before and after": f"{before} and {after}",
    }


def overhead(line: ServedLine, running: Service, count: int) -> dict[str, str]:
    """One client, one image after the other, in turns with the bare call in this process."""
    torch.set_num_threads(1)
    segmenter = load_segmenter(find_model("demo/1", None, line.registry), None)
    path = line.root / "image.png"
    path.write_bytes(IMAGES[0])
    pixels = read_image(path)
    bare, whole, inside = [], [], []
    for _ in range(count):
        start = time.perf_counter()
        segmenter.segment(pixels)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        timings = running.segment(IMAGES[0]).json()["timings"]
        whole.append(time.perf_counter() - start)
        inside.append(timings["encode"] + timings["segment"])
    return {
        "bare segment(), seconds": spread(bare),
        "request, seconds": spread(whole),
        "in the model": spread(inside),
        "outside the model (request minus model)": spread([a - b for a, b in zip(whole, inside, strict=True)]),
    }


def hostile(running: Service, rounds: int) -> dict[str, str]:
    """Memory of the replica over rounds of invalid uploads."""
    port, pid = int(running.url.rpartition(":")[2]), int(str(running.replicas[0]["pid"]))
    sizes, wrong, server = [], 0, 0
    for _ in range(rounds):
        for make, allowed in CASES.values():
            code = answer(port, make())
            wrong += code not in allowed
            server += code >= 500
        sizes.append(psutil.Process(pid).memory_info().rss / 2**20)
    alive = running.segment(IMAGES[0]).status_code == 200
    return {
        f"{len(CASES)} kinds of uploads, {rounds} rounds: 5xx": f"{server}",
        "unexpected responses": f"{wrong}",
        "replica's memory after round 1, 2, half, all (MiB)": ", ".join(
            f"{sizes[i]:.0f}" for i in (0, min(1, rounds - 1), rounds // 2, rounds - 1)
        ),
        "alive afterwards": "yes" if alive else "no",
    }


def spread(values: list[float]) -> str:
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {statistics.median(ordered):.3f}, 95 % {high:.3f}, most {ordered[-1]:.3f}"


def told(rows: dict[str, str]) -> dict[str, str]:
    """Print at once what was measured: the rest may still fail."""
    for name, value in rows.items():
        print(f"{name}: {value}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--page", type=Path)
    chosen = parser.parse_args()
    rows: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="samif-serving-") as folder:
        root = Path(folder)
        _ = Registry(None, root)._store.client  # the first migration
        line = ServedLine(root / "line", root / ".samif" / "mlflow.db")
        line.add("base", 2)
        line.add("s1", 4, after="base")
        line.alias("champion", 1)
        line.alias("challenger", 2)
        limits = ("--max-mb", "2", "--upload-seconds", "1")
        with service(line, "demo@champion", *limits) as running:
            rows |= told(overhead(line, running, chosen.requests))
            rows |= told(swaps(line, running, chosen.swaps))
            line.alias("champion", 1)
            rows |= told(hostile(running, chosen.rounds))
        with service(line, "demo@champion", "--shadow", "demo@challenger", *limits) as running:
            shadowed = overhead(line, running, chosen.requests)
            rows["request during shadow deployment, seconds"] = shadowed["request, seconds"]
            rows["bare segment() in the same rounds, seconds"] = shadowed["bare segment(), seconds"]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        "# Serving", "",
        f"`python -m benchmarks.serving`, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread per model, load average {load} at the end.", "",
        "| what | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()),
    ]  # fmt: skip
    text = "\n".join(lines) + "\n"
    print(text)
    if chosen.page:
        chosen.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
