#!/usr/bin/python
"""Ansible module: the login roles, the database and its privileges are as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_access
short_description: Keep the application's role, the read-only role, the database and its privileges as declared
description:
  - Speaks to the server as superuser over the socket in its container.
  - Passwords are kept on this host in files of mode 0600, generated where none is given. The server's stored SCRAM
    verifier tells whether a password has to be set, and a verifier computed here is what is sent, so that the plain
    password reaches neither the server nor its log.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  container: {description: Name of the server's container., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  app_user: {description: Role that owns the database., type: str, required: true}
  app_createdb: {description: Whether that role may make databases., type: bool, default: false}
  app_password: {description: Its password; empty keeps the one in the file or generates one., type: str, default: ""}
  readonly_user: {description: Role that may only read., type: str, required: true}
  readonly_password: {description: Its password; empty keeps the one in the file or generates one., type: str, default: ""}
  config_dir: {description: Directory of this host for the files C(app_password) and C(readonly_password)., type: path, required: true}
  environment: {description: "What the database says it is (C(dastern.environment)); never changed from V(production).", type: str, required: true}
attributes:
  check_mode:
    support: full
    description: Computes the same plan and writes nothing.
  diff_mode:
    support: full
    description: Each attribute before and after; of a password only that it differs.
  idempotent:
    support: full
    description: Sends no statement that writes if nothing differs.
author: Das Tern
"""

EXAMPLES = r"""
- name: Have roles, database and privileges
  postgres_access:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    database: dastern
    app_user: dastern_user
    readonly_user: dastern_readonly
    config_dir: /etc/das-tern/dastern-postgres
    environment: development
"""

RETURN = r"""
steps: {description: "What was or would be changed, in words.", returned: success, type: list}
generated: {description: Which passwords were or would be generated., returned: success, type: list}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern import access, scram
from ansible.module_utils.dastern.containers import Containers
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.files import Secret
from ansible.module_utils.dastern.psql import Psql


def main() -> None:
    module = AnsibleModule(
        argument_spec={
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
        },
        supports_check_mode=True,
    )
    params = module.params
    folder = Path(params["config_dir"])
    try:
        for option in ("app_password", "readonly_password"):
            if params[option] and not scram.acceptable(params[option]):
                raise DasTernError(f"{option} isn't printable ASCII of {scram.MINIMUM_LENGTH} characters or more.")
        secrets = {name: Secret(folder / name, params[name]) for name in ("app_password", "readonly_password")}
        declared = access.Declared(
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
        steps = access.plan(declared, access.read(psql, declared))
        files = [secret for secret in secrets.values() if secret.differs]
        if not module.check_mode:
            # The file first: a password that the server has and no file holds would be lost with this process.
            for secret in files:
                secret.save()
            access.apply(psql, declared, steps)
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)
    except OSError as error:
        module.fail_json(msg=f"A password file in {folder} can't be written: {error}. Run the play as its owner.")
    words = [step.words for step in steps]
    before = [f"{step.thing}: {step.attribute} {step.before}" for step in steps]
    after = [f"{step.thing}: {step.attribute} {step.after}" for step in steps]
    for secret in files:
        wrong = "absent" if not secret.stored else "loose mode" if secret.value == secret.stored else "differs"
        words.append(f"file {secret.path}: {wrong} -> written")
        before.append(f"file {secret.path}: {wrong}")
        after.append(f"file {secret.path}: " + ("generated" if secret.generated else "as declared") + ", mode 0600")
    module.exit_json(
        changed=bool(words),
        steps=words,
        generated=[name for name, secret in secrets.items() if secret.generated],
        diff={
            "before_header": f"access to {params['database']}",
            "after_header": f"access to {params['database']}",
            "before": "".join(f"{line}\n" for line in before),
            "after": "".join(f"{line}\n" for line in after),
        },
    )


if __name__ == "__main__":
    main()
