"""An S3 server on loopback: Ceph's gateway (radosgw) with one monitor and one store behind it, and one user."""

from __future__ import annotations

import json
import shutil
import signal
import uuid
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from infra.services.daemon import Daemon, Launcher, call, environment_without
from infra.services.files import write_private
from samif.errors import ConfigError

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool", "setpriv")
DAEMONS = {"mon": "ceph-mon -f -i a", "osd": "ceph-osd -f -i 0", "rgw": "radosgw -f -n client.rgw"}
"""In start order; each needs those before it."""

REGION = "us-east-1"
USER = "samif"

_CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_port}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {folder}/keyring
run_dir = {folder}
# no admin sockets: their paths are limited to 107 characters, and nothing uses them
admin_socket =
log_file = {folder}/$name.log
auth_allow_insecure_global_id_reclaim = false
# one disk, one copy, few placement groups: what one machine needs
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 2
osd_pool_default_pgp_num = 2
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_data = {folder}/mon
osd_data = {folder}/osd
osd_objectstore = bluestore
# a sparse file of this size: disk is used as it fills
bluestore_block_size = {bytes}
osd_memory_target = 939524096
rgw_data = {folder}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{s3_port} tcp_nodelay=1
rgw_enable_apis = s3, notifications
rgw_thread_pool_size = 32
# with one gateway there is no cache to synchronise; a killed one would be waited for, 30 s long
rgw_cache_enabled = false
"""


@dataclass(frozen=True)
class Ceph:
    """One S3 server; its data survives SIGKILL of its daemons.

    Attributes:
        folder: holds everything.
        mon_port, s3_port: on 127.0.0.1.
        gibibytes: capacity for objects; disk is used as it fills.
    """

    folder: Path
    mon_port: int
    s3_port: int
    gibibytes: int = 10

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def is_created(self) -> bool:
        return self._credentials.exists()

    @property
    def variables(self) -> dict[str, str]:
        """Environment of a client, with the user's keys; the server must have been created."""
        credentials = ConfigParser(interpolation=None)
        credentials.read(self._credentials, encoding="utf-8")
        keys = {name.upper(): value for name, value in credentials["default"].items()}
        return {"AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": REGION, **keys}

    @property
    def credential_file_variables(self) -> dict[str, str]:
        """Environment of a client that reads the keys from their file, which may come later: it holds no secret."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_SHARED_CREDENTIALS_FILE": str(self._credentials),
        }

    @property
    def _credentials(self) -> Path:
        return self.folder / "credentials"

    def create(self, launcher: Launcher) -> list[Daemon]:
        """Create everything from nothing, with one user whose keys Ceph generates; returns the running daemons.

        Raises:
            ConfigError: Ceph is not installed.
            ServiceUnavailable: a step fails.
        """
        require_installed()
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in DAEMONS:
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o700)
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        places = {"folder": self.folder, "mon_port": self.mon_port, "s3_port": self.s3_port}
        (self.folder / "ceph.conf").write_text(_CONF.format(fsid=fsid, bytes=self.gibibytes << 30, **places))
        self._make_keyring()
        keyring, monmap = f"{self.folder}/keyring", f"{self.folder}/monmap"
        address = f"[v2:127.0.0.1:{self.mon_port}]"
        self._call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._call("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)
        daemons = [self.start(launcher, "mon")]
        self._call("ceph", "osd", "new", osd, "0")
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._call("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default")
        daemons.append(self.start(launcher, "osd"))
        user = self._call("radosgw-admin", "user", "create", "--uid", USER, "--display-name", USER)
        daemons.append(self.start(launcher, "rgw"))
        self.wait_until_ready(launcher, daemons[-1])
        self._write_keys(json.loads(user)["keys"][0])
        return daemons

    def rotate(self) -> None:
        """Give the user a new key and remove the others; clients read it from the file."""
        create = ("--uid", USER, "--key-type", "s3", "--gen-access-key", "--gen-secret")
        old = self.variables["AWS_ACCESS_KEY_ID"]
        keys = {
            key["access_key"]: key for key in json.loads(self._call("radosgw-admin", "key", "create", *create))["keys"]
        }
        new = next(name for name in keys if name != old)
        self._write_keys(keys[new])
        for name in keys.keys() - {new}:
            self._call("radosgw-admin", "key", "rm", "--uid", USER, "--key-type", "s3", "--access-key", name)

    def start(self, launcher: Launcher, name: str) -> Daemon:
        """Start `mon`, `osd` or `rgw` of a server that has been created."""
        return launcher.start(f"ceph-{name}", DAEMONS[name].split(), self._environment, self.folder)

    def wait_until_ready(self, launcher: Launcher, gateway: Daemon) -> None:
        """Wait until the S3 server answers."""
        launcher.wait(gateway, self.url, self.probe)

    def probe(self) -> None:
        """Raise OSError unless the S3 server answers."""
        requests.get(self.url, timeout=5).raise_for_status()

    def client(self) -> Any:
        """boto3's client of this server as its user."""
        import boto3

        names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
        keys = {names[name]: value for name, value in self.variables.items() if name in names}
        return boto3.session.Session(**keys, region_name=REGION).client("s3", endpoint_url=self.url)

    @staticmethod
    def stop(daemons: Sequence[Daemon]) -> None:
        """End every daemon, the gateway first; it has no state, so it is killed."""
        for daemon in sorted(daemons, key=lambda item: list(DAEMONS).index(item.name.removeprefix("ceph-")))[::-1]:
            daemon.stop(signal.SIGKILL if daemon.name == "ceph-rgw" else signal.SIGTERM)

    @property
    def _environment(self) -> dict[str, str]:
        return {**environment_without("CEPH_"), "CEPH_CONF": f"{self.folder}/ceph.conf"}

    def _make_keyring(self) -> None:
        services = {"mon.": "mon", "client.admin": "mon osd mgr", "osd.0": "mon osd", "client.rgw": "mon osd"}
        for index, (entity, reached) in enumerate(services.items()):
            caps = (word for service in reached.split() for word in ("--cap", service, "allow *"))
            create = ("--create-keyring",) if index == 0 else ()
            self._call("ceph-authtool", *create, f"{self.folder}/keyring", "--gen-key", "--name", entity, *caps)

    def _write_keys(self, key: dict[str, str]) -> None:
        access, secret = key["access_key"], key["secret_key"]
        text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        write_private(self._credentials, text)

    def _call(self, *command: str) -> str:
        return call("setting up Ceph", command, self._environment, self.folder)


def missing_programs() -> list[str]:
    """Those of Ceph's programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def require_installed() -> None:
    missing = missing_programs()
    if missing:
        raise ConfigError(f"{', '.join(missing)}: not installed; infra/test-services.sh installs Ceph on Debian")
