"""What follows from the measurements of a rehearsal."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.dastern.catalogue.comparison import failures_of, tables_of
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile
from ansible.module_utils.dastern.common.sql_values import seconds
from ansible.module_utils.dastern.migrations.rehearsal import _result
from ansible.module_utils.dastern.migrations.rehearsal_record import (
    MANY_ROWS,
    MODES,
    SAFE,
    WINDOW,
    Lock,
    Rehearsed,
    Step,
    forget,
    keep,
    lines,
    mode_of,
    record_path,
    rehearsed,
    verdict,
)

FILES = [MigrationFile("1_a", "SELECT 1"), MigrationFile("2_b", "SELECT 2")]


def judged(step: Step, limit: float = 1.0) -> Rehearsed:
    one = Rehearsed("1_a", "0" * 64, steps=[step])
    one.judge(limit)
    return one


def test_modes_are_those_of_pg_locks() -> None:
    found = [mode_of(name) for name in ("AccessShareLock", "ShareRowExclusiveLock", "AccessExclusiveLock")]
    assert found == ["ACCESS SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("held", "long"), [(1.0, False), (1.1, True)])
def test_a_blocking_lock_held_for_longer_than_the_limit_needs_a_window(mode: str, held: float, long: bool) -> None:
    blocks = mode in ("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE")
    one = judged(Step(3, "ALTER TABLE t", 0.1, [Lock("t", mode, held)], held=held))
    assert one.verdict == (WINDOW if blocks and long else SAFE)
    if one.reasons:
        who = "reads and writes" if mode == "ACCESS EXCLUSIVE" else "writes"
        assert one.reasons == [f"`ALTER TABLE t` (line 3) held {mode} on t for 1.1 s, which blocks its {who}"]


@pytest.mark.parametrize(("rows", "expected"), [(MANY_ROWS, SAFE), (MANY_ROWS + 1, WINDOW)])
def test_many_rows(rows: int, expected: str) -> None:
    assert judged(Step(1, "x", 0.1, rewritten={"t": rows})).verdict == expected
    changed = {"t": {"updated": rows - 5, "deleted": 5, "inserted": 9_000_000}}
    assert judged(Step(1, "x", 2.0, changed_rows=changed, held=2.0)).verdict == expected
    assert judged(Step(1, "x", 0.5, changed_rows=changed, held=0.5)).verdict == SAFE


def test_the_strongest_mode_of_each_table_and_the_verdict_on_all() -> None:
    one = Rehearsed("1_a", "")
    one.steps = [
        Step(1, "x", 0.1, [Lock("t", "SHARE", 5.0), Lock("u", "ROW EXCLUSIVE", 5.0)]),
        Step(2, "y", 0.1, [Lock("t", "ACCESS EXCLUSIVE", 0.1)]),
    ]
    assert [(lock.table, lock.mode) for lock in one.locks] == [("t", "ACCESS EXCLUSIVE"), ("u", "ROW EXCLUSIVE")]
    one.judge(1.0)
    # The weaker one, held for long, is what needs the window.
    assert "held SHARE on t for 5.0 s" in one.reasons[0]
    assert verdict([Rehearsed("0", ""), one]) == WINDOW
    assert verdict([Rehearsed("0", "")]) == verdict([]) == SAFE
    text = "\n".join(lines([one]))
    assert "1_a  needs a window" in text
    assert "SHARE on t for 5.0 s: blocks writes" in text
    assert "ROW EXCLUSIVE on u" not in text


def test_long_files_are_told_in_short() -> None:
    one = Rehearsed("1_a", "", steps=[Step(number, "x " * 99, 0.2) for number in range(15)])
    told = lines([one])
    assert len(told) == 14
    assert told[-1] == "  and 3 more statements: `-e report_file=PATH` lists them"
    assert max(len(line) for line in told) < 110


def test_the_record_is_of_exactly_these_files_on_this_target(tmp_path: Path) -> None:
    config, of = str(tmp_path / "config"), ("7591", "d", "public")
    path = record_path(config, of, FILES)
    assert rehearsed(path) is None
    keep(path, {"verdict": SAFE})
    assert path.stat().st_mode & 0o777 == 0o600
    assert rehearsed(record_path(config, of, list(FILES))) == {"verdict": SAFE}
    for others in (FILES[:1], FILES[::-1], [FILES[0], MigrationFile("2_b", "SELECT 3")]):
        assert rehearsed(record_path(config, of, others)) is None
    for other in (("7592", "d", "public"), ("7591", "e", "public"), ("7591", "d", "other")):
        assert rehearsed(record_path(config, other, FILES)) is None
    path.write_text("{")
    assert rehearsed(path) is None
    forget(path)
    forget(path)
    assert not path.exists()


def test_durations() -> None:
    given = ("500", "500ms", "2 s", "5min", "0", "1d")
    assert [seconds("x", value) for value in given] == [0.5, 0.5, 2.0, 300.0, 0.0, 86400.0]
    with pytest.raises(DasTernError, match="`x` is 'soon'"):
        seconds("x", "soon")


@pytest.mark.parametrize(
    ("said", "without", "recorded", "failed"),
    [
        ("", [], True, False),
        (
            'COPY failed for table "visits": ERROR:  value for domain d violates check constraint',
            ["visits"],
            False,
            True,
        ),
    ],
)
def test_a_copy_without_rows_is_no_rehearsal(
    tmp_path: Path, said: str, without: list[str], recorded: bool, failed: bool
) -> None:
    failures = (
        failures_of(f"pg_restore: error: {said}\npg_restore: warning: errors ignored on restore: 1\n") if said else []
    )
    assert failures is not None
    assert tables_of(failures) == without
    path = tmp_path / "record.json"
    params = {"database": "d", "schema": "public", "limit": "1s", "fail": True}
    copied = {"copy_seconds": 1.0, "size": 1, "backup": ""}
    done = [Rehearsed(file.name, file.checksum) for file in FILES]
    result = _result(params, path, FILES, done, None, copied, "copied", tables_of(failures))
    assert (rehearsed(path) is not None, result.get("failed", False), result["changed"]) == (recorded, failed, recorded)
    assert result["without_rows"] == without
