"""Seed files and what they declare, without a database."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.seeds import volume
from ansible.module_utils.dastern.seeds.files import read_blocks, read_folder
from ansible.module_utils.dastern.seeds.rows import NAMESPACE, Declared, Segment, resolved
from ansible.module_utils.dastern.seeds.run import report
from ansible.module_utils.dastern.seeds.time import is_day_expression, moment

DEVELOPMENT = Path(__file__).resolve().parents[3] / "files" / "sql" / "seeds" / "development"
PASSWORD, PIN = b"DasTern-dev-2026", b"246810"

USERS = """\
- table: users
  key: [phoneNumber]
  rows:
    - {_name: dara, phoneNumber: "+855101", role: PATIENT}
    - {phoneNumber: +855102, role: DOCTOR}
"""


def declared(text: str, name: str = "a.yml") -> Declared:
    return Declared([{"name": name, "blocks": read_blocks(text, name)}])


def refusal(text: str) -> str:
    with pytest.raises(DasTernError) as caught:
        declared(text)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("+85510000101", "+85510000101"),
        ("012", "012"),
        ("1990-01-01", "1990-01-01"),
        ("07:00", "07:00"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("-5", -5),
        ("21474836480", 21474836480),
        ("0.5", 0.5),
        ('"7"', "7"),
        ("ថ្នាំ", "ថ្នាំ"),
        ("{a: [1, x]}", {"a": [1, "x"]}),
    ],
)
def test_plain_scalars(text: str, value: Any) -> None:
    [block] = read_blocks(f"- table: t\n  rows:\n    - {{_name: n, c: {text}}}\n", "a.yml")
    assert block["rows"][0]["values"]["c"] == value
    assert type(block["rows"][0]["values"]["c"]) is type(value)


def test_lines_are_those_of_the_file() -> None:
    rows = declared(USERS).rows
    assert [(row.line, row.label) for row in rows] == [(4, "users/dara"), (5, "users/+855102")]


def test_an_empty_file_declares_nothing() -> None:
    assert declared("").rows == []
    assert declared("---\n# nothing yet\n").rows == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- table: t\n  rows:\n    - {a: 1, a: 2}\n", "a.yml, line 3: `a` is given twice"),
        ("table: t\n", "a list of blocks"),
        ("- rows: []\n", "`table` is None. Expected: `table: <name>`"),
        ("- table: t\n  colums: []\n", "a block can't have `colums`"),
        ("- table: t\n", "the block of t has no list of `rows`"),
        ("- table: t\n  key: id\n  rows: []\n", "Expected: a list of columns"),
        ("- table: t\n  rows: [1]\n", "must map columns to values"),
        ("- table: t\n  rows:\n    - {a: 'x}\n", "the YAML can't be read"),
        ("- table: t\n  rows:\n    - {a: !x y}\n", "the tag !x is unknown"),
        ("- table: t\n  rows:\n    - a: &a [*a]\n", "within itself"),
        ("- table: t\n  rows:\n    - {a: 1}\n", "neither a natural key nor a name"),
        ("- table: t\n  key: [k]\n  rows:\n    - {a: 1}\n", "the key column k is not declared"),
        ("- table: t\n  key: [k]\n  rows:\n    - {k: null}\n", "a key needs a plain value"),
        ("- table: t\n  key: [k]\n  rows:\n    - {k: {at: today}}\n", "differs from day to day"),
        ("- table: t\n  rows:\n    - {_name: 5}\n", "`_name` is 5"),
        ("- table: t\n  rows:\n    - {_name: n, id: x}\n", "`id` is computed from the row's key"),
        ("- table: t\n  rows:\n    - {_name: n, updatedAt: x}\n", "is set when the row is written"),
        ("- table: t\n  rows:\n    - {_name: n, at: {at: tomorrow}}\n", "Expected: `today`"),
        ("- table: t\n  rows:\n    - {_name: n, a: {ref: users/nobody}}\n", "refers to 'users/nobody'"),
        ("- table: t\n  rows:\n    - {_name: n, a: {b: [{ref: 5}]}}\n", "refers to 5"),
        ('- table: t\n  rows:\n    - {_name: n, a: "x\\0"}\n', "can't store"),
        (
            "- table: t\n  rows:\n    - {_name: n}\n    - {_name: n}\n",
            "t/n is declared twice, the first time in a.yml, line 3",
        ),
        (
            USERS + '- {table: users, key: [phoneNumber], rows: [{phoneNumber: "+855102"}]}',
            "users/+855102 is declared twice",
        ),
        ("- table: t\n  key: [k]\n  rows:\n    - {_name: n, k: {ref: t/n}}\n", "refers to itself"),
        (
            "- table: a\n  rows:\n    - {_name: n, x: {ref: b/n}}\n- table: b\n  rows:\n    - {_name: n, x: {ref: a/n}}\n",
            "refer to each other in a circle",
        ),
        ("- table: t\n  key: [k]\n  rows:\n    - {k: 1}\n    - {k: 2, p: {ref: t/1}}\n", "of the same table"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    message = refusal(text)
    assert words in message
    assert "a.yml" in message


def test_ids_are_uuid_v5_of_table_and_key() -> None:
    dara, doctor = declared(USERS).rows
    assert dara.id == str(uuid.uuid5(NAMESPACE, "users:+855101"))
    assert doctor.id == str(uuid.uuid5(NAMESPACE, "users:+855102"))
    assert uuid.UUID(dara.id).version == 5


def test_a_key_that_refers_takes_the_keys_text_not_the_name() -> None:
    text = USERS + "- table: subscriptions\n  key: [userId, n]\n  rows:\n    - {userId: {ref: users/dara}, n: 1}\n"
    assert declared(text).rows[-1].id == str(uuid.uuid5(NAMESPACE, "subscriptions:+855101/1"))
    assert declared(text.replace("dara", "renamed")).rows[-1].id == declared(text).rows[-1].id


def test_references_by_name_and_by_key_and_tables_in_their_order() -> None:
    text = """\
- table: doses
  rows:
    - {_name: d, patientId: {ref: users/dara}, doctorId: {ref: users/+855102}, data: {deep: [{ref: users/dara}]}}
"""
    seeds = declared(text + USERS)
    [segment] = seeds.steps
    assert isinstance(segment, Segment)
    assert list(segment.tables) == ["users", "doses"]
    row = seeds.target("doses/d")
    seeds.target("users/dara").found_id = "11111111-1111-4111-8111-111111111111"
    values = resolved(seeds, row.values, lambda text: text)
    assert values["patientId"] == "11111111-1111-4111-8111-111111111111"
    assert values["doctorId"] == seeds.target("users/+855102").id
    assert values["data"] == {"deep": [values["patientId"]]}


def test_literal_is_taken_as_it_is() -> None:
    seeds = declared("- table: t\n  rows:\n    - {_name: n, data: {literal: {ref: users/nobody}}}\n")
    assert resolved(seeds, seeds.rows[0].values, str) == {"data": {"ref": "users/nobody"}}


def test_a_row_may_not_refer_past_an_sql_file() -> None:
    first = {
        "name": "1.yml",
        "blocks": read_blocks("- table: t\n  rows:\n    - {_name: n, u: {ref: users/dara}}\n", "1.yml"),
    }
    last = {"name": "3.yml", "blocks": read_blocks(USERS, "3.yml")}
    Declared([first, last])
    with pytest.raises(DasTernError, match=r"3.yml declares after a later SQL file"):
        Declared([first, {"name": "2.sql", "sql": "SELECT 1"}, last])


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("today", "2028-02-29T00:00:00.000+07:00"),
        ("today 08:00", "2028-02-29T08:00:00.000+07:00"),
        ("today-1d 20:00", "2028-02-28T20:00:00.000+07:00"),
        ("today+1d 00:00:59", "2028-03-01T00:00:59.000+07:00"),
        ("today-8w", "2028-01-04T00:00:00.000+07:00"),
    ],
)
def test_times_count_from_the_day_of_seeding(text: str, iso: str) -> None:
    assert moment(text, date(2028, 2, 29)) == iso


@pytest.mark.parametrize(
    "text", ["now", "today 24:00", "today 8:00", "today - 1d", "today-1m", "today-1d20:00", 5, None]
)
def test_other_times_are_refused(text: Any) -> None:
    assert not is_day_expression(text)
    with pytest.raises((ValueError, TypeError)):
        moment(text, date(2028, 2, 29))


def test_files_come_in_byte_order_and_others_are_left_out(tmp_path: Path) -> None:
    for name in ("b.yml", "B.sql", "a10.yaml", "a2.yml", "README.md", ".hidden.yml", "c.yml.bak"):
        (tmp_path / name).write_text("SELECT 1;" if name.endswith(".sql") else "[]")
    assert [file["name"] for file in read_folder(str(tmp_path), "x")] == ["B.sql", "a10.yaml", "a2.yml", "b.yml"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.yml", b"\xef\xbb\xbf[]", "byte order mark"),
        ("a.sql", b"\xef\xbb\xbfSELECT 1", "byte order mark"),
        ("a.yml", b"- table: \xff", "not UTF-8"),
        ("a.sql", b"SELECT 1;\nBEGIN;", "a.sql, line 2: BEGIN begins or ends a transaction"),
        ("a.sql", b"SELECT 'BEGIN'; COMMIT", "COMMIT begins or ends"),
        ("a.sql", b"ROLLBACK", "ROLLBACK begins or ends"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DasTernError) as caught:
        read_folder(str(tmp_path), "x")
    assert words in caught.value.message
    assert name in caught.value.message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DasTernError, match=r"no seed folder .*/nowhere for the environment staging.*mkdir -p"):
        read_folder(str(tmp_path / "nowhere"), "staging")


class TestDevelopmentData:
    """What the facts demand, as far as the files alone show it; test_seed.py asks the database."""

    files = read_folder(str(DEVELOPMENT), "development")
    rows = Declared(files).rows

    def of(self, table: str) -> list[dict[str, Any]]:
        return [row.values for row in self.rows if row.table == table]

    def test_counts(self) -> None:
        assert Counter(row.table for row in self.rows) == {
            "users": 11,
            "subscriptions": 4,
            "family_members": 2,
            "meal_time_preferences": 4,
            "connections": 8,
            "prescriptions": 5,
            "medications": 11,
            "prescription_versions": 4,
            "dose_events": 15,
            "notifications": 8,
            "audit_logs": 13,
        }

    def test_hashes_are_those_of_the_documented_password_and_pin(self) -> None:
        text = (DEVELOPMENT / "10-people.yml").read_text()
        assert PASSWORD.decode() in text
        assert PIN.decode() in text
        for user in self.of("users"):
            assert bcrypt.checkpw(PASSWORD, user["passwordHash"].encode())
            assert bcrypt.checkpw(PIN, user["pinCodeHash"].encode())
        assert bcrypt.checkpw(PASSWORD, volume.PASSWORD_HASH.encode())
        assert bcrypt.checkpw(PIN, volume.PIN_HASH.encode())

    def test_everybody_is_recognisably_made_up(self) -> None:
        for user in self.of("users"):
            assert user["email"].endswith("@example.com")
            assert user["phoneNumber"].startswith("+85510000")
        text = json.dumps(self.files, ensure_ascii=False)
        assert "ថ្នាំ" in text

    def test_ids_never_change(self) -> None:
        ids = {row.label: row.id for row in self.rows}
        assert ids["users/dara"] == str(
            uuid.uuid5(uuid.UUID("8f2c9b99-b059-552f-bd50-989d6c9e37d8"), "users:+85510000101")
        )
        assert len(set(ids.values())) == 85


@pytest.mark.parametrize(("days", "events"), [(1, 34), (90, 568), (365, 2218)])
def test_dose_events_of_a_synthetic_patient(days: int, events: int) -> None:
    assert volume.events_per_patient(days) == events == 6 * days + 28


@pytest.mark.parametrize(
    ("result", "check_mode", "lines"),
    [
        ({"inserted": 42, "updated": 3, "unchanged": 17}, False, ["42 rows inserted, 3 updated, 17 unchanged"]),
        ({"inserted": 1, "updated": 0, "unchanged": 0}, True, ["would insert 1 row, update 0; 0 unchanged"]),
        ({"inserted": 0, "updated": 0, "unchanged": 85}, False, ["85 rows as declared"]),
        ({"failed": True, "msg": "No.\nMore."}, False, ["failed: No."]),
        (
            {"inserted": 0, "updated": 0, "unchanged": 0, "volume": volume.VolumePlan(9, 90, 2, "", 0, "").facts},
            False,
            [
                "no rows are declared for this environment",
                "added 2 synthetic patients with 1136 dose events (about 0 MB)",
            ],
        ),
        (
            {"inserted": 0, "updated": 0, "unchanged": 0, "scripts": [{"file": "a.sql", "rows": 1}]},
            True,
            ["no rows are declared for this environment", "a.sql would write 1 row"],
        ),
    ],
)
def test_summary(result: dict[str, Any], check_mode: bool, lines: list[str]) -> None:
    changed = bool(result.get("inserted") or result.get("updated") or "volume" in result or "scripts" in result)
    assert report({}, {"changed": changed, "scripts": [], **result}, check_mode)["lines"] == lines
