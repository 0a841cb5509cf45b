import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest
from ansible.module_utils.dastern.common import migration_files
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import (
    MigrationFile,
    as_sent,
    decoded,
    look_alikes,
    of_params,
    read_folder,
    read_into,
)
from ansible.module_utils.dastern.lint.lint import lint
from ansible.module_utils.dastern.migrations.run import own_transactions, refuse_copy, refuse_psql


def write(folder: Path, name: str, content: bytes = b"SELECT 1;\n") -> Path:
    (folder / name).mkdir()
    path = folder / name / "migration.sql"
    path.write_bytes(content)
    return path


def test_order_is_that_of_bytes_and_other_entries_are_ignored(tmp_path: Path) -> None:
    for name in ("20260101000000_b", "0_init", "20260101000000_B", "20260101000000_ខ្មែរ"):
        write(tmp_path, name)
    (tmp_path / "README.md").write_text("not a migration")
    (tmp_path / "0_init" / "down.sql").write_text("not read")
    (tmp_path / "link").symlink_to(tmp_path / "0_init")
    names = [file.name for file in read_folder(tmp_path)]
    assert names == ["0_init", "20260101000000_B", "20260101000000_b", "20260101000000_ខ្មែរ"]


def test_checksum_is_that_of_the_bytes_and_line_endings_may_differ() -> None:
    windows, unix = "SELECT 1;\r\nSELECT 2;\r\n", "SELECT 1;\nSELECT 2;\n"
    sha = [hashlib.sha256(text.encode()).hexdigest() for text in (windows, unix, unix + " ")]
    file = MigrationFile("x", windows)
    assert file.checksum == sha[0]
    assert [file.matches(one) for one in sha] == [True, True, False]
    assert MigrationFile("x", unix).matches(sha[0])


def test_empty_and_comment_only_files_are_migrations(tmp_path: Path) -> None:
    write(tmp_path, "1_a", b"")
    write(tmp_path, "2_b", b"-- nothing yet")
    assert [file.sql for file in read_folder(tmp_path)] == ["", "-- nothing yet"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbfSELECT 1;", "byte order mark"),
        (b"\xff\xfeS\x00", "UTF-16"),
        (b"SELECT 1;\nSELECT '\xe9';", "line 2: byte 0xE9 at offset 18 is not UTF-8"),
        (b"SELECT 1;\n\0", "line 2: a NUL byte"),
    ],
)
def test_what_cannot_be_sent_as_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path, "1_a", content)
    with pytest.raises(DasTernError) as refusal:
        read_folder(tmp_path)
    assert words in refusal.value.message
    assert str(path) in refusal.value.message
    assert decoded("ភាសា".encode(), "x") == "ភាសា"


def test_folder_missing_or_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DasTernError, match="does not exist.*migrations_dir"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DasTernError, match="not a folder"):
        read_folder(tmp_path / "file")


def test_unreadable_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "1_a")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # root may read everything, so chmod proves nothing here
        patch.setattr(os, "scandir", denied)
        with pytest.raises(DasTernError, match="can't be read by this user.*chmod"):
            read_folder(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DasTernError, match="migration.sql can't be read by this user.*chmod"):
        read_folder(tmp_path)


def test_directory_without_migration(tmp_path: Path) -> None:
    (tmp_path / "1_a").mkdir()
    with pytest.raises(DasTernError, match="holds no file migration.sql .P3015"):
        read_folder(tmp_path)


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/1_\xe9")
    (tmp_path / os.fsdecode(b"1_\xe9") / "migration.sql").write_text("")
    with pytest.raises(DasTernError, match="not UTF-8: rename it"):
        read_folder(tmp_path)


def test_provider(tmp_path: Path) -> None:
    lock = tmp_path / "migration_lock.toml"
    lock.write_text('# comment\nprovider = "postgresql"\n')
    assert read_folder(tmp_path) == []
    lock.write_text('provider = "mysql"\n')
    with pytest.raises(DasTernError, match="P3019"):
        read_folder(tmp_path)


def test_look_alikes() -> None:
    names = ["20260101000000_add_user", "20260101000000_addUser", "20260101000001_add_user"]
    assert look_alikes(names) == [names[:2]]


def test_all_directories_without_a_migration_are_named_at_once(tmp_path: Path) -> None:
    """None of them is to be deleted for what it holds."""
    for number in range(25):
        (tmp_path / f"{number:02}_empty").mkdir()
    (tmp_path / "30_notes").mkdir()
    (tmp_path / "30_notes" / "README.md").touch()
    (tmp_path / "31_nested" / "1_a").mkdir(parents=True)
    (tmp_path / "31_nested" / "1_a" / "migration.sql").touch()
    with pytest.raises(DasTernError) as refusal:
        read_folder(tmp_path)
    *shown, more = refusal.value.message.splitlines()
    assert (len(shown), more) == (20, "7 more directories are refused, too.")
    assert all(f"rmdir {tmp_path}/{number:02}_empty" in line for number, line in enumerate(shown))
    for number in range(25):
        (tmp_path / f"{number:02}_empty").rmdir()
    with pytest.raises(DasTernError) as refusal:
        read_folder(tmp_path)
    notes, nested = refusal.value.message.splitlines()
    assert f"mv {tmp_path}/30_notes" in notes
    assert f"-e migrations_dir={tmp_path}/31_nested" in nested
    assert "rm " not in refusal.value.message


def rows(size: int) -> str:
    row = "INSERT INTO t VALUES ({}, 'the course begins; copy it from stdin at its end');\n"
    return "CREATE TABLE t (a int, b text);\n" + "".join(row.format(n) for n in range(size))


def judge(file: MigrationFile, folder: Path) -> None:
    for _ in range(3):
        own_transactions(file)
        refuse_copy(file)
        refuse_psql(file)
    assert not file.empty
    assert lint([file], [file.name], folder, together=True) == []


def test_a_big_file_is_read_once_by_all_who_judge_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    outline = migration_files.outline
    monkeypatch.setattr(migration_files, "outline", lambda sql: (read.append(len(sql)), outline(sql))[1])
    write(tmp_path, "20260101000000_big", rows(2000).encode())
    params = {"folder": str(tmp_path), "migrations": []}
    read_into(params, tmp_path)

    for file in (*of_params(params), *of_params(params)):
        judge(file, tmp_path)

    assert read == [len(rows(2000))]


def test_a_big_file_takes_no_more_than_three_times_its_size(tmp_path: Path) -> None:
    content = rows(60_000).encode()
    write(tmp_path, "20260101000000_big", content)
    tracemalloc.start()
    try:
        (file,) = read_folder(tmp_path)
        judge(file, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(content)


def test_a_process_on_the_host_is_told_the_same(tmp_path: Path) -> None:
    write(tmp_path, "20260101000000_a", "SELECT 'ក';\r\n".encode())
    (tmp_path / "20260101000000_a" / "down.sql").write_text("SELECT 2;")
    params = {"folder": str(tmp_path), "migrations": [], "schema": None}
    files = read_into(params, tmp_path, down=True)

    sent = as_sent(params)

    assert sent["migrations"] == [{"name": "20260101000000_a", "sql": "SELECT 'ក';\r\n", "down": "SELECT 2;"}]
    assert of_params(sent) == files
    assert "schema" not in sent
