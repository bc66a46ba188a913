"""params.yaml as strict, frozen models.

One model per DVC stage, so that a stage can name exactly the parameters that it depends on.
Unknown keys are refused; an error says key, expected and got.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from samif.address import secretless, shown
from samif.errors import SamifError
from samif.strict import Fraction, Points, Positive, is_false, is_none
from samif.strict import Strict as Strict  # most modules know it from here
from samif.watch.params import WatchParams

BASE = "base"
"""Name of the classifier before any session; no session may take it."""

RESERVED_CLASSES = frozenset({"background", "unknown"})

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
FeaturePart = Literal["token", "pooled", "semantic"]
DataProtocol = Literal["coco2014-60-20", "part-of-coco2014"]
StoredAs = Literal["float16", "bfloat16", "int8"]
_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
_MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
Checkpoint = Annotated[str, secretless(f"set {_AWS} for s3://, or write ~/.netrc for https://")]


class CocoSource(Strict):
    """A folder of pictures and a COCO instance file, on this machine."""

    images: str
    annotations: str


class ShotSource(CocoSource):
    """Pictures and labels of their own for one session, pinned to their content: its digest decides whether the
    session runs again."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DrawnParams(Strict):
    """How many scenes of the demo line to draw."""

    seed: int = 0
    base_pictures: Positive = 260
    mixed_pictures: Positive = 60
    val_pictures: Positive = 120
    size: Annotated[int, Field(ge=64, le=2048)] = 320


class DatasetParams(Strict):
    """Where pictures come from, and which classes the base classifier may learn."""

    drawn: DrawnParams | None = None
    train: CocoSource | None = None
    val: CocoSource | None = None
    holdout: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    seed: int = 0
    broken_pictures: Literal["refuse", "quarantine"] = "refuse"
    base_classes: list[str] = Field(min_length=1)
    protocol: DataProtocol | None = None
    """What the data claim to be: a published protocol, which the dataset stage holds them against, or a part of it."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.drawn is None) == (self.train is None):
            raise ValueError("give either 'drawn' (the demo line) or 'train' (your own COCO file)")
        if len(set(self.base_classes)) != len(self.base_classes):
            raise ValueError("'base_classes' names a class twice")
        if self.protocol == "coco2014-60-20" and self.broken_pictures != "refuse":
            raise ValueError("'broken_pictures' must be refuse: the published 'protocol' leaves no picture out")
        return self


class EncoderParams(Strict):
    """The image encoder: `tiny` ships with the package, official ones need a checkpoint."""

    name: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "tiny"
    checkpoint: Checkpoint | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's matrix products, so a part of what embeddings are; bfloat16 only where hardware has it."""
    stored_as: StoredAs = "float16"
    """What embeddings are rounded to in the store, so a part of what they are."""


class SemanticParams(Strict):
    """A second encoder: a network of timm that says what a thing is, from a checkpoint of its own."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")]
    checkpoint: Annotated[Checkpoint, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Of the picture's longer side, a multiple of the network's patch; none takes the network's own."""


class EmbedParams(Strict):
    """The embedding store: where it lies, how it is cut into shards, who computes it."""

    store: Annotated[str, secretless(f"set {_AWS}")] = ".samif/embeddings"
    cache_gib: Annotated[float, Field(gt=0.0)] = 20.0
    shard_pictures: Positive = 64
    batch_pictures: Positive = 8
    workers: Positive = 2
    address: Annotated[str, secretless("set RAY_AUTH_TOKEN in the environment")] | None = None


class PretrainDecoderParams(Strict):
    """Instance-level fine-tuning of the mask decoder (SAM-IF, section on decoder tuning).

    It stops after `steps`, or earlier where every picture has been seen `max_epochs` times: a decoder tuned for long
    on few pictures returns what it was shown for every click.
    """

    classes: Literal["base", "all"] = "base"
    steps: Positive = 400
    max_epochs: Positive = 20
    pictures_per_step: Positive = 8
    object_points: Positive = 6
    background_points: Positive = 3
    learning_rate: Annotated[float, Field(gt=0.0, le=0.1)] = 5e-4
    erosion: Fraction = 0.15
    seed: int = 0
    workers: Positive = Field(default=1, exclude_if=lambda workers: bool(workers == 1))
    """Of Ray, which share each step; their number decides the last bits of the decoder, so a change tunes it anew."""


class ProposeParams(Strict):
    """Where to prompt, and which of the answers are kept as proposals."""

    prompts: Literal["points", "grid"] = "points"
    points: Positive = 64
    grid: Annotated[int, Field(ge=1, le=64)] = 16
    min_objectness: Fraction = 0.2
    max_proposals: Positive = 100
    duplicate_iou: Fraction = 0.9


class TrainBaseParams(Strict):
    """Features, head and background class; frozen once the base classifier is made."""

    features: list[FeaturePart] = Field(default=["pooled"], min_length=1)
    head: Literal["cosine", "centred", "lda", "ranpac"] = "lda"
    background_prototypes: Positive = 16
    unknown_weight: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """How much it counts that an object of a class nobody taught is not named; 0 knows no such objects."""
    rejection: Annotated[float, Field(ge=0.0, le=0.5)] = 0.2
    """Share of known objects that may go without a name so that fewer unknown ones are given one."""
    shot_bias: bool = False
    """Whether classes learnt from few instances are given a bias, measured on base classes learnt from as few."""
    prompts_per_object: Positive = 3
    seed: int = 0


class IncrementalParams(Strict):
    """How the shots of a session are used."""

    prompts_per_shot: Positive = 5
    rotations: list[Literal[90, 180, 270]] = Field(default=[90, 180, 270])
    outliers: Literal["keep", "downweight"] = "keep"
    """What is done with shots that lie far from the others of their class, from four shots on."""


class SessionParams(Strict):
    """One increment on top of the classifier named by `after`: new classes from K shots each, or more background.

    Shots come from the training pictures, or from `source`, so that a new part needs no change of what the base was
    trained on. With `background`, every object labelled in `source` is one that was wrongly named, whatever its label
    says: nothing like it is to be named again.
    """

    after: Name
    classes: list[str] = Field(default=[], validate_default=True)
    shots: Positive = 10
    seed: int = 0
    source: ShotSource | None = None
    background: bool = Field(default=False, exclude_if=is_false)

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if self.background and (self.classes or self.source is None):
            raise ValueError("a session of 'background' takes no 'classes', and its labels from a 'source' of its own")
        if not self.background and not self.classes:
            raise ValueError("expected 'classes' that the session teaches, got none")
        return self


class EvaluateParams(Strict):
    """Duplicate removal and the operating point of the reports."""

    duplicates: Literal["nms", "soft", "diffusion"] = "diffusion"
    duplicate_iou: Fraction = 0.5
    max_detections: Positive = 100
    operating_score: Fraction = 0.3


class RegistryParams(Strict):
    """Where MLflow keeps versions; none means SQLite and a folder inside the workspace."""

    tracking_uri: Annotated[str, secretless(f"set {_MLFLOW}")] | None = None


class Limits(Strict):
    """Points (0-100) per group, for every class, and for single classes instead of that; none asks nothing."""

    base: Points | None = None
    novel: Points | None = None
    all: Points | None = None
    each_class: Points | None = None
    classes: dict[str, Points | None] = Field(default={})


class GatesParams(Strict):
    """What a version must hold to go live, measured against the live one on the same pictures.

    Drops are counted over the classes that both know. A drop beyond its limit whose interval holds zero is not
    refused but left to a named person, who approves it or not.
    """

    metric: Literal["ap", "ap50"] = "ap"
    floors: Limits = Limits()
    max_drop: Limits = Limits(base=0.5, novel=2.0, all=1.0, each_class=10.0)
    min_instances: Positive = 20
    max_false_tags: Annotated[float, Field(ge=0.0)] | None = None
    max_false_tags_rise: Annotated[float, Field(ge=0.0)] | None = 0.2
    same_decoder: bool = True
    old_rows: Literal["identical", "any"] = "identical"
    approval: Literal["unclear", "always"] = "unclear"
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    seed: int = 0


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


def digest(*models: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of parameter models; the identity of a configuration."""
    parts = [m.model_dump(mode="json") if isinstance(m, BaseModel) else m for m in models]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _sentences(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        if item["type"] == "extra_forbidden":
            yield f"key '{key}': expected no such key, got {item['input']!r}; remove it or mend its spelling"
        elif item["type"] == "missing":
            yield f"key '{key}': expected a value, got nothing"
        elif item["type"] == "value_error":
            yield f"key '{key}': {item['ctx']['error']}"
        else:
            yield f"key '{key}': expected {item['msg'].removeprefix('Input should be ')}, got {item['input']!r}"
