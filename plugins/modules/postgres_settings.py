#!/usr/bin/python
"""Ansible module: compare a running server's settings with the declared ones, and have it read pg_hba.conf."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_settings
short_description: Read every declared setting back from a running PostgreSQL, and reload pg_hba.conf where it is newer
description:
  - Compares value and source of each setting on O(command) with C(pg_settings), after bringing units, booleans and
    enumerations to one form. A difference is an error, and so is a setting that someone wrote into a file of the cluster.
  - Checks pg_hba.conf through C(pg_hba_file_rules), and has the server reload it if the file is newer than what the
    server loaded; a run that was killed between writing and reloading is mended so.
options:
  endpoint: {description: URL of the Docker Engine., type: str, required: true}
  container: {description: Name of the server's container., type: str, required: true}
  command: {description: The server's command line as declared., type: list, elements: str, required: true}
  hba_path: {description: Path of pg_hba.conf on the host., type: path, required: true}
  reload: {description: Reload whatever the file's time says., type: bool, default: false}
attributes:
  check_mode:
    support: full
    description: Says whether it would reload.
  diff_mode:
    support: none
    description: The file's difference is shown by the task that writes it.
  idempotent:
    support: full
    description: A server that has loaded the file isn't told again.
author: Das Tern
"""

EXAMPLES = r"""
- name: Read the settings back
  postgres_settings:
    endpoint: unix:///var/run/docker.sock
    container: dastern-postgres
    command: [postgres, -c, max_connections=20]
    hba_path: /etc/das-tern/dastern-postgres/server/pg_hba.conf
"""

RETURN = r"""
settings: {description: How many settings were compared., returned: success, type: int}
differences: {description: "Each with setting, declared, found and source.", returned: failure, type: list}
server_version: {description: Version of the server., returned: success, type: str}
healthy_after: {description: Seconds from the container's start to its first good health check., returned: success, type: float}
reloaded: {description: Whether the server was (or would be) told to reload., returned: success, type: bool}
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern import settings
from ansible.module_utils.dastern.containers import Containers
from ansible.module_utils.dastern.errors import DasTernError
from ansible.module_utils.dastern.psql import Psql
from ansible.module_utils.dastern.status import healthy_after


def reload(psql: Psql, before: float) -> None:
    """Have the server reload, and see that it did."""
    psql.run("SELECT pg_reload_conf();")
    end = time.monotonic() + 10
    while float(psql.value("SELECT extract(epoch FROM pg_conf_load_time())")) <= before:
        if time.monotonic() > end:
            raise DasTernError("The server was told to reload its configuration and hasn't in 10 s. See `docker logs`.")
        time.sleep(0.1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoint": {"type": "str", "required": True},
            "container": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "hba_path": {"type": "path", "required": True},
            "reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    name = params["container"]
    declared = settings.of_command(params["command"])
    try:
        containers = Containers(params["endpoint"])
        psql = Psql(containers, name)
        found = psql.value(settings.READ_BACK)
        differences = settings.differences(declared, found)
        if differences:
            files = sorted({row["source"].rpartition(":")[0] for row in differences if "/" in row["source"]})
            mend = (
                f"Take the lines out of {', '.join(files)} in container {name} and `docker restart {name}`, or declare "
                "them in postgres_settings_extra."
                if files
                else f"`docker restart {name}` lets go of what was changed in the running server; then run again."
            )
            module.fail_json(
                msg=f"The server in container {name} isn't as declared. "
                + "; ".join(settings.worded(row) for row in differences) + f". {mend}",
                differences=differences,
            )  # fmt: skip
        if found["hba"]:
            lines = "; ".join(f"line {row['line_number']}: {row['error']}" for row in found["hba"])
            module.fail_json(msg=f"{params['hba_path']} has errors: {lines}. The server goes on with the rules it has.")
        stale = params["reload"] or os.stat(params["hba_path"]).st_mtime > float(found["loaded"])
        if stale and not module.check_mode:
            reload(psql, float(found["loaded"]))
        after = healthy_after(containers.inspect("container", name))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message)
    except OSError as error:
        module.fail_json(msg=f"{params['hba_path']} can't be read: {error}. Run the play as its owner.")
    module.exit_json(
        changed=stale,
        reloaded=stale,
        settings=len(declared),
        server_version=found["version"],
        healthy_after=after,
    )


if __name__ == "__main__":
    main()
