"""Keeps answers with their images, by a sampling rule and within limits; after the answer, and never in its way."""

from __future__ import annotations

import hashlib
import io
import logging
import queue
import random
import threading
from collections import Counter
from datetime import UTC, datetime

from PIL import Image

from flows.artifacts.kept_answers import Instance, KeptAnswer, KeptAnswers, Reason, new_name
from flows.serve.answered import Answered
from flows.serve.answers import instances_of
from flows.serve.metrics import Metrics
from flows.serve.settings import KeepSettings
from samif.inference.segment import UNKNOWN
from samif.io.image_formats import FORMATS, suffix_of
from samif.suggest.features import name_changes

WAITING = 8
"""Answers that wait to be kept; what comes on top is left out and counted, so that it never holds up an answer."""

logger = logging.getLogger(__name__)


class Keeper:
    """A thread that keeps answers.

    Attributes:
        counts: answers that the rule chose, by outcome.
        problem: why the last one could not be written; None where it was.
    """

    def __init__(self, settings: KeepSettings, metrics: Metrics) -> None:
        self.counts: Counter[str] = Counter()
        self.problem: str | None = None
        self._settings, self._metrics = settings, metrics
        self._folder = KeptAnswers(settings.folder)
        self._draw = random.Random()
        self._queue: queue.Queue[tuple[Answered, list[Reason]]] = queue.Queue(WAITING)
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def offer(self, answered: Answered) -> None:
        """Take an answer if the rule may choose it, unless too many are waiting. Returns at once."""
        rule, reasons = self._settings, list[Reason]()
        if self._draw.random() < rule.share:
            reasons.append("share")
        if rule.unknown and UNKNOWN in answered.said.labels:
            reasons.append("unknown")
        if not reasons and rule.uncertain is None:
            return
        try:
            self._queue.put_nowait((answered, reasons))
        except queue.Full:
            self._count("dropped")

    def _run(self) -> None:
        while True:
            answered, reasons = self._queue.get()
            try:
                self._keep(answered, reasons)
            except Exception as error:  # whatever fails here must never cost the line anything
                self._count("failed")
                if self.problem is None:  # once, until it works again
                    self.problem = _reason(error)
                    logger.warning("answers are not kept, answering goes on", exc_info=error)
            finally:
                self._queue.task_done()

    def _keep(self, answered: Answered, reasons: list[Reason]) -> None:
        rule, uncertainty = self._settings, None
        if rule.uncertain is not None:
            uncertainty = name_changes(answered.proposals, answered.champion.segmenter.classifier)
            if uncertainty >= rule.uncertain:
                reasons.append("uncertain")
        if not reasons:
            return
        with Image.open(io.BytesIO(answered.body), formats=FORMATS) as image:
            suffix = suffix_of(image.format)
        answer = KeptAnswer(
            time=datetime.now(UTC),
            image=new_name(suffix),
            sha256=hashlib.sha256(answered.body).hexdigest(),
            width=answered.said.width,
            height=answered.said.height,
            model=answered.champion.title,
            classes=answered.champion.segmenter.classifier.classes,
            score=answered.score,
            reasons=tuple(reasons),
            uncertainty=uncertainty,
            instances=tuple(Instance.model_validate(found) for found in instances_of(answered.said)),
        )
        self._folder.create()
        kept = self._folder.add(answer, answered.body, rule.images, rule.bytes)
        self._count("kept" if kept else "too_large")
        if self.problem is not None:
            logger.warning("answers are kept again")
            self.problem = None

    def _count(self, outcome: str) -> None:
        self.counts[outcome] += 1
        self._metrics.kept.labels(outcome).inc()


def _reason(error: Exception) -> str:
    """Why, without the names of temporary files, so that the same reason is the same text."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{' '.join(text.split()) or type(error).__name__}; answering goes on"
