"""A sequential test of a bounded mean, valid however often and however long it is looked at.

The hypothesis "observations in 0..1 have a mean of at most `bound`, whatever came before" is a game: each observation x
multiplies a stake by 1 + f (x - bound) / bound, which no strategy can win on average while the hypothesis holds. A
stake that begins at 1 and ever reaches 1 / a refutes the hypothesis at level a (Ville 1939). The stake is spread evenly
over fixed fractions f, since the best one depends on the unknown mean (Waudby-Smith and Ramdas 2024, "Estimating means
of bounded random variables by betting"). With fixed fractions the logarithms of the stakes are sums over observations:
those of several observers add up, in any order.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, FiniteFloat

from samif.config.strict import Strict

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Parts of the largest possible stake: small ones detect small effects, large ones large effects soon."""


class Evidence(Strict):
    """Evidence against one hypothesis.

    Attributes:
        count: number of observations.
        total: their sum.
        log_stakes: logarithm of the stake by fraction.
    """

    count: int = 0
    total: FiniteFloat = 0.0
    log_stakes: Annotated[tuple[FiniteFloat, ...], Field(min_length=len(FRACTIONS), max_length=len(FRACTIONS))] = (
        0.0,
    ) * len(FRACTIONS)

    @property
    def mean(self) -> float:
        """Mean of the observations; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    @property
    def log_stake(self) -> float:
        """Logarithm of the mean stake; the level at which the hypothesis is refuted is exp of its negative."""
        return float(mean_log_stake(np.array(self.log_stakes)))

    def after(self, observation: float, bound: float) -> Evidence:
        """With one more observation (0..1), against the hypothesis that their mean is at most `bound` (0..1)."""
        stakes = self.log_stakes + log_steps(observation, bound)
        return Evidence(count=self.count + 1, total=self.total + observation, log_stakes=tuple(stakes.tolist()))

    def __add__(self, other: Evidence) -> Evidence:
        """The evidence of both, from different observations against the same hypothesis."""
        stakes = tuple(a + b for a, b in zip(self.log_stakes, other.log_stakes, strict=True))
        return Evidence(count=self.count + other.count, total=self.total + other.total, log_stakes=stakes)


def log_steps(observations: ArrayLike, bound: float) -> NDArray[np.float64]:
    """What observations (...) in 0..1 add to the logarithm of the stake of each fraction (..., F)."""
    gains = (np.asarray(observations, dtype=np.float64)[..., None] - bound) / bound
    return np.asarray(np.log1p(np.array(FRACTIONS) * gains))


def mean_log_stake(log_stakes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm (...) of the mean of stakes whose logarithms (..., F) are given."""
    return np.asarray(np.logaddexp.reduce(log_stakes, axis=-1) - np.log(len(FRACTIONS)))
