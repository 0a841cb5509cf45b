"""A module whose arguments hold SQL, and how the host's journal has it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SQL = ("sql", "down", "former")
"""Options, also within lists of dictionaries, whose value is the text of a file."""


class HostModule(AnsibleModule):  # type: ignore[misc]
    """Logs its invocation with the checksums of the files that it was sent, not with their text.

    Ansible writes every argument into the journal of the host. `no_log` would keep the text out of it, but also replace
    each string of it, such as `COMMIT;`, by asterisks in all results and messages.
    """

    params: dict[str, Any]

    def _log_invocation(self) -> None:
        sent = self.params
        self.params = told(sent)
        try:
            super()._log_invocation()
        finally:
            self.params = sent


def told(value: Any, option: str = "") -> Any:
    """`value` with each text of a file replaced by its SHA-256."""
    if isinstance(value, Mapping):
        return {name: told(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [told(one, option) for one in value]
    if option in SQL and isinstance(value, str):
        return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()}"
    return value
