"""The file layout of a workspace: the one place that knows where a stage writes what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from samif.config import BASE

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

_COPIES = (".dvc", "tmp", "exps")
"""Where DVC makes the copies in which experiments run."""


@dataclass(frozen=True)
class Layout:
    """Paths of a workspace. Everything under `artifacts/` is a DVC output; `.samif/` is state beside the graph."""

    root: Path

    @property
    def origin(self) -> Path:
        """The workspace that `dvc exp run --temp` or `--queue` copied this one from; elsewhere the workspace itself.

        A copy has what git and DVC track, but not `.samif/`.
        """
        parts = self.root.resolve().parts
        for end in range(len(parts) - len(_COPIES), 0, -1):
            origin = Path(*parts[:end])
            if parts[end : end + len(_COPIES)] == _COPIES and (origin / self.params.name).is_file():
                return origin
        return self.root

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def pipeline(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def launcher(self) -> Path:
        """The script with which the commands in dvc.yaml start `samif`."""
        return self.root / ".dvc" / "samif"

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"

    @property
    def state(self) -> Path:
        return self.root / ".samif"

    def cost(self, stage: str) -> Path:
        """What the latest execution of a stage cost; `stage` as DVC names it, such as session@NAME."""
        return self.state / "cost" / f"{stage}.json"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def drawn(self) -> Path:
        """Images and COCO files of the demo line: `drawn/{train,val}/{images/,annotations.json}`."""
        return self.artifacts / "drawn"

    def index(self, split: str) -> Path:
        """Checked, normalised images and labels of `train` or `val`."""
        return self.artifacts / "dataset" / f"{split}.parquet"

    def quarantine(self, stage: str) -> Path:
        """Images that stage `dataset` or `embed` left out, with reasons; an empty list where there are none."""
        return self.artifacts / "quarantine" / f"{stage}.json"

    @property
    def embeddings(self) -> Path:
        """The manifest that names the store's shard of every image."""
        return self.artifacts / "embeddings.parquet"

    @property
    def semantic(self) -> Path:
        """The same of the semantic encoder's features, where params.yaml names one."""
        return self.artifacts / "semantic.parquet"

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

    def metrics(self, name: str) -> Path:
        """Metrics of one classifier for DVC; not in the folder of its evaluation, as DVC's outputs may not overlap."""
        return self.artifacts / "metrics" / f"{name}.json"

    @property
    def summary_metrics(self) -> Path:
        """Metrics of the whole chain for DVC."""
        return self.artifacts / "metrics.json"

    @property
    def plots(self) -> Path:
        """Data and images that dvc.yaml draws plots from."""
        return self.artifacts / "plots"

    @property
    def report(self) -> Path:
        """What the report stage writes: numbers and images, before versions are known."""
        return self.artifacts / "report"

    @property
    def reports(self) -> Path:
        """What people read: `summary.json` and `index.html`, published after registration."""
        return self.root / "reports"
