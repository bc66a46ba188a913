"""What a classifier version says of itself in MLflow (tags, parameters, metrics), and a row of a listing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.registry.canary import canary_state
from samif.config import Params
from samif.evaluate.model import Evaluation
from samif.versions.card import Card

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

GROUPS = ("base", "novel", "all")
MOST_CHARACTERS = 6000  # MLflow refuses longer parameters


@dataclass(frozen=True)
class VersionRow:
    """One classifier version in a listing.

    `ap` and `ap50` by group (base, novel, all) in points (0-100), None for an empty group; `created` is ISO 8601
    in UTC. A version that was registered by hand has no session, classes, decoder version or card digest. The scores of
    one whose run was deleted are None. `canary` says what is known of it as a canary, None where it was none.
    """

    version: int
    session: str
    classes: int
    ap: dict[str, float | None]
    ap50: dict[str, float | None]
    created: str
    aliases: tuple[str, ...]
    decoder_version: int | None
    card_digest: str
    canary: str | None = None
    run_deleted: bool = False


def tags_of(card: Card, decoder_version: int) -> dict[str, str]:
    tags = {
        "session": card.name,
        "after": card.after,
        "classes": str(len(card.classes)),
        "decoder_version": str(decoder_version),
        "decoder_sha256": card.decoder.sha256,
        "dataset_digest": card.identity.dataset,
        "encoder_digest": card.encoder.digest,
        "semantic_digest": card.semantic.digest if card.semantic else None,
        "card_digest": card.digest,
        "commit": card.provenance.commit,
        "dvc_lock": card.provenance.dvc_lock,
    }
    return {key: value for key, value in tags.items() if value is not None}


def params_of(card: Card, session: dict[str, Any], params: Params | None) -> dict[str, str]:
    """Parameters of the run, those of params.yaml as `section.key`.

    Only what the card's digest covers: MLflow refuses to change a parameter of a run that is taken up again.

    Args:
        params: the workspace's, none where they are not kept with the version.
    """
    sections = {"propose": card.inference.propose, "evaluate": card.inference.evaluate}
    if params is not None:
        sections |= {name: getattr(params, name) for name in ("pretrain_decoder", "train_base", "incremental")}
    settings = {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.model_dump(mode="json").items()
    }
    if params is not None:
        encoder = params.encoder.model_dump(mode="json", exclude={"name", "checkpoint", "sha256"})
        settings |= {f"encoder.{key}": value for key, value in encoder.items()}
    own = {
        "session": card.name,
        "after": card.after,
        "encoder": card.encoder.name,
        "pretrain_classes": card.pretrain_classes,
        "shots": session.get("shots"),
        "seed": session.get("seed"),
    }
    return {key: _text(value) for key, value in (own | settings).items() if value is not None}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:MOST_CHARACTERS]


def metrics_of(evaluation: Evaluation) -> dict[str, float]:
    """`AP/GROUP` and `AP/class.NAME` (likewise AP50) in points, `unknown/...` and `names/...`; an empty group has no
    metric."""
    scores = {f"AP/{group}": getattr(evaluation.ap, group) for group in GROUPS}
    scores |= {f"AP50/{group}": getattr(evaluation.ap50, group) for group in GROUPS}
    for name, score in evaluation.per_class.items():
        # MLflow takes only these characters; the others are told apart by their code.
        safe = re.sub(r"[^\w .:-]", lambda match: f"_x{ord(match[0]):x}_", name)
        scores |= {f"AP/class.{safe}": score.ap, f"AP50/class.{safe}": score.ap50}
    scores["unknown/auroc"] = evaluation.unknown.auroc
    scores["unknown/unlabelled_false_positives_per_image"] = evaluation.unknown.unlabelled_false_positives_per_image
    if evaluation.naming is not None:
        rates = evaluation.naming.rates
        scores["names/named"] = None if rates.named is None else 100.0 * rates.named.value
        scores["names/false_per_1000_images"] = rates.false_names.value
    return {name: float(value) for name, value in scores.items() if value is not None}


def row_of(version: ModelVersion, model: RegisteredModel, metrics: Mapping[str, float] | None) -> VersionRow:
    """A row; without metrics the version's run was deleted."""
    tags, number = version.tags, int(version.version)
    decoder = tags.get("decoder_version")
    return VersionRow(
        version=number,
        session=tags.get("session", ""),
        classes=int(tags.get("classes", 0)),
        ap={group: (metrics or {}).get(f"AP/{group}") for group in GROUPS},
        ap50={group: (metrics or {}).get(f"AP50/{group}") for group in GROUPS},
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        aliases=tuple(sorted(alias for alias, at in model.aliases.items() if int(at) == number)),
        decoder_version=int(decoder) if decoder else None,
        card_digest=tags.get("card_digest", ""),
        canary=canary_state(tags),
        run_deleted=metrics is None,
    )
