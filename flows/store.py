"""The embedding store: picture embeddings by content, in shards, shared by branches and users.

    ROOT/NAMESPACE/ab/abcd....json                        manifest: the shard exists because this is here and valid
    ROOT/NAMESPACE/ab/abcd....0123456789abcdef.safetensors  the shard: one tensor `embeddings`

A namespace is one encoder with one preprocessing. A shard's name is the SHA-256 of its ordered keys; the data file
also bears the start of its own SHA-256, so two writers whose embeddings differ in the last bit (CPU and GPU) never
put one's manifest beside the other's data: the manifest that is written last wins, and it names an intact file.

Shape legend: n pictures; C, h, w channels, height and width of an embedding (256, 64, 64 for official SAM).
Everything that touches storage is in `flows.files`.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from flows import files
from flows.embedding_manifest import EmbeddingManifest
from flows.shard import Damage, ShardManifest, row_sums
from flows.sources import is_remote, local_path
from samif.errors import SamifError
from samif.hashing import file_sha256

if TYPE_CHECKING:
    import torch

_TENSOR = "embeddings"
_OPEN_SHARDS = 32


def open_store(location: str, base: Path) -> EmbeddingStore:
    """The store at a location: a path (relative to `base`), a file:// address, or s3://bucket/prefix.

    Raises:
        SamifError: no such kind of address.
    """
    if is_remote(location):
        raise SamifError(f"embedding store {location}: only a folder can be a store so far; give a path")
    return EmbeddingStore(base / local_path(location))


class EmbeddingStore:
    """A folder of namespaces; the folder needs not exist yet. Picklable: another process opens the same."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def location(self) -> str:
        """Where it lies, for messages."""
        return str(self.root)

    def namespace(self, encoder_digest: str, preprocessing_digest: str) -> Namespace:
        """The embeddings of one encoder with one preprocessing."""
        return Namespace(self.root, encoder_digest, preprocessing_digest)


class Namespace:
    """Embeddings of one encoder and preprocessing, addressed by the SHA-256 of the picture file (hex).

    Nothing is kept in memory between calls: another process may write at any time.
    """

    def __init__(self, root: Path, encoder_digest: str, preprocessing_digest: str) -> None:
        self._identity = f"{encoder_digest}\n{preprocessing_digest}\n"
        self.folder = root / _sha256(self._identity)[:16]

    def key(self, picture: str) -> str:
        """Key of a picture: SHA-256 over encoder digest, preprocessing digest and picture SHA-256."""
        return _sha256(self._identity + picture)

    def shard_name(self, pictures: Sequence[str]) -> str:
        """Name of the shard that holds exactly these pictures in this order."""
        return _sha256("\n".join(map(self.key, pictures)))

    def holds(self, shard: str) -> bool:
        """Whether a shard is committed, by its manifest and the size of its data (nothing is hashed)."""
        found = self._manifest(self._path(shard))
        return isinstance(found, ShardManifest) and files.size(self._path(shard).with_name(found.file)) == found.bytes

    def missing(self, pictures: Sequence[str]) -> list[str]:
        """Those of the pictures that no committed shard holds, in the given order, each once."""
        found = self.locate(pictures)
        return [picture for picture in dict.fromkeys(pictures) if picture not in found]

    def locate(self, pictures: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Shard and row of each picture that a committed shard holds; others are left out."""
        rows = {
            key: (manifest.shard, row)
            for manifest in sorted(self._scan()[0], key=lambda manifest: manifest.shard, reverse=True)
            for row, key in enumerate(manifest.keys)
        }
        return {picture: rows[key] for picture in pictures if (key := self.key(picture)) in rows}

    def write(self, pictures: Sequence[str], embeddings: torch.Tensor) -> str:
        """Commit one shard; a shard that is already committed is left alone.

        Args:
            pictures: SHA-256 of the n picture files, each once.
            embeddings: (n, C, h, w) floating point on any device; stored as float16. C * h * w is a multiple of 4.

        Returns:
            The name of the shard.

        Raises:
            SamifError: an embedding is not finite as float16, or the folder cannot be written.
        """
        import torch

        if embeddings.ndim != 4 or len(embeddings) != len(set(pictures)) or len(pictures) != len(set(pictures)):
            raise ValueError(f"{len(pictures)} pictures do not go with embeddings of shape {tuple(embeddings.shape)}")
        name = self.shard_name(pictures)
        if self.holds(name):
            return name
        half = embeddings.detach().to("cpu", torch.float16).contiguous()
        finite = torch.isfinite(half).flatten(1).all(1)
        if not bool(finite.all()):
            bad = pictures[int((~finite).nonzero()[0, 0])]
            raise SamifError(f"the encoder's embedding of picture {bad} is not finite; check the encoder's checkpoint")
        try:
            self._commit(name, pictures, half)
        except OSError as error:
            raise SamifError(
                f"the embedding store {self.folder} cannot be written ({error.strerror or error}); "
                "free space or mend its permissions, then rerun 'samif run'"
            ) from None
        return name

    def _commit(self, name: str, pictures: Sequence[str], half: torch.Tensor) -> None:
        from safetensors.torch import save

        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = [self.key(picture) for picture in pictures]
        with files.staged(path.parent) as temporary:
            # One metadata entry only: safetensors does not order several, and equal shards must have equal bytes.
            temporary.write_bytes(save({_TENSOR: half}, metadata={"keys": json.dumps(keys)}))
            sha256 = file_sha256(temporary)
            data = path.with_name(f"{name}.{sha256[:16]}.safetensors")
            manifest = ShardManifest(
                shard=name,
                keys=tuple(keys),
                shape=(half.shape[0], half.shape[1], half.shape[2], half.shape[3]),
                file=data.name,
                sha256=sha256,
                bytes=temporary.stat().st_size,
                row_sums=tuple(row_sums(half)),
            )
            files.publish(temporary, data)
        files.commit(path, (manifest.sealed().model_dump_json(indent=1, by_alias=True) + "\n").encode())

    def verify(self) -> list[Damage]:
        """Re-hash every shard.

        Damage is also a data file without manifest (a writer that died between the two, or that is at this moment
        between them: its manifest then loses its data and the pictures are missing, never wrong) and a temporary
        file older than an hour. `Damage.discard` removes what was found; the next run computes it again.
        """
        manifests, damages = self._scan()
        for manifest in manifests:
            data = self._path(manifest.shard).with_name(manifest.file)
            if not data.exists() or file_sha256(data) != manifest.sha256:
                damages.append(self._broken(manifest, "its bytes do not match their SHA-256"))
        return damages

    def open(self, shard: str) -> tuple[torch.Tensor, ShardManifest]:
        """Memory-map a committed shard: (n, C, h, w) float16, read-only by convention, and its manifest.

        Raises:
            SamifError: the shard is gone or torn (a torn one is discarded).
        """
        from safetensors import SafetensorError, safe_open

        manifest = self._manifest(self._path(shard))
        if not isinstance(manifest, ShardManifest):
            raise self._refusal(manifest)
        data = self._path(shard).with_name(manifest.file)
        if files.size(data) != manifest.bytes:
            raise self._refusal(self._broken(manifest, f"it has {files.size(data)} bytes instead of {manifest.bytes}"))
        try:
            with safe_open(data, "pt") as file:
                # The whole tensor is a view of the mapped file; slicing the file instead copies, 8 ms a row.
                tensor: torch.Tensor = file.get_tensor(_TENSOR)
        except (SafetensorError, OSError) as error:
            raise self._refusal(self._broken(manifest, f"it cannot be opened ({error})")) from None
        return tensor, manifest

    def refuse_rows(self, manifest: ShardManifest, row: int, count: int) -> SamifError:
        """Discard a shard of which `count` rows from `row` on do not all match their sums; the error to raise."""
        return self._refusal(self._broken(manifest, f"rows {row} to {row + count - 1} do not match their checksums"))

    def damaged(self) -> list[Damage]:
        """What `verify` finds without hashing."""
        return self._scan()[1]

    def _path(self, shard: str) -> Path:
        return self.folder / shard[:2] / f"{shard}.json"

    def _manifest(self, path: Path) -> ShardManifest | Damage:
        try:
            manifest = ShardManifest.model_validate_json(path.read_bytes())
        except OSError as error:
            return Damage(path.stem, f"its manifest cannot be read ({error.strerror})", ())
        except ValidationError:
            return Damage(path.stem, "its manifest is damaged", (path,))
        if manifest.checksum and manifest.shard == path.stem:
            return manifest
        return Damage(path.stem, "its manifest is damaged", (path,))

    def _broken(self, manifest: ShardManifest, reason: str) -> Damage:
        path = self._path(manifest.shard)
        return Damage(manifest.shard, reason, (path, path.with_name(manifest.file)))

    def _refusal(self, damage: Damage) -> SamifError:
        damage.discard()
        return SamifError(
            f"embedding shard {damage.shard} in {self.folder} cannot be used: {damage.reason}; "
            "rerun 'samif run', which computes it again"
        )

    def _scan(self) -> tuple[list[ShardManifest], list[Damage]]:
        """Committed shards, by manifest and size, and what lies about besides."""
        manifests: list[ShardManifest] = []
        damages: list[Damage] = []
        for folder in files.folders(self.folder):
            sizes = files.listing(folder)
            owned: set[str] = set()
            for path in (folder / name for name in sizes if name.endswith(".json")):
                found = self._manifest(path)
                if isinstance(found, Damage):
                    damages.append(found)
                    continue
                owned.add(found.file)
                actual = sizes.get(found.file, 0)
                if actual == found.bytes:
                    manifests.append(found)
                else:
                    damages.append(self._broken(found, f"it has {actual} bytes instead of {found.bytes}"))
            for name in sorted(sizes.keys() - owned):
                if name.endswith(".safetensors"):
                    damages.append(Damage(name.split(".")[0], "its data has no manifest", (folder / name,)))
                elif files.is_abandoned(folder / name):
                    damages.append(Damage(name, "a writer left it unfinished", (folder / name,)))
        return manifests, damages


class EmbeddingReader:
    """Embeddings of a manifest's pictures, memory-mapped; the last few shards stay open. Not for several threads."""

    def __init__(self, store: EmbeddingStore, manifest: EmbeddingManifest) -> None:
        self.manifest = manifest
        self._namespace = store.namespace(manifest.encoder.digest, manifest.preprocessing)
        self._places = self._namespace.locate(manifest.pictures)
        self._open: OrderedDict[str, tuple[torch.Tensor, ShardManifest]] = OrderedDict()

    def read(self, pictures: Sequence[str], dtype: torch.dtype | None = None) -> torch.Tensor:
        """Embeddings in the order of `pictures` (SHA-256 of the files; one may occur several times).

        Args:
            pictures: n pictures of the manifest.
            dtype: float32 (default) or float16, which is what is stored.

        Returns:
            (n, C, h, w) on the CPU, a copy that the caller may change.

        Raises:
            SamifError: a picture is not in the manifest or not in the store, or its shard is damaged. A damaged
                shard is discarded, so that the next run computes it again.
        """
        import torch

        out = torch.empty((len(pictures), *self.manifest.shape), dtype=dtype or torch.float32)
        wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            shard, row = self._place(picture)
            wanted[shard].append((index, row))
        for shard, places in wanted.items():
            tensor, manifest = self._shard(shard)
            for index, row, count in _runs(places):
                rows = tensor[row : row + count]
                if row_sums(rows) != list(manifest.row_sums[row : row + count]):
                    raise self._namespace.refuse_rows(manifest, row, count)
                out[index : index + count].copy_(rows)
        return out

    def _place(self, picture: str) -> tuple[str, int]:
        if picture in self._places:
            return self._places[picture]
        if picture not in set(self.manifest.pictures):
            raise SamifError(f"picture {picture} is not in the embedding manifest; rerun 'samif run'")
        damaged = [f"{damage.shard} ({damage.reason})" for damage in self._namespace.damaged()]
        raise SamifError(
            f"no shard in {self._namespace.folder} holds the embedding of picture {picture}; "
            f"damaged shards there: {', '.join(damaged) or 'none'}; rerun 'samif run', which computes it again"
        )

    def _shard(self, shard: str) -> tuple[torch.Tensor, ShardManifest]:
        if shard not in self._open:
            self._open[shard] = self._namespace.open(shard)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(index, row) pairs as (index, row, count) where both ascend together: torch's overhead is paid per run."""
    runs: list[tuple[int, int, int]] = []
    for index, row in places:
        if runs and (index, row) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (*runs[-1][:2], runs[-1][2] + 1)
        else:
            runs.append((index, row, 1))
    return runs


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
