"""Keeps roles, database and privileges as declared, and the passwords in files of this host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common import scram
from ..common.errors import DasTernError
from ..common.files import Secret, alone
from ..common.text import shown
from ..docker.containers import Containers
from .access import Declared, apply, plan, read
from .psql import Psql

ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "required": True},
    "container": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "app_user": {"type": "str", "required": True},
    "app_createdb": {"type": "bool", "default": False},
    "app_password": {"type": "str", "default": "", "no_log": True},
    "readonly_user": {"type": "str", "required": True},
    "readonly_password": {"type": "str", "default": "", "no_log": True},
    "config_dir": {"type": "path", "required": True},
    "environment": {"type": "str", "required": True},
}


def keep(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Return the result of the module `postgres_access`. Raise `DasTernError` if a change is impossible or forbidden."""
    folder = Path(params["config_dir"])
    if check_mode:
        return _keep(params, folder, check_mode=True)
    # Two runs that find no password would each generate one, and only one of these would be valid.
    with alone(folder):
        return _keep(params, folder, check_mode=False)


def _keep(params: Mapping[str, Any], folder: Path, *, check_mode: bool) -> dict[str, Any]:
    for option in ("app_password", "readonly_password"):
        if params[option] and not scram.acceptable(params[option]):
            raise DasTernError(f"postgres_{option} isn't printable ASCII of {scram.MINIMUM_LENGTH} characters or more.")
    secrets = {name: Secret(folder / name, params[name]) for name in ("app_password", "readonly_password")}
    declared = Declared(
        database=params["database"],
        app_user=params["app_user"],
        readonly_user=params["readonly_user"],
        environment=params["environment"],
        createdb=params["app_createdb"],
        passwords={
            params["app_user"]: secrets["app_password"].value,
            params["readonly_user"]: secrets["readonly_password"].value,
        },
    )
    psql = Psql(Containers(params["endpoint"]), params["container"])
    steps = plan(declared, read(psql, declared))
    files = [secret for secret in secrets.values() if secret.differs]
    if not check_mode:
        # The file is written first: a password that only the server has would be lost with this process.
        try:
            for secret in files:
                secret.save()
        except OSError as error:
            raise DasTernError(
                f"A password file in {folder} can't be written: {error}. Run the play as its owner."
            ) from None
        apply(psql, declared, steps)
    words = [step.words for step in steps]
    before = [f"{step.thing}: {step.attribute} {step.before}" for step in steps]
    after = [f"{step.thing}: {step.attribute} {step.after}" for step in steps]
    for secret in files:
        state = "absent" if not secret.stored else "loose mode" if secret.value == secret.stored else "differs"
        words.append(f"file {secret.path}: {state} -> written")
        before.append(f"file {secret.path}: {state}")
        after.append(f"file {secret.path}: " + ("generated" if secret.generated else "as declared") + ", mode 0600")
    return {
        "changed": bool(words),
        "steps": words,
        "generated": [name for name, secret in secrets.items() if secret.generated],
        "diff": {
            "before_header": f"access to {params['database']}",
            "after_header": f"access to {params['database']}",
            "before": "".join(f"{shown(line)}\n" for line in before),
            "after": "".join(f"{shown(line)}\n" for line in after),
        },
    }
