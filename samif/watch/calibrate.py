"""Limits of the charts, from what reference pictures show and a stated rate of false alarms.

Streams of pictures are drawn anew from the reference many times, each judged against means that are drawn anew too:
with some hundred reference pictures, what is normal is itself uncertain, and limits that ignore it alarm too often
(Gandy and Kvaløy 2013). Pictures are drawn in runs of `block` neighbours, for lines whose pictures come in batches
(Künsch 1989). Within a family of charts all limits together keep the family's share of the rate, however the charts
depend on each other (Westfall and Young 1993); the rate is divided evenly among the families (Bonferroni).

Shape legend: N reference pictures, S statistics, D width of the pooled embedding, K directions, B drawn streams,
M sided charts: the S statistics downward, the S statistics upward, the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from samif.errors import SamifError
from samif.watch.charts import EMBEDDING, ONE_SIDED, Array, EmbeddingSpace, Normal, distance
from samif.watch.observe import CLASS_PREFIX, Observation, vector
from samif.watch.params import WatchParams

LEAST_PICTURES = 20
"""Fewer reference pictures say too little about what is normal."""
LEAST_DIFFERENT = 5
"""A statistic is watched where at least so many reference pictures differ from the middle one: how often something
rarer happens is not known well enough to miss it or to wonder at it."""
AT_ONCE = 500
"""Streams drawn side by side: bounds the memory."""


def embedding_space(training: NDArray[np.floating], directions: int) -> EmbeddingSpace:
    """The principal directions of pooled training embeddings (N, D), scaled to unit variance: at most `directions`, and
    never more than a quarter of the pictures, beyond which variances are guesses."""
    count = max(1, min(directions, len(training) // 4, training.shape[1]))
    found = PCA(n_components=count, svd_solver="full").fit(training.astype(np.float64))
    deviation = np.sqrt(found.explained_variance_)
    return EmbeddingSpace(found.mean_, found.components_.T / np.maximum(deviation, 1e-9))


def calibrate(
    reference: Sequence[Observation], names: tuple[str, ...], space: EmbeddingSpace, params: WatchParams
) -> Normal:
    """Limits such that an undisturbed stream of `params.horizon` pictures raises any alarm with probability
    `params.false_alarm`.

    Args:
        reference: undisturbed pictures, in the order of time where they have one.
        names: the statistics that there are; those that `params` leaves out, or that hardly vary, get no limits.

    Raises:
        SamifError: there are fewer than 20 reference pictures.
    """
    if len(reference) < LEAST_PICTURES:
        raise SamifError(
            f"{len(reference)} reference pictures are too few to say what is normal, {LEAST_PICTURES} is the least; "
            "give a folder of ordinary pictures to 'samif watch reference --pictures'"
        )
    values = np.stack([vector(seen.values, names) for seen in reference])
    places = space.place(np.stack([seen.embedding for seen in reference]))
    excess = _excess(values, places, params)
    limits = np.full(excess.shape[1], np.inf)
    families = _families(values, names, params)
    for columns in families.values():
        limits[columns] = _joint_limits(excess[:, columns], params.false_alarm / len(families))
    centre = _means(values)
    low, high, reach = limits[: len(names)], limits[len(names) : -1], float(limits[-1])
    return Normal(
        names, centre, centre - low, centre + high, space, places.mean(axis=0), reach, params.window, len(reference)
    )


def _families(values: Array, names: tuple[str, ...], params: WatchParams) -> dict[str, list[int]]:
    """Columns of the sided charts (M) that are watched, by family."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        family = "classes" if name.startswith(CLASS_PREFIX) else name
        shown = values[~np.isnan(values[:, row]), row]
        if family not in params.statistics or not len(shown) or (shown != np.median(shown)).sum() < LEAST_DIFFERENT:
            continue
        side = ONE_SIDED.get(name)
        sides = [row] * (side != "high") + [len(names) + row] * (side != "low")
        found.setdefault(family, []).extend(sides)
    if EMBEDDING in params.statistics:
        found[EMBEDDING] = [2 * len(names)]
    return found


def _excess(values: Array, places: Array, params: WatchParams) -> Array:
    """How far each sided chart gets from its own reference at most, in each of the drawn streams (B, M)."""
    rng = np.random.default_rng(params.seed)
    starts = range(0, params.streams, AT_ONCE)
    return np.concatenate([_some(values, places, params, min(AT_ONCE, params.streams - s), rng) for s in starts])


def _some(values: Array, places: Array, params: WatchParams, count: int, rng: np.random.Generator) -> Array:
    weight = 2.0 / (params.window + 1.0)
    pictures = len(values)
    # a statistic that a picture does not have gets no weight
    weights = np.where(np.isnan(values), 0.0, weight)
    filled = np.nan_to_num(values)
    again = _runs(rng, pictures, pictures, params.block, count)
    shown = (weights[again] > 0.0).sum(axis=1)
    level = centre = np.where(shown > 0, filled[again].sum(axis=1) / np.maximum(shown, 1), _means(values))
    place = middle = places[again].mean(axis=1)
    low, high, away = np.zeros_like(level), np.zeros_like(level), np.zeros(count)
    for rows in _runs(rng, pictures, params.horizon, params.block, count).T:
        level = level + weights[rows] * (filled[rows] - level)
        place = place + weight * (places[rows] - place)
        np.maximum(low, centre - level, out=low)
        np.maximum(high, level - centre, out=high)
        np.maximum(away, distance(place - middle, weight), out=away)
    return np.concatenate([low, high, away[:, None]], axis=1)


def _runs(rng: np.random.Generator, pictures: int, length: int, block: int, count: int) -> NDArray[np.int64]:
    """Indices of reference pictures (count, length), drawn in runs of `block` neighbours."""
    starts = rng.integers(pictures, size=(count, -(-length // block), 1))
    runs = (starts + np.arange(block)) % pictures
    return np.asarray(runs.reshape(count, -1)[:, :length])


def _joint_limits(excess: Array, rate: float) -> Array:
    """A limit for each of a family's charts, so that a share `rate` of the streams (B, M) passes any of them, and all
    charts are passed equally often."""
    ordered = np.sort(excess, axis=0)
    below = [np.searchsorted(ordered[:, m], excess[:, m], "left") for m in range(excess.shape[1])]
    # of each stream and chart: the share of all streams in which this chart gets at least as far
    tails = 1.0 - np.stack(below, axis=1) / len(excess)
    allowed = float(np.quantile(tails.min(axis=1), rate))
    return np.asarray(np.quantile(excess, 1.0 - allowed, axis=0, method="higher"))


def _means(values: Array) -> Array:
    """Means over pictures (S,), without those that a statistic is absent from; zero where it is never there."""
    shown = ~np.isnan(values)
    return np.asarray(np.nan_to_num(values).sum(axis=0) / np.maximum(shown.sum(axis=0), 1))
