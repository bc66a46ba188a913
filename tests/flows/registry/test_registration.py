"""What a version is registered as: equal results give equal cards, wherever they were computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.registry.registration import params_digest
from samif.config import Params
from tests.support.tagged_line import TaggedLine

HEX = "0" * 64


def params(home: str, **changes: Any) -> Params:
    """Parameters of a workspace whose files lie in `home`."""
    content: dict[str, Any] = {
        "line": "demo",
        "dataset": {
            "train": {"images": f"{home}/train", "annotations": f"{home}/train.json"},
            "val": {"images": f"{home}/val", "annotations": f"{home}/val.json"},
            "base_classes": ["bolt"],
        },
        "encoder": {"name": "vit_b", "checkpoint": f"{home}/sam.pth"},
        "semantic": {"model": "small", "checkpoint": f"{home}/small.pth", "sha256": HEX},
        "train_base": {"features": ["token", "semantic"]},
        "sessions": {
            "s1": {
                "after": "base", "classes": ["hook"], "shots": 5,
                "source": {"images": f"{home}/s1", "annotations": f"{home}/s1.json", "digest": HEX},
            }
        },
    }  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition("__")
        content[section] = content[section] | {name: value}
    return Params.model_validate(content)


def test_where_files_lie_does_not_decide_a_version() -> None:
    assert params_digest(params("/home/ann"), "s1") == params_digest(params("/mnt/line"), "s1")
    pinned = params("/mnt/line", encoder__sha256=HEX)
    assert params_digest(params("/home/ann"), "s1") == params_digest(pinned, "s1")


@pytest.mark.parametrize(
    "change",
    [
        {"dataset__base_classes": ["gear"]},
        {"dataset__val": None},
        {"encoder__precision": "bfloat16"},
        {"semantic__sha256": "1" * 64},
        {"semantic__size": 224},
        {"train_base__features": ["token"]},
    ],
)
def test_what_decides_a_version_is_in_its_digest(change: dict[str, Any]) -> None:
    assert params_digest(params("/home/ann"), "s1") != params_digest(params("/home/ann", **change), "s1")


def test_other_shots_are_another_version() -> None:
    one, two = params("/a"), params("/a")
    source = two.sessions["s1"].source
    assert source is not None
    session = two.sessions["s1"].model_copy(update={"source": source.model_copy(update={"digest": "1" * 64})})
    two = two.model_copy(update={"sessions": {"s1": session}})
    assert params_digest(one, "s1") != params_digest(two, "s1") and params_digest(one, "base") == params_digest(
        two, "base"
    )


def test_two_workspaces_with_the_same_data_register_one_version(tmp_path: Path, migrated: Path) -> None:
    """Clones of a line at two places, on one registry: the second registration finds the first."""
    (tmp_path / "shared.db").write_bytes(migrated.read_bytes())
    uri = f"sqlite:///{tmp_path}/shared.db"
    numbers = []
    for place in ("here", "there"):
        line = TaggedLine(tmp_path / place, uri)
        text = line.layout.params.read_text()
        line.layout.params.write_text(text + f"encoder:\n  name: tiny\n  checkpoint: {tmp_path}/{place}/tiny.pth\n")
        numbers.append(line.add("base", bolt=[9.0, *[0.0] * 7], gear=[0.0, 9.0, *[0.0] * 6]))
    assert numbers == [1, 1]
