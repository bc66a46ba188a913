"""A workspace of the demo line, small enough for a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from flows.workspace.params_edit import new_text
from samif.config import EncoderParams, SessionParams
from samif.dataset.draw.parts import BASE_PARTS


def drawn_workspace(root: Path, sessions: Mapping[str, SessionParams], **images: int) -> Path:
    """Make it in `root`, not yet run; `images` are the numbers to draw."""
    yaml = YAML()
    params = yaml.load(new_text("demo", list(BASE_PARTS), EncoderParams(), sessions))
    params["dataset"]["drawn"] = {"seed": 6, **images, "size": 192}
    params["pretrain_decoder"].update(steps=6, images_per_step=4)
    params["propose"].update(points=32)
    yaml.dump(params, root / "params.yaml")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(
        "[core]\n    no_scm = True\n    analytics = False\n    check_update = False\n"
    )
    (root / ".dvcignore").write_text("/.samif\n/reports\n")
    return root
