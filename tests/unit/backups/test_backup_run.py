"""Backups as they are asked for: what is refused, in which order, and on a disk that is full; with a server that pretends."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ansible.module_utils.dastern.backups import health, keeper, logical, pgbackrest, physical, records
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.kept import State, expire_old
from ansible.module_utils.dastern.backups.pgbackrest import PgBackRest
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.catalogue import census
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import plain_sql
from samples import record


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A running server that archives."""
    monkeypatch.setattr(backup_run, "running", lambda _: True)
    monkeypatch.setattr(keeper, "there", lambda _: True)
    monkeypatch.setattr(PgBackRest, "version", lambda _: "2.55.1")
    monkeypatch.setattr(physical, "server", lambda _: physical.Server("42", "17.12", True))
    own = {"endpoint": f"unix://{tmp_path}/none.sock", "container": "pg", "database": "d", "backup_dir": str(tmp_path)}
    return {name: option.get("default") for name, option in backup_run.ARGUMENT_SPEC.items()} | own


@pytest.fixture
def place(params: dict[str, Any]) -> Place:
    return Place(params)


def info_of(*sets: dict[str, Any]) -> pgbackrest.Info:
    """A repository with these sets, the oldest first."""
    return pgbackrest.Info(True, "42", {1: ["42"]}, "17-1", list(sets), [])


def test_others_are_waited_for_before_the_repository_is_read(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ended(*_: Any) -> None:
        raise DasTernError("enough")

    monkeypatch.setattr(PgBackRest, "alone", lambda *_: asked.append("alone"))
    monkeypatch.setattr(PgBackRest, "info", lambda *_: asked.append("info"))
    monkeypatch.setattr(physical, "usable", lambda _, program: [program.info(), ended()])
    with pytest.raises(DasTernError, match="enough"):
        backup_run.take(params)
    assert asked == ["alone", "info"]


def test_what_a_killed_run_left_is_killed_where_it_does_not_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbackrest, "PATIENCE", 0.3)
    sent: list[str] = []

    def execute(_: str, words: list[str], **__: Any) -> Output:
        if words[2] == pgbackrest._PROCESSES:
            left = "" if "KILL" in sent else "42 pgbackrest --annotation=das-tern=incomplete --repo=1 backup"
            return Output(0, left, "")
        assert words[-1] == "42"
        sent.append(words[-2])
        return Output(0, "", "")

    monkeypatch.setattr(place.containers, "execute", execute)
    told: list[str] = []
    PgBackRest(place.containers, "pg").alone(60, told.append)
    assert (sent, told) == (["TERM", "KILL"], ["Ending a backup that a killed run left behind ..."])


@pytest.mark.parametrize("only", [(), ("--set=a",)])
def test_pgbackrest_is_let_read_a_large_repository_in_silence(
    place: Place, monkeypatch: pytest.MonkeyPatch, only: tuple[str, ...]
) -> None:
    given: list[float] = []

    def run(*_: str, silence: float = 0, **__: Any) -> str:
        given.append(silence)
        return "status: ok\n"

    program = PgBackRest(place.containers, "pg")
    monkeypatch.setattr(program, "run", run)
    told = physical._read(program, info_of(), [], {}, only, 1, physical.Findings())
    assert (told.ok, given) == (True, [census.LONGEST])


def test_a_container_that_sees_another_folder_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.containers, "execute", lambda *_, **__: Output(0, "0 0\n", ""))
    (place.folder / "transfer").mkdir()
    with pytest.raises(DasTernError, match=f"Container pg doesn't see {place.folder} as /backups"):
        logical.refuse_elsewhere(place, "transfer")


def test_a_container_without_the_repository_is_refused_before_anything_is_asked(
    params: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "there", lambda _: False)
    for found, words in ((None, "doesn't exist"), ({"State": {"Running": False}}, "doesn't run")):
        monkeypatch.setattr(
            "ansible.module_utils.dastern.docker.containers.Containers.inspect", lambda *_, found=found: found
        )
        with pytest.raises(DasTernError, match=f"pg-backup.*{words}") as refusal:
            backup_run.take(params)
        assert refusal.value.facts == {"keeper": "pg-backup"}


def test_a_disk_that_takes_nothing_is_a_refusal_in_words(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(place.folder)
    with pytest.raises(DasTernError, match=r"restore\.json can't be written"):
        State(place).save()
    place.folder.mkdir()
    with monkeypatch.context() as full:
        full.setattr(records.os, "write", Mock(side_effect=OSError(errno.ENOSPC, "full")))
        with place.alone(0, "a deletion"):
            place.records_folder.touch()
    with pytest.raises(DasTernError, match=r"records/07\.json can't be written: .*\. Make room there"):
        place.save(record(7))


def test_a_link_in_the_place_of_the_lock_is_not_followed(place: Place, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (place.folder / ".lock").symlink_to(victim)
    with pytest.raises(DasTernError), place.alone(0, "a backup"):
        pass
    assert victim.read_text() == "mine"


def keep_replaced(place: Place) -> None:
    """As a restore leaves it that was three days ago, and one that was just now."""
    state = State(place)
    entry = {"what": "database", "incoming": "", "words": "", "database": "d", "volume": "", "at": "then"}
    state.kept = [
        {**entry, "kept": f"d_before_{year}", "until": f"{year}-03-01T00:00:00+00:00"} for year in (2026, 2999)
    ]
    state.save()


def test_a_check_says_that_what_restores_replaced_would_go(
    params: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_replaced(place)
    lines = backup_run.take({**params, "backup_type": "logical"}, check_mode=True)["lines"]
    assert lines == [
        "would take a logical backup",
        "would remove database d_before_2026, replaced by a restore at then",
    ]


def test_a_check_of_a_damaged_note_says_what_the_run_would_say(params: dict[str, Any], place: Place) -> None:
    (place.folder / "restore.json").write_text("{")
    _, line = backup_run.take({**params, "backup_type": "logical"}, check_mode=True)["lines"]
    assert [line] == expire_old(place)
    assert line.startswith("what restores replaced can't be removed: ")


def test_check_and_list_name_the_leftovers_that_would_go(
    params: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody else's set is built upon stays; the last full one goes once there is another."""
    left = {"annotation": {pgbackrest.MARK: "incomplete"}, "type": "full", "in": "17-1"}
    sets = [
        {**left, "label": "a"},
        {"label": "a_i", "type": "incr", "in": "17-1", "prior": "a"},
        {**left, "label": "b"},
    ]
    expired: list[str] = []
    monkeypatch.setattr(PgBackRest, "expire", lambda _, label: expired.append(label))
    monkeypatch.setattr(PgBackRest, "further", lambda _: [])
    for there, before, after in ((sets, [], ["b"]), (sets[2:], [], ["b"]), (sets[:2], [], [])):
        info = info_of(*there)
        monkeypatch.setattr(physical, "usable", lambda *_, info=info: (None, info))
        monkeypatch.setattr(PgBackRest, "info", lambda _, info=info: info)
        shown = backup_run.listed(params)["lines"]
        for label in (one["label"] for one in there if one.get("annotation")):
            stays = "the next one deletes it" if label in after else "stays while another set is built upon it"
            assert f"{label} is incomplete: it isn't a backup, and {stays}" in shown
        planned = backup_run.take({**params, "backup_type": "full"}, check_mode=True)["lines"]
        assert planned[1:] == [f"would delete {label}, which a killed run left incomplete" for label in after]
        program = PgBackRest(place.containers, "pg")
        assert physical.sweep(place, program, info) == before
        new = {"label": "c", "type": "full", "in": "17-1"}
        assert physical.sweep(place, program, info_of(*there, new)) == after
    assert expired == ["b", "b"]


def test_status_shows_what_a_verification_found_until_one_finds_nothing(
    params: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    monkeypatch.setattr(PgBackRest, "further", lambda _: [2])
    monkeypatch.setattr(physical, "verify_further", lambda *_: physical.Findings(problems=[*found]))

    def shown() -> list[str]:
        options = {name: option.get("default") for name, option in health.ARGUMENT_SPEC.items()}
        return [str(one) for one in health.examine(options | params).problems if one.kind == "unverified"]

    found.append("repository 2: WAL 07 is missing")
    backup_run.verify(params, check_mode=True)
    assert shown() == []
    assert backup_run.verify(params)["failed"]
    (words,) = shown()
    assert re.fullmatch(
        r"the last verification: [-\d]+ [:\d]+ \+07:00 \(\d s ago\): repository 2: WAL 07 is missing; expected: .*",
        words,
    )
    (place.folder / health.VERIFICATION).write_text("{")
    assert f"{health.VERIFICATION} can't be read" in shown()[0]
    found.clear()
    assert "failed" not in backup_run.verify(params)
    assert shown() == []


NAMES = [
    "latest",
    "LATEST",
    "42",
    "0/3000028",
    "2026-03-01",
    "2026-03-01 02:30",
    "20260301-023000F",
    "two\nlines",
    "\x1b[2J",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_another_target_is_refused(params: dict[str, Any], name: str) -> None:
    for check_mode in (True, False):
        with pytest.raises(DasTernError, match="`label` is .* can't be told from other targets of a restore"):
            backup_run.take({**params, "name": name}, check_mode)


def test_a_time_that_is_none_is_refused_before_it_is_needed(params: dict[str, Any]) -> None:
    with pytest.raises(DasTernError, match="`backup_lock_timeout` is 'soon'; expected a duration"):
        backup_run.take({**params, "lock_timeout": "soon"}, check_mode=True)


def test_a_name_in_words_is_none_of_these(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_run, "running", lambda _: False)
    for name in ("", "before 17.6", "2026 spring", "latest but one", "មុនពេល​ផ្លាស់ប្តូរ", "v1/2"):
        assert backup_run.take({**params, "name": name}, check_mode=True)["changed"]


def test_a_database_that_isnt_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.superuser, "value", lambda _: {"size": None})
    with pytest.raises(DasTernError, match="Database nosuch does not exist in container pg"):
        logical.look(place, "nosuch")
    with pytest.raises(DasTernError, match="Database d does not exist"):
        plain_sql.write(place, place.folder / "out.sql")


@pytest.mark.parametrize("check_mode", [True, False])
def test_plain_sql_out_follows_no_link_and_deletes_nobodys_file(
    place: Place, monkeypatch: pytest.MonkeyPatch, check_mode: bool
) -> None:
    path, partial, victim = (place.folder / name for name in ("out.sql", "out.sql.partial", "victim"))
    monkeypatch.setattr(plain_sql, "look", lambda *_: {"size": 1})
    monkeypatch.setattr(plain_sql, "_write", lambda _, file: file.write(b"new"))
    victim.write_text("mine")
    for make in (lambda: partial.symlink_to(victim), lambda: partial.symlink_to("gone"), partial.mkdir):
        make()
        with pytest.raises(DasTernError, match=r"out\.sql\.partial exists already.*Nothing was written"):
            plain_sql.write(place, path, check_mode=check_mode)
        assert (os.path.lexists(partial), victim.read_text(), path.exists()) == (True, "mine", False)
        if partial.is_dir():
            partial.rmdir()
        else:
            partial.unlink()
    partial.write_text("what a killed run left, which is longer")
    assert plain_sql.write(place, path, check_mode=check_mode)["changed"]
    assert (path.exists(), partial.exists()) == (not check_mode, check_mode)
    assert check_mode or path.read_text() == "new"


def test_plain_sql_out_follows_no_link_that_is_set_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path, victim = place.folder / "out.sql", place.folder / "victim"
    partial = path.with_name("out.sql.partial")
    victim.write_text("mine")
    monkeypatch.setattr(plain_sql, "look", lambda *_: {"size": 1})
    unlink = Path.unlink

    def raced(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        partial.symlink_to(victim)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", raced)
        with pytest.raises(DasTernError, match="can't be written: File exists"):
            plain_sql.write(place, path)
    assert (partial.is_symlink(), victim.read_text()) == (True, "mine")


def test_plain_sql_in_waits_for_a_large_database_to_be_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing meanwhile, and what would be dropped is all that was loaded."""
    ran: dict[str, float] = {}
    tables = {"public.dose": 7}
    monkeypatch.setattr(place.superuser, "value", lambda _: {"there": [], "owner": "o"})
    monkeypatch.setattr(place.superuser, "run", lambda sql, _="", silence=0: ran.update({sql.split()[0]: silence}))
    monkeypatch.setattr(place.superuser, "as_owner", lambda role: SimpleNamespace(user=role, run=place.superuser.run))
    monkeypatch.setattr(plain_sql, "_stated_rows", lambda _: tables)
    monkeypatch.setattr(plain_sql, "_dumped", lambda *_: None)
    monkeypatch.setattr(plain_sql, "fill", lambda *_, **__: [])
    place.logical_folder.mkdir()
    monkeypatch.setattr(plain_sql, "count", lambda *_: SimpleNamespace(tables=tables))
    assert plain_sql.read(place, place.folder / "in.sql", "new")["tables"] == tables
    assert ran["DROP"] == census.LONGEST


def test_a_logical_backup_whose_record_was_lost_is_shown_and_kept(
    params: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run left has a mark or a name of its own, and goes."""
    monkeypatch.setattr(backup_run, "running", lambda _: False)
    folder = place.folder / "logical"
    lost, unwritten, kept, partial, other = (
        folder / name
        for name in ("20260301-000000L", "20260302-000000L", "20260303-000000L", "20260304-000000L.partial", "Logs")
    )
    for path in (lost, unwritten, kept, partial, other):
        path.mkdir(parents=True)
    for path in (unwritten, kept, folder / "20260305-000000L"):  # of the last one everything else is gone
        path.with_suffix(".incomplete").touch()
    place.save(record(3, "logical", label=kept.name, census={"tables": {}}))
    told = backup_run.listed(params)
    assert told["unknown"] == [lost.name]
    (line,) = (line for line in told["lines"] if "has no record" in line)
    assert line.startswith(f"{lost.name} has no record")
    assert str(lost) in line
    logical._remove_leftovers(place)
    assert sorted(folder.iterdir()) == [lost, kept, other]


def test_a_deletion_of_a_logical_backup_that_was_cut_short_is_ended_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = record(1, "logical", label="20260301-000000L")
    folder = place.folder / "logical"
    (folder / old.label).mkdir(parents=True)
    place.save(old)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            logical.remove(place, old)
    assert (place.records(), (folder / old.label).exists(), logical.unknown(place)) == ([], True, [])
    logical._remove_leftovers(place)
    assert list(folder.iterdir()) == []
    logical.remove(place, old)
    assert list(folder.iterdir()) == []


def test_a_file_that_goes_while_it_is_listed(
    params: dict[str, Any], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.folder / "there").write_text("four")
    monkeypatch.setattr(backup_run, "running", lambda _: False)
    monkeypatch.setattr(os, "walk", lambda _: [(place.folder, [], ["gone", "there"])])
    assert backup_run.listed(params)["bytes"] == 4


def test_records_that_another_user_may_not_read_are_refused_in_words(place: Place) -> None:
    assert place.records() == []
    place.records_folder.mkdir()
    place.records_folder.chmod(0)
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(DasTernError, match=r"/records can't be read: Permission denied\. Run the play as root\."):
            place.records()
    finally:
        os.seteuid(own)
        place.records_folder.chmod(0o700)
