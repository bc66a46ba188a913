"""Intervals of several classes at once, which together hold with the stated confidence.

Of eighty classes that have not changed, some leave their own 95 % interval by chance in nine comparisons of ten. The
half-width here is the same number of standard errors for every class: the quantile of the largest deviation among all
classes in a resample, in standard errors. That is the single-step maxT method of Westfall and Young (Resampling-Based
Multiple Testing, 1993; Romano and Wolf, Econometrica 73, 2005). Unlike Bonferroni's correction it needs no quantile
beyond what a thousand resamples resolve, and it follows the dependence between classes that share images.

Shape legend: R resamples, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def simultaneous_intervals(
    observed: Mapping[str, float | None], resampled: Mapping[str, Floats], confidence: float, family: frozenset[str]
) -> dict[str, tuple[float | None, float | None]]:
    """Interval of each class; none where it was not measured or no resample shows it.

    Args:
        observed: change of each class on the images themselves.
        resampled: the same on each resample, (R,), nan where a resample does not show the class.
        confidence: that no class of the family leaves its interval by chance.
        family: the classes that are judged together; the others have intervals of the same number of standard errors.
    """
    names = [name for name, value in observed.items() if value is not None and not np.isnan(resampled[name]).all()]
    intervals: dict[str, tuple[float | None, float | None]] = dict.fromkeys(observed, (None, None))
    if not names:
        return intervals
    centre = np.array([observed[name] for name in names], dtype=np.float64)
    values = np.stack([resampled[name] for name in names], axis=1)  # (R, C)
    errors = np.nanstd(values, axis=0)
    moving = np.array([name in family for name in names]) & (errors > 0.0)
    if not moving.any():  # nobody is judged, or no resample differs from another
        moving = errors > 0.0
    wide = 0.0
    if moving.any():
        deviations = np.abs(values[:, moving] - centre[moving]) / errors[moving]
        # what a resample does not show does not deviate
        wide = float(np.quantile(np.nan_to_num(deviations, nan=0.0).max(axis=1), confidence))
    for name, middle, error in zip(names, centre, errors, strict=True):
        intervals[name] = (float(middle - wide * error), float(middle + wide * error))
    return intervals
