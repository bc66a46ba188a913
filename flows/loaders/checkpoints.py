"""Fetching SAM checkpoints: from a path, http(s) or S3 into a cache that is addressed by content.

A cached file is called `<SHA-256>.<ending>` and appears there only after its digest was checked. No address is
built in: it is given each time, or as a prefix in the environment variable SAMIF_WEIGHTS_URI.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from flows.runtime import cache_dir
from flows.runtime.remote_files import Progress, download, is_remote, local_path, suffix_of
from flows.runtime.retry import Transient, retry_times
from samif.errors import ConfigError, IntegrityError, ObjectMissing, ServiceUnavailable
from samif.io import files
from samif.io.address import shown
from samif.io.hashing import file_sha256
from samif.sam.checkpoint import SUFFIXES, read_weights, require_file, verify_file
from samif.sam.zoo import ARCHITECTURES, check_layout, find_architecture, load_sam, recognise

URI_VARIABLE = "SAMIF_WEIGHTS_URI"
"""Environment variable: folder, http(s):// or s3:// prefix under which the published files lie."""

_SHA256 = r"[0-9a-f]{64}"
_UNDIGESTED = "undigested"
_ATTEMPTS = 4


@dataclass(frozen=True)
class WeightsRow:
    """One architecture in a listing; `path` is None for weights that are not here or ship with the package."""

    name: str
    parameters: int
    embedding: tuple[int, int, int]
    image_size: int
    file_name: str | None
    sha256: str | None
    present: bool
    path: Path | None


@dataclass(frozen=True)
class Checkpoint:
    """What `load_sam` needs: a file (None: shipped with the package) and the digest it must have (None: any)."""

    path: Path | None
    sha256: str | None


@dataclass(frozen=True)
class Pulled:
    """A checkpoint brought into the cache. `published` tells whether it is the file its authors published;
    another one is used by giving its digest as encoder.sha256 in params.yaml."""

    name: str
    path: Path
    sha256: str
    published: bool


@dataclass(frozen=True)
class Verified:
    """Weights of a known architecture that were read and checked; `path` is None for those shipped with samif.
    `published` tells whether they are what the architecture's authors, or samif, published."""

    name: str
    path: Path | None
    sha256: str
    published: bool


def cache_folder() -> Path:
    """Where fetched weights lie."""
    return cache_dir.cache_folder("weights")


def list_weights() -> list[WeightsRow]:
    """Every architecture, and whether its published weights can be used now."""
    rows = []
    for name, architecture in ARCHITECTURES.items():
        path = _cached(architecture.sha256)
        rows.append(
            WeightsRow(
                name=name,
                parameters=architecture.parameters,
                embedding=architecture.embedding,
                image_size=architecture.image_size,
                file_name=architecture.file_name,
                sha256=architecture.sha256,
                present=architecture.shipped or path is not None,
                path=path,
            )
        )
    return rows


def resolve(name: str, checkpoint: str | None, sha256: str | None, progress: Progress | None = None) -> Checkpoint:
    """Turn the `encoder` section of params.yaml into a file on this machine, fetching it if need be.

    Without `checkpoint` it is the cached file with digest `sha256`, by default the published one. A remote
    checkpoint without `sha256` must be the published file; a local one may be any file.

    Raises:
        SamifError: nothing pulled yet, or see `fetch`.
    """
    architecture = find_architecture(name)
    if checkpoint is not None:
        if sha256 is None and is_remote(checkpoint):
            sha256 = architecture.sha256
        return Checkpoint(fetch(checkpoint, sha256, progress), sha256)
    if architecture.shipped:
        return Checkpoint(None, sha256)
    wanted = sha256 or architecture.sha256
    path = _cached(wanted)
    if path is None:
        raise ObjectMissing(
            f"the weights of encoder '{name}' (SHA-256 {wanted}) are not in {cache_folder()}: "
            f"run 'samif weights pull {name}' or set encoder.checkpoint in params.yaml"
        )
    return Checkpoint(path, wanted)


def pull(name: str, from_uri: str | None = None, sha256: str | None = None, progress: Progress | None = None) -> Pulled:
    """Bring a checkpoint of architecture `name` into the cache, check digest and layout.

    Args:
        from_uri: path, file://, http(s):// or s3:// address of the file; None takes the published file name under
            the prefix in SAMIF_WEIGHTS_URI.
        sha256: what the digest must be; None means the published one, except for a local `from_uri`, which may be
            any file of the right architecture.

    Raises:
        SamifError: `tiny` (ships with the package), no address, failed fetch, other digest or architecture.
    """
    architecture = find_architecture(name)
    if architecture.file_name is None:
        raise ConfigError(f"the weights of '{name}' ship with samif, there is nothing to pull; use them as they are")
    if from_uri is None:
        prefix = os.environ.get(URI_VARIABLE)
        if not prefix:
            raise ConfigError(
                f"no address to pull '{name}' from: give the file's path or address, "
                f"or set {URI_VARIABLE} to the folder or address under which {architecture.file_name} lies"
            )
        from_uri, sha256 = f"{prefix.rstrip('/')}/{architecture.file_name}", sha256 or architecture.sha256
    if is_remote(from_uri):
        path = fetch(from_uri, sha256 or architecture.sha256, progress)
        check_layout(name, read_weights(path, None), path)
    else:
        local = local_path(from_uri)
        check_layout(name, read_weights(local, sha256), local)
        path = _cached(sha256) or _store(from_uri, sha256, progress)
    return Pulled(name, path, sha256=path.stem, published=path.stem == architecture.sha256)


def verify(target: str, sha256: str | None = None) -> Verified:
    """Read weights again and compare their digest with the one they are known by.

    Args:
        target: an architecture (its cached or shipped weights), or a path; a cached file's name is its digest.
        sha256: what the digest must be, where the target itself does not say.

    Raises:
        SamifError: not here, another digest, or not weights of that architecture.
    """
    if target in ARCHITECTURES:
        found = resolve(target, None, sha256)
    else:
        named = Path(target).stem if re.fullmatch(_SHA256, Path(target).stem) else None
        found = Checkpoint(Path(target), sha256 or named)
    if found.path is None:
        return Verified(target, None, load_sam(target, None, found.sha256).file_sha256, published=True)
    digest = verify_file(found.path, found.sha256)
    tensors = read_weights(found.path, None)
    name = target if target in ARCHITECTURES else recognise(tensors)
    if name is None:
        raise IntegrityError(f"{found.path} holds no weights of {', '.join(ARCHITECTURES)}; give another file")
    check_layout(name, tensors, found.path)
    return Verified(name, found.path, digest, published=digest == ARCHITECTURES[name].sha256)


def fetch(uri: str, sha256: str | None, progress: Progress | None = None) -> Path:
    """A checkpoint as a file on this machine, its digest checked.

    A local path (or file://) is used where it lies; http(s):// and s3:// go into the cache, once, however many
    processes ask. S3 takes its endpoint and credentials from the environment (AWS_ENDPOINT_URL and the like).

    Args:
        uri: path, file://, http(s):// or s3://bucket/key, ending in .pth, .pt or .safetensors.
        sha256: what the digest must be; may be None for a local path only.
        progress: told how far a download is.

    Raises:
        SamifError: unknown kind of address, no digest for a remote file, not there, refused, another digest,
            network down after several attempts, cache not writable.
    """
    if not is_remote(uri):
        path = local_path(uri)
        if sha256 is None:
            require_file(path)
        else:
            verify_file(path, sha256)
        return path
    if sha256 is None:
        raise ConfigError(f"{shown(uri)}: weights from the network need a SHA-256 to be checked against; give it")
    return _cached(sha256) or _store(uri, sha256, progress)


def _store(uri: str, sha256: str | None, progress: Progress | None) -> Path:
    """Copy `uri` into the cache under its digest, and only if that is `sha256`."""
    suffix = suffix_of(uri)
    if suffix not in SUFFIXES:
        raise ConfigError(f"{shown(uri)}: the name of the weights must end in {', '.join(SUFFIXES)}")
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One download however many workers ask; who waited finds the file.
        with FileLock(folder / f"{sha256 or _UNDIGESTED}.lock"):
            return _cached(sha256) or retry_times(_ATTEMPTS)(_transfer, uri, suffix, sha256, folder, progress)
    except Transient as error:
        raise ServiceUnavailable(
            f"{shown(uri)}: gave up after {_ATTEMPTS} attempts ({error}); try again later"
        ) from error
    except OSError as error:
        raise ServiceUnavailable(
            f"cannot copy weights to {folder} ({error}); make room there, "
            f"or set {cache_dir.CACHE_VARIABLE} to another one"
        ) from error


def _transfer(uri: str, suffix: str, sha256: str | None, folder: Path, progress: Progress | None) -> Path:
    # The lock reserves this name; a file that a killed process left under it is overwritten.
    part = folder / f".{sha256 or _UNDIGESTED}{suffix}"
    try:
        download(uri, part, progress)
        got = file_sha256(part)
        if sha256 is not None and got != sha256:
            raise IntegrityError(
                f"{shown(uri)} is not the expected file: SHA-256 expected {sha256}, got {got}; nothing was kept, "
                "correct the address, or give its digest if you trust this file"
            )
        target = folder / f"{got}{suffix}"
        files.publish(part, target)
        return target
    finally:
        part.unlink(missing_ok=True)


def _cached(sha256: str | None) -> Path | None:
    """The cached file with this digest, None if there is none; SamifError if it is no digest."""
    if sha256 is None:
        return None
    if not re.fullmatch(_SHA256, sha256):
        raise ConfigError(f"'{sha256}' is no SHA-256: give 64 hexadecimal digits in lower case")
    paths = (cache_folder() / f"{sha256}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
