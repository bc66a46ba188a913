"""Recommended actions and alarm texts."""

from __future__ import annotations

import pytest

from samif.config.watch import WatchParams
from samif.watch.charts import Reading
from samif.watch.rules import WatchStatus, describe, recommend

PARAMS = WatchParams(max_novel_share=0.5, max_forgetting=2.0)


@pytest.mark.parametrize(
    ("alarms", "base", "novel", "forgetting", "expected"),
    [
        ([], 10, 10, 2.0, []),
        ([("replay", "differs")], 10, 0, None, ["re-evaluation"]),
        ([("unknown", "high")], 10, 0, None, ["new session"]),
        ([("out_of_distribution", "high")], 10, 0, None, ["new session"]),
        ([("uncertainty", "high")], 10, 0, None, ["new session"]),
        ([("class bolt", "low")], 10, 0, None, ["re-evaluation"]),
        ([("embedding", "high")], 10, 0, None, ["re-evaluation"]),
        ([("margin", "low")], 10, 0, None, ["re-evaluation"]),
        ([("embedding", "high"), ("margin", "low")], 10, 0, None, ["re-evaluation", "partial retraining"]),
        ([("embedding", "high"), ("unknown", "high")], 10, 0, None, ["new session", "re-evaluation"]),
        ([], 10, 11, None, ["partial retraining"]),
        ([], 10, 0, 2.01, ["partial retraining"]),
        ([("replay", "differs")], 1, 2, 5.0, ["re-evaluation", "partial retraining", "partial retraining"]),
    ],
)
def test_recommended_actions(
    alarms: list[tuple[str, str]], base: int, novel: int, forgetting: float | None, expected: list[str]
) -> None:
    found = recommend(WatchStatus(set(alarms), base, novel, forgetting), PARAMS)
    assert [item.action for item in found] == expected
    assert all(item.reason and "\n" not in item.reason for item in found)


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (
            Reading("unknown", 1.31, 0.7, None, 1.2),
            ["1.31 objects per image have no known class", "mean is 0.70", "at most 1.20"],
        ),
        (Reading("background", 0.05, 0.2, 0.1, 0.3), ["5 % of the proposals are background", "at least 10 %"]),
        (Reading("margin", 0.5, 0.88, 0.8, None), ["0.50", "at least 0.80"]),
        (Reading("out_of_distribution", 0.7, 0.1, None, 0.5), ["0.70 objects", "mean is 0.10", "at most 0.50"]),
        (Reading("objects", 9.0, 5.0, 3.0, 7.0), ["9.00 objects are found", "at most 7.00"]),
        (Reading("class bolt", 0.1, 1.0, 0.4, 2.0), ["0.10 objects of class 'bolt' are found", "at least 0.40"]),
        (Reading("uncertainty", 9.1, 0.0, None, 7.5), ["uncertain objects", "9.1 standard errors", "at most 7.5"]),
        (Reading("embedding", 12.5, 0.0, None, 10.0), ["12.5 standard errors", "at most 10.0"]),
    ],
)
def test_an_alarm_states_level_reference_and_limit(reading: Reading, words: list[str]) -> None:
    assert all(word in describe(reading) for word in words)
