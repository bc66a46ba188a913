"""What .dvc/config, the file that goes wherever the workspace goes, says of remotes and cache; and whether DVC uses
git."""

from __future__ import annotations

from typing import Any

from flows.workspace.layout import Layout
from flows.workspace.revision import is_ignored
from samif.errors import ConfigError
from samif.io.address import has_credentials

_CREDENTIALS = ("password", "secret_access_key", "access_key_id", "session_token", "token", "sas_token", "account_key")
"""Options of a DVC remote that belong in .dvc/config.local or the environment."""


def read_config(layout: Layout) -> dict[str, Any]:
    """The file without what lies only on this machine (.dvc/config.local); paths in it are absolute.

    Raises:
        SamifError: there is none, or it is no configuration of DVC.
    """
    folder = layout.root / ".dvc"
    if not (folder / "config").exists():
        raise ConfigError(f"{layout.root} has no .dvc/config; run 'samif init' or 'dvc init' there")
    from dvc.config import Config
    from dvc.config import ConfigError as UnreadableConfig

    try:
        found: dict[str, Any] = Config(str(folder), validate=False).load_one("repo")
    except UnreadableConfig as error:
        raise ConfigError(f"{folder / 'config'} cannot be read: {' '.join(str(error).split())}") from None
    return {"core": {}, "cache": {}, "remote": {}} | found


def use_git(layout: Layout) -> bool:
    """Let DVC use git where the workspace has become the root of a git repository since `samif init`; True if that was
    new. Experiments (`dvc exp`) need it. Written for this machine only: a clone may be without git.

    DVC refuses to work with git where dvc.lock is not to be committed, so nothing is changed there.

    Raises:
        SamifError: there is no .dvc/config, or it is no configuration of DVC.
    """
    if not (layout.root / ".git").exists() or is_ignored(layout.lock):
        return False
    from dvc.config import Config

    config = Config(str(layout.root / ".dvc"), validate=False)
    if str(config["core"].get("no_scm")).lower() != "true":
        return False
    with config.edit("local", validate=False) as local:
        local["core"] = local.get("core", {}) | {"no_scm": False}
    return True


def default_remote(layout: Layout) -> str | None:
    """Address of the remote that the file names as default; none where there is none."""
    config = read_config(layout)
    remote = config["remote"].get(config["core"].get("remote"), {})
    return str(remote["url"]) if "url" in remote else None


def check_secrets(layout: Layout) -> None:
    """Refuse a credential in the file, which is committed, and sent by `samif submit`.

    Raises:
        SamifError: it holds one; the sentence says under which key, never what it is.
    """
    path = layout.root / ".dvc" / "config"
    if not path.exists():
        return
    for name, options in read_config(layout)["remote"].items():
        for key, value in options.items():
            if key in _CREDENTIALS or (key.endswith("url") and has_credentials(str(value))):
                raise ConfigError(
                    f"'{key}' of DVC remote '{name}' in {path} is or holds a credential, and that file goes wherever "
                    "the workspace goes; move it to .dvc/config.local, or set the variables of the service instead, "
                    "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                )
