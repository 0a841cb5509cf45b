"""A module whose arguments hold SQL, and the form in which the host's journal gets them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SQL = ("sql", "down", "former")
"""Options whose value is the text of a file, also within lists of dictionaries."""


class HostModule(AnsibleModule):  # type: ignore[misc]
    """A module that logs the checksums of the files that it was sent, not their text.

    Ansible writes every argument into the host's journal. `no_log` would keep the text out, but would also replace each
    string of it, such as `COMMIT;`, by asterisks in all results and messages.
    """

    params: dict[str, Any]

    def _log_invocation(self) -> None:
        sent = self.params
        self.params = with_checksums(sent)
        try:
            super()._log_invocation()
        finally:
            self.params = sent


def with_checksums(value: Any, option: str = "") -> Any:
    """Return `value` with the SHA-256 of each file in place of its text."""
    if isinstance(value, Mapping):
        return {name: with_checksums(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [with_checksums(item, option) for item in value]
    if option in SQL and isinstance(value, str):
        return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()}"
    return value
