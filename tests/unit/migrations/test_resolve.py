"""What counts as the same SQL where a checksum is repaired."""

from __future__ import annotations

import pytest
from ansible.module_utils.dastern.migrations.resolve import _words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 10e5", "SELECT 10 e5"),
        ("SELECT b'1'", "SELECT b '1'"),
        ("SELECT U&'\\0061'", "SELECT U & '\\0061'"),
        ("SELECT 1 <= 2", "SELECT 1 < = 2"),
        ("SELECT a.b", "SELECT a .b"),
        ("SELECT 'it''s'", "SELECT 'it' 's'"),
    ],
)
def test_a_blank_between_makes_another(one: str, other: str) -> None:
    assert [word for word, _ in _words(one)] != [word for word, _ in _words(other)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CREATE TABLE r (id int, b int);", "CREATE  TABLE r(\n id int,b int )\n;"),
        ("SELECT count(*), f ('x')", "SELECT count ( * ) /* y */ ,f('x') -- z\n;;"),
    ],
)
def test_blanks_beside_punctuation_say_nothing(one: str, other: str) -> None:
    assert [word for word, _ in _words(one)] == [word for word, _ in _words(other)]
