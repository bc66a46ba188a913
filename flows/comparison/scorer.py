"""Score registered versions again, all on the same validation images of a workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.artifacts.proposal_file import ProposalFile, write_proposals
from flows.loaders.inputs import dataset_of, source_of
from flows.registry.registry import Registry
from flows.registry.version_files import DECODER
from flows.runtime.device import device_here
from flows.runtime.progress import track
from flows.workspace.layout import Layout
from samif.config import Params, digest
from samif.dataset.model import ImageRecord
from samif.errors import IntegrityError, ObjectMissing
from samif.evaluate.model import Evaluation
from samif.inference.propose import Proposals
from samif.io.hashing import file_sha256
from samif.versions.card import Card
from samif.versions.compare import ScoredVersion


class Scorer:
    """The validation images of a workspace and what versions score on them.

    Raises:
        ObjectMissing: the workspace has no checked images.
    """

    def __init__(self, layout: Layout, params: Params, registry: Registry) -> None:
        self._layout, self._params, self._registry = layout, params, registry
        self.dataset = dataset_of(layout, params, "val")

    def measure(self, ref: str) -> ScoredVersion:
        """Score a version with the proposal and labelling parameters of its card.

        Raises:
            IntegrityError: its files are not its card's, or the embeddings here are of another encoder.
            ObjectMissing: there is no such version, or nothing here to compute its proposals from.
        """
        from samif.classifier.model import Classifier
        from samif.evaluate.evaluate import evaluate
        from samif.evaluate.match_cache import build_match_cache

        folder = self._registry.download(ref)
        card = Card.load(folder / "card.json")
        classifier = Classifier.load(folder / "classifier.safetensors")
        base = Evaluation.load(folder / "evaluation.json").classes.base
        proposals_of = self.proposals(card, folder)
        with track(len(self.dataset.images), "images", f"score {ref}") as progress:
            scored = evaluate(
                card.name, self.dataset, proposals_of, classifier, base, card.inference.evaluate, progress.advance
            )
        matches = build_match_cache(
            self.dataset, scored.detections, classifier.classes, scored.unlabelled_false_positives
        )
        return ScoredVersion(scored.evaluation, matches, scored.detections, scored.matched)

    def proposals(self, card: Card, folder: Path) -> Callable[[ImageRecord], Proposals]:
        """Proposals of a version in `folder`: those of the workspace where its decoder made them; else computed now and
        kept under a key of everything that decides them.

        Raises:
            IntegrityError: the workspace's embeddings are of another encoder.
            ObjectMissing: the workspace lacks the semantic features that the version takes.
        """
        embedded = EmbeddingManifest.load(self._layout.embeddings)
        if embedded.encoder.digest != card.encoder.digest:
            raise IntegrityError(
                f"'{card.name}' was made with encoder {card.encoder.digest[:12]}, but the embeddings here are of "
                f"{embedded.encoder.digest[:12]}; compare it in a workspace of its own encoder"
            )
        if self._params.encoder.tiles != card.encoder.tiles:
            raise IntegrityError(
                f"'{card.name}' was made with encoder.tiles {card.encoder.tiles}, but params.yaml here says "
                f"{self._params.encoder.tiles}; compare it in a workspace with the same tiles"
            )
        here = self._layout.decoder / DECODER
        same = here.is_file() and file_sha256(here) == card.decoder.sha256
        if (
            same
            and self._has_semantic(card)
            and card.inference.propose == self._params.propose
            and self._layout.proposals("val").is_file()
        ):
            return ProposalFile(self._layout.proposals("val")).of
        made_of = {
            "decoder": card.decoder.sha256,
            "images": self.dataset.digest,
            "encoder": embedded.encoder.digest,
            "preprocessing": embedded.preprocessing,
            "dtype": embedded.dtype,
        }
        key = digest(made_of, card.inference.propose, *([card.semantic] if card.semantic is not None else []))
        kept = self._layout.state / "proposals" / f"{key[:32]}.parquet"
        if not kept.is_file():
            self._propose(card, folder, kept)
        return ProposalFile(kept).of

    def _propose(self, card: Card, folder: Path, kept: Path) -> None:
        from flows.stages.propose import propose_each
        from samif.sam.decoder import load_decoder

        if card.semantic is not None and not self._has_semantic(card):
            raise ObjectMissing(
                f"'{card.name}' was made with semantic encoder '{card.semantic.name}' ({card.semantic.digest[:12]}), "
                "whose features are not here; compare it in a workspace whose section 'semantic' names that encoder"
            )
        source = source_of(self._layout, self._params, "val")
        decoder = load_decoder(folder / DECODER)[0].to(device_here())
        with track(len(source.dataset.images), "images", "propose with the version's decoder") as progress:
            proposed = propose_each(decoder, source, card.inference.propose, progress)
            write_proposals(kept, proposed, semantic=source.read_semantic is not None)

    def _has_semantic(self, card: Card) -> bool:
        """Whether the workspace has the semantic features that the version takes, if it takes any."""
        if card.semantic is None:
            return True
        if self._params.semantic is None or not self._layout.semantic.exists():
            return False
        manifest = EmbeddingManifest.load(self._layout.semantic)
        return (manifest.encoder.digest, manifest.preprocessing) == (card.semantic.digest, card.semantic.preprocessing)
