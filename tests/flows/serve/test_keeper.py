"""Which answers are kept, and that nothing about it reaches an answer."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows.artifacts.kept_answers import KeptAnswer, KeptAnswers
from flows.serve.answered import Answered
from flows.serve.keeper import WAITING, Keeper
from flows.serve.settings import KeepSettings
from flows.serve.versions import Version
from samif.config import EvaluateParams
from samif.inference.segment import Instances, label
from tests.support.handmade import classifier, proposals, rectangle
from tests.support.served_line import png

WIDTH = 32
BOLT, NUT = np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)
HEAD = classifier({"bolt": BOLT.tolist(), "nut": NUT.tolist()}, [50.0] * WIDTH)
SIZE = (40, 60)


class Counts:
    """In the place of the metrics of Prometheus."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.kept = self

    def labels(self, outcome: str) -> Any:
        return SimpleNamespace(inc=lambda: self.outcomes.append(outcome))


def answered(seed: int, tokens: np.ndarray, unknown: bool = False) -> Answered:
    """An answer to one object with these features."""
    found = proposals([rectangle(SIZE, 4, 4, 20, 20)], tokens[None])
    said = label(found, HEAD, EvaluateParams(), *SIZE).resolved
    if unknown:
        said = Instances(*SIZE, said.masks, said.boxes, ("unknown",), said.scores)
    version = Version("demo-classifier", 3, {}, SimpleNamespace(classifier=HEAD))  # type: ignore[arg-type]
    return Answered(np.zeros((*SIZE, 3), np.uint8), found, version, said, 0.25, png(seed, SIZE[1], SIZE[0]))


SURE, UNSURE = 3 * BOLT, (BOLT + NUT) / 2


def kept(folder: Path, given: list[Answered], **rule: Any) -> list[KeptAnswer]:
    """What a keeper keeps of these answers."""
    keeper = Keeper(KeepSettings(folder, **rule), Counts())  # type: ignore[arg-type]
    for item in given:
        keeper.offer(item)
        keeper._queue.join()
    return list(KeptAnswers(folder).answers()) if folder.exists() else []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"share": 0.0}, []),
        ({"share": 1.0}, [("share",), ("share",), ("share",)]),
        ({"share": 0.0, "unknown": True}, [("unknown",)]),
        ({"share": 0.0, "uncertain": 0.3}, [("uncertain",)]),
        ({"share": 0.0, "unknown": True, "uncertain": 0.3}, [("uncertain",), ("unknown",)]),
        ({"share": 1.0, "unknown": True}, [("share",), ("share",), ("share", "unknown")]),
    ],
)
def test_the_rule_chooses(tmp_path: Path, rule: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    given = [answered(0, SURE), answered(1, UNSURE), answered(2, SURE, unknown=True)]
    found = kept(tmp_path / "kept", given, **rule)
    assert [answer.reasons for answer in found] == expected
    assert all((answer.uncertainty is not None) == ("uncertain" in rule) for answer in found)


def test_the_record_says_what_was_answered_by_whom(tmp_path: Path) -> None:
    (answer,) = kept(tmp_path / "kept", [answered(0, SURE)], share=1.0)
    assert (answer.model, answer.classes, answer.score) == ("demo-classifier/3", ("bolt", "nut"), 0.25)
    assert (answer.width, answer.height, answer.image[-4:]) == (60, 40, ".png")
    (found,) = answer.instances
    assert found.label == "bolt" and found.bbox == [4.0, 4.0, 20.0, 20.0]
    assert (KeptAnswers(tmp_path / "kept").images / answer.image).read_bytes() == png(0, 60, 40)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_share_is_drawn_by_chance(tmp_path: Path, share: float) -> None:
    keeper = Keeper(KeepSettings(tmp_path, share=share), Counts())  # type: ignore[arg-type]
    drawn: list[Any] = []
    keeper._queue = SimpleNamespace(put_nowait=drawn.append)  # type: ignore[assignment]
    item = answered(0, SURE)
    for _ in range(2000):
        keeper.offer(item)
    assert abs(len(drawn) / 2000 - share) < 0.05


@pytest.mark.parametrize(("number", "text"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_disk_that_takes_nothing_is_told_once_and_answering_goes_on(
    tmp_path: Path, number: int, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> bool:
        raise OSError(number, text)

    add = KeptAnswers.add
    monkeypatch.setattr(KeptAnswers, "add", refuse)
    counts = Counts()
    keeper = Keeper(KeepSettings(tmp_path / "kept", share=1.0), counts)  # type: ignore[arg-type]

    def offer(times: int) -> None:
        for seed in range(times):
            keeper.offer(answered(seed, SURE))
            keeper._queue.join()

    with caplog.at_level(logging.WARNING):
        offer(3)
        assert keeper.problem is not None and text in keeper.problem and "answering goes on" in keeper.problem
        assert len(caplog.records) == 1 and counts.outcomes == ["failed"] * 3
        monkeypatch.setattr(KeptAnswers, "add", add)
        offer(2)
    assert keeper.problem is None and [r.getMessage() for r in caplog.records][1:] == ["answers are kept again"]
    assert counts.outcomes[3:] == ["kept"] * 2 and keeper.counts == {"failed": 3, "kept": 2}


@pytest.mark.parametrize("body", [b"", b"no image"])
def test_no_defect_ends_the_thread(tmp_path: Path, body: bytes) -> None:
    good = answered(0, SURE)
    bad = Answered(good.image, good.proposals, good.champion, good.said, good.score, body)
    assert len(kept(tmp_path / "kept", [bad, good], share=1.0)) == 1


def test_a_slow_disk_holds_up_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, slow = threading.Event(), KeptAnswers.add

    def wait(*words: Any) -> bool:
        assert go.wait(60)
        return slow(*words)

    monkeypatch.setattr(KeptAnswers, "add", wait)
    keeper = Keeper(KeepSettings(tmp_path / "kept", share=1.0), Counts())  # type: ignore[arg-type]
    item = answered(0, SURE)
    for _ in range(WAITING + 5):
        keeper.offer(item)
    assert keeper.counts["dropped"] >= 4
    go.set()
    keeper._queue.join()
    assert keeper.counts["kept"] + keeper.counts["dropped"] == WAITING + 5
