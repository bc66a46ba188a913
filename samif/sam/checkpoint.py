"""Files of weights: read without running code in them, verified and hashed."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from samif.errors import DataError, IntegrityError, ObjectMissing
from samif.io.hashing import file_sha256

SUFFIXES = (".pth", ".pt", ".safetensors")
"""File name endings of weights that can be read."""
_SHOWN = 3  # names of tensors that an error message quotes


def read_weights(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """Read a checkpoint file into tensors on the CPU, memory-mapped where the format allows it.

    No code inside a pickle is ever run. `sha256`, where given, is checked before the file is parsed.

    Raises:
        ObjectMissing: there is no such file.
        DataError: the name says no known format.
        IntegrityError: digest mismatch, truncated, or holds more than named tensors.
    """
    if sha256 is not None:
        verify_file(path, sha256)
    require_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in SUFFIXES:
        return _read_torch(path)
    raise DataError(f"{path}: cannot tell the format of the weights; the name must end in {', '.join(SUFFIXES)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise IntegrityError(f"{path} is truncated or no safetensors file ({error}); fetch it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # The format before PyTorch 1.6 is no zip archive and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise IntegrityError(
            f"{path} is no plain checkpoint: it holds objects or code, which are never run here, or is no checkpoint "
            "at all; save the state dict (names and tensors only) of a model that you trust and give that file"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise IntegrityError(f"{path} is truncated or no checkpoint written by torch.save; fetch it again") from error
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise IntegrityError(f"{path} is no state dict: it must hold names and tensors only, at the top level")
    return {str(key): tensor for key, tensor in content.items()}


def difference(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """What is missing, too many or misshapen, a few names of each."""
    parts = []
    for word, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - expected.keys())),
    ):
        if names:
            parts.append(f"{len(names)} {word}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}")
    for key in sorted(expected.keys() & found.keys()):
        if expected[key] != found[key]:
            parts.append(f"{key} has shape {found[key]}, expected {expected[key]}")
            break
    return "; ".join(parts)


def verify_file(path: Path, sha256: str | None) -> str:
    """SHA-256 of a weights file, compared with `sha256` where that is given.

    Raises:
        ObjectMissing: there is no such file.
        IntegrityError: another digest than expected.
    """
    require_file(path)
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        raise IntegrityError(
            f"{path} is not the expected file: SHA-256 expected {sha256}, got {digest}; "
            "fetch it again, or correct the digest if you trust this file"
        )
    return digest


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, independent of file format, order, device and memory layout.

    Per tensor, in order of names: one JSON line [name, dtype, shape], then the elements, row-major, little-endian.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode() + b"\n")
        # numpy has no bfloat16, so every type is hashed through a view of its bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_file(path: Path) -> None:
    """Refuse a weights file that does not exist, with ObjectMissing."""
    if not path.is_file():
        raise ObjectMissing(f"{path}: there is no such weights file; correct encoder.checkpoint or pull it again")
