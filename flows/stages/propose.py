"""Stage `propose`: class-agnostic mask proposals for every image."""

from __future__ import annotations

from collections.abc import Iterator

from flows.artifacts.proposal_file import write_proposals
from flows.loaders.inputs import Source, decoder_of, source_of
from flows.runtime.device import device_here
from flows.runtime.progress import Tracker, track
from flows.workspace.layout import Layout
from samif.config import Params, ProposeParams
from samif.dataset.model import ImageRecord
from samif.inference.propose import Proposals, propose
from samif.sam.decoder import InstanceDecoder
from samif.sam.frame import Frame


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/proposals/{train,val}.parquet`."""
    decoder = decoder_of(layout, device_here())
    for split in ("train", "val"):
        source = source_of(layout, params, split)
        with track(len(source.dataset.images), "images", f"propose {split}") as progress:
            proposed = propose_each(decoder, source, params.propose, progress)
            write_proposals(layout.proposals(split), proposed, semantic=source.read_semantic is not None)


def propose_each(
    decoder: InstanceDecoder, source: Source, params: ProposeParams, progress: Tracker
) -> Iterator[tuple[ImageRecord, Proposals]]:
    """The images of a split in order, each with its proposals and their features."""
    for image in source.dataset.images:
        frame = Frame(image.height, image.width, decoder.image_size, source.tiles)
        found = propose(decoder, source.read([image])[0], frame, params)
        yield image, found.with_semantic(source.semantic(image))
        progress.advance()
