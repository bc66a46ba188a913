"""The file layout of a workspace: the one place that knows where a stage writes what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samif.config import BASE

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Layout:
    """Paths of a workspace. Everything under `artifacts/` is a DVC output; `.samif/` is state beside the graph."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def pipeline(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def state(self) -> Path:
        return self.root / ".samif"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def drawn(self) -> Path:
        """Images and COCO files of the demo line: `drawn/{train,val}/{images/,annotations.json}`."""
        return self.artifacts / "drawn"

    def index(self, split: str) -> Path:
        """Checked, normalised COCO file of `train` or `val`."""
        return self.artifacts / "dataset" / f"{split}.json"

    def quarantine(self, stage: str) -> Path:
        """Images that stage `dataset` or `embed` left out, with reasons; an empty list where there are none."""
        return self.artifacts / "quarantine" / f"{stage}.json"

    @property
    def embeddings(self) -> Path:
        """The manifest that names the store's shard of every image."""
        return self.artifacts / "embeddings.json"

    @property
    def semantic(self) -> Path:
        """The same of the semantic encoder's features, where params.yaml names one."""
        return self.artifacts / "semantic.json"

    @property
    def decoder(self) -> Path:
        """Folder of `decoder.safetensors` and `training.json`."""
        return self.artifacts / "decoder"

    def proposals(self, split: str) -> Path:
        return self.artifacts / "proposals" / f"{split}.parquet"

    def classifier(self, name: str = BASE) -> Path:
        """Folder of `classifier.safetensors` and `session.json` of the base classifier or of a session."""
        return self.artifacts / "classifiers" / name

    def evaluation(self, name: str = BASE) -> Path:
        """Folder of `evaluation.json` and `detections.json`."""
        return self.artifacts / "evaluations" / name

    @property
    def report(self) -> Path:
        """What the report stage writes: numbers and images, before versions are known."""
        return self.artifacts / "report"

    @property
    def reports(self) -> Path:
        """What people read: `summary.json` and `index.html`, published after registration."""
        return self.root / "reports"
