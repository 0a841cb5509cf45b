"""Which backup a restore begins with, and which it passes over."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.dastern import restore_target
from ansible.module_utils.dastern.backup_records import Check, Record
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.restore_target import Archive

NOW = "2026-03-31T00:00:00+00:00"
BAD = Check(NOW, False, 1, "damaged: bundle/1")


def record(label: str, verified: Check | None = None, drilled: Check | None = None) -> Record:
    return Record(
        label=label, kind="physical", type="full", database="d", system="1", server="17.12", tool="t", began=NOW, seconds=1,
        bytes=1, stored=1, census={}, exact=True, verified=verified or Check(NOW, True, 1), drilled=drilled,
    )  # fmt: skip


def archive(*needs: str, **changes: Any) -> Archive:
    """The sets `a`, `b` and so on, each built upon the one that is named for it."""
    own = Archive.__new__(Archive)
    own.backups = [
        {
            "label": "abcd"[n], "reference": [base] if base else None, "prior": base or None, "timestamp": {"stop": n},
            "archive": {"start": f"{1:08X}{n:016X}"}, "lsn": {"stop": f"0/{n}000000"}, **changes,
        }
        for n, base in enumerate(needs)
    ]  # fmt: skip
    own.forks, own.damaged, own.segments = {}, {}, {1: dict.fromkeys(range(9), 0.0)}
    return own


def chosen(own: Archive, *records: Record) -> str:
    backup, words = own.choose(list(records), 1, lambda _: True, 8, "The newest state")
    assert words.startswith(f"from backup {backup['label']}")
    return words


def test_the_newest_that_is_not_known_to_be_wrong() -> None:
    assert chosen(archive("", ""), record("a"), record("b")) == "from backup b"
    for wrong in (record("b", BAD), record("b", drilled=BAD)):
        assert chosen(archive("", ""), record("a"), wrong) == "from backup a; b is damaged and passed over"
    own = archive("", "", "b")
    assert chosen(own, record("a"), record("b", BAD), record("c")) == "from backup a; c, b are damaged and passed over"


def test_one_that_is_wrong_where_no_other_leads_there() -> None:
    words = "from backup b, which isn't good, as no other that leads there is: damaged: bundle/1"
    assert chosen(archive("", ""), record("b", BAD)) == words
    gap = archive("", "")
    del gap.segments[1][1]
    assert chosen(gap, record("a"), record("b", BAD)) == words
    own = archive("", "a")
    assert chosen(own, record("a", drilled=BAD), record("b")).endswith("is: it needs a, which isn't right")


def test_pages_that_were_damaged_before_anybody_looked_at_them() -> None:
    own = archive("", "")
    own.backups[1]["error"] = True
    assert chosen(own, record("a"), record("b")) == "from backup a; b is damaged and passed over"


def test_a_timeline_whose_history_cant_be_read() -> None:
    own = archive("")
    own.damaged = {1: "/backups/received/7-00000001/00000001.history"}
    with pytest.raises(DasTernError, match=r"00000001\.history, the history of timeline 1, isn't what was written"):
        chosen(own, record("a"))


@pytest.fixture
def archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The histories of a repository as `pgbackrest repo-get` gives them; an exception is raised."""
    told = {"backup": [], "archive": [{"id": "17-1"}], "db": [{"system-id": 7}]}
    monkeypatch.setattr(restore_target, "info", lambda _: told)

    def read(repository: int = 1, **histories: Any) -> Archive:
        def pgbackrest(command: str, *words: str) -> str:
            if command == "repo-ls":
                return json.dumps({f"17-1/{name}.history": {} for name in histories})
            found = histories[Path(words[0]).stem]
            if isinstance(found, DasTernError):
                raise found
            return str(found)

        site: Any = SimpleNamespace(backups=tmp_path, pgbackrest=pgbackrest, repository=repository)
        return Archive(site)

    return read


def test_a_history_that_cant_be_read_is_damaged_and_ends_nothing_else(archived: Any) -> None:
    whole, unread = "1\t0/A000060\tnone\n", DasTernError("pgBackRest can't read the repository: [095]: bad decrypt.")
    own = archived(**{"00000002": unread, "00000003": "", "00000004": whole, "00000005": whole[1:]})
    assert own.forks == {4: [(1, 0xA000060)]}
    assert own.damaged == {line: f"0000000{line}.history in the archive" for line in (2, 3, 5)}
    with pytest.raises(DasTernError, match="was ended"):
        archived(**{"00000002": DasTernError("It was ended from outside.", status=0)})


def test_a_history_on_a_line_that_broke_isnt_damaged(archived: Any) -> None:
    unread = DasTernError("pgBackRest can't read the repository: [095]: bad decrypt.")
    assert 2 in archived(repository=2, **{"00000002": unread}).damaged
    with pytest.raises(DasTernError, match="timeout"):
        archived(repository=2, **{"00000002": DasTernError("pgBackRest can't read the repository: [042]: timeout.")})
