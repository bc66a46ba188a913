"""The registry on real MLflow: SQLite in a workspace, and a server over PostgreSQL."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flows.registry.model_files import find_model
from flows.registry.registry import Registration, Registry
from flows.workspace.layout import Layout
from samif.errors import SamifError
from samif.evaluate.model import Evaluation
from samif.io.hashing import file_sha256
from samif.versions.card import Card, evaluation_digest
from tests.support.services import mlflow_server

BASE_CLASSES = ("bolt", "nut (M4)")
H = {part: sha256(part.encode()).hexdigest() for part in ("dataset", "params", "encoder")}


@dataclass(frozen=True)
class Version:
    """What the stages leave for one classifier: its card and the files to register."""

    card: Card
    files: dict[str, Path]


class Workspace:
    """A workspace whose artifacts are small but of the real form."""

    def __init__(self, root: Path, tracking_uri: str | None = None, line: str = "demo") -> None:
        self.layout = Layout(root)
        self.line = line
        self.registry = Registry(tracking_uri, root)
        self.layout.decoder.mkdir(parents=True)
        save_file({"w": np.arange(8, dtype=np.float32)}, self.layout.decoder / "decoder.safetensors")
        (self.layout.decoder / "training.json").write_text('{"schema": 1}')
        self.decoder = file_sha256(self.layout.decoder / "decoder.safetensors")

    def make(
        self,
        name: str = "base",
        after: str | None = None,
        new: tuple[str, ...] = (),
        ap: float = 50.0,
        row: float = 0.0,
    ) -> Version:
        """Write classifier, session and evaluation of `name`. `row` moves the first row, `ap` the evaluation."""
        classes = (*BASE_CLASSES, *new)
        rows = np.eye(len(classes), 4, dtype=np.float32)
        rows[0, 0] += row
        folder, evaluated = self.layout.classifier(name), self.layout.evaluation(name)
        for path in (folder, evaluated):
            path.mkdir(parents=True, exist_ok=True)
        save_file({"rows": rows}, folder / "classifier.safetensors")
        (folder / "session.json").write_text(json.dumps({"schema": 1, "name": name, "after": after, "shots": 10}))
        (evaluated / "classes.json").write_text(json.dumps(classes))
        (evaluated / "image.png").write_bytes(b"an image")
        evaluation = _evaluation(name, new, ap)
        evaluation.save(evaluated / "evaluation.json")
        card = Card.model_validate(
            {
                "line": self.line,
                "name": name,
                "after": after,
                "classes": classes,
                "identity": H
                | {
                    "decoder": self.decoder,
                    "classifier": file_sha256(folder / "classifier.safetensors"),
                    "evaluation": evaluation_digest(evaluation),
                },
                "rows": {cls: sha256(rows[i].tobytes()).hexdigest() for i, cls in enumerate(classes)},
                "encoder": {"name": "tiny", "digest": H["encoder"], "checkpoint": None},
                "decoder": {"sha256": self.decoder},
                "pretrain_classes": "base",
                "provenance": {
                    "created": datetime.now(UTC),
                    "who": "ann",
                    "why": f"add {name}",
                    "commit": "c0ffee",
                    "dvc_lock": None,
                    "data_revision": None,
                    "samif": "0.1.0",
                },
            }
        )
        files = {
            "classifier.safetensors": folder / "classifier.safetensors",
            "session.json": folder / "session.json",
            "evaluation.json": evaluated / "evaluation.json",
            "classes.json": evaluated / "classes.json",
            "images/first.png": evaluated / "image.png",
        }
        return Version(card, files)

    def alias(self, alias: str, version: int | None) -> None:
        """Move an alias by hand, as anybody can in MLflow."""
        client, name = self.registry._store.client, f"{self.line}-classifier"
        if version is None:
            client.delete_registered_model_alias(name, alias)
        else:
            client.set_registered_model_alias(name, alias, str(version))

    def register(self, version: Version, previous: Card | None = None) -> Registration:
        decoder = self.registry.register_decoder(self.line, self.layout.decoder, self.decoder)
        return self.registry.register_classifier(self.line, version.card, version.files, decoder, previous)


def _evaluation(name: str, new: tuple[str, ...], ap: float) -> Evaluation:
    groups = dict.fromkeys(BASE_CLASSES, "base") | dict.fromkeys(new, "novel")
    novel = 40.0 if new else None
    labels = [*groups, "background"]
    return Evaluation.model_validate(
        {
            "name": name,
            "classes": {"base": list(BASE_CLASSES), "novel": list(new)},
            "images": 4,
            "dataset": H["dataset"],
            "ap": {"base": ap, "novel": novel, "all": ap},
            "ap50": {"base": 80.0, "novel": novel, "all": 80.0},
            "per_class": {cls: {"ap": ap, "ap50": 80.0, "instances": 3, "group": g} for cls, g in groups.items()},
            "base_only": {"images": 2, "ap": ap, "ap50": 80.0},
            "unknown": {"auroc": 0.9, "unlabelled_false_positives_per_image": 0.5, "objects": 2},
            "confusion": {"labels": labels, "matrix": [[0] * len(labels) for _ in labels]},
            "operating_score": 0.3,
            "seconds": time.time() % 60,
        }
    )


@pytest.fixture
def space(tmp_path: Path, migrated: Path) -> Workspace:
    root = tmp_path / "my line"
    (root / ".samif").mkdir(parents=True)
    shutil.copy(migrated, root / ".samif" / "mlflow.db")
    return Workspace(root)


def fresh(space: Workspace) -> Registry:
    """As another process would see it."""
    return Registry(None, space.layout.root)


def scenario(space: Workspace) -> None:
    """The life of a line, the same on every kind of registry."""
    base = space.make()
    first = space.register(base)
    assert (first.version, first.created) == (1, True)
    assert space.registry.aliases(space.line) == {"challenger": 1}
    assert space.register(space.make()) == Registration(1, False, first.run_id)  # other seconds, same content

    session = space.make("s1", "base", ("washer",))
    second = space.register(session, base.card)
    assert (second.version, second.created) == (2, True)
    space.alias("champion", 1)
    rows = space.registry.versions(space.line)
    assert [(row.version, row.session, row.classes, row.aliases) for row in rows] == [
        (1, "base", 2, ("champion",)),
        (2, "s1", 3, ("challenger",)),
    ]
    assert rows[0].ap == {"base": 50.0, "novel": None, "all": 50.0}
    assert rows[1].ap50 == {"base": 80.0, "novel": 40.0, "all": 80.0}
    assert [row.decoder_version for row in rows] == [1, 1]
    assert rows[1].card_digest == session.card.digest
    json.dumps([asdict(row) for row in rows])  # a listing must be printable as it is

    name = f"{space.line}-classifier"
    for ref, number in ((name, 2), (space.line, 2), (f"{name}/1", 1), (f"{space.line}@champion", 1)):
        assert space.registry.resolve(ref) == (name, number)
    details = space.registry.show(f"{name}/2")
    assert details.tags["after"] == "base"
    assert details.tags["decoder_sha256"] == space.decoder
    assert details.metrics["AP/class.nut _x28_M4_x29_"] == 50.0
    assert details.card.digest == session.card.digest
    assert details.card.provenance.mlflow_run == details.run_id == second.run_id
    of_mlflow = {"MLmodel", "pyfunc_entry.py", "requirements.txt", "conda.yaml", "python_env.yaml"}
    of_mlflow |= {"input_example.json", "serving_input_example.json"}
    assert set(details.files) == {*session.files, "card.json", *of_mlflow}

    folder = space.registry.download(f"{space.line}@champion")
    assert folder == space.layout.state / "models" / base.card.digest
    expected = {"classifier.safetensors", "decoder.safetensors", "card.json", "session.json", "evaluation.json"}
    assert {path.name for path in folder.iterdir()} == expected
    assert load_file(folder / "classifier.safetensors")["rows"].shape == (2, 4)


def test_life_of_a_line_on_sqlite(space: Workspace) -> None:
    scenario(space)


def test_life_of_a_line_on_a_server_over_postgresql(tmp_path: Path, registry_server: str) -> None:
    server = registry_server
    scenario(Workspace(tmp_path, server, line="pressed"))
    assert not (tmp_path / ".samif" / "mlflow.db").exists()
    with pytest.raises(SamifError, match=r"no 'other-classifier' .*pressed-classifier"):
        Registry(server, tmp_path).versions("other")


def test_a_changed_old_row_is_refused(space: Workspace) -> None:
    base = space.make()
    space.register(base)
    with pytest.raises(SamifError, match="changes the rows of bolt"):
        space.register(space.make("s1", "base", ("washer",), row=1e-6), base.card)
    assert [row.version for row in space.registry.versions("demo")] == [1]


def test_other_content_is_another_version_and_the_challenger(space: Workspace) -> None:
    space.register(space.make())
    space.alias("champion", 1)
    assert space.register(space.make(ap=50.1)).version == 2
    assert space.registry.aliases("demo") == {"champion": 1, "challenger": 2}
    # Going back to the first content names the first version again and moves nothing.
    assert space.register(space.make()).version == 1
    assert space.registry.aliases("demo") == {"champion": 1, "challenger": 2}


def test_a_promoted_version_does_not_become_challenger_again(space: Workspace) -> None:
    space.register(space.make())
    space.alias("champion", 1)
    space.alias("challenger", None)
    space.register(space.make())
    assert space.registry.aliases("demo") == {"champion": 1}


@pytest.mark.parametrize("status", ["RUNNING", "FINISHED"])
def test_a_run_without_a_version_is_taken_up(space: Workspace, status: str) -> None:
    """A crash after the run was made, or after it was finished, but before its version."""
    base = space.make()
    decoder = space.registry.register_decoder("demo", space.layout.decoder, space.decoder)
    client = space.registry._store.client
    experiment = client.get_experiment_by_name("demo")
    assert experiment is not None
    tags = {"kind": "classifier", "card_digest": base.card.digest, "commit": "before the crash"}
    orphan = client.create_run(experiment.experiment_id, tags=tags).info.run_id
    client.log_param(orphan, "session", "base")
    client.set_terminated(orphan, status)
    done = fresh(space).register_classifier("demo", base.card, base.files, decoder, None)
    assert done == Registration(1, True, orphan)
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'classifier'")) == 1
    assert fresh(space).show("demo").tags["commit"] == "c0ffee"
    assert "card.json" in fresh(space).show("demo").files


def test_a_version_that_missed_its_alias_gets_it(space: Workspace) -> None:
    space.register(space.make())
    space.alias("challenger", None)
    space.register(space.make())
    assert space.registry.aliases("demo") == {"challenger": 1}


def test_a_decoder_is_registered_once_per_digest(space: Workspace) -> None:
    register = space.registry.register_decoder
    assert [register("demo", space.layout.decoder, space.decoder) for _ in range(2)] == [1, 1]
    with pytest.raises(SamifError, match="not 000000000000"):
        register("demo", space.layout.decoder, "0" * 64)
    other = space.layout.root / "other"
    other.mkdir()
    save_file({"w": np.zeros(8, np.float32)}, other / "decoder.safetensors")
    assert register("demo", other, file_sha256(other / "decoder.safetensors")) == 2
    base = space.make()
    with pytest.raises(SamifError, match="demo-decoder/2 is not the decoder that 'base' was made with"):
        space.registry.register_classifier("demo", base.card, base.files, 2, None)
    with pytest.raises(SamifError, match=r"demo-decoder has no version 3 \(it has: 1, 2\)"):
        space.registry.register_classifier("demo", base.card, base.files, 3, None)


def test_files_must_be_those_of_the_card(space: Workspace) -> None:
    decoder = space.registry.register_decoder("demo", space.layout.decoder, space.decoder)
    base = space.make()

    def register(files: dict[str, Path], line: str = "demo") -> None:
        space.registry.register_classifier(line, base.card, files, decoder, None)

    other = space.make("s1", "base", ("washer",))
    for name in ("session.json", "evaluation.json"):
        with pytest.raises(SamifError, match="do not belong together"):
            register(base.files | {name: other.files[name]})
    with pytest.raises(SamifError, match="do not belong together"):
        register(base.files, line="pressed")
    with pytest.raises(SamifError, match="not the file that the card"):
        register(base.files | {"classifier.safetensors": other.files["classifier.safetensors"]})
    with pytest.raises(SamifError, match=r"without evaluation.json"):
        register({name: path for name, path in base.files.items() if name != "evaluation.json"})
    with pytest.raises(SamifError, match=r"without .*gone\.png"):
        register(base.files | {"images/gone.png": space.layout.root / "gone.png"})
    base.files["session.json"].write_text("[]")
    with pytest.raises(SamifError, match=r"session\.json is not a session's record"):
        register(base.files)
    with pytest.raises(SamifError, match="no 'demo-classifier'"):
        space.registry.versions("demo")


APART = """
import json, sys
from pathlib import Path
from flows.registry.registry import Registry
from samif.versions.card import Card
root, files = Path(sys.argv[1]), json.loads(sys.argv[2])
card, registry = Card.load(root / "card.json"), Registry(None, root)
number = registry.register_decoder("demo", root / "artifacts" / "decoder", card.decoder.sha256)
files = {name: Path(path) for name, path in files.items()}
done = registry.register_classifier("demo", card, files, number, None)
print(done.version, done.created)
"""


def test_two_processes_make_one_version(tmp_path: Path) -> None:
    """Both start on an empty workspace, so they also race for the first migration of SQLite."""
    space = Workspace(tmp_path)
    version = space.make()
    version.card.save(tmp_path / "card.json")
    files = json.dumps({name: str(path) for name, path in version.files.items()})
    command = [sys.executable, "-c", APART, str(tmp_path), files]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert sorted(said) == ["1 False", "1 True"]
    assert len(space.registry.versions("demo")) == 1


def test_killed_in_its_first_migration_it_starts_anew(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from flows.registry.registry import Registry;"
    code += "r = Registry(None, Path(sys.argv[1]));"
    code += "from contextlib import ExitStack; ExitStack().enter_context(r._store.writing())"
    part = tmp_path / ".samif" / ".mlflow.db.part"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert part.exists()
    assert not (tmp_path / ".samif" / "mlflow.db").exists()
    space = Workspace(tmp_path)
    assert space.register(space.make()).version == 1
    assert not part.exists()


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("pressed", r"no 'pressed-classifier' \(it has: .*demo-classifier"),
        ("demo/7", r"demo-classifier has no version 7 \(it has: 1\)"),
        ("demo@live", r"demo-classifier has no alias 'live' \(it has: challenger\)"),
        ("demo/latest", "does not name a version"),
        ("demo@", "does not name a version"),
        ("../demo", "does not name a version"),
        ("", "does not name a version"),
    ],
)
def test_a_wrong_reference_says_what_there_is(registered: Workspace, ref: str, says: str) -> None:
    with pytest.raises(SamifError, match=says):
        registered.registry.resolve(ref)
    with pytest.raises(SamifError, match=says):
        registered.registry.download(ref)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Workspace:
    """A workspace with one registered version, for tests that only read."""
    root = tmp_path_factory.mktemp("registered")
    (root / ".samif").mkdir()
    shutil.copy(migrated, root / ".samif" / "mlflow.db")
    space = Workspace(root)
    space.register(space.make())
    return space


def test_a_version_by_another_hand_is_listed_but_not_loaded(space: Workspace) -> None:
    space.register(space.make())
    space.registry._store.client.create_model_version("demo-classifier", "file:///nowhere")
    assert [(row.session, row.decoder_version) for row in space.registry.versions("demo")] == [("base", 1), ("", None)]
    for call in (space.registry.show, space.registry.download):
        with pytest.raises(SamifError, match="demo-classifier/2 was not registered by samif"):
            call("demo/2")


def test_download_refuses_another_decoder(space: Workspace) -> None:
    space.register(space.make())
    stored = next((space.layout.state / "mlartifacts").rglob("decoder.safetensors"))
    save_file({"w": np.zeros(8, np.float32)}, stored)
    for into in (None, space.layout.root / "bundle"):
        with pytest.raises(SamifError, match="is not the decoder of card 'base'"):
            space.registry.download("demo", into)
    assert not (space.layout.root / "bundle").exists()
    assert list((space.layout.state / "models").iterdir()) == []


def test_a_damaged_cache_is_fetched_again(space: Workspace) -> None:
    space.register(space.make())
    folder = space.registry.download("demo")
    before = (folder / "classifier.safetensors").stat().st_ino
    assert (space.registry.download("demo") / "classifier.safetensors").stat().st_ino == before
    (folder / "classifier.safetensors").write_bytes(b"damaged")
    Card.load(space.registry.download("demo") / "card.json").check_files(
        folder / "classifier.safetensors", folder / "decoder.safetensors"
    )
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_download_into_a_folder(space: Workspace) -> None:
    space.register(space.make())
    folder = space.layout.root / "deep" / "bundle"
    assert space.registry.download("demo", folder) == folder
    with pytest.raises(SamifError, match="exists already"):
        space.registry.download("demo", folder)


def test_a_moved_workspace_keeps_its_versions(space: Workspace, tmp_path: Path) -> None:
    base = space.make()
    space.register(base)
    moved = Workspace.__new__(Workspace)
    moved.layout, moved.line, moved.decoder = Layout(tmp_path / "moved"), "demo", space.decoder
    space.layout.root.rename(moved.layout.root)
    moved.registry = Registry(None, moved.layout.root)
    assert (moved.registry.download("demo/1") / "card.json").exists()
    assert moved.register(moved.make("s1", "base", ("washer",)), base.card).version == 2
    assert (moved.registry.download("demo/2") / "card.json").exists()
    assert not space.layout.root.exists()


def test_reading_makes_no_registry(tmp_path: Path) -> None:
    for call in (Registry(None, tmp_path).versions, Registry(None, tmp_path).resolve):
        with pytest.raises(SamifError, match=r"no registry at .*samif run"):
            call("demo")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "registry.db"
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 2\0" * 10)
    started = time.monotonic()
    with pytest.raises(SamifError, match="is not an SQLite file"):
        Registry("sqlite:///sub/registry.db", tmp_path).versions("demo")
    assert time.monotonic() - started < 5


def test_a_truncated_database_is_refused_at_once(space: Workspace) -> None:
    path = space.layout.state / "mlflow.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    started = time.monotonic()
    with pytest.raises(SamifError, match=r"cannot be opened: .*malformed.*restore it from a backup"):
        space.registry.versions("demo")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("uri", ["postgresql://ann:secret@db/mlflow", "ftp://ann:secret@host", "mlruns", "https"])
def test_other_addresses_are_refused_without_telling_secrets(tmp_path: Path, uri: str) -> None:
    with pytest.raises(SamifError, match=r"registry.tracking_uri") as refused:
        Registry(uri, tmp_path)
    assert "secret" not in str(refused.value)


def test_a_dead_server_is_one_sentence_and_quick(
    tmp_path: Path, migrated: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(migrated, tmp_path / "tracking.db")
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path / 'tracking.db'}") as service:
        space = Workspace(tmp_path, service.url.replace("//", "//ann:secret@"))
        space.register(space.make())
        service.stop(signal.SIGKILL)
        for registry, seconds in ((space.registry, 20), (Registry(service.url, tmp_path), 5)):
            started = time.monotonic()
            with pytest.raises(SamifError, match=r"at http://127\.0\.0\.1:\d+ does not answer; start it") as refused:
                registry.versions("demo")
            assert time.monotonic() - started < seconds
            assert "secret" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_it_is_silent(tmp_path: Path) -> None:
    """The first migration of SQLite, a registration and a listing print nothing."""
    code = "import sys; from pathlib import Path; from flows.registry.registry import Registry;"
    code += "from samif.versions.card import *;"
    code += "r = Registry(None, Path(sys.argv[1])); d = Path(sys.argv[1]) / 'artifacts' / 'decoder';"
    code += "r.register_decoder('demo', d, file_sha256(d / 'decoder.safetensors'))"
    Workspace(tmp_path)
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".samif", "artifacts"]


def test_importing_the_registry_does_not_import_mlflow() -> None:
    code = "import sys, flows.registry.model_files;"
    code += "sys.exit(any(name in sys.modules for name in ('mlflow', 'torch', 'sqlalchemy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_find_model(registered: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a folder of the same name where one stands goes before the workspace's
    layout = registered.layout
    from_registry = find_model("demo@challenger", layout, registered.registry)
    assert from_registry.card is not None
    assert from_registry.decoder == from_registry.folder / "decoder.safetensors"

    for ref in (str(layout.classifier("base")), "artifacts/classifiers/base"):
        from_stage = find_model(ref, layout, None)
        assert from_stage.card is None
        assert from_stage.decoder == layout.decoder / "decoder.safetensors"
        assert from_stage.classifier == layout.classifier("base") / "classifier.safetensors"

    copied = tmp_path / "a" / "b" / "copied"
    shutil.copytree(from_registry.folder, copied)
    assert find_model(str(copied), None, None).card == from_registry.card
    (copied / "classifier.safetensors").write_bytes(b"damaged")
    with pytest.raises(SamifError, match="not the classifier of card 'base'"):
        find_model(str(copied), None, None)
    shutil.copy(from_registry.classifier, copied)
    (copied / "decoder.safetensors").unlink()
    with pytest.raises(SamifError, match=r"no decoder.safetensors in"):
        find_model(str(copied), None, None)
    with pytest.raises(SamifError, match=r"no classifier.safetensors in 'nowhere'"):
        find_model("nowhere", layout, None)
    with pytest.raises(SamifError, match=r"is no folder with .* has no 'nowhere-classifier'"):
        find_model("nowhere", layout, registered.registry)
