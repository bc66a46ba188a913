"""The classifier: a frozen space, one row per class, background prototypes.

Frozen with the base classifier: where features are centred and how they are projected, the background prototypes,
temperature and background bias. Learnt later: rows, each from its own statistics alone, so that adding or removing
a class leaves every other row bit for bit as it was.

Shape legend: N samples, D feature width, d projected width, C classes, G background prototypes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import logsumexp

from samif.config import FeaturePart
from samif.errors import SamifError

Array = NDArray[np.float32]
HeadName = Literal["lda", "cosine"]

FORMAT = "samif-classifier-1"


@dataclass(frozen=True)
class Space:
    """What the base classifier freezes.

    Attributes:
        parts: which features, in order.
        head: `lda` (shared covariance; distance to a mean) or `cosine` (angle to a mean).
        centre: (D,) taken off every feature vector.
        projection: (D, d).
        background: prototypes (G, d), in projected features.
        temperature: factor on the logits.
        background_bias: added to the background's logit.
    """

    parts: tuple[FeaturePart, ...]
    head: HeadName
    centre: Array
    projection: Array
    background: Array
    temperature: float
    background_bias: float

    def project(self, features: Array) -> Array:
        """Feature vectors (N, D) -> (N, d)."""
        if features.shape[1] != len(self.centre):
            raise SamifError(
                f"the classifier takes features of width {len(self.centre)}, got {features.shape[1]}; "
                "it was made with another encoder or decoder"
            )
        return np.asarray((features - self.centre) @ self.projection, dtype=np.float32)


@dataclass(frozen=True)
class Classifier:
    """A frozen space and rows (C, d) with the number of instances behind each, (C,)."""

    space: Space
    classes: tuple[str, ...]
    rows: Array
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = (len(self.classes), self.space.projection.shape[1])
        if self.rows.shape != shape or self.counts.shape != shape[:1]:
            raise ValueError(f"expected rows {shape}, got {self.rows.shape} and counts {self.counts.shape}")

    def add(self, name: str, features: list[Array]) -> Classifier:
        """With one more class, learnt from one array of samples (S, D) per labelled instance.

        The row is the mean over instances of the projected samples, shrunk toward the base mean by K / (K + 1):
        the mean of a K-shot class is uncertain, and this is the posterior mean under a prior of one pseudo-instance.

        Raises:
            SamifError: the class is already there, or has no instance.
        """
        if name in self.classes:
            raise SamifError(f"class '{name}' is already in the classifier; remove it first or give it another name")
        if not features:
            raise SamifError(f"class '{name}' has no labelled instance to learn from; label at least one")
        row = row_from(self.space, features)
        return replace(
            self,
            classes=(*self.classes, name),
            rows=np.concatenate([self.rows, row[None]]),
            counts=np.concatenate([self.counts, np.array([len(features)], dtype=np.int64)]),
        )

    def remove(self, name: str) -> Classifier:
        """Without a class; all other rows are bit for bit what they were.

        Raises:
            SamifError: there is no such class.
        """
        if name not in self.classes:
            raise SamifError(f"class '{name}' is not in the classifier; it has {', '.join(self.classes)}")
        keep = np.array([c != name for c in self.classes])
        return replace(
            self, classes=tuple(c for c in self.classes if c != name), rows=self.rows[keep], counts=self.counts[keep]
        )

    def probabilities(self, features: Array) -> NDArray[np.float64]:
        """Feature vectors (N, D) -> probabilities (N, C + 1), the background in the last column."""
        projected = self.space.project(features).astype(np.float64)
        logits = class_logits(self.space, projected, self.rows)
        background = background_logit(self.space, projected)
        everything = np.concatenate([logits, background[:, None]], axis=1)
        return np.asarray(np.exp(everything - logsumexp(everything, axis=1, keepdims=True)))

    def row_digests(self) -> dict[str, str]:
        """SHA-256 of each class's row and count: what must never change once a class is learnt."""
        return {
            name: hashlib.sha256(row.tobytes() + count.tobytes()).hexdigest()
            for name, row, count in zip(self.classes, self.rows, self.counts, strict=True)
        }

    def save(self, path: Path) -> None:
        """Write as safetensors, whole or not at all; equal classifiers give equal bytes."""
        meta = {
            "format": FORMAT,
            "space": json.dumps(
                {
                    "parts": list(self.space.parts),
                    "head": self.space.head,
                    "temperature": self.space.temperature,
                    "background_bias": self.space.background_bias,
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
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(_stable(save(tensors, metadata=meta)))
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read what `save` wrote.

        Raises:
            SamifError: the file is missing, damaged or not a classifier.
        """
        try:
            with safe_open(path, "numpy") as file:
                meta = file.metadata() or {}
                if meta.get("format") != FORMAT:
                    raise SamifError(f"{path} is no classifier of samif; give the classifier.safetensors of a version")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            facts = json.loads(meta["space"])
            space = Space(
                parts=cast(tuple[FeaturePart, ...], tuple(facts["parts"])),
                head=facts["head"],
                centre=tensors["centre"],
                projection=tensors["projection"],
                background=tensors["background"],
                temperature=facts["temperature"],
                background_bias=facts["background_bias"],
            )
            return cls(space, tuple(json.loads(meta["classes"])), tensors["rows"], tensors["counts"])
        except FileNotFoundError:
            raise SamifError(f"{path} does not exist; run 'samif run' or give a registered version") from None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise SamifError(f"{path} is damaged ({error}); restore it from the registry or run 'samif run'") from None


def row_from(space: Space, features: list[Array]) -> Array:
    """Row (d,) of a class from one array of samples (S, D) per instance."""
    means = np.stack([space.project(samples).mean(axis=0, dtype=np.float64) for samples in features])
    if space.head == "cosine":
        means = _unit(means)
    count = len(features)
    return np.asarray(means.mean(axis=0) * (count / (count + 1.0)), dtype=np.float32)


def class_logits(space: Space, projected: NDArray[np.float64], rows: Array) -> NDArray[np.float64]:
    """Logits (N, C). `lda`: minus half the squared distance to the mean; `cosine`: the cosine (paper)."""
    return np.asarray(space.temperature * _evidence(space, projected, rows))


def background_logit(space: Space, projected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logit (N,) of "no known object": the prototypes' evidence together, plus the calibrated bias."""
    evidence = _evidence(space, projected, space.background)
    return np.asarray(logsumexp(space.temperature * evidence, axis=1) + space.background_bias)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (N, d) at length one; zero stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _evidence(space: Space, projected: NDArray[np.float64], vectors: Array) -> NDArray[np.float64]:
    """How well each sample fits each vector, (N, M): their cosine, or minus half their squared distance."""
    others = vectors.astype(np.float64)
    if space.head == "cosine":
        return np.asarray(_unit(projected) @ _unit(others).T)
    square = (projected**2).sum(axis=1, keepdims=True) + (others**2).sum(axis=1)[None, :]
    return np.asarray(projected @ others.T - 0.5 * square)


def _stable(blob: bytes) -> bytes:
    """The same file with its header's keys in order: the writer's own order of metadata is not fixed."""
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[8 + length :]
