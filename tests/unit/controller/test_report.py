"""What the summary at the end of a play shows, and the commands in it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible.module_utils.dastern import VERSION
from ansible.utils.context_objects import CLIArgs
from samples import callback

ROOT = Path(__file__).parents[3]
LIST = "ansible-playbook playbooks/list_backups.yml"


class Summary:
    """One run of one playbook on one host, as far as the callback sees it."""

    def __init__(self, module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._module, self._report, self._monkeypatch = module, tmp_path / "report.json", monkeypatch

    def of(
        self,
        section: dict[str, Any],
        *,
        given: dict[str, Any] | None = None,
        argv: str = "playbooks/backup.yml",
        failure: str = "",
        changed: int = 0,
        **options: Any,
    ) -> list[str]:
        """Return the lines behind the first, which is in `header`; the same as JSON is in `report`."""
        self._monkeypatch.setattr(context, "CLIARGS", CLIArgs(options))
        self._monkeypatch.setattr("sys.argv", ["/somewhere/ansible-playbook", *shlex.split(argv)])
        callback, lines = self._module.CallbackModule(), list[str]()
        callback._display = SimpleNamespace(display=lambda line, color: lines.append(line))
        manager = SimpleNamespace(extra_vars={**(given or {}), "report_file": str(self._report)})
        callback.v2_playbook_on_play_start(SimpleNamespace(get_variable_manager=lambda: manager))
        stats = {"ansible_stats": {"data": {"dastern_report": {"backup": section}}}, "msg": failure}
        result = SimpleNamespace(
            result=stats,
            host=SimpleNamespace(get_name=lambda: "here"),
            task=SimpleNamespace(get_name=lambda: "it", _uuid="1", _parent=None, loop=None),
        )
        (callback.v2_runner_on_failed if failure else callback.v2_runner_on_ok)(result)
        totals = {"changed": changed, "failures": int(bool(failure)), "unreachable": 0}
        callback.v2_playbook_on_stats(SimpleNamespace(processed=["here"], summarize=lambda _: totals))
        self.header = lines[0]
        return [line.strip() for line in lines[1:]]

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self._report.read_text()))


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Summary:
    monkeypatch.chdir(ROOT)
    return Summary(callback("dastern_report"), tmp_path, monkeypatch)


def test_commands_act_where_the_run_did(summary: Summary) -> None:
    section = {"lines": [f"taken; `{LIST}` shows it"], "next": [LIST]}
    given = {"postgres_container_name": "second one", "postgres_port": 5433, "restore_confirm": "x", "label": "y"}
    options = {
        "inventory": [f"{ROOT}/inventories/production"],
        "subset": "a b",
        "become_ask_pass": True,
        "become": True,
    }
    assert summary.of(section)[-1] == f"next         {LIST}"
    shown = summary.of(section, given=given, failure=f"Run `{LIST}`.", **options)
    words = (
        "-i inventories/production --limit 'a b' --become --ask-become-pass "
        """-e '{"postgres_container_name": "second one"}' -e postgres_port=5433"""
    )
    whole = f"ansible-playbook {words} playbooks/list_backups.yml"
    assert shown == [
        f"backup       taken; `{whole}` shows it",
        f"failed       Run `{whole}`.",
        f"next         {whole}",
    ]
    host = summary.report["hosts"]["here"]
    assert host["next"] == host["sections"]["backup"]["next"] == [whole]
    assert summary.report["failures"][0]["message"] == f"Run `{whole}`."


def test_summary_and_report_name_the_version(summary: Summary) -> None:
    summary.of({})
    assert summary.header.startswith(f"Das Tern {VERSION} · ")
    assert summary.report["version"] == VERSION


def test_a_secret_is_wanted_from_the_environment(summary: Summary) -> None:
    shown = summary.of({"lines": [], "next": [LIST]}, given={"backup_cipher_pass": "hidden"})
    assert shown == [
        'next         ansible-playbook -e backup_cipher_pass="${BACKUP_CIPHER_PASS:?}" playbooks/list_backups.yml'
    ]


def test_a_file_is_repeated_where_all_of_it_is_of_the_instance(summary: Summary, tmp_path: Path) -> None:
    whole, mixed = tmp_path / "whole file.yml", tmp_path / "mixed.yml"
    whole.write_text("postgres_port: 5433\nbackup_cipher_pass: hidden\n")
    mixed.write_text("postgres_database: other\nconfirm: other\nbackup_type: full\n")
    given = {"postgres_port": 5433, "backup_cipher_pass": "hidden", "postgres_database": "other", "confirm": "other"}
    (shown,) = summary.of({"next": [LIST]}, given=given, extra_vars=[f"@{whole}", f"@{mixed}"])
    words = f"-e {shlex.quote(f'@{whole}')} -e postgres_database=other"
    assert shown == f"next         ansible-playbook {words} playbooks/list_backups.yml"


def test_elsewhere_the_playbooks_are_named_from_there(
    summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "docs")
    assert summary.of({"next": [LIST]}) == ["next         ansible-playbook ../playbooks/list_backups.yml"]


def test_a_check_ends_with_its_own_command_line(summary: Summary) -> None:
    section = {"lines": ["would take one"], "next": [LIST]}
    argv = """-i inventories/production -DC playbooks/restore.yml -e '{"target": "2026-02-08 10:30:00+07"}' --check"""
    want = """ansible-playbook -i inventories/production -D playbooks/restore.yml -e '{"target": "2026-02-08 10:30:00+07"}'"""
    assert summary.of(section, argv=argv, check=True, changed=1)[-1] == f"next         {want}"
    confirmed = summary.of({**section, "confirm": "production/a/d"}, argv=argv, check=True, changed=1)
    assert confirmed[-1] == f"next         {want} -e confirm=production/a/d"
    assert summary.of(section, argv=argv, check=True)[-1] == f"next         {LIST}"
    assert summary.of(section, argv=argv, check=True, changed=1, failure="It failed.")[-1] == f"next         {LIST}"


def test_a_wrong_confirmation_is_replaced(summary: Summary) -> None:
    argv = (
        "playbooks/restore.yml -e 'confirm=d what=database' --extra-vars=backup_cipher_pass=hidden -e restore_confirm=d"
    )
    shown = summary.of({"lines": ["plan"], "confirm": "production/a/d"}, argv=argv, failure="Nothing was done.")
    assert shown[-1] == (
        'next         ansible-playbook playbooks/restore.yml -e what=database -e backup_cipher_pass="${BACKUP_CIPHER_PASS:?}"'
        " -e confirm=production/a/d"
    )


def test_a_failure_of_arguments_says_which(summary: Summary) -> None:
    failure = "Validation of arguments failed:\nvalue of backup_type must be one of: full, incr, got: ful"
    told = summary.of({}, failure=failure)
    assert told == [
        "failed       Validation of arguments failed:",
        "value of backup_type must be one of: full, incr, got: ful",
    ]


def test_a_failure_is_shown_whole_and_once_below_the_sections(summary: Summary) -> None:
    section = {"lines": ["1_a applied in 3 ms", "failed: It failed."], "next": [LIST]}
    assert summary.of(section, failure="It failed.\n  file: a.sql\n\tx") == [
        "backup       1_a applied in 3 ms",
        "failed       It failed.",
        "file: a.sql",
        "x",
        f"next         {LIST}",
    ]
    assert summary.of({"lines": ["failed: It failed."]}, failure="It failed.") == ["failed       It failed."]


def test_lines_that_a_failure_has_are_not_repeated_in_a_section(summary: Summary) -> None:
    table = ["unexpected  index    urgent", "differs     default  language  expected 'KHMER'", "  live 'ENGLISH'"]
    section = {"lines": [*table, "exempt: 1 object"], "next": [LIST]}
    message = "\n".join(["2 objects differ.", *(f"  {line}" for line in table), "Undo it."])
    assert summary.of(section, failure=message) == [
        "backup       exempt: 1 object",
        "failed       2 objects differ.",
        *(line.strip() for line in table),
        "Undo it.",
        f"next         {LIST}",
    ]
    assert summary.report["hosts"]["here"]["sections"]["backup"]["lines"] == section["lines"]
    assert summary.of(section)[:3] == [f"backup       {table[0]}", *(line.strip() for line in table[1:])]


def test_a_report_that_can_t_be_written_ends_the_play_before_it_begins(tmp_path: Path) -> None:
    module = callback("dastern_report")
    (tmp_path / "file").touch()

    def begun(report_file: Any) -> list[str]:
        own, errors = module.CallbackModule(), []
        own._display = SimpleNamespace(error=errors.append)
        manager = SimpleNamespace(extra_vars={"report_file": report_file})
        play = SimpleNamespace(get_variable_manager=lambda: manager)
        if not module.unwritable(report_file):
            own.v2_playbook_on_play_start(play)
            return errors
        with pytest.raises(SystemExit) as ended:
            own.v2_playbook_on_play_start(play)
        assert ended.value.code == 1
        return errors

    for path in (tmp_path / "none" / "x.json", tmp_path, tmp_path / "file" / "x.json"):
        (words,) = begun(str(path))
        assert str(path) in words
        assert "Nothing was done" in words
    assert begun(str(tmp_path / "x.json")) == begun(None) == begun("") == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_the_usual_output_has_complete_commands_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"inventory": ["elsewhere"]}))
    output = callback("dastern_output").CallbackModule()
    told = {"msg": f"Run `{LIST}`.", "preflight": [LIST], "exception": f"Run `{LIST}`.", "ansible_stats": {}, "rc": 1}
    output._complete(SimpleNamespace(result=told))
    whole = "ansible-playbook -i elsewhere playbooks/list_backups.yml"
    assert told == {"msg": f"Run `{whole}`.", "preflight": [whole], "rc": 1}
    plain = {"msg": "It failed.", "exception": "It failed."}
    output._complete(SimpleNamespace(result=plain))
    assert plain == {"msg": "It failed.", "exception": "It failed."}
