"""Which proposals a version is scored on, and when they are computed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.artifacts.embedding_manifest import EmbeddingManifest, EncoderIdentity
from flows.artifacts.proposal_file import write_proposals
from flows.comparison.scorer import Scorer
from samif.errors import IntegrityError
from samif.versions.card import Card
from tests.support.tagged_line import HEX, ROWS, TaggedLine


@pytest.fixture
def line(tmp_path: Path, migrated: Path) -> TaggedLine:
    """A line with one version, whose workspace has trained another decoder since."""
    line = TaggedLine(tmp_path / "line", migrated)
    line.add("base", bolt=ROWS["bolt"], gear=ROWS["gear"])
    (line.layout.decoder / "decoder.safetensors").write_bytes(b"another decoder")
    return line


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of proposals that were computed, one entry each time."""
    files: list[Path] = []

    def compute(scorer: Scorer, card: Card, folder: Path, kept: Path) -> None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_proposals(kept, ())
        files.append(kept)

    monkeypatch.setattr(Scorer, "_propose", compute)
    return files


def ask(line: TaggedLine) -> None:
    folder = line.registry.download("demo/1")
    Scorer(line.layout, line.params, line.registry).proposals(Card.load(folder / "card.json"), folder)


@pytest.mark.parametrize("change", [{"preprocessing": "another"}, {"dtype": "int8"}])
def test_proposals_of_other_embeddings_are_not_used_again(
    line: TaggedLine, computed: list[Path], change: dict[str, Any]
) -> None:
    ask(line)
    ask(line)
    assert len(computed) == 1
    manifest = EmbeddingManifest.load(line.layout.embeddings)
    manifest.model_copy(update=change).save(line.layout.embeddings)
    ask(line)
    assert len(set(computed)) == 2


def test_embeddings_of_another_encoder_are_refused_though_proposals_are_kept(
    line: TaggedLine, computed: list[Path]
) -> None:
    ask(line)
    manifest = EmbeddingManifest.load(line.layout.embeddings)
    other = EncoderIdentity(name="tiny", digest="1" * len(HEX))
    manifest.model_copy(update={"encoder": other}).save(line.layout.embeddings)
    with pytest.raises(IntegrityError, match="was made with encoder 000000000000, but the embeddings here are of 111"):
        ask(line)
