"""The two kinds of backups: which one a type or a label means, and what each looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.backups import kinds, logical, physical, retention
from ansible.module_utils.dastern.backups import run as backup_run
from ansible.module_utils.dastern.backups.pgbackrest import Info, PgBackRest
from ansible.module_utils.dastern.backups.records import Place
from samples import record

ALL = [record(day, kind) for day, kind in ((6, "full"), (5, "logical"), (4, "full"), (3, "logical"), (2, "full"))]
KEEP = {type_: {"count": 1, "days": 0} for type_ in retention.KEEP}


def of(kind: type[kinds.Kind], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> kinds.Kind:
    monkeypatch.setattr(PgBackRest, "info", lambda _: Info(True, "", {}, "", [], []))
    place = Place({
        "endpoint": f"unix://{tmp_path}/none.sock", "container": "pg", "database": "d", "backup_dir": str(tmp_path),
    })  # fmt: skip
    monkeypatch.setattr(place, "records", lambda: ALL)
    return kind(place, PgBackRest(place.containers, "pg"), 0, lambda _: None)


def test_a_type_and_a_label_mean_a_kind() -> None:
    assert [kinds.of_type(type_).name for type_ in (*retention.KEEP, "")] == [
        *["physical"] * 3,
        "logical",
        "physical",
    ]
    assert kinds.of_label("20260301-023000F_20260302-023000I") is kinds.Physical
    assert kinds.of_label("20260301-023000L") is kinds.Logical
    assert all(kinds.KINDS[one.kind].name == one.kind for one in ALL)


@pytest.mark.parametrize(("kind", "gone"), [(kinds.Physical, ["04", "03", "02"]), (kinds.Logical, ["03"])])
def test_behind_a_logical_one_the_repository_is_left_alone(
    kind: type[kinds.Kind], gone: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr(logical, "remove", lambda _, record: removed.append(record.label))
    monkeypatch.setattr(physical, "remove", lambda *args: removed.extend(args[2]))
    for name in ("trim", "forget_received"):
        monkeypatch.setattr(physical, name, lambda *_: None)
    assert [label for label, _ in backup_run._delete(of(kind, tmp_path, monkeypatch), KEEP)] == gone
    assert sorted(removed) == sorted(gone)


def test_where_the_repository_is_gone_its_backups_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = of(kinds.Physical, tmp_path, monkeypatch)
    assert own.verify([], []) == physical.Findings()
    checks: Any = own.verify(own.own(ALL), []).checks
    assert {label: check.ok for label, check in checks.items()} == {"06": False, "04": False, "02": False}
