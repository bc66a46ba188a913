"""Pages of the runbook; that their commands are understood is tested with all documents (tests/test_documents.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.documents import command_lines

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "infra" / "RUNBOOK.md").read_text()
PAGES = re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)


def test_the_pages_are_there_and_end_with_how_to_see_that_it_worked() -> None:
    wanted = ("Promote", "Roll back", "lost database", "lost bucket", "Rotate", "Upgrade the encoder")
    assert [word for word in wanted if not any(word in page for page in PAGES)] == []
    for page in re.split(r"^## ", RUNBOOK, flags=re.MULTILINE)[1:]:
        title = page.split("\n")[0]
        assert "Worked if:" in page and len(command_lines(page)) > 0, title
        assert len(page.splitlines()) <= 45, title


def test_make_asks_for_the_folder_of_a_backup() -> None:
    for target in ("services-backup", "services-restore"):
        command = ["make", "--silent", "--assume-old=.venv/.installed", target, f"BIN={Path(sys.executable).parent}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0 and "name the folder of the backup: SERVICES_BACKUP=folder" in done.stderr
