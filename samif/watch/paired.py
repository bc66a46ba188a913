"""The observations of one request to a canary: what differs between its answer and the champion's to the same image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from samif.inference.segment import UNKNOWN
from samif.watch.canary import CHANGED, CONFIDENCE, ERRORS, LATENCY, NAMED, SLOW, TAIL, UNKNOWNS, VERY_SLOW
from samif.watch.observe import CLASS_PREFIX, MARGIN, OBJECTS


def outcome(failed: bool) -> dict[str, float]:
    """The observation of one request: whether the canary failed it."""
    return {ERRORS: float(failed)}


def latency(canary: float, champion: float) -> dict[str, float]:
    """The observations of the seconds that both took for the same image on the same worker."""
    return {LATENCY: float(canary > SLOW * champion), TAIL: float(canary > VERY_SLOW * champion)}


def differences(canary: Mapping[str, float], champion: Mapping[str, float], shared: Iterable[str]) -> dict[str, float]:
    """The observations of one image, from `samif.watch.observe.Observation.values` of both versions.

    Args:
        shared: classes that both know. A class that only the canary knows may take objects from any of them: that is
            what it was added for.

    Returns:
        Check -> observation in 0..1; without those that the image says nothing about, since neither version names
        anything or one has no margin.
    """
    found: dict[str, float] = {}
    named = [values[OBJECTS] - values[UNKNOWN] for values in (canary, champion)]
    if max(named) > 0.0:
        found[NAMED] = 0.5 + 0.5 * (named[1] - named[0]) / max(named)
    counts = [(canary.get(f"{CLASS_PREFIX}{name}", 0.0), champion.get(f"{CLASS_PREFIX}{name}", 0.0)) for name in shared]
    if (most := sum(max(pair) for pair in counts)) > 0.0:
        new = named[0] - sum(ours for ours, _ in counts)
        lost = max(sum(max(theirs - ours, 0.0) for ours, theirs in counts) - new, 0.0)
        found[CHANGED] = (lost + sum(max(ours - theirs, 0.0) for ours, theirs in counts)) / most
    if MARGIN in canary and MARGIN in champion:
        found[CONFIDENCE] = _shifted(champion[MARGIN] - canary[MARGIN])
    if max(canary[OBJECTS], champion[OBJECTS]) > 0.0:
        shares = [values[UNKNOWN] / max(values[OBJECTS], 1.0) for values in (canary, champion)]
        found[UNKNOWNS] = _shifted(shares[0] - shares[1])
    return found


def _shifted(change: float) -> float:
    """A change in -1..1, cut to half of that, as an observation in 0..1."""
    return min(max(change, -0.5), 0.5) + 0.5
