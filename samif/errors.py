"""Errors that reach a person: each text says what is wrong, where, and what to do.

The command line prints that sentence and exits with 1; any other exception that escapes is an internal error. Code that
goes on after a failure catches the narrow type that it can deal with, never `SamifError`.
"""

from __future__ import annotations


class SamifError(Exception):
    """Bad input or a failed precondition, in one sentence: what, where, what to do."""


class ConfigError(SamifError):
    """A key of params.yaml, an option or an environment variable is unknown, missing or has a wrong value."""


class DataError(SamifError):
    """Images, annotations or requests cannot be used as they are."""


class ObjectMissing(SamifError):
    """A file, object, version or alias that is asked for does not exist."""


class IntegrityError(SamifError):
    """Content is not what its digest, card or format says: damaged, truncated or exchanged."""


class ServiceUnavailable(SamifError):
    """A registry, bucket, cluster or other service does not answer, or refuses the credentials."""


class GateFailed(SamifError):
    """A version may not go live: a gate refuses it or waits for an approval."""


class SystemRefused(SamifError):
    """The operating system refuses a file or process: full disk, missing rights, read-only file system, limits."""


class OutOfMemory(SamifError):
    """This machine's or GPU's memory is full."""
