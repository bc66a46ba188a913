"""What a stack remembers between commands: ports, passwords, processes. One file, for its owner only."""

from __future__ import annotations

import json
import secrets
import uuid
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from flows.runtime.process import ProcessIdentity
from infra.services.files import write_private
from samif.config import Strict
from samif.errors import SamifError

PORTS = (
    "postgres", "ceph-mon", "s3", "mlflow", "ray", "ray-dashboard", "ray-client",
    "ray-head-agent", "ray-worker-1-agent", "ray-worker-2-agent",
)  # fmt: skip
"""What listens on the port after the first by its place in this list."""

FIRST_PORT = 20400


class Secrets(Strict):
    """Drawn when a stack is first started; never shown, never on a command line."""

    postgres_administrator: str
    postgres_role: str
    mlflow_administrator: str
    mlflow_signing_key: str
    ray_token: str


def draw_secrets() -> Secrets:
    """New ones, each with 192 bits or more."""
    return Secrets(**{name: secrets.token_hex(24) for name in Secrets.model_fields})


class State(Strict):
    """One stack.

    Attributes:
        stack: makes the processes' stamps unlike those of any other stack.
        first_port: the others follow it (`PORTS`).
        pending: new secrets that are being handed out; each service knows its old or its new one.
        daemons: by name; some may have ended since.
    """

    schema_version: Literal[1] = 1
    stack: str
    first_port: int
    secrets: Secrets
    pending: Secrets | None = None
    daemons: dict[str, ProcessIdentity] = Field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port that `name` of `PORTS` listens on."""
        return self.first_port + PORTS.index(name)


def new_state(first_port: int) -> State:
    """The state of a stack that was never started."""
    return State(stack=uuid.uuid4().hex, first_port=first_port, secrets=draw_secrets())


def load_state(path: Path) -> State | None:
    """The state in a file, None where there is none.

    Raises:
        SamifError: it cannot be read, or is not one.
    """
    try:
        return State.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SamifError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise SamifError(
            f"{path} does not say what a stack of this version of samif needs ({error.error_count()} errors); "
            "restore it, or end its processes by hand and remove the folder"
        ) from None


def save_state(path: Path, state: State) -> None:
    write_private(path, json.dumps(state.model_dump(mode="json"), indent=1) + "\n")
