"""The name, the stamp and the files of a new migration."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import MigrationFile, read_folder
from ansible.module_utils.dastern.lint.lint import lint_folder
from ansible.module_utils.dastern.migrations.new_migration import DOWN_TEXT, UP_TEXT, plan, why_empty, write

NOW = datetime(2026, 3, 1, 10, 15, 0, 999, tzinfo=UTC)
NAME = "add_user_avatar_field"


def params(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"folder": str(folder), "name": NAME, "down": False, **changes}


def existing(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir()
        (folder / name / "migration.sql").write_text("SELECT 1;")


def refused(folder: Path, **changes: Any) -> str:
    before = sorted(folder.rglob("*")) if folder.is_dir() else []
    with pytest.raises(DasTernError) as refusal:
        plan(params(folder, **changes), NOW)
    assert (sorted(folder.rglob("*")) if folder.is_dir() else []) == before
    return refusal.value.message


def test_planned_then_written(tmp_path: Path) -> None:
    directory, texts, notices = plan(params(tmp_path, down=True), NOW)
    assert (directory, sorted(texts), notices) == (
        tmp_path / f"20260301101500_{NAME}",
        ["down.sql", "migration.sql"],
        [],
    )
    assert "CONCURRENTLY alone" not in texts["down.sql"]
    assert "without CONCURRENTLY" in texts["down.sql"]
    assert not directory.exists()
    write(directory, texts)
    assert [file.name for file in read_folder(tmp_path)] == [directory.name]
    assert (directory / "down.sql").read_text() == texts["down.sql"]
    # All of it is comments, and lint won't let it be applied as it is.
    assert [one.rule for one in lint_folder(tmp_path)] == ["empty"]
    (directory / "migration.sql").write_text(texts["migration.sql"] + "SELECT 1;")
    assert lint_folder(tmp_path) == []


def test_with_a_text_of_its_own(tmp_path: Path) -> None:
    assert plan(params(tmp_path), NOW, "SELECT 1;\n")[1] == {"migration.sql": "SELECT 1;\n"}


def test_down_is_made_only_when_asked_for(tmp_path: Path) -> None:
    assert list(plan(params(tmp_path), NOW)[1]) == ["migration.sql"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((name, name) for name in (
            NAME, "fix_dose_status", "drop_old_2fa_codes", "add_x", "avatar", "fix_bug", "2fa_codes", "x" * 200,
        )),
        ("addUserAvatar", "add_user_avatar"),
        ("AddAvatar", "add_avatar"),
        ("parseURLFast", "parse_url_fast"),
        ("add-avatar", "add_avatar"),
        ("add user  avatar ", "add_user_avatar"),
        ("_add__avatar_", "add_avatar"),
        ("v1.2 notes", "v1_2_notes"),
    ],
)  # fmt: skip
def test_names_are_written_as_prisma_writes_them(tmp_path: Path, given: str, name: str) -> None:
    directory, _, notices = plan(params(tmp_path, name=given), NOW)
    assert directory.name == f"20260301101500_{name}"
    assert len(notices) == (given != name)


@pytest.mark.parametrize("name", ["foo_bar", "test_1", "new_migration", "update_database", "fix_fix", "wip_20260301"])
def test_a_name_that_says_nothing_is_a_notice(tmp_path: Path, name: str) -> None:
    directory, _, notices = plan(params(tmp_path, name=name), NOW)
    assert directory.name == f"20260301101500_{name}"
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "needs a name, such as add_user_avatar_field"),
        ("  ", "needs a name"),
        ("add/avatar", "holds '/'"),
        ("../add_avatar", "holds '/'"),
        ("បន្ថែម_រូប", "Expected: ASCII letters and digits"),
        ("add_avatar\n", "holds '\\n'"),
        ("__", "holds no letter and no digit"),
        ("add_" + "x" * 197, "has 201 characters, and Prisma accepts 200"),
    ],
)
def test_refused_names(tmp_path: Path, name: str, words: str) -> None:
    assert words in refused(tmp_path, name=name)


def test_the_same_name_in_another_spelling_is_taken(tmp_path: Path) -> None:
    existing(tmp_path, f"20250101000000_{NAME}")
    assert f"{NAME} exists already" in refused(tmp_path, name="AddUserAvatarField")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (UP_TEXT.format(name="x"), "new_migration.yml"),
        (UP_TEXT.format(name="x").replace("\n", "\r\n"), "new_migration.yml"),
        (DOWN_TEXT.format(name="x", script="migration.sql") + "-- nothing is lost\n", "new_migration.yml"),
        ("-- This is an empty migration.", "prisma migrate dev --create-only"),
        (" /* a /* b */ c */ ;; -- d", "holds no statement"),
        ("", "holds no statement"),
    ],
)
def test_what_is_empty_is_named(text: str, words: str) -> None:
    assert MigrationFile("1_a", text).empty
    assert words in why_empty(text)


@pytest.mark.parametrize(
    "text", ["SELECT 1", "-- a\nSELECT 1;", UP_TEXT.format(name="x") + "SELECT 1", "'-- a'", "(", "/* */ x"]
)
def test_what_holds_a_token_is_not_empty(text: str) -> None:
    assert not MigrationFile("1_a", text).empty


@pytest.mark.parametrize("other", [f"20250101000000_{NAME}", f"0_{NAME}", NAME, "1_Add_User_Avatar_Field"])
def test_name_is_taken(tmp_path: Path, other: str) -> None:
    existing(tmp_path, other)
    message = refused(tmp_path)
    assert f"A migration named {NAME} exists already: {tmp_path / other}." in message


@pytest.mark.parametrize(
    ("newest", "stamp", "noticed"),
    [
        ("20260301101459_init", "20260301101500", False),
        ("20260301101500_init", "20260301101501", False),
        ("20260301101501_init", "20260301101502", False),
        ("20260301115959_init", "20260301120000", True),
        ("20991231235959_init", "21000101000000", True),
        ("0_init", "20260301101500", False),
        ("20261399000000_not_a_time", None, False),
        ("first_of_all", None, False),
    ],
)
def test_it_sorts_behind_the_newest(tmp_path: Path, newest: str, stamp: str | None, noticed: bool) -> None:
    existing(tmp_path, newest, "20260101000000_older")
    if stamp is None:
        assert f"{tmp_path / newest}, sorts after every timestamp" in refused(tmp_path)
        return
    directory, _, notices = plan(params(tmp_path), NOW)
    assert directory.name == f"{stamp}_{NAME}"
    assert bool(notices) is noticed
    assert all("Is the clock right?" in notice for notice in notices)


def test_folder_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")


def test_folder_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"This user can't write the migrations folder {tmp_path}." in refused(tmp_path)


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    with pytest.raises(DasTernError) as failure:
        write(directory, {"migration.sql": "x", "no/such/down.sql": "x"})
    assert f"{directory} can't be written: No such file or directory." in failure.value.message
    assert list(tmp_path.iterdir()) == []
    directory.mkdir()
    with pytest.raises(DasTernError, match="exists already"):
        write(directory, {"migration.sql": "x"})
    assert list(directory.iterdir()) == []
