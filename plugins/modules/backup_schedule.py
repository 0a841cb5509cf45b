#!/usr/bin/python
"""Ansible module: let the database host take its backups by itself, each day."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_schedule
short_description: Install the job that takes backups, and let systemd or cron call it
description:
  - Copies the job and its configuration to the host, where it needs nothing but Python 3.11 and the engine.
  - Installs a hardened service and a timer where systemd runs, elsewhere a file in C(/etc/cron.d).
  - The code is read on the controller by the action plugin of the same name.
options:
  drill_days: {description: Days between two trial restores; 0 for none., type: int, default: 7}
  state: {description: Whether the host has a schedule., type: str, choices: [present, absent], default: present}
  time: {description: Time of day in Asia/Phnom_Penh., type: str, default: "02:30"}
  full: {description: "Weekday of the full backup, or V(daily).", type: str, default: sunday}
  delay: {description: Seconds over which the hosts spread their starts., type: int, default: 900}
  on_failure: {description: Command line to run after a failure., type: str, default: ""}
  take: {description: Further parameters of a backup., type: dict, default: {}}
  drill: {description: Further parameters of a trial restore., type: dict, default: {}}
  cron:
    description: The steps that an earlier task took (in check mode, would take) on cron itself, V(installed) and V(started).
      The job remembers an installation, so that cron is removed with the schedule unless something else uses it by then.
    type: list
    elements: str
    default: []
  sources: {description: The code. Filled by the action plugin., type: str, default: ""}
extends_documentation_fragment: [variables]
attributes:
  check_mode:
    support: full
    description: Reports what would be written.
  diff_mode:
    support: full
    description: Shows the units or cron's file, and the settings; of the code only that it differs.
  idempotent:
    support: full
    description: Files are compared by content and mode, timers by their state; systemd is reloaded only after a change.
author: Das Tern
"""

EXAMPLES = r"""
- name: Take a backup each night
  backup_schedule:
    container: dastern-postgres
    database: dastern
    backup_dir: /var/backups/das-tern/dastern-postgres
    config_dir: /etc/das-tern/dastern-postgres
    time: "02:30"
"""

RETURN = r"""
lines: {description: "What was or would be done, in words.", returned: success, type: list}
remove_cron: {description: Whether cron was installed for the schedule and nothing else uses it., returned: success, type: bool}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.jobs.schedule import ARGUMENT_SPEC, schedule


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    try:
        module.exit_json(**schedule(module.params, check_mode=module.check_mode))
    except DasTernError as refusal:
        module.fail_json(msg=refusal.message, **refusal.facts)


if __name__ == "__main__":
    main()
