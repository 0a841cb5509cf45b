"""Declared values that a server can't be made with."""

from __future__ import annotations

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server.survey import refuse_masked

TEXTS = ['host "dastern" "dastern_readonly" all scram-sha-256', "-c", "log_timezone=Asia/Phnom_Penh"]


@pytest.mark.parametrize("password", ["dastern_readonly", "scram-sha-256", "Asia/Phnom_Penh"])
def test_a_password_that_stands_in_the_configuration_is_refused_unseen(password: str) -> None:
    with pytest.raises(DasTernError) as refusal:
        refuse_masked({"app_password": "", "readonly_password": password}, TEXTS)
    assert "postgres_readonly_password" in refusal.value.message
    assert password not in refusal.value.message


def test_other_passwords_are_accepted() -> None:
    refuse_masked({"app_password": "", "readonly_password": "a password of nobody"}, TEXTS)
