"""Score registered versions again on the frozen validation images of a workspace, all on the same ones."""

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
from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.inference.propose import Proposals
from samif.io.hashing import file_sha256
from samif.versions.card import Card
from samif.versions.compare import ScoredVersion


class Scorer:
    """The validation images of a workspace and what versions score on them.

    Raises:
        SamifError: the workspace has no checked images.
    """

    def __init__(self, layout: Layout, params: Params, registry: Registry) -> None:
        self._layout, self._params, self._registry = layout, params, registry
        self.dataset = dataset_of(layout, params, "val")

    def measure(self, ref: str) -> ScoredVersion:
        """Score a version as its card says that it proposes and labels.

        Raises:
            SamifError: its files are not its card's, or its proposals can neither be found nor made here.
        """
        from samif.classifier.model import Classifier
        from samif.evaluate.evaluate import evaluate
        from samif.evaluate.match_cache import match_records

        folder = self._registry.download(ref)
        card = Card.load(folder / "card.json")
        classifier = Classifier.load(folder / "classifier.safetensors")
        base = Evaluation.load(folder / "evaluation.json").classes.base
        proposals_of = self.proposals(card, folder)
        with track(len(self.dataset.images), "images", f"score {ref}") as progress:
            scored = evaluate(
                card.name, self.dataset, proposals_of, classifier, base, card.inference.evaluate, progress.advance
            )
        records = match_records(self.dataset, scored.detections, classifier.classes, scored.false_tags)
        return ScoredVersion(scored.evaluation, records, scored.detections)

    def proposals(self, card: Card, folder: Path) -> Callable[[ImageRecord], Proposals]:
        """Of a version in `folder`: the workspace's own proposals where its decoder made them; else made now, and kept.

        Raises:
            SamifError: the workspace's embeddings are another encoder's.
        """
        here = self._layout.decoder / DECODER
        same = here.is_file() and file_sha256(here) == card.decoder.sha256
        if (
            same
            and self._sees(card)
            and card.inference.propose == self._params.propose
            and self._layout.proposals("val").is_file()
        ):
            return ProposalFile(self._layout.proposals("val")).of
        key = digest(
            {"decoder": card.decoder.sha256, "images": self.dataset.digest}, card.inference.propose,
            *([card.semantic] if card.semantic is not None else []),
        )  # fmt: skip
        kept = self._layout.state / "proposals" / f"{key[:32]}.parquet"
        if not kept.is_file():
            self._propose(card, folder, kept)
        return ProposalFile(kept).of

    def _propose(self, card: Card, folder: Path, kept: Path) -> None:
        from flows.stages.propose import propose_each
        from samif.sam.decoder import load_decoder

        encoder = EmbeddingManifest.load(self._layout.embeddings).encoder
        if encoder.digest != card.encoder.digest:
            raise SamifError(
                f"'{card.name}' was made with encoder {card.encoder.digest[:12]}, but the embeddings here are of "
                f"{encoder.digest[:12]}; compare it in a workspace of its own encoder"
            )
        if card.semantic is not None and not self._sees(card):
            raise SamifError(
                f"'{card.name}' was made with semantic encoder '{card.semantic.name}' ({card.semantic.digest[:12]}), "
                "whose features are not here; compare it in a workspace whose section 'semantic' names that encoder"
            )
        source = source_of(self._layout, self._params, "val")
        decoder = load_decoder(folder / DECODER)[0].to(device_here())
        with track(len(source.dataset.images), "images", "propose with the version's decoder") as progress:
            proposed = propose_each(decoder, source, card.inference.propose, progress)
            write_proposals(kept, proposed, semantic=source.read_semantic is not None)

    def _sees(self, card: Card) -> bool:
        """Whether the workspace has the semantic features that the version takes, if it takes any."""
        if card.semantic is None:
            return True
        if self._params.semantic is None or not self._layout.semantic.exists():
            return False
        manifest = EmbeddingManifest.load(self._layout.semantic)
        return (manifest.encoder.digest, manifest.preprocessing) == (card.semantic.digest, card.semantic.preprocessing)
