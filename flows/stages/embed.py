"""Stage `embed`: the embeddings of every image in the store, their manifests, and the list of unreadable images."""

from __future__ import annotations

from flows.artifacts.quarantine import BrokenImage, Quarantine
from flows.embedding.encoder import describe_encoder
from flows.embedding.flow import embed_images
from flows.loaders.image_paths import ImagePaths
from flows.loaders.inputs import index_of, store_of
from flows.runtime.progress import say
from flows.workspace.layout import SPLITS, Layout
from samif.config import Params
from samif.errors import DataError


def run(layout: Layout, params: Params, session: str | None) -> None:
    """Write `artifacts/embeddings.parquet` and `artifacts/quarantine/embed.json`, with a semantic encoder also
    `artifacts/semantic.parquet`.

    Images that became unreadable since the dataset stage are left out, or, with `dataset.broken_images: refuse`, are an
    error after the others are embedded.

    Raises:
        DataError: images are unreadable and the policy is to refuse them.
    """
    indexes = {split: index_of(layout, params, split) for split in SPLITS}
    images = ImagePaths(list(indexes.values()))
    store = store_of(layout, params)
    info = describe_encoder(params.encoder)
    if params.semantic is not None:  # an error of either encoder is raised before hours of embedding
        semantic = describe_encoder(params.semantic)
    embedded = {layout.embeddings: embed_images(images, params.embed, params.encoder, store, info=info)}
    broken = {image.sha256: image for image in embedded[layout.embeddings].quarantined}
    if params.semantic is not None:
        readable = images.without(broken) if broken else images
        embedded[layout.semantic] = embed_images(readable, params.embed, params.semantic, store, info=semantic)
        broken |= {image.sha256: image for image in embedded[layout.semantic].quarantined}
    else:
        layout.semantic.unlink(missing_ok=True)  # of an encoder that params.yaml no longer names
    quarantine = Quarantine(
        policy=params.dataset.broken_images,
        images=tuple(
            BrokenImage(
                split=split,
                file=image.file_name,
                sha256=image.sha256,
                reason=broken[image.sha256].reason,
                remedy=broken[image.sha256].remedy,
            )
            for split, index in (indexes if broken else {}).items()
            for image in index.without_labels().images
            if image.sha256 in broken
        ),
    )
    place = layout.quarantine("embed")
    quarantine.save(place)
    if broken and quarantine.policy == "refuse":
        raise DataError(
            f"all is embedded but {quarantine.sentence}; the whole list is {place}; replace them and run 'samif run' "
            "again, or set dataset.broken_images to quarantine in params.yaml, which leaves such images out"
        )
    if broken:
        say(f"left out {quarantine.sentence}; the whole list is {place}")
    for manifest, done in embedded.items():
        done.manifest.save(manifest)
        manifest.with_suffix(".json").unlink(missing_ok=True)  # of an earlier release
