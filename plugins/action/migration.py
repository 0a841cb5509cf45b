"""Action plugin: read the migrations on the controller, then apply them from the host of the task."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from ansible.module_utils.dastern.common.commands import playbook
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.common.migration_files import SCRIPT, MigrationFile, links, read_into
from ansible.module_utils.dastern.common.quantities import amount, cut, local
from ansible.module_utils.dastern.controller.host_action import HostAction, refused_lines, say, warn
from ansible.module_utils.dastern.lint.lint import grouped, lint, refusal
from ansible.module_utils.dastern.migrations.migrate import ARGUMENT_SPEC, migrate
from ansible.module_utils.dastern.server.advisory_lock import who

ROOT = Path(__file__).resolve().parents[2]

_SHOWN = 20
_OF_STATUS = (
    "host", "port", "database", "user", "schema", "on_out_of_order", "allow_empty", "exit_code",
)  # fmt: skip
"""The options that a report takes from variables."""


class ActionModule(HostAction):
    MODULE = "migration"
    ARGUMENT_SPEC = ARGUMENT_SPEC

    def from_variables(self) -> Iterable[str]:
        # A report has to come whatever else is declared wrong.
        return _OF_STATUS if self._task.args.get("state") == "status" else self.ARGUMENT_SPEC

    def act(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            files = read_into(params, ROOT)
        except DasTernError as refusal:
            if params["state"] != "status":
                raise
            return {"changed": False, "reachable": True, "unreadable": refusal.message, "applied": [], "pending": []}
        findings, result = self._linted(params, files)
        if result is None:
            result = self._apply(params)
        if findings is not None:
            result["lint"] = findings
        for link in links(params["folder"]):
            warn(f"{params['folder']}/{link} is a symbolic link and is ignored, as Prisma ignores it.")
        for notice in result.get("notices", []):
            warn(notice)
        return result

    def here(self, params: dict[str, Any]) -> dict[str, Any]:
        return migrate(params, check_mode=self._task.check_mode, diff=self._task.diff)

    def _linted(
        self, params: dict[str, Any], files: list[MigrationFile]
    ) -> tuple[list[dict[str, Any]] | None, dict[str, Any] | None]:
        """Return the findings of lint, and the plan's result if it ends the run; None if the plan may be carried out.

        Only the host knows which migrations are pending, so the plan is made first: a run with nothing pending and a run
        in check mode stay one call, and only pending files are linted. Other reasons that refuse the run are shown
        together with the dangers that lint finds.
        """
        if params["lint"] == "off" or params["state"] != "latest":
            return None, None
        try:
            result = self.on_host({**params, "state": "plan"})
        except DasTernError as error:
            result = {"failed": True, "msg": error.message, **error.facts}
        if not (result.get("pending") or (result.get("failed_before") and not result.get("failed"))):
            return None, result
        try:
            # The host itself refuses an empty file, unless it is allowed.
            findings = [
                finding
                for finding in lint(files, result["pending"], params["folder"], together=True)
                if finding.rule != "empty"
            ]
        except DasTernError as unreadable:
            if not result.get("failed"):
                raise
            return None, {**result, "msg": f"{result['msg']}\n{unreadable.message}"}
        danger = refusal(findings) if params["lint"] == "fail" else ""
        warnings = [finding for finding in findings if not danger or finding.severity == "warning"]
        for finding in warnings[:_SHOWN]:
            warn(str(finding))
        if rest := warnings[_SHOWN:]:
            rules = ", ".join(sorted({finding.rule for finding in rest}))
            warn(f"lint: {len(rest)} more ({rules}); `-e report_file=PATH` keeps them all.")
        shown = grouped(findings)
        if result.get("failed"):
            return shown, {**result, "msg": "\n".join(filter(None, [result["msg"], danger]))}
        refused = [*result.get("refused", []), *([danger] if danger else [])]
        if self._task.check_mode:
            return shown, {**result, "refused": refused}
        if refused:
            lines = refused if danger else [*refused, "Nothing was applied."]
            return shown, {
                "failed": True,
                "msg": "\n".join(lines),
                **{key: result[key] for key in ("applied", "pending")},
            }
        return shown, None

    def _apply(self, params: dict[str, Any]) -> dict[str, Any]:
        # The first try doesn't wait, so that the operator reads at once whom the second one waits for.
        result = self.on_host({**params, "lock_wait": 0})
        if "locked_by" in result and params["state"] == "latest" and not result.get("failed"):
            say(f"Another run is migrating: waiting for {who(result['locked_by'])} ...", color="yellow")
            result = self.on_host({**params, "lock_wait": max(params["lock_wait"], 1)})
        return result

    def sections(self, params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
        keys = (
            "applied", "applied_now", "applied_before", "pending", "edited", "missing", "out_of_order", "failed_before",
            "interrupted", "empty", "refused", "blockers", "backup", "backups_deleted", "running", "tables_without_ledger", "failed_migration", "waited_for", "locked_by", "history", "lint",
        )  # fmt: skip
        report: dict[str, Any] = {key: result[key] for key in keys if key in result}
        lines, commands = [], []
        if params["exit_code"]:
            report["exit_code"] = _exit_code(result, params["on_out_of_order"])
            lines += [_line(row) for row in result.get("history", [])]
            lines += [f"{name}  pending" for name in result.get("pending", [])]
        if backup := result.get("backup"):
            lines.append(
                f"backup {backup['label']} ({amount(backup['stored'])}, {backup['seconds']:.1f} s), {backup['proof']}"
            )
        if directory := result.get("backup_due"):
            lines.append(f"a backup into {directory} would come first")
        if message := result.get("unreadable"):
            lines.append(message)
        elif result.get("reachable") is False:
            lines.append(f"not known: {result['message']}")
        elif result.get("failed"):
            lines += _applied_lines(result.get("applied_before", []))
            lines.append("failed: " + str(result.get("msg", "")).partition("\n")[0])
            if result.get("not_tried"):
                lines.append(f"not tried: {', '.join(cut(result['not_tried'], _SHOWN))}")
        else:
            lines += _applied_lines(result.get("applied_now", []))
            refused = result.get("refused", [])
            if self._task.check_mode and params["state"] == "latest":
                lines += cut(
                    [f"{'pending' if refused else 'would apply'} {name}" for name in result["pending"]], _SHOWN
                )
                lines += refused_lines(refused)
                if refused:
                    report["exit_code"] = 2
            lines.append(f"{len(result['applied'])} applied, {len(result['pending'])} pending")
            if holder := result.get("locked_by"):
                lines.append(f"locked by {who(holder)}")
            if waited := result.get("waited_for"):
                lines.append(f"waited {waited['seconds']} s for {who(waited)}")
            if tables := result.get("tables_without_ledger"):
                lines.append(f"{tables} tables, but no ledger _prisma_migrations (P3005)")
                commands.append("ansible-playbook playbooks/baseline.yml")
            elif result["pending"] and not refused:
                commands.append("ansible-playbook migrate.yml")
        if findings := result.get("lint"):
            danger, warning = (
                sum(len(finding["places"]) for finding in findings if finding["severity"] == severity)
                for severity in ("danger", "warning")
            )
            lines.append(f"lint: {danger} of class danger, {warning} of class warning")
        for finding in ("edited", "missing", "out_of_order", "failed_before", "interrupted", "running", "empty"):
            if result.get(finding):
                lines.append(f"{finding.replace('_', ' ')}: {', '.join(cut(result[finding], _SHOWN))}")
                commands += _next(finding, result[finding][0], params["folder"])
        return {"migrations": {**report, "lines": lines, "next": commands}}


def _next(finding: str, name: str, folder: str) -> list[str]:
    """Return the commands that help with the finding on migration `name`."""
    return {
        "edited": [f"git log -p -- {quote(f'{folder}/{name}')}"],
        "missing": ["git fetch && git status"],
        "empty": [f"edit {quote(f'{folder}/{name}/{SCRIPT}')}"],
        "failed_before": [playbook("resolve_migration", rolled_back=name)],
    }.get(finding, [])


def _applied_lines(applied: list[dict[str, Any]]) -> list[str]:
    seconds = sum(migration["ms"] for migration in applied) / 1000
    more = [f"... and {len(applied) - _SHOWN} more, {seconds:.1f} s in all"] if len(applied) > _SHOWN else []
    return [f"{migration['name']} applied in {migration['ms']:.0f} ms" for migration in applied[:_SHOWN]] + more


def _exit_code(result: dict[str, Any], on_out_of_order: str) -> int:
    """Return the exit code of `migration_status.yml`, for CI."""
    if result.get("reachable") is False:
        return 4
    if any(
        result.get(problem)
        for problem in ("unreadable", "failed_before", "edited", "missing", "empty", "tables_without_ledger")
    ):
        return 2
    if result.get("out_of_order") and on_out_of_order == "fail":
        return 2
    return 3 if result.get("pending") or result.get("running") else 0


def _line(row: dict[str, Any]) -> str:
    took = "" if row["seconds"] is None else f" in {row['seconds']:.3g} s"
    return f"{row['name']}  {row['state']} {local(row['at'], datetime.now(UTC))}{took}"
