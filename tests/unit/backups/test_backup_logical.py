"""What is read from the programs' output, whatever names are in it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.module_utils.dastern.backups import logical
from ansible.module_utils.dastern.backups.logical import (
    _COUNT,
    _retried,
    _rows_again,
    _views_again,
    _wanted,
    beyond_owner,
)
from ansible.module_utils.dastern.catalogue.census import lines_of
from ansible.module_utils.dastern.catalogue.comparison import RestoreFailure
from ansible.module_utils.dastern.common.errors import DasTernError

NAMES = (
    "plain",
    "a b",
    "a\nb",
    "x\n\\.\ny",
    'a"; COPY y FROM stdin;',
    "x FROM stdin;\nCOPY y FROM stdin;",
    "it's",
    "\\",
    "-- a\n-- b",
)


def counted(text: str) -> dict[str, int]:
    """What the awk program says of what pg_restore writes."""
    done = subprocess.run(
        ["bash", "-c", f"pg_restore() {{ cat; }}\n{_COUNT}"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {header: int(number) for number, _, header in (line.partition(" ") for line in lines_of(done.stdout))}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_counted_whatever_a_table_is_called(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    literal = quoted.replace("'", "''")
    text = (
        "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET row_security = off;\n"
        f"--\n-- Data for Name: x; Type: TABLE DATA\n--\n\nCOPY public.{quoted} (x) FROM stdin;\n1\nCOPY z FROM stdin;\n\\\\.\n\\.\n\n\n"
        f"SELECT pg_catalog.setval('public.{literal}', 1, true);\n\nCOPY public.last (x) FROM stdin;\n\\.\n\n\n\\unrestrict abc\n"
    )
    header = f"COPY public.{quoted} (x) FROM stdin;".replace("\n", "\\n")
    assert counted(text) == {header: 3, "COPY public.last (x) FROM stdin;": 0}


def test_a_line_ends_where_a_program_ends_it() -> None:
    assert lines_of("") == []
    assert lines_of("a\x85b\u2028c\x0b\x1cd\n\ne\n") == ["a\x85b\u2028c\x0b\x1cd", "", "e"]


def test_an_entry_is_chosen_and_judged_by_all_of_its_name() -> None:
    entry = "7; 0 16400 TABLE DATA public a b dastern_user"  # as pg_restore lists a name with a line's end
    assert _wanted(entry, ['public."a\nb"'])
    assert not _wanted(entry, ['public."b"'])
    # A name may hold what another entry begins with.
    for name in ("a FK CONSTRAINT b", "a MATERIALIZED VIEW DATA b", "a TABLE DATA b"):
        assert _wanted(f"3; 1259 16398 TABLE public {name} dastern_user", [f'public."{name}"'])
        assert _wanted(f"4; 0 16398 TABLE DATA public {name} dastern_user", [f'public."{name}"'])
    assert not _wanted("4; 0 16398 TABLE DATA public a TABLE DATA public b dastern_user", ["public.b"])
    assert not _wanted("6; 2606 16402 FK CONSTRAINT public b b_fk dastern_user", ["public.b"])
    odd = "5; 1259 16399 TABLE public a\u2028b\x0bc dastern_user"
    assert beyond_owner(lines_of(f"{odd}\n"), "dastern_user") == []
    assert beyond_owner([odd], "somebody") == ["TABLE public a\u2028b\x0bc dastern_user"]


@pytest.mark.parametrize(("free", "fits"), [(1000, True), (999, False), (0, False)])
def test_a_backup_that_may_fill_the_disk_isnt_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    """Asked is the disk that the folder is or will be on."""
    asked: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=free))
    if fits:
        logical.refuse_full_disk(tmp_path / "not" / "yet", 1000, "d")
    else:
        with pytest.raises(DasTernError) as refusal:
            logical.refuse_full_disk(tmp_path / "not" / "yet", 1000, "d")
        assert refusal.value.facts == {"needed": 1000, "free": free}
    assert asked == [tmp_path]


def test_the_files_of_a_backup_are_on_disk_before_its_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    for name in ("1.dat.zst", "toc.dat"):
        (tmp_path / name).write_bytes(b"rows")
    files = logical._synced(tmp_path)
    assert synced == [str(tmp_path / "1.dat.zst"), str(tmp_path / "toc.dat"), str(tmp_path)]
    each = {"bytes": 4, "sha256": hashlib.sha256(b"rows").hexdigest()}
    assert files == {"1.dat.zst": each, "toc.dat": each}


ROWS = [f"{n}; 0 16400 TABLE DATA public {table} owner" for n, table in enumerate("abc")]
VIEWS = [f"{n}; 0 16400 MATERIALIZED VIEW DATA public {view} owner" for n, view in enumerate("vw", 7)]


def test_rows_that_need_others_are_tried_until_no_fewer_are_refused() -> None:
    refused = [RestoreFailure("check", table=table) for table in "abc"]
    tried: list[list[str]] = []

    def restore(lines: Sequence[str]) -> list[RestoreFailure]:
        tried.append(list(lines))
        return refused[: len(lines) - 1] if len(lines) > 2 else refused[:2]

    beside = RestoreFailure("no such role", "ALTER TABLE d OWNER TO e")
    left = _retried([*refused, beside], lambda failures: _rows_again(ROWS, failures), restore)
    assert left == [beside, *refused[:2]]
    assert tried == [ROWS, ROWS[:2]]


def test_rows_of_a_name_that_two_tables_have_are_not_tried_again() -> None:
    twice = [*ROWS, "9; 0 16400 TABLE DATA other a owner"]
    assert _rows_again(twice, [RestoreFailure("check", table="a")]) == {}


def test_materialised_views_are_filled_together_until_each_is() -> None:
    first = [RestoreFailure("v isn't populated", "REFRESH MATERIALIZED VIEW public.w;")]
    tried: list[list[str]] = []

    def restore(lines: Sequence[str]) -> list[RestoreFailure]:
        tried.append(list(lines))
        return []

    assert _retried(first, lambda failures: _views_again(VIEWS, failures), restore) == []
    assert tried == [VIEWS]
