"""What `samif submit` sends, what it refuses to send, and what the driver makes of it; without a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from filelock import FileLock

from flows.submit import driver, wheel
from flows.submit.package import Package, build_package
from flows.submit.wheel import build_wheel, write_wheel
from flows.workspace.init import init_workspace
from flows.workspace.layout import Layout
from flows.workspace.run_request import RunRequest, request_of
from samif.errors import SamifError
from tests.flows.workspace.test_edit import coco
from tests.support.ray_head import stand_in

HEAD = "http://head.example:8265"
ROOT = Path(__file__).parents[3]


def edit(root: Path, before: str, after: str) -> None:
    text = (root / "params.yaml").read_text()
    assert text.count(before) == 1, before
    (root / "params.yaml").write_text(text.replace(before, after))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose data a cluster elsewhere can reach: images inside it by DVC, everything else shared."""
    monkeypatch.setattr("flows.submit.package.build_wheel", stand_in)
    root = tmp_path / "ws"
    init_workspace(root, coco(tmp_path / "data"), None, [("s1", ["hook"])], shots=5)
    (tmp_path / "data").rename(root / "photos")
    (root / "photos" / "images" / "1.png").write_bytes(b"an image")
    for name in ("images", "annotations.json"):
        edit(root, str(tmp_path / "data" / name), f"photos/{name}")
    edit(root, "tracking_uri: null", "tracking_uri: http://registry.example:5000")
    edit(root, "store: .samif/embeddings", "store: s3://line/embeddings")
    config = root / ".dvc" / "config"
    store = f"['remote \"store\"']\n    url = {tmp_path / 'mnt' / 'remote'}\n"
    config.write_text(config.read_text().replace("[core]\n", "[core]\n    remote = store\n") + store)
    repo = Repo(str(root))
    repo.add(str(root / "photos"))
    repo.push()
    repo.close()
    return root


def state_of(root: Path) -> set[str]:
    """Names in `.samif/`."""
    return {path.name for path in Layout(root).state.glob("*")}


def packed(root: Path, address: str = HEAD, attempt: int = 1, **words: str) -> Package:
    build = root.parent / f"build-{len(list(root.parent.glob('build-*')))}"
    build.mkdir()
    request = request_of(root, words.get("who", "ann"), words.get("why", ""))
    return build_package(root, request, address, [root.parent / "mnt"], build).attempt(attempt)


def test_small_files_are_sent_and_nothing_else(root: Path) -> None:
    for secret in (".dvc/config.local", ".env", "artifacts/a.dvc", ".samif/token"):
        (root / secret).parent.mkdir(exist_ok=True)
        (root / secret).write_text("[core]\n")
    sent = packed(root)
    found = {path.relative_to(sent.folder).as_posix() for path in sent.folder.rglob("*") if path.is_file()}
    names = (".dvc/config", ".dvc/config.local", ".dvcignore", "dvc.yaml", "params.yaml", "photos.dvc")
    assert found == {"submission.json", *(f"workspace/{name}" for name in names)}
    local = (sent.folder / "workspace" / ".dvc" / "config.local").read_text()
    assert "no_scm = True" in local and f"url = {root.parent}/mnt/remote" in local
    assert (sent.submission.here, sent.submission.links) == (None, ())


def test_the_name_is_of_what_is_asked_for_and_sent(root: Path) -> None:
    first = packed(root).submission.id
    assert first.startswith("samif-ws-") and first.endswith("-1")
    assert packed(root, who="bob", why="another reason").submission.id == first
    assert packed(root, attempt=2).submission.id.rpartition("-")[2] == "2"
    with (root / "params.yaml").open("a") as file:
        file.write("# a comment decides nothing, but it is another file\n")
    others = {packed(root).submission.id, packed(root, attempt=2).submission.id}
    edit(root, "shots: 5", "shots: 6")
    others.add(packed(root).submission.id)
    assert len(others | {first}) == 4


REACH: dict[str, tuple[Callable[[Path], Any], str]] = {
    "images": (
        lambda root: edit(root, "images: photos/images", f"images: {root}/photos/images"),
        r"ws/photos/images is only on this machine.*--shared.*'dvc add'",
    ),
    "untracked": (lambda root: (root / "photos.dvc").unlink(), r"photos/images is only on this machine"),
    "checkpoint": (
        lambda root: edit(root, "checkpoint: null", "checkpoint: /home/sam.pth"),
        "checkpoint /home/sam.pth",
    ),
    "store": (lambda root: edit(root, "s3://line/embeddings", ".samif/embeddings"), r"the embedding store \.samif"),
    "remote": (
        lambda root: (root / ".dvc" / "config").write_text("[core]\n    no_scm = True\n"),
        "photos/images is only",
    ),
    "registry": (lambda root: edit(root, "http://registry.example:5000", "null"), "the registry is only on this"),
    "loopback registry": (lambda root: edit(root, "registry.example", "127.0.0.1"), "the registry is only on this"),
}


@pytest.mark.parametrize("case", REACH)
def test_what_a_cluster_elsewhere_cannot_reach_is_refused(root: Path, case: str) -> None:
    change, sentence = REACH[case]
    change(root)
    with pytest.raises(SamifError, match=sentence) as refusal:
        packed(root)
    assert "\n" not in str(refusal.value)
    assert packed(root, "http://127.0.0.1:8265").submission.here == str(root)


def test_without_a_remote_results_would_be_lost(root: Path) -> None:
    for name in ("images", "annotations.json"):
        edit(root, f"photos/{name}", str(root.parent / "mnt" / name))
    with pytest.raises(SamifError, match="mnt/images does not exist on this machine, so a change of it could not be"):
        packed(root)
    for name in ("images", "annotations.json"):
        (root / "photos" / name).rename(root.parent / "mnt" / name)
    packed(root)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    with pytest.raises(SamifError, match="no DVC remote that the cluster can reach.*'dvc remote add --default"):
        packed(root)


def test_tracked_data_that_have_changed_since_dvc_add_are_refused(root: Path) -> None:
    """The cluster would get them as they were, so new images would never be learnt."""
    first = packed(root).submission.id
    (root / "photos" / "images" / "2.png").write_bytes(b"new")
    with pytest.raises(SamifError, match=r"photos has changed since photos\.dvc was written.*'dvc add photos'"):
        packed(root)
    repo = Repo(str(root))
    repo.add(str(root / "photos"))
    repo.close()
    assert packed(root).submission.id != first


def test_tracked_data_that_are_not_checked_out_are_no_change(root: Path) -> None:
    shutil.rmtree(root / "photos")
    first = packed(root).submission.id
    text = (root / "photos.dvc").read_text()
    (root / "photos.dvc").write_text(text.replace("md5: ", "md5: 0", 1).replace("size: ", "size: 1", 1))
    assert packed(root).submission.id != first


def test_the_dvc_lock_that_a_run_leaves_makes_no_other_job(root: Path) -> None:
    first = packed(root)
    (root / "dvc.lock").write_text("stages: {}\n")
    second = packed(root)
    assert second.submission.id == first.submission.id
    assert (second.folder / "workspace" / "dvc.lock").exists()
    assert not (first.folder / "workspace" / "dvc.lock").exists()


@pytest.mark.parametrize(
    ("file", "before", "after", "sentence"),
    [
        ("params.yaml", "http://registry", "http://ann:hunter2@registry", "key 'registry.tracking_uri': expected an"),
        (".dvc/config", "    url =", "    secret_access_key = hunter2\n    url =", "'secret_access_key' of DVC remote"),
        (".dvc/config", "url = ", "url = https://ann:hunter2@store.example/", "'url' of DVC remote 'store'"),
    ],
)
def test_a_file_with_a_password_is_not_sent(root: Path, file: str, before: str, after: str, sentence: str) -> None:
    """Nor run here: the request is refused, and what was asked for before as well."""
    asked = request_of(root, "ann")
    text = (root / file).read_text()
    assert text.count(before) == 1
    (root / file).write_text(text.replace(before, after))
    with pytest.raises(SamifError, match=sentence) as here:
        request_of(root, "ann")
    (root.parent / "build").mkdir()
    with pytest.raises(SamifError, match=sentence) as there:
        build_package(root, asked, HEAD, [root.parent / "mnt"], root.parent / "build")
    assert "hunter2" not in f"{here.value} {there.value}"


def test_too_much_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel, "MOST_BYTES", 1000)
    with pytest.raises(SamifError, match="the largest file is samif/huge: move it out"):
        write_wheel(tmp_path, {"samif/huge": bytes(1001), "samif/x.py": b""})
    monkeypatch.setattr("flows.submit.package.MOST_BYTES", 1000)
    with pytest.raises(SamifError, match=r"the largest is params\.yaml"):
        packed(root)


def test_the_wheel_is_installable_small_and_named_by_its_content(tmp_path: Path) -> None:
    path = build_wheel(tmp_path)
    weights = sum(file.stat().st_size for file in (ROOT / "samif" / "assets").glob("*.safetensors"))
    assert path.stat().st_size < weights + 1e6 < 10e6
    names = zipfile.ZipFile(path).namelist()
    assert {"samif/assets/tiny.safetensors", "flows/templates/params.yaml", "flows/submit/driver.py"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"samif", "flows", "samif-0.1.0.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/." in name]
    again, other = write_wheel(tmp_path, {"a.py": b"1"}), write_wheel(tmp_path, {"a.py": b"2"})
    first = again.read_bytes()
    assert write_wheel(tmp_path, {"a.py": b"1"}).read_bytes() == first and again.name != other.name
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-index", "--no-compile", "--quiet", "--target", str(target)]
    subprocess.run([*install, str(again)], check=True, capture_output=True)
    assert (target / "a.py").read_bytes() == b"1" and (target / "bin" / "samif").exists()


@pytest.fixture
def sent(root: Path, tmp_path: Path, migrated: Path) -> Path:
    """A package as the cluster has it, with a registry that is there."""
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "mlflow.db").write_bytes(migrated.read_bytes())
    folder = packed(root).folder
    edit(folder / "workspace", "http://registry.example:5000", f"sqlite:///{tmp_path}/registry/mlflow.db")
    return folder


def test_clones_of_killed_jobs_are_removed_and_those_of_running_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    for name, age in (("killed", 61), ("living", 61), ("beginning", 59)):
        folder = tmp_path / f"samif-job-{name}"
        folder.mkdir()
        (folder / "lock").touch()
        os.utime(folder / "lock", (time.time() - age,) * 2)
    (tmp_path / "samif-job-none").mkdir()
    with FileLock(tmp_path / "samif-job-living" / "lock"):
        os.utime(tmp_path / "samif-job-living" / "lock", (time.time() - 61,) * 2)
        driver._remove_stale_clones()
    assert {path.name for path in tmp_path.iterdir()} == {f"samif-job-{n}" for n in ("living", "beginning", "none")}


@pytest.mark.parametrize("failure", [None, "the gear is blurred"])
def test_the_driver_works_in_a_clone_and_what_was_done_before_a_failure_is_sent(
    root: Path, sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    failure: str | None,
) -> None:  # fmt: skip
    clones = []

    def run(clone: Path, request: RunRequest, say: Callable[[str], None]) -> Any:
        clones.append(clone)
        assert (clone / "photos" / "images" / "1.png").read_bytes() == b"an image"
        assert request == request_of(root, "ann")
        (clone / "result").write_text("a result")
        repo = Repo(str(clone))
        repo.add(str(clone / "result"))
        repo.close()
        say("at work")
        if failure is not None:
            raise SamifError(failure)
        return {"versions": {"decoder": 1}}

    monkeypatch.setattr(driver, "run", run)
    monkeypatch.setenv("PATH", "/usr/bin")
    files = set((tmp_path / "mnt" / "remote").rglob("*"))
    if failure is None:
        assert driver.main(sent) == 0
    else:
        with pytest.raises(SystemExit) as ended:
            driver.main(sent)
        assert ended.value.code == 1
    told = capfd.readouterr().out.splitlines()
    assert not clones[0].exists() and state_of(root) <= {"file_digests.db"}
    new = [path for path in set((tmp_path / "mnt" / "remote").rglob("*")) - files if path.is_file()]
    if failure is None:  # a run that ends well has sent its results itself
        assert told == ["at work", "registered: {'decoder': 1}"] and not new
    else:
        assert told == ["at work", "results are in DVC's remote (1 files sent)", f"samif: {failure}"]
        assert [path.read_text() for path in new] == ["a result"]
    assert sorted(path.name for path in sent.rglob("*") if path.is_file())[-1] == "submission.json"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shared": ["/nowhere/at/all"]}, "/nowhere/at/all was named with --shared, but this cluster does not have it"),
        ({"here": "/nowhere/at/all"}, "/nowhere/at/all is not the workspace that was submitted: .* behind a tunnel"),
        ({"id": 3}, "is no submission of this samif"),
    ],
)
def test_the_driver_says_what_the_cluster_lacks(
    sent: Path, change: dict[str, Any], sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    submission = json.loads((sent / "submission.json").read_text()) | change
    (sent / "submission.json").write_text(json.dumps(submission))
    assert driver.main(sent) == 1
    out = capfd.readouterr().out
    assert out.startswith("samif: ") and out.count("\n") == 1
    assert re.search(sentence, out), out


def test_images_that_were_not_pushed_are_named(sent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mnt" / "remote").rename(tmp_path / "mnt" / "gone")
    with pytest.raises(SystemExit) as ended:
        driver.main(sent)
    assert ended.value.code == 1
    assert "the images of photos.dvc are not in the DVC remote" in capfd.readouterr().out


def test_relative_images_of_a_workspace_in_a_shared_folder_are_linked(root: Path, tmp_path: Path) -> None:
    (root / "photos.dvc").unlink()
    (tmp_path / "build").mkdir()
    sent = build_package(root, request_of(root, "ann", ""), HEAD, [tmp_path], tmp_path / "build")
    links = ("photos/annotations.json", "photos/images")
    assert (sent.submission.here, sent.submission.seen_at, sent.submission.links) == (None, str(root), links)
    with driver._clone(sent.folder / "workspace", sent.submission) as clone:
        assert (clone / "photos" / "images" / "2.png").read_text() == "2"
        assert not (clone / ".samif").exists()


def test_relative_images_of_a_workspace_on_this_machine_are_linked(root: Path) -> None:
    edit(root, "http://registry.example:5000", "null")
    sent = packed(root, "http://localhost:8265").submission
    assert sent.here == str(root) and sent.links == ("photos/annotations.json", "photos/images")
    edit(root, "tracking_uri: null", "tracking_uri: sqlite:///mine.db")
    with pytest.raises(SamifError, match="'registry.tracking_uri' in .* is relative to the workspace"):
        packed(root, "http://localhost:8265")
    assert state_of(root) <= {"file_digests.db"}


@pytest.mark.parametrize(
    ("who", "why", "key"),
    [("", "", "who"), ("ann", "a\nb", "why"), ("ann", "a\x1b[2J", "why"), ("ann", "a" * 1001, "why")],
)
def test_a_request_is_plain_text(root: Path, who: str, why: str, key: str) -> None:
    with pytest.raises(SamifError, match=f"^the request's '{key}' does not fit") as refusal:
        request_of(root, who, why)
    assert "\n" not in str(refusal.value)


def test_a_request_says_what_it_is_about(root: Path) -> None:
    one = request_of(root, "ann", "a" * 1000)
    assert (one.cause, one.commit, one.dvc_lock) == (None, None, None) and one.data_sha256 is not None
    assert request_of(root, "ann", with_data=False).data_sha256 is None
    with pytest.raises(SamifError, match="is not a workspace"):
        request_of(root.parent, "ann")
