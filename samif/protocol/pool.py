"""All samples that the draws of a protocol may need, with every feature that there is.

Shape legend: S samples of one instance, D width of all features together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from samif.classifier.collect import BaseSamples
from samif.classifier.heads import Array
from samif.classifier.incremental import InstanceKey
from samif.config import FeaturePart


@dataclass(frozen=True)
class Pool:
    """Samples of the base, and `shot_features` (S, D) of labelled instances of novel classes; `widths` says which
    columns are which features, in order."""

    base: BaseSamples
    shot_features: Mapping[InstanceKey, Array]
    widths: Mapping[FeaturePart, int]

    def columns(self, parts: Sequence[FeaturePart]) -> NDArray[np.int64]:
        """Columns of these features, in the order given."""
        starts = dict(zip(self.widths, np.cumsum([0, *self.widths.values()]).tolist(), strict=False))
        return np.concatenate([np.arange(starts[part], starts[part] + self.widths[part]) for part in parts])

    def with_shot_features(self, shot_features: Mapping[InstanceKey, Array]) -> Pool:
        """With these shot features beside those that it has."""
        return replace(self, shot_features={**self.shot_features, **shot_features})
