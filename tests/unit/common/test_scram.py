"""SCRAM verifiers: the same as PostgreSQL makes."""

from __future__ import annotations

import base64

import pytest
from ansible.module_utils.dastern.common.scram import acceptable, matches, verifier

# Made by PostgreSQL 17: SET password_encryption = 'scram-sha-256'; CREATE ROLE ... PASSWORD 'correct horse battery'.
STORED = (
    "SCRAM-SHA-256$4096:1sSToSQvZSRsuU5ZQsTuDQ==$"
    "JW9bPqDbc6FERRMZn6DQxwBkrenmRi8i0cSSydNVjWE=:qyGBQsRoPcGBaphr7o7APBR68WfE5g+ygXqAyY4vqpQ="
)
PASSWORD = "correct horse battery"


def test_the_servers_own_verifier_is_recognised() -> None:
    assert matches(PASSWORD, STORED)
    assert not matches(PASSWORD + " ", STORED)


def test_the_same_salt_gives_the_servers_own_verifier() -> None:
    salt = base64.b64decode(STORED.split("$")[1].split(":")[1])
    assert verifier(PASSWORD, salt) == STORED


def test_each_verifier_has_its_own_salt() -> None:
    assert verifier(PASSWORD) != verifier(PASSWORD)
    assert matches(PASSWORD, verifier(PASSWORD, iterations=10))


@pytest.mark.parametrize("stored", [None, "", "md5" + "0" * 32, "SCRAM-SHA-256$4096:x$y:z", STORED + "x", STORED[:-3]])
def test_what_is_no_verifier_matches_nothing(stored: str | None) -> None:
    assert not matches(PASSWORD, stored)


@pytest.mark.parametrize(
    ("password", "fine"),
    [("x" * 12, True), ("x" * 11, False), ("pässword-pässword", False), ("line\nbreak-in-it", False), (" ~" * 6, True)],
)
def test_only_long_printable_ascii_is_acceptable(password: str, fine: bool) -> None:
    assert acceptable(password) is fine
