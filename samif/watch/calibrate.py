"""Control limits for a stated rate of false alarms, by bootstrap from reference images.

Streams are drawn from the reference many times, each against means that are drawn too: with some hundred reference
images the means themselves are uncertain, and limits that ignore it alarm too often (Gandy and Kvaløy 2013). Images are
drawn in blocks of `block_length` neighbours, for lines whose images come in batches (Künsch 1989). Within a family of
charts all limits together keep the family's share of the rate, however the charts depend on each other (Westfall and
Young 1993); the rate is divided evenly among the families (Bonferroni).

Shape legend: N reference images, S statistics, D width of the pooled embedding, K components, B simulated streams, M
one-sided charts: the S statistics downward, the S statistics upward, the embedding, the uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from samif.config.watch import WatchParams
from samif.errors import DataError
from samif.watch.charts import EMBEDDING, ONE_SIDED, UNCERTAINTY, Baseline
from samif.watch.objects import fit_object_space
from samif.watch.observe import CLASS_PREFIX, OUT_OF_DISTRIBUTION, Observation, vector
from samif.watch.projection import EPSILON, Array, Projection, Region, mahalanobis
from samif.watch.uncertainty import fit_uncertainty

MIN_IMAGES = 20
"""Smallest number of reference images."""
MIN_DISTINCT = 5
"""A statistic is monitored where so many reference images differ from the median: the rate of rarer events is not known
well enough to judge whether they stay away or come more often."""
MIN_SPREAD = 0.5
"""Lower bound of the standard deviation of a resampled reference, relative to that of the reference."""
BATCH = 500
"""Streams that are simulated side by side, to bound the memory."""


def embedding_projection(training: NDArray[np.floating], components: int) -> Projection:
    """The principal components of pooled training embeddings (N, D), scaled to unit variance: at most `components`, and
    never more than a quarter of the images, beyond which the variances are not reliable."""
    count = max(1, min(components, len(training) // 4, training.shape[1]))
    found = PCA(n_components=count, svd_solver="full").fit(training.astype(np.float64))
    deviation = np.sqrt(found.explained_variance_)
    return Projection(found.mean_, found.components_.T / np.maximum(deviation, EPSILON))


def calibrate(
    reference: Sequence[Observation], names: tuple[str, ...], embedding: Projection, params: WatchParams
) -> Baseline:
    """Control limits such that an undisturbed stream of `params.horizon` images raises any alarm with probability
    `params.false_alarm`.

    Args:
        reference: undisturbed images, in the order of time where they have one.
        names: all statistics; those that `params` leaves out, or that hardly vary, get no limits.
        embedding: projection of the images' pooled embeddings.

    Raises:
        DataError: there are fewer than MIN_IMAGES reference images.
    """
    if len(reference) < MIN_IMAGES:
        raise DataError(
            f"{len(reference)} reference images are too few for control limits, {MIN_IMAGES} are the minimum; "
            "give a folder of ordinary images to 'samif watch reference --images'"
        )
    objects, out_of_distribution = fit_object_space(reference, params.object_components)
    rows = [
        image.values | {OUT_OF_DISTRIBUTION: count} for image, count in zip(reference, out_of_distribution, strict=True)
    ]
    values = np.stack([vector(row, names) for row in rows])
    uncertainty, uncertainties = fit_uncertainty(reference, params.object_components)
    projected = [embedding.apply(np.stack([image.embedding for image in reference])), uncertainties]
    deviations = _simulate(values, projected, params)
    centre, middles, spread = _summary(values, projected, np.ones((1, len(values))))
    centre, spread = centre[0], spread[0]
    limits = np.full(deviations.shape[1], np.inf)
    families = _families(values, uncertainties, names, params)
    for columns in families.values():
        rate = params.false_alarm / len(families)
        limits[columns] = spread[columns] * _joint_limits(deviations[:, columns], rate)
    count = len(names)
    low, high = centre - limits[:count], centre + limits[count : 2 * count]
    low = np.where(low > 0.0, low, -np.inf)  # no statistic is ever below zero
    charts = zip((EMBEDDING, UNCERTAINTY), (embedding, uncertainty), middles, limits[2 * count :], strict=True)
    regions = {name: Region(of, middle[0], float(radius)) for name, of, middle, radius in charts}
    return Baseline(names, centre, low, high, objects, regions, params.window, len(reference))


def _families(values: Array, uncertainties: Array, names: tuple[str, ...], params: WatchParams) -> dict[str, list[int]]:
    """Columns of the one-sided charts (M) that are monitored, by family."""
    families: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        family = "classes" if name.startswith(CLASS_PREFIX) else name
        defined = values[~np.isnan(values[:, row]), row]
        if family not in params.statistics or not len(defined):
            continue
        if (defined != np.median(defined)).sum() < MIN_DISTINCT:
            continue
        side = ONE_SIDED.get(name)
        columns = [row] * (side != "high") + [len(names) + row] * (side != "low")
        families.setdefault(family, []).extend(columns)
    if EMBEDDING in params.statistics:
        families[EMBEDDING] = [2 * len(names)]
    if UNCERTAINTY in params.statistics and uncertainties.std() > EPSILON:
        families[UNCERTAINTY] = [2 * len(names) + 1]
    return families


def _simulate(values: Array, projected: Sequence[Array], params: WatchParams) -> Array:
    """The largest deviation of each one-sided chart from its own resampled reference, in each of the simulated streams
    (B, M), in standard deviations of that reference: the spread of undisturbed images is uncertain as well."""
    rng = np.random.default_rng(params.seed)
    starts = range(0, params.simulations, BATCH)
    return np.concatenate(
        [_simulate_batch(values, projected, params, min(BATCH, params.simulations - s), rng) for s in starts]
    )


def _simulate_batch(
    values: Array, projected: Sequence[Array], params: WatchParams, count: int, rng: np.random.Generator
) -> Array:
    weight = 2.0 / (params.window + 1.0)
    images = len(values)
    drawn = _draw_blocks(rng, images, images, params.block_length, count)
    multiplicity = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
    centre, middles, spread = _summary(values, projected, multiplicity)
    # a resampled reference that happens to lack a rare event would make every such event an alarm
    spread = np.maximum(spread, MIN_SPREAD * _summary(values, projected, np.ones((1, images)))[2])
    # an undefined statistic gets no weight
    weights, filled = np.where(np.isnan(values), 0.0, weight), np.nan_to_num(values)
    level, positions = centre, middles
    low, high, distances = np.zeros_like(level), np.zeros_like(level), np.zeros((count, len(projected)))
    for rows in _draw_blocks(rng, images, params.horizon, params.block_length, count).T:
        level = level + weights[rows] * (filled[rows] - level)
        positions = [at + weight * (each[rows] - at) for at, each in zip(positions, projected, strict=True)]
        np.maximum(low, centre - level, out=low)
        np.maximum(high, level - centre, out=high)
        offsets = [mahalanobis(at - middle, weight) for at, middle in zip(positions, middles, strict=True)]
        np.maximum(distances, np.stack(offsets, axis=1), out=distances)
    return np.concatenate([low, high, distances], axis=1) / spread


def _summary(values: Array, projected: Sequence[Array], multiplicity: Array) -> tuple[Array, list[Array], Array]:
    """Means of the statistics (B, S) and of the projections (B, K), and the standard deviation of each one-sided chart
    (B, M), of references that contain each image `multiplicity` (B, N) times."""
    defined = ~np.isnan(values)
    filled, total = np.nan_to_num(values), multiplicity.sum(axis=1, keepdims=True)
    counts = np.maximum(multiplicity @ defined, 1.0)
    centre = (multiplicity @ filled) / counts
    spread = np.sqrt(np.maximum((multiplicity @ filled**2) / counts - centre**2, 0.0))
    middles = [(multiplicity @ each) / total for each in projected]
    around = []
    for each, middle in zip(projected, middles, strict=True):
        scatter = (multiplicity @ (each**2).sum(axis=1, keepdims=True)) / total
        scatter -= (middle**2).sum(axis=1, keepdims=True)
        around.append(np.sqrt(np.maximum(scatter, 0.0) / each.shape[1]))
    return centre, middles, np.maximum(np.concatenate([spread, spread, *around], axis=1), EPSILON)


def _draw_blocks(rng: np.random.Generator, images: int, length: int, block: int, count: int) -> NDArray[np.int64]:
    """Indices of reference images (count, length), drawn in blocks of `block` neighbours."""
    starts = rng.integers(images, size=(count, -(-length // block), 1))
    blocks = (starts + np.arange(block)) % images
    return np.asarray(blocks.reshape(count, -1)[:, :length])


def _joint_limits(deviations: Array, rate: float) -> Array:
    """A limit for each of a family's charts, so that a share `rate` of the streams (B, M) exceeds any of them, and all
    charts are exceeded equally often."""
    ordered = np.sort(deviations, axis=0)
    below = [np.searchsorted(ordered[:, m], deviations[:, m], "left") for m in range(deviations.shape[1])]
    # of each stream and chart: the share of all streams in which this chart deviates at least as much
    tails = 1.0 - np.stack(below, axis=1) / len(deviations)
    allowed = float(np.quantile(tails.min(axis=1), rate))
    return np.asarray(np.quantile(deviations, 1.0 - allowed, axis=0, method="higher"))
