"""The advice of `samif data check`: which images, with which outputs of a run, and where its page goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.advice.gather import MISSING, give_advice
from flows.advice.page import render_advice
from flows.advice.run_outputs import RunOutputs, find_outputs
from flows.runtime.progress import say
from flows.workspace.layout import Layout, Split
from samif.advice.advise import Advice
from samif.config import Params
from samif.dataset.model import Dataset
from samif.dataset.sessions import split_by_image
from samif.io import files

PAGE = "data.html"


@dataclass(frozen=True)
class Advised:
    """Advice, and where its page is; None where none was written."""

    advice: Advice
    page: Path | None


def advise_workspace(layout: Layout, params: Params, read: Mapping[Split, Dataset], page: Path | None) -> Advised:
    """Advice about the data of a workspace, with its page.

    Args:
        read: the images of `train`, and of `val` where params.yaml gives them; otherwise they are held out as stage
            `dataset` does it.
        page: where to write it; None is `reports/data.html`.
    """
    splits, train = dict(read), read["train"]
    held_out = "val" not in splits and len({image.sha256 for image in train.images}) > 1
    if held_out:
        splits["train"], splits["val"] = split_by_image(train, params.dataset.holdout, params.dataset.seed)
    outputs: RunOutputs | None = None
    try:
        outputs = find_outputs(layout, params)
    except MISSING as error:
        say(f"names and masks are not judged: {error}; 'samif run' computes what they are judged by")
    advice = give_advice(train, splits, outputs, held_out)
    if page is not None:
        write_page(page, advice, splits, params.line)
        return Advised(advice, page)
    page = layout.reports / PAGE
    try:
        write_page(page, advice, splits, params.line)
    except OSError as error:  # checking somebody else's workspace must not need the right to write there
        say(f"the page {page} was not written ({error.strerror}); --page FILE writes it elsewhere")
        return Advised(advice, None)
    return Advised(advice, page)


def advise_files(train: Dataset, page: Path | None) -> Advised:
    """Advice about images and labels without a workspace; with a page where one is asked for."""
    say("names and masks are not judged without a workspace; 'samif init' and 'samif run' make one")
    splits: dict[Split, Dataset] = {"train": train}
    advice = give_advice(train, splits, None)
    if page is not None:
        write_page(page, advice, splits, train.root.name)
    return Advised(advice, page)


def write_page(page: Path, advice: Advice, splits: Mapping[Split, Dataset], line: str) -> None:
    """Write it whole or not at all."""
    page.parent.mkdir(parents=True, exist_ok=True)
    files.commit(page, render_advice(advice, splits, line).encode())
