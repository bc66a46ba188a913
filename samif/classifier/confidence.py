"""Name confidence: the probability that a named mask is right, fitted per line on cross-fitted names of base images.

Class probability, predicted IoU and objectness are each fitted on their own, and their product takes all of them as
equally telling. Which of them tells right names from false ones depends on the line: where masks are good it is the
class, on photographs it is the predicted IoU and whether the mask is a part of another one. Logistic regression on
their logarithms (Platt scaling of several scores) learns that from names whose truth is known.

Shape legend: N named masks.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import minimize
from scipy.special import expit

from samif.config import Strict

Floats = NDArray[np.float64]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

FEWEST = 30
"""Right names, and false ones, that a fit needs: ten for each weight of the smaller group is the usual rule, and the
penalty halves it."""
PENALTY = 1.0
"""Of the squared weights of standardised quantities, beside a log loss that is summed over names."""
SMALLEST = 1e-4
"""Values below it are taken for it, before the logarithm."""


class NameConfidence(Strict):
    """Logistic regression of a name being right. No weight is negative: a better mask, or a more probable class, never
    makes a name less certain.

    Attributes:
        class_probability, iou, objectness, unmerged: weights of the logarithms; `unmerged` is the share of its score
            that duplicate removal left to a mask.
        apart: weight of the share of the mask that lies outside any better one of its class.
        bias: added.
    """

    class_probability: Weight
    iou: Weight
    objectness: Weight
    unmerged: Weight
    apart: Weight
    bias: Annotated[float, Field(allow_inf_nan=False)]

    def __call__(self, quantities: Floats) -> Floats:
        """Quantities (N, 5), see `naming_quantities` -> probabilities (N,)."""
        weights = [self.class_probability, self.iou, self.objectness, self.unmerged, self.apart]
        return np.asarray(expit(quantities @ np.array(weights) + self.bias), dtype=np.float64)


def naming_quantities(
    class_probability: Floats, iou: Floats, objectness: Floats, unmerged: Floats, apart: Floats
) -> Floats:
    """What a name is judged by (N, 5), in the order of the weights of `NameConfidence`; all arguments (N,) in 0..1."""
    columns = [np.log(np.clip(values, SMALLEST, 1.0)) for values in (class_probability, iou, objectness, unmerged)]
    return np.stack([*columns, apart], axis=1)


def fit_confidence(quantities: Floats, right: NDArray[np.bool_]) -> NameConfidence | None:
    """Fit on names (N, 5) of which it is known whether they are right (N,).

    Returns:
        None where there are fewer than FEWEST right or false names.
    """
    if min(int(right.sum()), int((~right).sum())) < FEWEST:
        return None
    spread = np.maximum(quantities.std(axis=0), 1e-6)
    middle = quantities.mean(axis=0)
    scaled, sign = (quantities - middle) / spread, np.where(right, 1.0, -1.0)

    def loss(values: Floats) -> tuple[float, Floats]:
        margin = sign * (scaled @ values[:-1] + values[-1])
        slope = -sign * expit(-margin)
        total = float(np.logaddexp(0.0, -margin).sum() + 0.5 * PENALTY * values[:-1] @ values[:-1])
        return total, np.append(slope @ scaled + PENALTY * values[:-1], slope.sum())

    width = quantities.shape[1]
    bounds = [(0.0, None)] * width + [(None, None)]
    found = minimize(loss, np.zeros(width + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    weights = np.maximum(found.x[:-1], 0.0) / spread
    names = ("class_probability", "iou", "objectness", "unmerged", "apart")
    return NameConfidence(**dict(zip(names, weights.tolist(), strict=True)), bias=float(found.x[-1] - weights @ middle))
