"""Distribution of classification uncertainty over the classes: detects a new part among other unknown objects.

A line always shows objects without a certain class: dirt, parts of other lines, known parts in bad poses. One more of
them in every second image hardly changes their number. A new part, however, resembles the same known classes each time,
and in that direction ordinary uncertainty varies little.

Shape legend: N reference images, C classes, K components.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samif.watch.observe import Observation
from samif.watch.projection import Array, Projection, interleaved_folds, principal_axes, whitening


def fit_uncertainty(reference: Sequence[Observation], components: int) -> tuple[Projection, Array]:
    """Fit the projection of `Observation.uncertainty` (C + 1,) to at most `components` whitened components, never more
    than a quarter of the images.

    Returns:
        The projection, and the cross-fitted projections (N, K) of the reference images.
    """
    values = np.stack([image.uncertainty for image in reference]).astype(np.float64)
    centre, axes = principal_axes(values, max(1, min(components, len(values) // 4, values.shape[1])))
    raw = (values - centre) @ axes
    projected = np.empty_like(raw)
    for training, held_out in interleaved_folds(len(raw)):
        projected[held_out] = raw[held_out] @ whitening(raw[training])
    return Projection(centre, axes @ whitening(raw)), projected
