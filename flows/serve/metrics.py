"""Metrics for Prometheus, summed over the replicas of this machine.

Each replica keeps its numbers in memory-mapped files of one folder (multiprocess mode of prometheus_client, which the
environment variable of `environment` switches on); the replica that answers adds them up. Files are named by the
id of the replica and not by its process id, which is given again and means another process in another container.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector  # type: ignore[attr-defined, unused-ignore]

from flows.serve.replica_status import is_running

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def environment(state: Path) -> dict[str, str]:
    """Environment variables of a replica: prometheus_client reads them when it is first imported."""
    return {"PROMETHEUS_MULTIPROC_DIR": str(_folder(state))}


class Metrics:
    """The numbers of one replica, in files under `state`.

    Args:
        replica: id of `flows.serve.replica_status`.
    """

    def __init__(self, state: Path, replica: str) -> None:
        self._state = state
        _folder(state).mkdir(parents=True, exist_ok=True)  # here, on the machine of the replica
        values.ValueClass = values.MultiProcessValue(lambda: replica)  # type: ignore[no-untyped-call, unused-ignore]
        self.requests = Counter("samif_requests", "Requests by path and status.", ["path", "code"], registry=None)
        self.seconds = Histogram(
            "samif_seconds", "Seconds per part of a request.", ["part"], buckets=BUCKETS, registry=None
        )
        self.queue = Gauge("samif_queue", "Requests in work or waiting.", registry=None, multiprocess_mode="livesum")
        self.loads = Counter("samif_loads", "Parts read from files.", ["part"], registry=None)
        self.swaps = Counter("samif_swaps", "Switches to another version.", ["slot"], registry=None)
        self.failures = Counter("samif_swap_failures", "Versions that were refused.", ["slot"], registry=None)
        self.live = Gauge(
            "samif_live_version", "Version that a replica answers with; 0 for a folder.", ["slot", "model", "replica"],
            registry=None, multiprocess_mode="livemax",
        )  # fmt: skip
        self.behind = Gauge(
            "samif_behind", "Replicas that do not serve what the alias names.", ["slot"],
            registry=None, multiprocess_mode="livesum",
        )  # fmt: skip
        self.unreachable = Gauge(
            "samif_registry_unreachable", "Replicas that cannot see the alias.", ["slot"],
            registry=None, multiprocess_mode="livesum",
        )  # fmt: skip
        self.shadowed = Counter("samif_shadow_images", "Images scored by the shadow.", registry=None)
        self.dropped = Counter("samif_shadow_dropped", "Images that the shadow had no time for.", registry=None)
        self.disagreements = Counter(
            "samif_shadow_disagreements", "Objects on which the shadow differs.", ["kind"], registry=None
        )
        self.kept = Counter(
            "samif_keep", "Answers to be kept, by outcome: kept, dropped, too_large, failed.", ["outcome"],
            registry=None,
        )  # fmt: skip

        self.answers = Counter("samif_answers", "Answers by version.", ["model", "version"], registry=None)
        self.canary = Counter(
            "samif_canary", "Requests to the canary: answered, failed, late, compared.", ["outcome"], registry=None
        )
        self.canary_running = Gauge(
            "samif_canary_running", "Replicas whose canary answers requests.", registry=None,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def page(self) -> bytes:
        """Numbers of all replicas in the text format of Prometheus. Gauges of replicas that have ended are removed;
        their counters still count."""
        for file in _folder(self._state).glob("gauge_live*_*.db"):
            if not is_running(self._state, file.stem.rpartition("_")[2]):
                file.unlink(missing_ok=True)
        everything = CollectorRegistry()
        MultiProcessCollector(everything)  # type: ignore[no-untyped-call, unused-ignore]
        return generate_latest(everything)


def _folder(state: Path) -> Path:
    return state / "metrics"
