"""The embedding store: image embeddings by content, in shards, shared between branches and users.

    NAMESPACE/ab/abcd....json                          manifest: the shard exists if this exists and is valid
    NAMESPACE/ab/abcd....0123456789abcdef.safetensors  the shard (`codec`)
    NAMESPACE/index-0123456789abcdef.safetensors       place of each key; may be deleted (`index`)
    NAMESPACE/namespace.json                           the namespace's key, for people

A namespace is one encoder with one preprocessing and one dtype. A shard's name is the SHA-256 of its ordered keys; the
name of its data also contains the start of its own SHA-256, so the manifest of one writer is never combined with the
data of another one whose embeddings differ in the last bit (CPU and GPU). Data is written first; the manifest commits
it, and of several writers the first one's manifest is kept. The storage is a folder or a bucket (`storage`).

Shape legend: n images; C, h, w channels, height and width of an embedding (256, 64, 64 for official SAM).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from flows.runtime.cache_dir import cache_folder
from flows.runtime.remote_files import is_remote, local_path
from flows.store.bucket import Bucket
from flows.store.cache import Cache
from flows.store.folder import Folder
from flows.store.namespace import Namespace
from flows.store.namespace_key import NamespaceKey
from flows.store.reader import EmbeddingReader
from flows.store.storage import Storage
from samif.config import EmbedParams, StoredAs
from samif.errors import ConfigError

__all__ = ["EmbeddingReader", "EmbeddingStore", "Namespace", "open_store"]

_CACHE_GIB = EmbedParams().cache_gib


class EmbeddingStore:
    """Namespaces in a folder or a bucket. Picklable: another process opens the same store."""

    def __init__(self, storage: Storage | Path, stored_as: StoredAs = "float16") -> None:
        self.storage: Storage = Folder(storage) if isinstance(storage, Path) else storage
        self.stored_as = stored_as

    @property
    def location(self) -> str:
        """Folder or address, for messages."""
        return self.storage.location

    def namespace(self, encoder_digest: str, preprocessing_digest: str, stored_as: StoredAs | None = None) -> Namespace:
        """The embeddings of one encoder with one preprocessing, in one dtype: the store's unless given."""
        dtype = stored_as or self.stored_as
        return Namespace(
            self.storage, NamespaceKey(encoder=encoder_digest, preprocessing=preprocessing_digest, dtype=dtype)
        )


def open_store(
    location: str, base: Path, stored_as: StoredAs = "float16", cache_gib: float = _CACHE_GIB
) -> EmbeddingStore:
    """The store at a location: a path (relative to `base`), a file:// address, or s3://bucket/prefix.

    Nothing is read or created yet. S3 takes endpoint and credentials from the environment or the machine's role.

    Args:
        stored_as: dtype in which embeddings are written.
        cache_gib: limit of this machine's cache for parts of a bucket, in $SAMIF_CACHE or ~/.cache/samif.

    Raises:
        ConfigError: no such kind of address, or it names no bucket.
    """
    if not is_remote(location):
        return EmbeddingStore(Folder(base / local_path(location)), stored_as)
    address = urlsplit(location)
    if address.scheme != "s3" or not address.netloc:
        raise ConfigError(f"embedding store '{location}': give a folder or s3://bucket/prefix in 'embed.store'")
    cache = Cache(cache_folder("embeddings"), int(cache_gib * 2**30))
    return EmbeddingStore(Bucket(address.netloc, address.path.strip("/"), cache), stored_as)
