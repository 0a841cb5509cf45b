"""What an object's privileges have otherwise than the default."""

from __future__ import annotations

import pytest
from ansible.module_utils.dastern.catalogue.objects import _Grants, _statements

Granted = tuple[str, str, bool]


def grants(usual: list[Granted], actual: list[Granted]) -> _Grants:
    found = _Grants()
    for is_usual, rows in ((True, usual), (False, actual)):
        for grantee, privilege, grantable in rows:
            found.add(is_usual, grantee, privilege, grantable)
    return found


OWN: list[Granted] = [("app", "SELECT", False), ("app", "INSERT", False)]


@pytest.mark.parametrize(
    ("usual", "actual", "differences"),
    [
        (OWN, OWN, []),
        (OWN, OWN[:1], [("app", [], [("INSERT", False)])]),
        (OWN, [], [("app", [], [("INSERT", False), ("SELECT", False)])]),
        (OWN, [*OWN, ("ro", "SELECT", False)], [("ro", [("SELECT", False)], [])]),
        (OWN, [*OWN, ("app", "DELETE", True)], [("app", [("DELETE", True)], [])]),
        (OWN, [OWN[0], ("app", "INSERT", True)], [("app", [("INSERT", True)], [("INSERT", False)])]),
        (
            OWN,
            [("ro", "SELECT", False)],
            [("app", [], [("INSERT", False), ("SELECT", False)]), ("ro", [("SELECT", False)], [])],
        ),
    ],
)
def test_a_grantee_is_compared_with_the_default(
    usual: list[Granted],
    actual: list[Granted],
    differences: list[tuple[str, list[tuple[str, bool]], list[tuple[str, bool]]]],
) -> None:
    assert grants(usual, actual).differences() == differences


def test_the_statements_give_and_take_and_can_be_taken_back() -> None:
    do, back = _statements("ON TABLE t", "ro", [("SELECT", False), ("UPDATE", True)], [("INSERT", False)])
    assert do.split(";\n") == [
        "REVOKE INSERT ON TABLE t FROM ro", "GRANT SELECT ON TABLE t TO ro", "GRANT UPDATE ON TABLE t TO ro WITH GRANT OPTION",
    ]  # fmt: skip
    assert back.split(";\n") == [
        "REVOKE UPDATE ON TABLE t FROM ro", "REVOKE SELECT ON TABLE t FROM ro", "GRANT INSERT ON TABLE t TO ro",
    ]  # fmt: skip
