"""What a console stands on: its workspaces, with what is opened once for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi import Path as PathParameter

from flows.console.actions import Actions
from flows.console.decisions import Decisions
from flows.console.runs import Runs
from flows.http.errors import HttpError
from flows.workspace.layout import Layout
from samif.config import Params, load_params
from samif.errors import ConfigError

if TYPE_CHECKING:
    from flows.console.drafts import Drafts
    from flows.console.engine import Engine
    from flows.console.label_sets import LabelSets
    from flows.console.review import Review
    from flows.console.suggested import Orders
    from flows.console.trial import Models


class Place:
    """One workspace of a console.

    Args:
        id: its number in the addresses of the console, from 1.
        folders: folders of images that may be labelled.
        shadow: folder of `samif serve --shadow-folder`.
    """

    def __init__(self, id: int, root: Path, folders: Sequence[Path], shadow: Path | None = None) -> None:
        self.id, self.layout, self.folders, self.shadow = id, Layout(root.resolve()), tuple(folders), shadow
        if not self.layout.params.exists():
            raise ConfigError(f"{root} is not a workspace (no params.yaml); run 'samif init' to make one")
        self.line = self.params.line
        self.state = self.layout.state / "console"
        self.actions = Actions(self.state / "actions.jsonl")
        self.decisions = Decisions(self.state)
        self.runs = Runs(self.layout.root, self.state)

    @property
    def params(self) -> Params:
        """params.yaml as it is now."""
        return load_params(self.layout.params)

    @cached_property
    def engine(self) -> Engine:
        """Encoder, decoder and classifier for labelling."""
        from flows.console.engine import Engine

        return Engine(self.layout)

    @cached_property
    def sets(self) -> LabelSets:
        """The folders of images with their labels."""
        from flows.console.label_sets import LabelSets

        return LabelSets(self.layout, self.folders)

    @cached_property
    def review(self) -> Review:
        """What waits for a decision."""
        from flows.console.review import Review

        return Review(self.layout, self.shadow)

    @cached_property
    def drafts(self) -> Drafts:
        """What the next sessions learn."""
        from flows.console.drafts import Drafts

        return Drafts(self.layout, self.sets)

    @cached_property
    def orders(self) -> Orders:
        """Orders of images, as `samif suggest` computes them."""
        from flows.console.suggested import Orders

        return Orders()

    @cached_property
    def models(self) -> Models:
        """Versions that were loaded to be tried."""
        from flows.console.trial import Models

        return Models(self.layout)


@dataclass(frozen=True)
class Console:
    """The workspaces of a console, in the order in which they were named."""

    places: tuple[Place, ...]

    def place(self, id: int) -> Place:
        """A workspace by its number.

        Raises:
            HttpError: 404; there is none.
        """
        for place in self.places:
            if place.id == id:
                return place
        raise HttpError(404, "workspace", f"there is no workspace {id}; choose one of {len(self.places)}")


def open_console(roots: Sequence[Path], folders: Sequence[Path], shadow: Path | None = None) -> Console:
    """The console of workspaces; folders of images belong to the first one.

    Args:
        shadow: folder of `samif serve --shadow-folder`; each workspace takes the disagreements of its own line.

    Raises:
        ConfigError: a root is no workspace, or is named twice.
    """
    resolved = [root.resolve() for root in roots]
    if len(set(resolved)) < len(resolved):
        raise ConfigError("a workspace is named twice; name each once")
    named = [("--images", folder, "a folder of images") for folder in folders]
    named += [("--shadow-folder", shadow, "that of 'samif serve'")] if shadow else []
    for option, folder, what in named:
        if not folder.is_dir():
            raise ConfigError(f"{option} {folder} is not a folder; name {what}")
    places = [Place(i, root, folders if i == 1 else (), shadow) for i, root in enumerate(resolved, start=1)]
    return Console(tuple(places))


def _place(request: Request, workspace: Annotated[int, PathParameter(ge=1, le=1000)]) -> Place:
    console: Console = request.app.state.console
    return console.place(workspace)


At = Annotated[Place, Depends(_place)]
"""The workspace that a route names as `{workspace}`."""
