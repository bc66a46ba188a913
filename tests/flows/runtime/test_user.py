"""Users without a name or a home folder, and terminals whose encoding lacks characters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.runtime.cache_dir import cache_folder, private_folder
from flows.runtime.writable import check_folder
from samif.errors import ConfigError
from tests.support.unprivileged import unprivileged_folder

ROOT = Path(__file__).parents[3]
NOBODY = 54321
"""A user id that has no entry in the password database."""

PREPARED = """
import os, getpass, pathlib, pwd, sys, tempfile, random
from flows.runtime.cache_dir import cache_folder
from flows.runtime.user import prepare_user
os.setuid(int(sys.argv[1]))
prepare_user()
print(getpass.getuser(), pathlib.Path.home(), cache_folder("models"), os.environ.get("MPLCONFIGDIR"), sep="\\n")
"""


def prepared(**environment: str) -> list[str]:
    """Name, home folder, cache folder and matplotlib's folder of a user who is not in the password database."""
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    with TemporaryDirectory(prefix="samif-user-") as folder:
        os.chmod(folder, 0o777)
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PREPARED}"
        ended = subprocess.run(
            [sys.executable, "-c", code, str(NOBODY)], env={"TMPDIR": folder, "PATH": os.defpath} | environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        return [line.replace(folder, "TMP") for line in ended.stdout.splitlines()]


PRIVATE = f"TMP/samif-{NOBODY}"


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}])
def test_a_user_without_name_and_home(environment: dict[str, str]) -> None:
    name, home, cache, matplotlib = prepared(**environment)
    assert name == f"uid-{NOBODY}" and home == PRIVATE
    assert cache == f"{PRIVATE}/.cache/samif/models" and matplotlib == "None"


@pytest.mark.parametrize("home", ["home", "../home", "~"])
def test_a_relative_home_is_one_of_the_current_folder(home: str) -> None:
    _, told, _, _ = prepared(HOME=home, LOGNAME="ann")
    assert told == os.path.abspath(home)


@pytest.mark.parametrize("setting", ["error", "error::DeprecationWarning", "default,error::UserWarning"])
def test_warnings_of_libraries_are_no_errors(setting: str) -> None:
    code = (
        "import os, sys, warnings\nfrom flows.runtime.user import prepare_user\n"
        "prepare_user()\nfor kind in (UserWarning, DeprecationWarning): warnings.warn('old', kind)\n"
        "assert 'PYTHONWARNINGS' not in os.environ\n"
    )
    environment = os.environ | {"PYTHONWARNINGS": setting, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("home", ["/", "/nonexistent/home", "/proc"])
def test_a_home_that_cannot_be_written_stays_for_reading(home: str) -> None:
    name, told, cache, matplotlib = prepared(HOME=home, LOGNAME="ann")
    assert (name, told) == ("ann", home)
    assert cache == f"{PRIVATE}/models" and matplotlib == f"{PRIVATE}/matplotlib"


def test_variables_that_are_set_are_kept() -> None:
    assert prepared(HOME="/", USER="ann", SAMIF_CACHE="/var/cache/x", MPLCONFIGDIR="/var/m") == [
        "ann", "/", "/var/cache/x/models", "/var/m",
    ]  # fmt: skip


def test_the_private_folder_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = private_folder()
    assert first == private_folder() == tmp_path / f"samif-{os.geteuid()}" and first.stat().st_mode & 0o777 == 0o700
    first.chmod(0o755)
    assert private_folder() != first
    first.rmdir()
    first.symlink_to(tmp_path)
    assert private_folder() not in (first, tmp_path)


def test_a_read_only_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAMIF_CACHE", raising=False)
    with unprivileged_folder() as folder:
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        monkeypatch.setenv("HOME", str(folder / "home"))
        assert cache_folder("weights") == folder / "home" / ".cache" / "samif" / "weights"
        (folder / "home").mkdir(mode=0o500)
        assert cache_folder("weights") == folder / f"samif-{os.geteuid()}" / "weights"


# Folders of results


def test_a_folder_that_cannot_be_written_is_refused_without_a_trace() -> None:
    with unprivileged_folder() as folder:
        (folder / "locked").mkdir(mode=0o500)
        (folder / "file").write_text("")
        check_folder(folder / "new" / "out", "--out")
        for place, said in (
            ("locked", "nothing can be written"), ("locked/new/out", "nothing can be written"),
            ("file", "is a file"), ("file/out", "nothing can be written"),
        ):  # fmt: skip
            with pytest.raises(ConfigError, match=f"{said}.*give another folder with --out"):
                check_folder(folder / place, "--out")
        assert sorted(path.name for path in folder.iterdir()) == ["file", "locked"]


# Terminals


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "– ネジ ü ?"),
        ("latin-1", "? ?? ü ?"),
        ("ascii", "? ?? ? ?"),
        ("cp1252", "– ?? ü ?"),
        ("ascii:backslashreplace", "\\u2013 \\u30cd\\u30b8 \\xfc \\udcff"),
    ],
)
def test_a_character_that_the_terminal_lacks(encoding: str, expected: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom flows.runtime.user import prepare_user\nprepare_user()\n"
    )
    code += "print('\\u2013 \\u30cd\\u30b8 \\xfc \\udcff')\n"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, check=True)
    assert ended.stdout.decode(encoding.partition(":")[0]).strip() == expected
