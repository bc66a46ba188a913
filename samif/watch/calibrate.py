"""Limits of the charts, from what reference images show and a stated rate of false alarms.

Streams of images are drawn anew from the reference many times, each judged against means that are drawn anew too:
with some hundred reference images, what is normal is itself uncertain, and limits that ignore it alarm too often
(Gandy and Kvaløy 2013). Images are drawn in runs of `block` neighbours, for lines whose images come in batches
(Künsch 1989). Within a family of charts all limits together keep the family's share of the rate, however the charts
depend on each other (Westfall and Young 1993); the rate is divided evenly among the families (Bonferroni).

Shape legend: N reference images, S statistics, D width of the pooled embedding, K directions, B drawn streams,
M sided charts: the S statistics downward, the S statistics upward, the embedding, doubt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from samif.config.watch import WatchParams
from samif.errors import SamifError
from samif.watch.charts import DOUBT, EMBEDDING, ONE_SIDED, Normal
from samif.watch.doubt import learn_doubt
from samif.watch.objects import learn_objects
from samif.watch.observe import CLASS_PREFIX, STRANGE, Observation, vector
from samif.watch.space import Array, Region, Space, distance

LEAST_IMAGES = 20
"""Fewer reference images say too little about what is normal."""
LEAST_DIFFERENT = 5
"""A statistic is watched where at least so many reference images differ from the middle one: how often something
rarer happens is not known well enough to miss it or to wonder at it."""
LEAST_SPREAD = 0.5
"""A reference drawn anew scatters at least this share of what the reference does."""
TINY = 1e-9
"""A smaller spread is none."""
AT_ONCE = 500
"""Streams drawn side by side: bounds the memory."""


def embedding_space(training: NDArray[np.floating], directions: int) -> Space:
    """The principal directions of pooled training embeddings (N, D), scaled to unit variance: at most `directions`, and
    never more than a quarter of the images, beyond which variances are guesses."""
    count = max(1, min(directions, len(training) // 4, training.shape[1]))
    found = PCA(n_components=count, svd_solver="full").fit(training.astype(np.float64))
    deviation = np.sqrt(found.explained_variance_)
    return Space(found.mean_, found.components_.T / np.maximum(deviation, 1e-9))


def calibrate(reference: Sequence[Observation], names: tuple[str, ...], space: Space, params: WatchParams) -> Normal:
    """Limits such that an undisturbed stream of `params.horizon` images raises any alarm with probability
    `params.false_alarm`.

    Args:
        reference: undisturbed images, in the order of time where they have one.
        names: the statistics that there are; those that `params` leaves out, or that hardly vary, get no limits.
        space: of the images' embeddings.

    Raises:
        SamifError: there are fewer than 20 reference images.
    """
    if len(reference) < LEAST_IMAGES:
        raise SamifError(
            f"{len(reference)} reference images are too few to say what is normal, {LEAST_IMAGES} is the least; "
            "give a folder of ordinary images to 'samif watch reference --images'"
        )
    objects, strange = learn_objects(reference, params.object_directions)
    rows = [seen.values | {STRANGE: count} for seen, count in zip(reference, strange, strict=True)]
    values = np.stack([vector(row, names) for row in rows])
    doubt, doubts = learn_doubt(reference, params.object_directions)
    places = [space.place(np.stack([seen.embedding for seen in reference])), doubts]
    excess = _excess(values, places, params)
    centre, middles, spread = _summary(values, places, np.ones((1, len(values))))
    centre, spread = centre[0], spread[0]
    limits = np.full(excess.shape[1], np.inf)
    families = _families(values, doubts, names, params)
    for columns in families.values():
        rate = params.false_alarm / len(families)
        limits[columns] = spread[columns] * _joint_limits(excess[:, columns], rate)
    count = len(names)
    low, high = centre - limits[:count], centre + limits[count : 2 * count]
    low = np.where(low > 0.0, low, -np.inf)  # no statistic is ever below zero
    of_each = zip((EMBEDDING, DOUBT), (space, doubt), middles, limits[2 * count :], strict=True)
    regions = {name: Region(of, middle[0], float(reach)) for name, of, middle, reach in of_each}
    return Normal(names, centre, low, high, objects, regions, params.window, len(reference))


def _families(values: Array, doubts: Array, names: tuple[str, ...], params: WatchParams) -> dict[str, list[int]]:
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
    if DOUBT in params.statistics and doubts.std() > TINY:
        found[DOUBT] = [2 * len(names) + 1]
    return found


def _excess(values: Array, places: Sequence[Array], params: WatchParams) -> Array:
    """How far each sided chart gets from its own reference at most, in each of the drawn streams (B, M), in spreads of
    that reference: how far undisturbed images scatter is uncertain as well."""
    rng = np.random.default_rng(params.seed)
    starts = range(0, params.streams, AT_ONCE)
    return np.concatenate([_some(values, places, params, min(AT_ONCE, params.streams - s), rng) for s in starts])


def _some(values: Array, places: Sequence[Array], params: WatchParams, count: int, rng: np.random.Generator) -> Array:
    weight = 2.0 / (params.window + 1.0)
    images = len(values)
    drawn = _runs(rng, images, images, params.block, count)
    often = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
    centre, middles, spread = _summary(values, places, often)
    # a reference drawn by chance without what is rare would find everything strange
    spread = np.maximum(spread, LEAST_SPREAD * _summary(values, places, np.ones((1, images)))[2])
    # a statistic that an image does not have gets no weight
    weights, filled = np.where(np.isnan(values), 0.0, weight), np.nan_to_num(values)
    level, at = centre, middles
    low, high, away = np.zeros_like(level), np.zeros_like(level), np.zeros((count, len(places)))
    for rows in _runs(rng, images, params.horizon, params.block, count).T:
        level = level + weights[rows] * (filled[rows] - level)
        at = [place + weight * (each[rows] - place) for place, each in zip(at, places, strict=True)]
        np.maximum(low, centre - level, out=low)
        np.maximum(high, level - centre, out=high)
        offsets = [distance(place - middle, weight) for place, middle in zip(at, middles, strict=True)]
        np.maximum(away, np.stack(offsets, axis=1), out=away)
    return np.concatenate([low, high, away], axis=1) / spread


def _summary(values: Array, places: Sequence[Array], often: Array) -> tuple[Array, list[Array], Array]:
    """Means of the statistics (B, S) and of the places (B, K), and the spread of each sided chart (B, M), of references
    in which each image comes `often` (B, N) times."""
    there = ~np.isnan(values)
    filled, total = np.nan_to_num(values), often.sum(axis=1, keepdims=True)
    shown = np.maximum(often @ there, 1.0)
    centre = (often @ filled) / shown
    spread = np.sqrt(np.maximum((often @ filled**2) / shown - centre**2, 0.0))
    middles = [(often @ each) / total for each in places]
    around = []
    for each, middle in zip(places, middles, strict=True):
        scatter = (often @ (each**2).sum(axis=1, keepdims=True)) / total - (middle**2).sum(axis=1, keepdims=True)
        around.append(np.sqrt(np.maximum(scatter, 0.0) / each.shape[1]))
    return centre, middles, np.maximum(np.concatenate([spread, spread, *around], axis=1), TINY)


def _runs(rng: np.random.Generator, images: int, length: int, block: int, count: int) -> NDArray[np.int64]:
    """Indices of reference images (count, length), drawn in runs of `block` neighbours."""
    starts = rng.integers(images, size=(count, -(-length // block), 1))
    runs = (starts + np.arange(block)) % images
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
