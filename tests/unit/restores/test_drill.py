"""What speaks of a backup when its drill fails, and what is the machine's trouble; with a site that pretends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern.backups.records import Check, Place, Record
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.docker.containers import Output
from ansible.module_utils.dastern.restores import drill
from ansible.module_utils.dastern.restores.restored_server import RestoredServer, make_names
from ansible.module_utils.dastern.server.psql import Psql
from samples import record

CLOSED = "psql in container pg-restore failed (2): server closed the connection unexpectedly."
ENDED = "The server made from the backup doesn't start: terminating."
RUNS, STOPPED, REFUSED = ({"Running": runs, "ExitCode": code} for runs, code in ((True, 0), (False, 0), (False, 1)))


def tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: DasTernError, state: Any, log: str, free: int = 1 << 40
) -> Record:
    """The record after a drill that failed so, with the trial server in that state; raises as the drill does."""
    containers = SimpleNamespace(inspect=lambda *_: state and {"State": state}, logs=lambda *_: log)
    site = SimpleNamespace(
        helper="pg-restore", volume="pg-data", repository=1, containers=containers, look=lambda: {"free": free},
        remove_helper=lambda: None, remove_volume=lambda _: True,
    )  # fmt: skip

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(drill, "Site", lambda *_: site)
    monkeypatch.setattr(drill, "refuse_version", lambda *_: None)
    monkeypatch.setattr(drill, "healed", lambda *_: [])
    monkeypatch.setattr(drill, "_physical", fail)
    monkeypatch.setattr(drill, "_ENDED", 0.1)
    params = {
        "endpoint": f"unix://{tmp_path}/none.sock",
        "container": "pg",
        "database": "d",
        "backup_dir": str(tmp_path),
    }
    place = Place(params)
    place.save(record(7))
    try:
        drill.drill({**params, "wait": 0, "target": "07"})
    finally:
        kept = place.find("07")
        if kept.drilled is None:
            assert kept == record(7)
    return kept


@pytest.mark.parametrize(
    ("message", "state", "log"),
    [
        ("What was restored isn't what backup 07 held: table t has 1 rows instead of 2.", RUNS, "LOG: ready"),
        (CLOSED, RUNS, "LOG: server process (PID 77) was terminated by signal 11: Segmentation fault"),
        (
            "The server made from the backup doesn't start: requested timeline 2.",
            REFUSED,
            "FATAL: requested timeline 2",
        ),
        ("Backup 07 can't be restored: [029]: invalid checksum.", None, ""),
    ],
)
def test_what_speaks_of_the_backup_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, state: Any, log: str
) -> None:
    check = tried(tmp_path, monkeypatch, DasTernError(message), state, log).drilled
    assert check
    assert (check.ok, check.message) == (False, message)


@pytest.mark.parametrize(
    ("failure", "state", "log"),
    [
        (DasTernError("The Docker Engine doesn't answer.", status=0), RUNS, ""),
        (DasTernError(CLOSED), RUNS, "LOG: server process (PID 77) was terminated by signal 9: Killed"),
        (DasTernError(ENDED), REFUSED, "LOG: startup process (PID 30) was terminated by signal 9: Killed"),
        (DasTernError(ENDED), REFUSED, 'FATAL: could not write to file "pg_wal/xlogtemp.30": No space left on device'),
        (DasTernError(ENDED), STOPPED, "FATAL: terminating connection due to administrator command"),
        (DasTernError("Backup 07 can't be restored: local-1 process terminated unexpectedly on signal 9."), None, ""),
    ],
)
def test_what_comes_from_outside_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: DasTernError, state: Any, log: str
) -> None:
    with pytest.raises(DasTernError, match="That tells nothing about backup 07, and its record doesn't note it"):
        tried(tmp_path, monkeypatch, failure, state, log)


@pytest.mark.parametrize(("code", "facts"), [(2, {}), (137, {"status": 0}), (-1, {"status": 0})])
def test_a_program_that_was_killed(code: int, facts: dict[str, int]) -> None:
    containers: Any = SimpleNamespace(execute=lambda *_, **__: Output(code, "", "cut"))
    site: Any = SimpleNamespace(containers=containers, helper="pg-restore")
    for call in (lambda: drill._check_pages(site, "d"), lambda: Psql(containers, "pg-restore").run("SELECT 1;")):
        with pytest.raises(DasTernError, match="cut") as refusal:
            call()
        assert refusal.value.facts == facts


def test_a_repository_that_cant_be_looked_at_says_nothing_of_one_backup(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise DasTernError("pgBackRest can't read the repository.")

    site: Any = SimpleNamespace()
    monkeypatch.setattr(drill.Archive, "read", fail)
    with pytest.raises(DasTernError) as refusal:
        drill._physical(site, record(7), 0)
    assert refusal.value.facts == {"status": 0}


GLOBALS = '''\
CREATE ROLE reader;
CREATE ROLE "the ""other""";
COMMENT ON ROLE reader IS 'two lines
CREATE ROLE pg_fake;
CREATE TABLESPACE pg_fake OWNER x';
CREATE TABLESPACE one OWNER postgres LOCATION '/var/lib/one';
CREATE TABLESPACE "../a ""b" OWNER "the ""other""" LOCATION '/var/lib/two';
'''


def test_the_trial_server_has_the_roles_and_tablespaces_that_a_dump_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "07").mkdir()
    (tmp_path / "07" / "globals.sql").write_text(GLOBALS)
    site: Any = SimpleNamespace(answers=lambda: True, psql="live", place=SimpleNamespace(logical_folder=tmp_path))
    known = {"live": ({"postgres", "app"}, {"pg_default", "now"}), "trial": ({"postgres"}, {"pg_default"})}
    monkeypatch.setattr(drill, "names_of", lambda psql: known[psql])
    made: list[Any] = []
    monkeypatch.setattr(drill, "make_names", lambda psql, *names: made.append((psql, *names)))
    properties = {"owner": "owner", "settings": {"set": ["a=b"]}}
    census = {"database": "d", "tables": {}, "schema": "", "migrations": [], "bytes": 1}
    for own, more in ((properties, set()), ({**properties, "tablespace": "own"}, {"own"})):
        drill._make_names(site, "trial", replace(record(7), census={**census, "properties": own}))  # type: ignore[arg-type]
        roles = {"postgres", "app", "owner", "set", "reader", 'the "other"'}
        assert made.pop() == ("trial", roles, {"pg_default", "now", "one", '../a "b', *more})


def test_only_those_that_are_missing_are_made() -> None:
    ran: list[str] = []
    psql: Any = SimpleNamespace(run=ran.append, value=lambda _: {"roles": ["a"], "tablespaces": ["pg_default"]})
    make_names(psql, {"a", 'b"c'}, {"pg_default", "../one"})
    assert ran[0].splitlines()[1:] == ['CREATE ROLE "b""c";', "CREATE TABLESPACE \"../one\" LOCATION '';"]


def test_a_tablespace_is_restored_into_a_folder_called_by_its_number() -> None:
    """Whatever its name is: that may be a path."""
    asked: list[tuple[str, ...]] = []
    spaces = [
        {"oid": 16385, "name": "../pgdata/evil", "destination": "/x"},
        {"oid": 16390, "name": "a=b", "destination": "/y"},
    ]

    def once(_: str, *words: str, **__: Any) -> Output:
        asked.append(words)
        return Output(0, "7\n", "")

    told: list[dict[str, Any]] = [{"backup": [{"label": "F", "tablespace": spaces}]}]
    site: Any = SimpleNamespace(once=once, pgbackrest=lambda *_: json.dumps(told))
    server = RestoredServer(site, "v", "restored-x")
    server.fill("F", 1)
    own = "/var/lib/postgresql/data/tablespaces-x"
    assert asked[0][4:] == (f"--tablespace-map=16385={own}/16385", f"--tablespace-map=16390={own}/16390")
    for without in ([{"backup": [{"label": "F"}]}], [{"backup": []}], []):
        told[:] = without
        server.fill("F", 1)
        assert asked[-1][4:] == ()


def due(tmp_path: Path, *, wal_archive: bool) -> Any:
    """The label that a drill without target chooses in check mode."""
    params = {"endpoint": f"unix://{tmp_path}/none.sock", "container": "pg", "database": "d", "target": "", "wait": 0}
    return drill.drill(
        {**params, "backup_dir": str(tmp_path), "wal_archive": wal_archive, "volume": "v"}, check_mode=True
    )["label"]


def test_without_a_target_the_one_that_is_due_is_drilled(tmp_path: Path) -> None:
    place = Place({"endpoint": "", "container": "pg", "database": "d", "backup_dir": str(tmp_path)})
    good = Check("2026-03-08T00:00:00+00:00", True, 1)
    place.save(replace(record(5), database="d"))
    place.save(replace(record(6), database="d", drilled=good))
    place.save(replace(record(7, "logical"), database="d"))
    place.save(replace(record(8, "logical"), database="another"))
    assert due(tmp_path, wal_archive=True) == "05", "the newest physical one that was never drilled"
    assert due(tmp_path, wal_archive=False) == "07", "the newest of this database"
    place.note("05", drilled=good)
    assert due(tmp_path, wal_archive=True) == "06", "the newest physical one"


@pytest.mark.parametrize(("free", "begun"), [(64 * 1024**2 + 1, True), (64 * 1024**2, False)])
def test_a_drill_that_may_fill_the_disk_isnt_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, begun: bool
) -> None:
    """The live server's data may be on it. That says nothing of the backup."""
    failure = DasTernError("What was restored isn't what backup 07 held.")
    if begun:
        assert tried(tmp_path, monkeypatch, failure, RUNS, "", free).drilled
    else:
        with pytest.raises(DasTernError, match="A drill of backup 07 needs .* Nothing was done"):
            tried(tmp_path, monkeypatch, failure, RUNS, "", free)
