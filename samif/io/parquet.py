"""Parquet files whose bytes depend on their content alone, written and read a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from samif.errors import IntegrityError, ObjectMissing

_MAGIC = b"PAR1"


def writer(draft: Path, schema: pa.Schema, compression: str = "zstd") -> pq.ParquetWriter:
    """A writer of row groups, each with a checksum per page."""
    return pq.ParquetWriter(
        draft, schema, compression=compression, use_dictionary=False, write_statistics=False, write_page_checksum=True
    )


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Whatever a damaged file makes Arrow or the code here raise becomes one sentence.

    Raises:
        IntegrityError: the file is not what it should be.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise IntegrityError(f"{path} is damaged, or not {what} ({told}); {remedy}") from None


@contextmanager
def open_parquet(path: Path, what: str, remedy: str) -> Iterator[pq.ParquetFile]:
    """A file that a `writer` wrote; closed at the end.

    Raises:
        ObjectMissing: there is no such file.
        IntegrityError: it cannot be read, or is no Parquet file.
    """
    file = parquet_file(path, what, remedy)
    try:
        yield file
    finally:
        file.close()


def parquet_file(path: Path, what: str, remedy: str) -> pq.ParquetFile:
    """The same, to be kept open: the file stays readable where another one takes its name. Raises as `open_parquet`."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise ObjectMissing(f"{path} does not exist; {remedy}") from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    if start[:1] == b"{":
        raise IntegrityError(
            f"{path} is JSON, as an earlier release wrote {what}; run 'samif run', which writes Parquet"
        )
    with reading(path, what, remedy):
        return pq.ParquetFile(path, page_checksum_verification=True)
