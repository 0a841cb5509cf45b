"""What a restore says where the disk of the backups is full while it swaps; with a site that pretends."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern import restore_run
from ansible.module_utils.dastern.backup_records import Place
from ansible.module_utils.dastern.containers import Output
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.restore_run import Run, State

MEND = "the next run of `ansible-playbook playbooks/restore.yml` writes it, and without `confirm` does nothing else"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    own = {
        "endpoint": f"unix://{tmp_path}/none.sock",
        "container": "pg",
        "database": "d",
        "backup_dir": str(tmp_path / "b"),
    }
    place = Place(own)
    place.folder.mkdir()
    site: Any = SimpleNamespace(
        name="pg", volume="pg-data", container=None, psql=SimpleNamespace(), waiting=nullcontext,
        look=lambda: {"entries": ["pgdata", "in"]}, answers=lambda: False, wait_until_answers=lambda _: True,
    )  # fmt: skip
    return Run({"keep_old_hours": 72}, place, site, State(place), [], lambda _: None)


def entry(run: Any, what: str) -> dict[str, Any]:
    return restore_run._entry(run, what, incoming="in", kept="out", words="")


def said(run: Any, what: str) -> str:
    """What a swap fails with."""
    swap = restore_run._swap_folders if what == "cluster" else restore_run._swap_databases
    with pytest.raises(DasTernError) as refusal:
        swap(run, entry(run, what))
    return refusal.value.message


def no_note(run: Any) -> None:
    shutil.rmtree(run.place.folder)


@pytest.mark.parametrize("what", ["cluster", "database"])
def test_a_swap_that_cant_be_noted_has_happened(run: Any, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(restore_run, "_databases", lambda _: ["d", "in"])
    run.site.psql.run = lambda _: no_note(run)
    run.site.within = lambda *_: no_note(run) or Output(0, "", "")
    message = said(run, what)
    assert f"The swap has happened: the restored {what} is live, and the former one is kept as out." in message
    assert "restore.json can't be written" in message
    assert MEND in message


def test_a_swap_that_happened_unheard_and_cant_be_noted(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restore_run, "_databases", lambda _: ["d", "out"])

    def cut(sql: str) -> None:
        if "RENAME" in sql:
            no_note(run)
            raise DasTernError("Cut.")

    run.site.psql.run = cut
    message = said(run, "database")
    assert message.startswith("Cut. The swap has happened: the restored database is live")
    assert MEND in message
    assert "MAY REFUSE" not in message


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cluster", "can't be renamed: busy. The former cluster is back and serves."),
        ("database", "Cut. Database d wasn't replaced and serves as before."),
    ],
)
def test_a_swap_that_was_taken_back_and_cant_be_noted(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    """What was to come in stays: by that the next run sees that it didn't."""
    monkeypatch.setattr(restore_run, "_databases", lambda _: ["d", "in"])
    monkeypatch.setattr(restore_run, "cleaned", lambda *_: pytest.fail("cleaned"))
    moves = iter([Output(1, "", "busy"), Output(0, "", "")])

    def cut(sql: str) -> None:
        if "RENAME" in sql:
            no_note(run)
            raise DasTernError("Cut.")

    def within(*_: str) -> Output:
        if run.place.folder.exists():
            no_note(run)
        return next(moves)

    run.site.psql.run, run.site.within = cut, within
    message = said(run, what)
    assert f"{words} Only the note of that is missing" in message
    assert MEND in message
    assert "MAY REFUSE" not in message


def test_what_cant_be_cleaned_hides_no_failure(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> list[str]:
        raise DasTernError("Container pg-restore isn't ours.")

    monkeypatch.setattr(restore_run, "cleaned", refuse)
    moves = iter([Output(1, "", "busy"), Output(0, "", "")])
    run.site.within = lambda *_: next(moves)
    told = "what had been restored is still there (Container pg-restore isn't ours.) and the next run removes it"
    assert "The former cluster is back and serves." in said(run, "cluster")
    assert (run.lines, run.state.pending) == ([told], None)
    no_note(run)
    assert said(run, "cluster").endswith("Nothing was swapped.")
    assert run.lines == [told, told]


def test_a_check_makes_no_folder_that_is_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the disk of the backups is lost: the engine makes what a container mounts."""
    monkeypatch.setattr(restore_run, "Site", lambda *_: pytest.fail("looked"))
    own = {name: option.get("default") for name, option in restore_run.ARGUMENT_SPEC.items()}
    own |= {"endpoint": "unix:///none.sock", "container": "pg", "database": "d", "repository": 2}
    found = restore_run.restore({**own, "backup_dir": str(run.place.folder)}, check_mode=True)
    assert (found["changed"], found["target"]) == (True, "latest")
    assert str(run.place.folder) in found["lines"][0]
