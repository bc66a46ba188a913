"""The order in which to label the images of a folder, computed in the background as `samif suggest` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Literal

from flows.inference.image_files import find_images
from flows.inference.source import find
from flows.runtime.device import device_here
from flows.runtime.system_errors import sentence_of
from flows.suggest.suggest import newest_classifier, suggest
from flows.workspace.layout import Layout
from samif.config import load_params
from samif.inference.load import load_segmenter

logger = logging.getLogger(__name__)

State = Literal["none", "computing", "done", "failed"]


@dataclass(frozen=True)
class Order:
    """Names of images with the reason of each, best first; `error` says why there is none."""

    state: State = "none"
    images: tuple[tuple[str, str], ...] = ()
    error: str | None = None


class Orders:
    """The orders of the label sets of one workspace, in memory."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._lock = Lock()

    def of(self, set_id: str) -> Order:
        """The order of a set as far as it is known."""
        return self._orders.get(set_id, Order())

    def start(self, set_id: str, layout: Layout, folder: Path, labelled: Sequence[Path]) -> None:
        """Compute an order, unless that is under way."""
        with self._lock:
            if self.of(set_id).state == "computing":
                return
            self._orders[set_id] = Order("computing", self.of(set_id).images)
        Thread(target=self._compute, args=(set_id, layout, folder, labelled), daemon=True).start()

    def _compute(self, set_id: str, layout: Layout, folder: Path, labelled: Sequence[Path]) -> None:
        try:
            found = find(newest_classifier(layout, load_params(layout.params)), layout.root)
            segmenter = load_segmenter(found, device=device_here())
            images = find_images([folder], recursive=True).images
            done = suggest(segmenter, found, images, list(labelled), layout, len(images), "typical")
            chosen = tuple((s.image.name, s.choice.why) for s in done.images)
            self._orders[set_id] = Order("done", chosen)
        except Exception as error:
            logger.info("the images of %s could not be ordered", folder, exc_info=True)
            self._orders[set_id] = Order("failed", error=sentence_of(error))
