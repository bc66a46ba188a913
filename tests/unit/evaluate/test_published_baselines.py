"""Published numbers, each with its protocol, and when a run may stand beside them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import pytest

from samif.config import Params
from samif.dataset.coco2014 import BASE, NOVEL
from samif.evaluate.published_baselines import Protocol, beside, protocol_of, published

PUBLISHED = {
    "coco2014-60-20": {
        "iMTFA": {1: (25.90, 2.81), 5: (22.56, 5.19), 10: (21.87, 5.88)},
        "iFS-RCNN": {1: (36.4, 4.0), 5: (36.3, 8.8), 10: (36.3, 10.1)},
        "RefT-cos": {1: (37.0, 3.1), 5: (35.3, 8.8), 10: (35.2, 11.1)},
    },
    "coco-novel-only": {"No time to train": {1: (None, 22.9), 5: (None, 32.1), 10: (None, 33.4)}},
}
"""Segm AP of base and novel classes by shots, as the papers give them."""

OWN = {"images": "/i", "annotations": "/a", "digest": 64 * "0"}
"""Images of a session's own."""


def params(protocol: str | None = "coco2014-60-20", **change: Any) -> Params:
    sessions = {"voc": {"after": "base", "classes": list(NOVEL)}}
    dataset = {"train": {"images": "/i", "annotations": "/a"}, "base_classes": list(BASE), "protocol": protocol}
    content = {"line": "x", "dataset": dataset, "sessions": sessions}
    dataset |= change.pop("dataset", {})
    return Params.model_validate(content | change)


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_the_rows_are_those_of_the_papers(protocol: Protocol) -> None:
    rows = published(protocol)
    found: dict[str, dict[int, tuple[float | None, float]]] = {}
    for row in rows:
        found.setdefault(row.name, {})[row.shots] = (row.base_ap, row.novel_ap)
    assert found == PUBLISHED[protocol]
    assert {row.protocol for row in rows} == {protocol}
    assert all(row.source.rsplit(" ", 1)[1].isdigit() for row in rows)


def test_protocols_are_never_mixed() -> None:
    assert {row.protocol for row in beside("coco2014-60-20").comparable} == {"coco2014-60-20"}
    assert {row.protocol for row in beside("coco2014-60-20").published_other_data} == {"coco-novel-only"}
    assert {row.protocol for row in beside("coco-novel-only").comparable} == {"coco-novel-only"}
    assert beside(None).comparable == []
    for protocol in (None, *get_args(Protocol)):
        rows = beside(protocol)
        both = [tuple(asdict(row).values()) for row in (*rows.comparable, *rows.published_other_data)]
        assert len(both) == len(set(both)) == 12


@pytest.mark.parametrize(
    ("run", "protocol"),
    [
        (params(), "coco2014-60-20"),
        (params("part-of-coco2014"), None),
        (params(None), None),
        (params(sessions={}), None),
        (params(sessions={"voc": {"after": "base", "classes": list(NOVEL[1:])}}), None),
        (
            params(
                sessions={
                    "a": {"after": "base", "classes": list(NOVEL[:10])},
                    "b": {"after": "a", "classes": list(NOVEL[10:])},
                }
            ),
            None,
        ),
        (params(pretrain_decoder={"classes": "all"}), None),
        (params(sessions={"voc": {"after": "base", "classes": list(NOVEL), "source": OWN}}), None),
        (params(dataset={"base_classes": list(BASE[1:])}), None),
        (params(sessions={"voc": {"after": "base", "classes": list(NOVEL), "shots": 3}}), "coco2014-60-20"),
    ],
)
def test_only_the_protocol_to_the_letter_is_comparable(run: Params, protocol: Protocol | None) -> None:
    assert protocol_of(run) == protocol
    assert bool(beside(protocol_of(run)).comparable) == (protocol is not None)
