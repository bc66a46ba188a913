"""An answered image, for what happens after the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.serve.versions import Version
from samif.inference.propose import Proposals
from samif.inference.segment import Instances


@dataclass(frozen=True)
class Answered:
    """An image (H, W, 3) uint8 RGB that the champion has answered: what it proposed and what it said, down to which
    score. `body` is the file as it was sent, empty where no answers are kept."""

    image: NDArray[np.uint8]
    proposals: Proposals
    champion: Version
    said: Instances
    score: float
    body: bytes = b""
