"""What a line is served with: plain values, because every replica gets a copy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flows.serve.routes import SINGLE
from samif.errors import ConfigError

_COUNT = re.compile(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?")


@dataclass(frozen=True)
class ReplicaCount:
    """How many replicas a line has: `least` to `most`, and where they differ, as many as leave each with `target`
    requests in work or waiting; none means two per image of a batch."""

    least: int = 1
    most: int = 1
    target: float | None = None

    @classmethod
    def parse(cls, text: str, target: float | None = None) -> Self:
        """Read `2` or `1-4`.

        Raises:
            ConfigError: it is neither.
        """
        match = _COUNT.fullmatch(text)
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if least > most:
            raise ConfigError(f"'{text}' is no number of replicas; write a number such as 2, or LEAST-MOST such as 1-4")
        return cls(least, most, target)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        bytes: of the body, whatever is in it.
        pixels: of the image, by its header.
        upload_seconds: for the whole body to arrive.
        work_seconds: from the last byte to the answer.
        queue: requests in work or waiting, per replica.
    """

    bytes: int = 32 * 2**20
    pixels: int = 50_000_000
    upload_seconds: float = 15.0
    work_seconds: float = 60.0
    queue: int = 32


@dataclass(frozen=True)
class ShadowSettings:
    """Shadow deployment: a second version scores the proposals of the first without returning its answers.

    Attributes:
        ref: what to follow, as in `Settings.ref`.
        folder: where images of disagreement go; none keeps no image.
        samples: at most so many per replica, the newest.
    """

    ref: str
    folder: Path | None = None
    samples: int = 100


@dataclass(frozen=True)
class CanarySettings:
    """A second version answers some of the requests, and is rolled back by rule.

    Attributes:
        ref: `NAME@alias` is followed; `NAME/VERSION` stays what it is.
        percent: share of the requests, above 0 and at most 50.
    """

    ref: str
    percent: float = 10.0


@dataclass(frozen=True)
class KeepSettings:
    """Which answers are kept with their images, and how many.

    Attributes:
        folder: where to; replicas share it.
        share: of all answers (0..1), drawn by chance.
        unknown: also every answer with an unknown object.
        uncertain: also every answer of which at least this share of the names (0..1) changes under feature dropout;
            None computes no uncertainty.
        images, bytes: at most, in the folder; the oldest are removed.
    """

    folder: Path
    share: float = 0.01
    unknown: bool = False
    uncertain: float | None = None
    images: int = 1000
    bytes: int = 10**9


@dataclass(frozen=True)
class Settings:
    """A served line.

    Attributes:
        ref: `NAME@alias` is followed; `NAME/VERSION`, `NAME` and a folder stay what they are.
        root: the workspace.
        checkpoint: of the encoder, where it is not tiny and not the workspace's.
        semantic_checkpoint: of the semantic encoder, where the features name it and it is not the workspace's.
        state: folder that the replicas of this line on a machine share; ends with the service.
        token_sha256: of the bearer token; none means that no token is needed.
        interval: seconds between two polls of the alias.
        threads: CPU threads of a replica.
        batch: images that are encoded at once.
        name, route: of its application of Ray Serve, and what its paths begin with.
        wait_for_model: a replica comes up without a model where none can be loaded, and goes on trying.
    """

    ref: str
    root: Path
    state: Path
    token_sha256: str | None
    checkpoint: str | None = None
    semantic_checkpoint: str | None = None
    interval: float = 0.3
    threads: int = 1
    batch: int = 1
    limits: Limits = Limits()
    shadow: ShadowSettings | None = None
    keep: KeepSettings | None = None
    canary: CanarySettings | None = None
    name: str = SINGLE
    route: str = "/"
    wait_for_model: bool = False

    @property
    def refresh_request(self) -> Path:
        """Touched by a request to poll the alias at once."""
        return self.state / "refresh"
