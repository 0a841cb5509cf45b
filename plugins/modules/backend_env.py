#!/usr/bin/python
"""Ansible module: set the database's URL in a backend's .env file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backend_env
short_description: Set DATABASE_URL in a .env file
description:
  - Writes the URL with everything percent-encoded; parameters of the former URL, such as C(connection_limit), stay.
  - Leaves every other byte of the file as it is. Of several assignments the last counts for dotenv, so that is the one that
    is changed; a warning names the others.
  - Nobody but the file's owner can read it afterwards. A looser mode of an existing file is tightened, and the report says
    so; owner and group are kept. A new file has mode 0600.
  - A symbolic link is followed if it belongs to root or to the owner of its target. Every part of the path is opened relative
    to the part before, so that nothing can be exchanged meanwhile.
options:
  path: {description: "The file; it needn't exist, but its directory must.", type: path, required: true}
  name: {description: Name of the variable., type: str, default: DATABASE_URL}
  host: {description: Host in the URL., type: str, required: true}
  port: {description: Port in the URL., type: int, required: true}
  database: {description: Database in the URL., type: str, required: true}
  user: {description: User in the URL., type: str, required: true}
  password_file: {description: File on this host that holds the password., type: path, required: true}
  schema: {description: Schema in the URL., type: str, default: public}
  assume_password: {description: Accept in check mode that the password file doesn't exist yet., type: bool, default: false}
attributes:
  check_mode:
    support: full
    description: Says whether it would write.
  diff_mode:
    support: full
    description: The line with its password masked.
  idempotent:
    support: full
    description: A file that already holds the URL isn't written, whatever its quotes.
author: Das Tern
"""

EXAMPLES = r"""
- name: Tell the backend where the database is
  backend_env:
    path: /srv/backend/.env
    host: 127.0.0.1
    port: 5432
    database: dastern
    user: dastern_user
    password_file: /etc/das-tern/dastern-postgres/app_password
"""

RETURN = r"""
path: {description: "The file, after following links.", returned: success, type: str}
created: {description: Whether the file is new., returned: success, type: bool}
"""

import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common import dotenv, files
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.guarded_file import GuardedFile, user
from ansible.module_utils.dastern.common.text import presentable
from ansible.module_utils.dastern.server.connection import read_password


def password(params: dict[str, Any], check_mode: bool) -> str:
    try:
        return read_password(params["password_file"])
    except DasTernError:
        if check_mode and params["assume_password"]:
            return "not-yet-generated"
        raise


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "default": "DATABASE_URL"},
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
            "database": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password_file": {"type": "path", "required": True, "no_log": False},
            "schema": {"type": "str", "default": "public"},
            "assume_password": {"type": "bool", "default": False, "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    where = (params["host"], params["port"], params["database"], params["schema"])
    try:
        files.absolute("backend_env_file", params["path"])
        with GuardedFile("backend_env_file", Path(params["path"])) as file:
            former = dotenv.value_of(file.content, params["name"])
            url = dotenv.url(params["user"], password(params, module.check_mode), *where, former)
            try:
                edited = dotenv.edited(file.content, params["name"], url)
            except DasTernError as refusal:
                raise DasTernError(
                    f"backend_env_file {file.path} is left as it is: {refusal.message}. Correct the file."
                ) from None
            path, found, loose = file.path, file.found, file.loose
            changed = edited.changed or loose
            if changed and not module.check_mode:
                file.replace(edited.content)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    except OSError as error:
        module.fail_json(msg=f"backend_env_file {params['path']}: {error}. It is left as it was.")
    if len(edited.lines) > 1:
        others = ", ".join(str(line) for line in edited.lines[:-1])
        module.warn(f"{path} assigns {params['name']} more than once; line {edited.lines[-1]} counts, not {others}.")
    masked = f"{params['name']}=" + dotenv.url(params["user"], "", *where).replace(":@", ":***@", 1)
    result: dict[str, Any] = {"changed": changed, "path": str(path), "created": changed and not found}
    before, after = "", f"{masked}\n"
    if edited.lines:
        before = f"{params['name']}=(another value)\n" if edited.changed else after
    lines = []
    if found and loose:
        mode, tight = stat.S_IMODE(found.st_mode), stat.S_IMODE(found.st_mode) & 0o700
        before, after = f"mode {mode:04o}\n{before}", f"mode {tight:04o}\n{after}"
        would = "would be" if module.check_mode else "is"
        lines = [
            f"{path} had mode {mode:04o}; it {would} {tight:04o}: only {user(found.st_uid)}, its owner, reads the password"
        ]
    if changed:
        result["diff"] = {"before_header": str(path), "after_header": str(path), "before": before, "after": after}
    done = "would be written to" if module.check_mode else "written to"
    line = f"{params['name']} {done} {path}" if edited.changed else f"{params['name']} in {path} is as it should be"
    report = {"backend_env": {"lines": [line, *lines], "path": str(path), "changed": changed}}
    result["ansible_stats"] = {"data": {"dastern_report": report}, "per_host": True, "aggregate": True}
    module.exit_json(**presentable(result))


if __name__ == "__main__":
    main()
