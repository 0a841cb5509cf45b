"""The base of the action plugins: where to work, refusals as results, and a section of the play's summary.

A module in a process of its own costs a Python start and the import of psycopg (0.7 s of a 2.6 s playbook on a
small machine). Where the host is the controller itself, the action plugin calls the same function in its own
process and saves both; everywhere else the module runs on the host. The result is the same.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any

from ansible.errors import AnsibleValueOmittedError
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..common import swaps
from ..common.errors import DasTernError
from ..common.migration_files import as_sent
from ..common.text import presentable, shown
from ..server.advisory_lock import who

INSTANCE = {
    "backup_dir": "postgres_backup_dir",
    "config_dir": "postgres_config_dir",
    "container": "postgres_container_name",
    "database": "postgres_database",
    "environment": "dastern_environment",
    "host": "postgres_host",
    "image": "postgres_image_reference",
    "network": "postgres_network_name",
    "port": "postgres_port",
    "readonly_user": "postgres_readonly_user",
    "user": "postgres_app_user",
    "volume": "postgres_volume_name",
    "wal_archive": "postgres_wal_archive",
    "zero_loss": "backup_zero_loss",
}
"""The variables that describe the instance, by the option that carries each in every module."""
ENDPOINTS = ("docker_engine_endpoint", "docker_engine_host")
"""The variables of the engine's endpoint: as the role docker_engine determined it, else as declared."""
PASSWORD = "app_password"
"""The file in the configuration folder that holds the application's password."""


class HostAction(ActionBase):
    """An action plugin beside the module `MODULE`, whose options are `ARGUMENT_SPEC`.

    An option that the task doesn't give has the value of the variable that `INSTANCE` names for it, else of
    `<role>_<option>`. So the role (meta/argument_specs.yml and defaults/main.yml) and `ARGUMENT_SPEC` declare a new option,
    and no task passes it.

    A subclass calls the module's function in `here`. It overrides `act` to do more on the controller, and `sections` to add
    to the summary.
    """

    supports_check_mode = True
    MODULE: str
    ARGUMENT_SPEC: dict[str, Any]

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._task.args = self._given = {**self._options(), **self._task.args}
        validated, params = self.validate_argument_spec(argument_spec=self.ARGUMENT_SPEC)
        self._validated = dict(params)
        try:
            if "instance" in params:
                params["instance"] = self._instance()
            result = self.act(params)
        except DasTernError as refusal:
            result = {"failed": True, "msg": refusal.message, **refusal.facts}
        if _gone(result):
            swap = self._swap()
            result |= {**swap, "message": swap["msg"]} if swap and not result.get("failed") else swap
        result.pop("invocation", None)  # it repeats everything that was sent to the host
        if sections := self.sections(params, result):
            result["ansible_stats"] = {"data": {"dastern_report": sections}, "per_host": True, "aggregate": True}
        # A module masks the secrets that it was given; the same function masks the result of this process.
        masked: dict[str, Any] = presentable(remove_values(result, validated._no_log_values))
        return masked

    def _options(self) -> dict[str, Any]:
        """Return the options that variables declare: the instance's by `INSTANCE`, the others by the name of the task's role."""
        role = f"{self._task._role.get_name(include_role_fqcn=False)}_" if self._task._role else ""
        options: dict[str, Any] = {}
        for option in self.from_variables():
            for name in (INSTANCE.get(option, ""), role + option if role else ""):
                if name in self._vars and option not in options and option not in self._task.args:
                    with contextlib.suppress(AnsibleValueOmittedError):
                        options[option] = self._templar.template(self._vars[name])
        if "endpoint" in self.ARGUMENT_SPEC:
            endpoints = [self._templar.template(self._vars.get(name, "")) for name in ENDPOINTS]
            options["endpoint"] = next(filter(None, endpoints), "")
        if "password_file" in self.ARGUMENT_SPEC and "postgres_config_dir" in self._vars:
            options["password_file"] = f"{self._templar.template(self._vars['postgres_config_dir'])}/{PASSWORD}"
        return options

    def from_variables(self) -> Iterable[str]:
        """Return the options that variables may give."""
        return self.ARGUMENT_SPEC

    def _instance(self) -> str:
        """Return `environment/host`, which a confirmation has to name."""
        host = self._vars["inventory_hostname"]
        environment = self._templar.template(self._vars.get("dastern_environment", ""))
        if not environment:
            raise DasTernError(
                f"`dastern_environment` isn't set for host {host}, and nothing destructive is done without it. Set it to "
                "development, staging or production in the inventory."
            )
        return f"{environment}/{host}"

    def _swap(self) -> dict[str, Any]:
        """Return the message to show instead where the server is away because a restore's swap hasn't ended."""
        names = {"container": "postgres_container_name", "backup_dir": "postgres_backup_dir"}
        if not self._vars.keys() >= set(names.values()):
            return {}
        params: dict[str, Any] = {option: self._templar.template(self._vars[name]) for option, name in names.items()}
        if not self._runs_here():
            answer: dict[str, Any] = self._execute_module(
                module_name="pending_swap", module_args=params, task_vars=self._vars
            )
            return {name: answer[name] for name in ("msg", "swap")} if answer.get("swap") else {}
        try:
            swaps.refuse_pending(params)
        except DasTernError as refusal:
            return {"msg": refusal.message, **refusal.facts}
        return {}

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result; `DasTernError` is a refusal."""
        return self.on_host(params)

    def on_host(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result for `params`."""
        if self._runs_here():
            return self.here(params)
        # The validation has replaced `~` in paths by the controller's home; on the host it means the host's.
        paths = {
            name: self._given[name]
            for name, option in self.ARGUMENT_SPEC.items()
            if option["type"] == "path" and name in self._given and params[name] == self._validated[name]
        }
        result: dict[str, Any] = self._execute_module(
            module_name=self.MODULE, module_args=as_sent({**params, **paths}), task_vars=self._vars
        )
        return result

    def _runs_here(self) -> bool:
        """Return whether the host is the machine, user and Python of this process, and the task needs no other environment."""
        if self._connection.transport != "local" or self._play_context.become:
            return False
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        interpreter = self._vars.get("ansible_python_interpreter")
        return not environment and interpreter in (sys.executable, "{{ ansible_playbook_python }}")

    def on_host_in_turn(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return `on_host`; if it has to wait for the migration lock, first show whom it waits for."""
        if not self._task.check_mode and params["lock_wait"]:
            try:
                result = self.on_host({**params, "lock_wait": 0})
            except DasTernError as refusal:
                if refusal.facts.get("code") != "P1002":
                    raise
                result = {"code": "P1002", **refusal.facts}
            if result.get("code") != "P1002":
                return result
            say(f"A migration run is at work: waiting for {who(result.get('locked_by'))} ...", color="yellow")
        return self.on_host(params)

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the module's result for `params`, computed in this process."""
        raise NotImplementedError

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        """Return the entries of the play's summary for `result`, by section."""
        return {}


def _gone(result: dict[str, Any]) -> bool:
    """Return whether no server answers, its container doesn't run, or its database takes no connections."""
    away = result.get("code") == "P1001" or result.get("status") in (404, 409) or "closed" in result
    return bool(away and (result.get("failed") or "message" in result))


def say(message: str, color: str | None = None) -> None:
    """Show the operator a line while the task is running."""
    Display().display(shown(message), color=color)


def warn(message: str) -> None:
    """Show a warning in Ansible's form."""
    Display().warning(shown(message))


def refused_lines(refused: list[str]) -> list[str]:
    """Return the lines of a check's summary about reasons that would make the real run refuse."""
    lines = []
    for message in refused:
        first, *more = message.splitlines()
        lines += [f"would be refused: {first}", *(f"  {line.strip()}" for line in more)]
    return lines
