"""`python -m infra.services up|down|backup|restore|rotate`, which the make targets `services...` call."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from infra.services.backup import back_up, restore
from infra.services.rotate import rotate
from infra.services.stack import BUCKET, SECRET, Stack
from samif.errors import SamifError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.services", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(".samif/services"), help="folder of data, logs and state")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the services that do not run; wait until all answer")
    up.add_argument("--port", type=int, help="first of ten ports, for a new stack")
    down = commands.add_parser("down", help="end the services")
    down.add_argument("--remove-data", action="store_true", help="also remove databases, objects and passwords")
    saving = commands.add_parser("backup", help="copy databases and objects (without embeddings) of running services")
    restoring = commands.add_parser("restore", help="restore the databases, and objects that are missing or changed")
    for command in (saving, restoring):
        command.add_argument("folder", type=Path)
    commands.add_parser("rotate", help="new passwords and keys for running services")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stack = Stack(given.state)
    try:
        if given.command == "down":
            stack.down(_say, given.remove_data)
        elif given.command == "backup":
            back_up(stack, given.folder, _say)
        elif given.command == "restore":
            restore(stack, given.folder, _say)
        elif given.command == "rotate":
            rotate(stack, _say)
        else:
            if given.port is not None and not 1024 <= given.port <= 65000:
                parser.error("--port is between 1024 and 65000")
            _show(stack, given.port)
    except SamifError as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("services: interrupted; the services that this command started have been ended", file=sys.stderr)
        return 1
    return 0


def _show(stack: Stack, first_port: int | None) -> None:
    started = time.monotonic()
    variables = stack.up(first_port, _say)
    _say(f"\nAfter {time.monotonic() - started:.0f} s everything answers. To use the services from a shell:\n")
    _say(f"    . {stack.environment}\n")
    for name, value in variables.items():
        _say(f"    export {name}={'(in that file)' if name in SECRET else value}")
    _say("\nIn params.yaml, to use them for a line:\n")
    _say(f"    registry: {{tracking_uri: {variables['MLFLOW_TRACKING_URI']}}}")
    _say(f"    embed: {{store: s3://{BUCKET}/embeddings}}")
    _say(f"\nFor stage outputs: dvc remote add --default bucket s3://{BUCKET}/dvc")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
