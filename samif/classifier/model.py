"""The classifier: a frozen space, one row per class, background prototypes.

Frozen with the base classifier: centre and projection of the features, background prototypes, the model of unknown
objects, and the calibration. Learnt later: rows, each from the samples of its own class alone, so that adding or
removing a class leaves every other row bit-identical; and hard negatives, objects that were wrongly named.

Shape legend: N samples, D feature width, d projected width, C classes, G background prototypes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import logsumexp

from samif.classifier.confidence import NameConfidence
from samif.classifier.heads import HEADS, Array, HeadName, Transform, similarity, unit
from samif.classifier.operating_point import OperatingPoint
from samif.config import FeaturePart
from samif.errors import ConfigError, DataError, IntegrityError, ObjectMissing
from samif.io import files

FORMAT = "samif-classifier-2"
FIRST_FORMAT = "samif-classifier-1"
"""Of versions registered earlier: no unknown class, and `cosine` means what is `centred` now."""


@dataclass(frozen=True)
class FeatureSpace:
    """What the base classifier freezes.

    Attributes:
        parts: which features, in order.
        head: see `samif.classifier.heads`.
        centre: (D,) taken off every feature vector.
        projection: (D or M, d).
        background: prototypes (G, d), in projected features.
        temperature: factor on the logits.
        background_bias: added to the background's logit.
        random_projection: (D, M) random directions of `ranpac`.
        offset: (d,) taken off the random features.
        spread: variance of class means about the origin, for the spaces that measure distance.
        unknown_bias: added to the logit of an unknown object, one of a class that was not taught; None leaves it out.
        rejection: probability below which even the best class is rejected, where there is no operating point.
        confidence: how scores are made of what is known of a mask; without it, by their product.
        operating_point: scores from which classes are named; none where the evidence was too little to choose it.
    """

    parts: tuple[FeaturePart, ...]
    head: HeadName
    centre: Array
    projection: Array
    background: Array
    temperature: float
    background_bias: float
    random_projection: Array | None = None
    offset: Array | None = None
    spread: float = 0.0
    unknown_bias: float | None = None
    rejection: float = 0.0
    confidence: NameConfidence | None = None
    operating_point: OperatingPoint | None = None

    def project(self, features: Array) -> Array:
        """Feature vectors (N, D) -> (N, d).

        Raises:
            IntegrityError: the features are of another width.
        """
        if features.shape[1] != len(self.centre):
            raise IntegrityError(
                f"the classifier takes features of width {len(self.centre)}, got {features.shape[1]}; "
                "it was made with another encoder or decoder"
            )
        return Transform(self.centre, self.random_projection, self.projection, self.offset)(features)


@dataclass(frozen=True)
class Classifier:
    """A frozen space and class rows.

    Attributes:
        classes: names, in row order.
        rows: (C, d) in the projected space.
        counts: instances that each row was learnt from (C,).
        negatives: hard negatives (B, d), used beside the space's own background prototypes.
    """

    space: FeatureSpace
    classes: tuple[str, ...]
    rows: Array
    counts: NDArray[np.int64]
    negatives: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __post_init__(self) -> None:
        shape = (len(self.classes), self.space.projection.shape[1])
        if self.rows.shape != shape or self.counts.shape != shape[:1]:
            raise ValueError(f"expected rows {shape}, got {self.rows.shape} and counts {self.counts.shape}")
        if len(self.negatives) and self.negatives.shape[1] != shape[1]:
            raise ValueError(f"expected negatives of width {shape[1]}, got {self.negatives.shape}")

    def add(self, name: str, features: list[Array]) -> Classifier:
        """With one more class, learnt from one array of samples (S, D) per labelled instance.

        The row is the mean over instances of the projected samples, shrunk toward the base mean by K / (K + 1):
        the mean of a K-shot class is uncertain, and this is the posterior mean under a prior of one pseudo-instance.

        Raises:
            ConfigError: the class is already there.
            DataError: it has no instance.
        """
        if name in self.classes:
            raise ConfigError(f"class '{name}' is already in the classifier; remove it first or give it another name")
        if not features:
            raise DataError(f"class '{name}' has no labelled instance to learn from; label at least one")
        row = row_from(self.space, features)
        return replace(
            self,
            classes=(*self.classes, name),
            rows=np.concatenate([self.rows, row[None]]),
            counts=np.concatenate([self.counts, np.array([len(features)], dtype=np.int64)]),
        )

    def reject(self, features: list[Array]) -> Classifier:
        """With more hard negatives: one for each array of samples (S, D) of an object that was wrongly named."""
        found = [self.space.project(samples).mean(axis=0, dtype=np.float64)[None] for samples in features]
        kept = [self.negatives] if len(self.negatives) else []
        return replace(self, negatives=np.concatenate([*kept, *found]).astype(np.float32)) if found else self

    def remove(self, name: str) -> Classifier:
        """Without a class; all other rows are bit for bit what they were.

        Raises:
            ConfigError: there is no such class.
        """
        if name not in self.classes:
            raise ConfigError(f"class '{name}' is not in the classifier; it has {', '.join(self.classes)}")
        keep = np.array([c != name for c in self.classes])
        return replace(
            self, classes=tuple(c for c in self.classes if c != name), rows=self.rows[keep], counts=self.counts[keep]
        )

    def probabilities(self, features: Array) -> NDArray[np.float64]:
        """Feature vectors (N, D) -> probabilities (N, C + 1); the last column is none of the classes: background, or an
        unknown object."""
        projected = self.space.project(features).astype(np.float64)
        logits = class_logits(self.space, projected, self.rows)
        none = none_logit(self.space, projected, self.negatives)
        everything = np.concatenate([logits, none[:, None]], axis=1)
        return np.asarray(np.exp(everything - logsumexp(everything, axis=1, keepdims=True)))

    def with_confidence(self, confidence: NameConfidence | None) -> Classifier:
        """With another way to make scores."""
        return replace(self, space=replace(self.space, confidence=confidence))

    def with_operating_point(self, point: OperatingPoint | None) -> Classifier:
        """With the scores from which classes are named."""
        return replace(self, space=replace(self.space, operating_point=point))

    def operating_score(self, otherwise: float) -> float:
        """The lowest score of a name: that of the operating point, or `otherwise` where there is none."""
        point = self.space.operating_point
        return otherwise if point is None else point.score

    def row_digests(self) -> dict[str, str]:
        """SHA-256 of each class's row and count: what must never change once a class is learnt."""
        return {
            name: hashlib.sha256(row.tobytes() + count.tobytes()).hexdigest()
            for name, row, count in zip(self.classes, self.rows, self.counts, strict=True)
        }

    def save(self, path: Path) -> None:
        """Write as safetensors, whole or not at all; equal classifiers give equal bytes."""
        optional = {"confidence": self.space.confidence, "operating_point": self.space.operating_point}
        meta = {
            "format": FORMAT,
            "space": json.dumps(
                {
                    "parts": list(self.space.parts),
                    "head": self.space.head,
                    "temperature": self.space.temperature,
                    "background_bias": self.space.background_bias,
                    "spread": self.space.spread,
                    "unknown_bias": self.space.unknown_bias,
                    "rejection": self.space.rejection,
                    **{name: part.model_dump(mode="json") for name, part in optional.items() if part},
                },
                sort_keys=True,
            ),
            "classes": json.dumps(list(self.classes), ensure_ascii=False),
        }
        tensors: dict[str, NDArray[Any]] = {
            "centre": self.space.centre,
            "projection": np.ascontiguousarray(self.space.projection),
            "background": self.space.background,
            "rows": self.rows,
            "counts": self.counts,
        }
        if self.space.random_projection is not None and self.space.offset is not None:
            tensors |= {"lift": self.space.random_projection, "offset": self.space.offset}
        if len(self.negatives):
            tensors["negatives"] = self.negatives
        files.commit(path, _stable(save(tensors, metadata=meta)))

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read what `save` wrote.

        Raises:
            ObjectMissing: there is no such file.
            IntegrityError: the file is damaged or not a classifier.
        """
        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata() or {}
                if meta.get("format") not in (FORMAT, FIRST_FORMAT):
                    raise IntegrityError(
                        f"{path} is no classifier of samif; give the classifier.safetensors of a version"
                    )
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            facts = json.loads(meta["space"])
            confidence, point = facts.get("confidence"), facts.get("operating_point")
            if facts.get("shot_bias"):
                raise IntegrityError(
                    f"{path} was trained with train_base.shot_bias, which samif no longer has; train it again"
                )
            head = facts["head"]
            space = FeatureSpace(
                parts=cast(tuple[FeaturePart, ...], tuple(facts["parts"])),
                head="centred" if meta["format"] == FIRST_FORMAT and head == "cosine" else head,
                centre=tensors["centre"],
                projection=tensors["projection"],
                background=tensors["background"],
                temperature=facts["temperature"],
                background_bias=facts["background_bias"],
                random_projection=tensors.get("lift"),
                offset=tensors.get("offset"),
                spread=facts.get("spread", 0.0),
                unknown_bias=facts.get("unknown_bias"),
                rejection=facts.get("rejection", 0.0),
                confidence=None if confidence is None else NameConfidence.model_validate(confidence),
                operating_point=None if point is None else OperatingPoint.model_validate(point),
            )
            classes = tuple(json.loads(meta["classes"]))
            if "negatives" in tensors:
                return cls(space, classes, tensors["rows"], tensors["counts"], tensors["negatives"])
            return cls(space, classes, tensors["rows"], tensors["counts"])
        except FileNotFoundError:
            raise ObjectMissing(f"{path} does not exist; run 'samif run' or give a registered version") from None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise IntegrityError(
                f"{path} is damaged ({error}); restore it from the registry or run 'samif run'"
            ) from None


def row_from(space: FeatureSpace, features: list[Array]) -> Array:
    """Row (d,) of a class from one array of samples (S, D) per instance."""
    means = np.stack([space.project(samples).mean(axis=0, dtype=np.float64) for samples in features])
    if HEADS[space.head].angular:
        means = unit(means)
    count = len(features)
    weights = np.full(count, 1.0 / count)
    return np.asarray((weights @ means) * (count / (count + 1.0)), dtype=np.float32)


def class_logits(space: FeatureSpace, projected: NDArray[np.float64], rows: Array) -> NDArray[np.float64]:
    """Logits (N, C): the similarity of the space's head, times its temperature."""
    return np.asarray(space.temperature * similarity(space.head, projected, rows))


def none_logit(
    space: FeatureSpace, projected: NDArray[np.float64], negatives: Array | None = None
) -> NDArray[np.float64]:
    """Logit (N,) of none of the classes, from projected samples (N, d): background prototypes and unknown objects."""
    prototypes = space.background
    if negatives is not None and len(negatives):
        prototypes = np.concatenate([prototypes, negatives])
    background = space.temperature * similarity(space.head, projected, prototypes)
    logit = logsumexp(background, axis=1) + space.background_bias
    if space.unknown_bias is not None:
        unknown = space.temperature * unknown_similarity(space.head, projected, space.spread) + space.unknown_bias
        logit = np.logaddexp(logit, unknown)
    return np.asarray(logit)


def unknown_similarity(head: HeadName, projected: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Similarity (N,) of samples (N, d) to a class that was not taught.

    Where distance is measured, classes are Gaussians of unit covariance whose means scatter with variance `spread`
    about the origin (two-covariance model, Bruemmer and de Villiers 2010), so a new class is a Gaussian of
    variance 1 + spread. In the form that `similarity` uses, without the terms that all classes share, that is half the
    squared length times spread / (1 + spread). For the heads that compare angles it is a constant.
    """
    if HEADS[head].angular:
        return np.zeros(len(projected))
    return np.asarray(0.5 * (projected**2).sum(axis=1) * spread / (1.0 + spread))


def _stable(blob: bytes) -> bytes:
    """The same file with its header's keys in order: the writer's own order of metadata is not fixed."""
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[8 + length :]
