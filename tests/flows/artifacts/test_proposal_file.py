"""Proposals as Parquet: what goes in comes out, and nothing half-written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.artifacts.proposal_file import ProposalFile, write_proposals
from samif.dataset.model import ImageRecord
from samif.errors import SamifError
from samif.inference.propose import Proposals
from tests.support.handmade import image, pixels, rle

SHAPE = (30, 40)


def some(count: int, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Proposals:
    rng = np.random.default_rng(seed)
    return Proposals(
        [rle(pixels(shape, int(n))) for n in rng.integers(1, shape[0] * shape[1], count)],
        rng.random(count).astype(np.float32),
        rng.random(count).astype(np.float32),
        rng.normal(size=(count, 8)).astype(np.float32),
        rng.normal(size=(count, 5)).astype(np.float32),
    )


def assert_equal(a: Proposals, b: Proposals) -> None:
    assert a.masks == b.masks
    for name in ("iou", "objectness", "tokens", "pooled"):
        assert getattr(a, name).dtype == np.float32 and np.array_equal(getattr(a, name), getattr(b, name))


def test_proposals_come_back_by_image(tmp_path: Path) -> None:
    path = tmp_path / "new" / "val.parquet"
    images = {image(7, SHAPE): some(5), image(2, (20, 25)): some(3, 1, (20, 25)), image(4, SHAPE): some(1, 2)}
    write_proposals(path, images.items())
    found = ProposalFile(path)
    for one, proposals in images.items():
        assert_equal(found.of(one), proposals)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_semantic_features_are_a_column_only_where_there_are_any(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    seen = [replace(some(n, n), semantic=rng.normal(size=(n, 6)).astype(np.float32)) for n in (4, 0)]
    images = list(zip((image(1, SHAPE), image(2, SHAPE)), seen, strict=True))
    write_proposals(tmp_path / "with.parquet", images, semantic=True)
    write_proposals(tmp_path / "without.parquet", images)
    found, plain = (ProposalFile(tmp_path / name) for name in ("with.parquet", "without.parquet"))
    semantic = found.of(image(1, SHAPE)).semantic
    assert semantic is not None and seen[0].semantic is not None and np.array_equal(semantic, seen[0].semantic)
    assert_equal(found.of(image(1, SHAPE)), plain.of(image(1, SHAPE)))
    assert plain.of(image(1, SHAPE)).semantic is None
    nothing = found.of(image(2, SHAPE)).semantic
    assert nothing is not None and len(nothing) == 0


def test_an_image_where_nothing_was_found_has_none(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    write_proposals(path, [(image(1, SHAPE), some(0)), (image(2, SHAPE), some(2))])
    found = ProposalFile(path)
    assert len(found.of(image(1, SHAPE))) == 0 and len(found.of(image(2, SHAPE))) == 2
    assert len(found.of(image(3, SHAPE))) == 0
    assert len(found.of(image(1, SHAPE)).take(np.zeros(0, dtype=np.int64))) == 0


def test_no_image_at_all(tmp_path: Path) -> None:
    write_proposals(tmp_path / "val.parquet", [])
    assert len(ProposalFile(tmp_path / "val.parquet").of(image(1, SHAPE))) == 0


def test_equal_proposals_give_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_proposals(tmp_path / name, [(image(1, SHAPE), some(4))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_run_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    write_proposals(path, [(image(1, SHAPE), some(4))])
    before = path.read_bytes()

    def broken() -> Iterator[tuple[ImageRecord, Proposals]]:
        yield image(1, SHAPE), some(2)
        raise SamifError("the shard is damaged")

    with pytest.raises(SamifError, match="the shard is damaged"):
        write_proposals(path, broken())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist; run 'samif run'"),
        (lambda whole: whole[: len(whole) // 2], "is damaged"),
        (lambda whole: whole[:-1], "is damaged"),
        (lambda whole: b"", "is damaged"),
        (lambda whole: b"no parquet at all", "is damaged"),
        (lambda whole: whole[:40] + bytes(60) + whole[100:], "is damaged"),
    ],
    ids=["missing", "half", "short", "empty", "text", "zeros within"],
)
def test_a_damaged_file_is_refused_in_one_sentence(content: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    if callable(content):
        write_proposals(path, [(image(1, SHAPE), some(40))])
        path.write_bytes(content(path.read_bytes()))
    with pytest.raises(SamifError, match=said) as refusal:
        ProposalFile(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
