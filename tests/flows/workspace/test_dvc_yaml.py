"""What dvc.yaml says of the encoder's checkpoint: a stage that reads it runs again when its content changes."""

from __future__ import annotations

from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from flows.artifacts.embedding_manifest import EmbeddingManifest
from flows.pipeline.explain import why
from flows.pipeline.reproduce import dvc_environment
from flows.workspace.dvc_yaml import render_pipeline, sync_pipeline
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from tests.support.drawn import drawn_workspace

SHA256 = "ab" * 32
DATASET = {"drawn": {}, "base_classes": ["a"]}


def stages(**encoder: Any) -> dict[str, Any]:
    params = Params.model_validate({"line": "x", "dataset": DATASET, "encoder": encoder})
    found: dict[str, Any] = YAML(typ="safe").load(render_pipeline(params))["stages"]
    return found


@pytest.mark.parametrize(
    ("encoder", "dependency", "pinned", "shipped"),
    [
        ({"name": "tiny"}, None, False, True),
        ({"name": "tiny", "checkpoint": "/data/own: 1.pth"}, "/data/own: 1.pth", False, False),
        ({"name": "vit_b", "checkpoint": "file:///data/a%20b.pth"}, "/data/a b.pth", False, False),
        ({"name": "vit_b", "checkpoint": "/data/own.pth", "sha256": SHA256}, "/data/own.pth", False, False),
        ({"name": "vit_b", "checkpoint": "s3://bucket/own.pth", "sha256": SHA256}, None, True, False),
        ({"name": "vit_b", "sha256": SHA256}, None, True, False),
        ({"name": "vit_b"}, None, False, False),  # the published file, which the name pins
    ],
)
def test_content_counts_wherever_the_checkpoint_is(
    encoder: dict[str, str], dependency: str | None, pinned: bool, shipped: bool
) -> None:
    found = stages(**encoder)
    for name in ("embed", "pretrain_decoder"):  # the decoder starts from the checkpoint's
        others = {"artifacts/dataset/train.parquet", "artifacts/dataset/val.parquet", "artifacts/embeddings.parquet"}
        others |= {"artifacts/quarantine/dataset.json"}
        assert set(found[name]["deps"]) - others == ({dependency} if dependency else set())
        assert ("--weights" in found[name]["cmd"]) == shipped
    assert ("encoder.sha256" in found["pretrain_decoder"]["params"]) == pinned


def test_a_checkpoint_replaced_at_its_path_is_embedded_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "own.safetensors"
    with files("samif").joinpath("assets/tiny.safetensors").open("rb") as shipped:
        checkpoint.write_bytes(shipped.read())
    (tmp_path / "ws").mkdir()
    root = drawn_workspace(tmp_path / "ws", {}, base_images=16, mixed_images=6, val_images=2)
    yaml = YAML()
    raw = yaml.load(root / "params.yaml")
    raw["encoder"]["checkpoint"] = str(checkpoint)
    yaml.dump(raw, root / "params.yaml")
    layout = Layout(root)
    sync_pipeline(layout, load_params(layout.params))

    def embed() -> str:
        with dvc_environment(root):
            from dvc.repo import Repo

            with closing(Repo(".")) as repo:
                repo.reproduce("embed")
        return EmbeddingManifest.load(layout.embeddings).encoder.digest

    def reasons() -> tuple[str, ...]:
        return {reason.stage: reason.reasons for reason in why(root)}["embed"]

    first = embed()
    assert reasons() == ()
    tensors = load_file(checkpoint)
    name = next(name for name in tensors if name.startswith("image_encoder") and name.endswith("weight"))
    save_file(tensors | {name: tensors[name] + torch.ones(())}, checkpoint)
    assert reasons() == (f"dependency {checkpoint} changed",)
    assert embed() != first
