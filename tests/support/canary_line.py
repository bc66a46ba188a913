"""A served line whose challengers are worse on purpose, and requests to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.served_line import ServedLine, Service, png, service, until

TEMPERATURE = 20.0
FAULTS = Path(__file__).with_name("canary_faults")
CHALLENGERS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "names nothing": ({"background": 25.0}, {}),
    "names wrongly": ({"roll": 1}, {}),
    "less certain": ({"temperature": 2.0}, {}),
    "slower": ({"temperature": TEMPERATURE + 2e-3}, {"slow": 0.15}),
    "raises errors": ({"temperature": TEMPERATURE + 3e-3}, {"fail": 0.33}),
    "equal": ({"temperature": TEMPERATURE + 1e-3}, {}),
}
"""Kind -> what `ServedLine.add` makes of the champion, and the fault of tests/support/canary_faults."""
GOOD = "equal"


class CanaryLine(ServedLine):
    """A line with a champion (1) and a version of each kind; `faults` is read by its replicas.

    Attributes:
        numbers: kind -> version.
    """

    def __init__(self, root: Path, database: Path, kinds: tuple[str, ...] = tuple(CHALLENGERS)) -> None:
        super().__init__(root, database)
        self.add("base", 4, temperature=TEMPERATURE)
        self.alias("champion", 1)
        made = {kind: CHALLENGERS[kind] for kind in kinds}
        self.numbers = {
            kind: self.add("base", 4, **{"temperature": TEMPERATURE} | change) for kind, (change, _) in made.items()
        }
        self.faults = root / "faults.json"
        self.faults.write_text(json.dumps({self.numbers[kind]: fault for kind, (_, fault) in made.items()}))

    @contextmanager
    def serving(self, *options: str) -> Iterator[Service]:
        """`samif serve` with a canary."""
        before = dict(os.environ)
        os.environ |= {"FAULTS": str(self.faults), "PYTHONPATH": f"{FAULTS}:{before.get('PYTHONPATH', '')}"}
        try:
            with service(self, "demo@champion", "--canary", "demo@challenger", *options) as running:
                yield running
        finally:
            os.environ.clear()
            os.environ.update(before)


def canaries(served: Service) -> list[dict[str, Any]]:
    """What the replicas say of their canary."""
    found: list[dict[str, Any]] = served.ask("GET", "/v1/canary").json()["replicas"]
    return found


def wait_for(served: Service, state: str, version: int) -> None:
    """Until all replicas say so of this version."""
    until(lambda: all(v["state"] == state and v["model"]["version"] == version for v in canaries(served)), 120)


def image(seed: int) -> bytes:
    """An image that no other request has."""
    return png(seed, 60 + seed % 7, 40)
