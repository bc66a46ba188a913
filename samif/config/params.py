"""The whole of params.yaml: read, and checked across its sections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from samif.config.data import DatasetParams
from samif.config.encoders import EmbedParams, EncoderParams, SemanticParams
from samif.config.learning import (
    EvaluateParams,
    IncrementalParams,
    Name,
    PretrainDecoderParams,
    ProposeParams,
    SessionParams,
    TrainBaseParams,
)
from samif.config.registry import GatesParams, RegistryParams
from samif.config.strict import Strict, is_none
from samif.config.watch import WatchParams
from samif.errors import SamifError
from samif.io.address import shown

BASE = "base"
"""Name of the classifier before any session; no session may take it."""

RESERVED_CLASSES = frozenset({"background", "unknown"})


class Params(Strict):
    """The whole of params.yaml."""

    line: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    workspace: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = Field(default=None, exclude_if=is_none)
    """Drawn when the workspace is made: only it and its clones register under the line's name."""
    dataset: DatasetParams
    encoder: EncoderParams = EncoderParams()
    semantic: SemanticParams | None = Field(default=None, exclude_if=is_none)
    embed: EmbedParams = EmbedParams()
    pretrain_decoder: PretrainDecoderParams = PretrainDecoderParams()
    propose: ProposeParams = ProposeParams()
    train_base: TrainBaseParams = TrainBaseParams()
    incremental: IncrementalParams = IncrementalParams()
    sessions: dict[Name, SessionParams] = Field(default={})
    evaluate: EvaluateParams = EvaluateParams()
    registry: RegistryParams = RegistryParams()
    gates: GatesParams = GatesParams()
    watch: WatchParams = WatchParams()

    @field_validator("line")
    @classmethod
    def _line_is_no_model(cls, line: str) -> str:
        if line.endswith(("-decoder", "-classifier", "-journal")):
            raise ValueError(f"expected the name of a line, got '{line}', which is that of a registered model of one")
        return line

    @field_validator("train_base")
    @classmethod
    def _features_can_be_had(cls, train_base: TrainBaseParams, info: ValidationInfo) -> TrainBaseParams:
        if "semantic" in train_base.features and info.data.get("semantic", True) is None:
            raise ValueError(
                "expected a section 'semantic' (model, checkpoint, sha256) for what 'features' calls semantic, got none"
            )
        return train_base

    @model_validator(mode="after")
    def _sessions_form_a_chain(self) -> Self:
        owner = dict.fromkeys(self.dataset.base_classes, "the base classes")
        for name in RESERVED_CLASSES & set(self.dataset.base_classes):
            raise ValueError(f"a class may not be named '{name}': results use that word for what has no class")
        previous = BASE
        for name, session in self.sessions.items():
            if name == BASE:
                raise ValueError("a session may not be named 'base'")
            if session.after != previous:
                raise ValueError(f"session '{name}' must come after '{previous}', not '{session.after}'")
            for cls in session.classes:
                if cls in RESERVED_CLASSES:
                    raise ValueError(f"a class may not be named '{cls}': results use that word for what has no class")
                if cls in owner:
                    raise ValueError(f"class '{cls}' of session '{name}' is already in {owner[cls]}")
                owner[cls] = f"session '{name}'"
            previous = name
        return self

    def known_classes(self, upto: str) -> list[str]:
        """Class names of the classifier called `upto` (`base` or a session), in row order."""
        known = list(self.dataset.base_classes)
        if upto == BASE:
            return known
        for name, session in self.sessions.items():
            known += session.classes
            if name == upto:
                return known
        raise SamifError(f"there is no session '{upto}'; params.yaml has {', '.join(self.sessions) or 'none'}")


RENAMED_KEYS = {
    "dataset.drawn.base_pictures": "dataset.drawn.base_images",
    "dataset.drawn.mixed_pictures": "dataset.drawn.mixed_images",
    "dataset.drawn.val_pictures": "dataset.drawn.val_images",
    "dataset.broken_pictures": "dataset.broken_images",
    "embed.shard_pictures": "embed.shard_images",
    "embed.batch_pictures": "embed.batch_images",
    "pretrain_decoder.pictures_per_step": "pretrain_decoder.images_per_step",
    "watch.replay_pictures": "watch.replay_images",
}
"""Keys of earlier releases: refused like any unknown key, with the name that they have now."""


def load_params(path: Path) -> Params:
    """Read and check a params.yaml.

    Raises:
        SamifError: the file is missing, is not YAML, or breaks the schema (key, expected, got).
    """
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SamifError(f"{path} does not exist; run 'samif init' to make a workspace") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise SamifError(f"{path} is not readable YAML: {shown(' '.join(str(error).split()))}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise SamifError(f"{path}: {'; '.join(map(shown, _sentences(error)))}") from None


def _sentences(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden" and key in RENAMED_KEYS:
            yield f"key '{key}' is called '{RENAMED_KEYS[key]}' now; rename it"
        elif item["type"] == "extra_forbidden":
            yield f"key '{key}': expected no such key, got {item['input']!r}; remove it or mend its spelling"
        elif item["type"] == "missing":
            yield f"key '{key}': expected a value, got nothing"
        elif item["type"] == "value_error":
            yield f"key '{key}': {item['ctx']['error']}"
        else:
            yield f"key '{key}': expected {item['msg'].removeprefix('Input should be ')}, got {item['input']!r}"
