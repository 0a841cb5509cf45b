"""What `ansible-playbook` prints with both callbacks: each change is a line, each failure is shown once, nothing is hidden."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PROGRAM = str(Path(sys.executable).with_name("ansible-playbook"))
PLUGIN = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return {**super().run(tmp, task_vars), **self._task.args}
"""
"""An action that returns what it is given."""
SAME = {"name": "Leave it", "give": {"changed": False, "inside": "a fact"}}
CHANGED = {"name": "Change it", "give": {"changed": True, "inside": "a fact"}}
REFUSED = {"name": "Refuse it", "give": {"failed": True, "msg": "It is refused.\n  line: 7", "inside": "a fact"}}
MESSAGE = ["It is refused.", "  line: 7"]


class Run:
    """A run of a playbook of somebody else on hosts `a`, …; with `report` it ends with a summary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path, self._report = folder / "playbook.yml", folder / "report.json"
        (folder / "action_plugins").mkdir()
        (folder / "action_plugins" / "give.py").write_text(PLUGIN)

    def command(
        self, tasks: list[Any], *arguments: str, report: bool = True, hosts: str = "a", **play: Any
    ) -> list[str]:
        self.path.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks, **play}]))
        own = ["-e", f"report_file={self._report}"] if report else []
        return [PROGRAM, "-i", f"{hosts},", "-c", "local", *own, *arguments, str(self.path)]

    def __call__(
        self, tasks: list[Any], *arguments: str, rc: int = 0, environment: dict[str, str] | None = None, **options: Any
    ) -> list[str]:
        """Return the lines of both outputs, of which the summary begins with `Das Tern`."""
        done = subprocess.run(
            self.command(tasks, *arguments, **options), cwd=self._folder, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment(**environment or {}),
        )  # fmt: skip
        assert done.returncode == rc, done.stdout
        return [line.rstrip() for line in done.stdout.split("\n") if line.strip()]

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "NO_COLOR"))}
        return {**clean, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "TERM": "xterm", **more}

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads(self._report.read_text()))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def parts(lines: list[str]) -> tuple[list[str], list[str]]:
    """Return the lines of the tasks, and those of the summary without its seconds."""
    start = next(number for number, line in enumerate(lines) if line.startswith("Das Tern"))
    return lines[:start], lines[start:]


def test_only_what_changed_is_a_line(run: Run) -> None:
    tasks = [
        SAME,
        {**CHANGED, "name": "Skip it", "when": False},
        {**CHANGED, "notify": "Handle it"},
        {"name": "Loop", "give": {"changed": "{{ item != 'two' }}"}, "loop": ["one", "two", "three"]},
        {"name": "Rows", "give": {"changed": True}, "loop": [{"id": 1}, {"id": 2}]},
    ]
    before, summary = parts(run(tasks, name="Play", handlers=[{**CHANGED, "name": "Handle it"}]))
    assert before == [
        "PLAY [Play]",
        "changed: [a] Change it",
        "changed: [a] Loop (one, three)",
        "changed: [a] Rows (2 items)",
        "changed: [a] Handle it",
    ]
    assert " · a · 4 changed · " in summary[0]
    counts = run.report["hosts"]["a"]["counts"]
    assert (counts["ok"], counts["changed"], counts["skipped"]) == (5, 4, 1)


def test_words_for_the_reader_stay(run: Run) -> None:
    tasks = [
        {"name": "Tell", "debug": {"msg": "would install it"}},
        {"name": "Show", "debug": {"var": "x"}},
        {"name": "Each", "debug": {"msg": "{{ item }}"}, "loop": ["p", "q"]},
        {"name": "Warn", "give": {"changed": False, "warnings": ["Mind the gap."]}},
        {"name": "Assert", "assert": {"that": [True]}},
    ]
    before, _ = parts(run(tasks, "-e", "x=7", name="Play"))
    assert before == [
        "PLAY [Play]",
        "ok: [a] Tell", "    would install it",
        "ok: [a] Show", "        x: '7'",
        "ok: [a] Each", "    p", "ok: [a] Each", "    q",
        "[WARNING]: Mind the gap.",
    ]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_a_diff_stands_below_its_task(more: list[str], run: Run) -> None:
    diff = [{"before": "", "after": "one \x1b[2J\n", "after_header": "a\nb"}, {"prepared": "+two\n"}]
    tasks = [{"name": "Write it", "give": {"changed": True, "diff": diff}}, {**SAME, "give": {"diff": diff}}]
    before, summary = parts(run(tasks, "--diff", *more, name="Play"))
    assert before == [
        "PLAY [Play]", "changed: [a] Write it",
        "--- before", "+++ after: a\\nb", "@@ -0,0 +1 @@", "+one \\x1b[2J", "+two",
    ]  # fmt: skip
    assert ("check mode" in summary[0]) == bool(more)


def test_a_failure_is_the_end_of_the_summary(run: Run) -> None:
    before, summary = parts(run([CHANGED, REFUSED, CHANGED], rc=2, name="Play"))
    assert before == ["PLAY [Play]", "changed: [a] Change it", "failed: [a] Refuse it"]
    assert " · a · failed, 1 changed · " in summary[0]
    assert [line[15:] for line in summary[1:]] == MESSAGE
    assert run.report["failures"] == [{"host": "a", "task": "Refuse it", "message": "\n".join(MESSAGE)}]


def test_without_a_summary_the_task_shows_its_failure(run: Run) -> None:
    lines = run([REFUSED], rc=2, report=False, name="Play")
    assert lines[:4] == ["PLAY [Play]", "failed: [a] Refuse it", *(f"    {line}" for line in MESSAGE)]
    assert lines[4].startswith("PLAY RECAP")
    assert "failed=1" in lines[5]
    assert len(lines) == 6


@pytest.mark.parametrize("report", [True, False])
def test_verbose_is_ansibles_own(report: bool, run: Run) -> None:
    skipped = {**CHANGED, "name": "Skip it", "when": False}
    text = "\n".join(run([SAME, skipped, REFUSED], "-v", rc=2, report=report))
    for word in (
        "TASK [Leave it] *",
        "ok: [a] =>",
        "inside: a fact",
        "skipping: [a]",
        "FAILED! =>",
        "PLAY RECAP",
        "ok=1 ",
    ):
        assert word in text
    assert ("Das Tern" in text) == report


def test_ignored_and_rescued_failures_are_shown_but_not_counted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "within.yml").write_text(yaml.safe_dump([{**REFUSED, "name": "Within"}]))
    tasks = [
        {**REFUSED, "ignore_errors": True},
        {"block": [{"block": [{"include_tasks": "within.yml"}], "always": [SAME]}], "rescue": [CHANGED]},
    ]
    before, summary = parts(run(tasks, name="Play"))
    shown = [f"    {line}" for line in MESSAGE]
    assert before == [
        "PLAY [Play]",
        "ignored: [a] Refuse it", *shown,
        "rescued: [a] Within", *shown,
        "changed: [a] Change it",
    ]  # fmt: skip
    assert (len(summary), run.report["failures"]) == (1, [])
    assert run.report["hosts"]["a"]["counts"]["rescued"] == 1


def test_what_fails_in_rescue_and_always_is_failed(run: Run) -> None:
    again = [{**REFUSED, "name": name, "give": {"failed": True, "msg": name}} for name in ("In rescue", "In always")]
    tasks = [{"block": [REFUSED], "rescue": again[:1], "always": again[1:]}]
    before, summary = parts(run(tasks, rc=2))
    assert [line for line in before if line.startswith(("failed", "rescued"))] == [
        "rescued: [a] Refuse it", "failed: [a] In rescue", "failed: [a] In always",
    ]  # fmt: skip
    assert [line[15:] for line in summary[1:]] == ["In rescue", "In always"]


def test_each_failed_item_says_why(run: Run) -> None:
    loop = {"failed": "{{ item != 'two' }}", "msg": "no {{ item }}"}
    before, summary = parts(run([{"name": "Loop", "give": loop, "loop": ["one", "two", "three"]}], rc=2))
    assert before[1:] == ["failed: [a] Loop"]
    assert [line[15:] for line in summary[1:]] == ["one: no one", "three: no three"]


def test_what_other_modules_say_is_shown(run: Run) -> None:
    tasks = [
        {"name": "Run it", "give": {"failed": True, "msg": "non-zero", "rc": 3, "cmd": ["x", "y"], "stderr": "bad\tend\n", "stdout": ""}},
        {"name": "Assert it", "assert": {"that": ["1 == 2"]}},
        {"name": "Lack it", "debug": {"msg": "{{ nothing }}"}},
        {"name": "Hide it", "give": {"failed": True, "msg": "secret"}, "no_log": True},
        {"name": "Say nothing", "fail": {"msg": ""}},
        {"name": "Choose it", "give": {}, "failed_when": True},
    ]  # fmt: skip
    lines = run([{**task, "ignore_errors": True} for task in tasks], report=False)
    text = "\n".join(lines)
    for word in (
        "cmd: x y",
        "rc: 3",
        "stderr: bad",
        "assertion: 1 == 2",
        "'nothing' is undefined",
        "failed_when_result: True",
    ):
        assert text.count(word) == 1, text
    assert f"    at {run.path}:" in text
    assert "stdout:" not in text
    assert "secret" not in text
    place = lines.index("ignored: [a] Say nothing")
    assert lines[place + 1].startswith(("    no reason", "    Task failed:"))  # as core 2.19 and core 2.21 leave it


def test_every_host_has_its_own_end_and_failed_ones_are_last(run: Run) -> None:
    tasks = [
        {**REFUSED, "when": "inventory_hostname == 'a'"},
        {"name": "Reach it", "give": {"unreachable": True, "msg": "away"}, "when": "inventory_hostname == 'b'"},
        CHANGED,
    ]
    before, summary = parts(run(tasks, rc=4, hosts="a,b,c"))
    assert before[1:] == ["failed: [a] Refuse it", "unreachable: [b] Reach it", "changed: [c] Change it"]
    heads = [line.split(" · ")[2:4] for line in summary if line.startswith("Das Tern")]
    assert heads == [["c", "1 changed"], ["a", "failed"], ["b", "unreachable"]]
    assert {failure["host"]: failure["message"] for failure in run.report["failures"]}["b"] == "away"


def test_arguments_that_fail_name_their_errors_only(run: Run, tmp_path: Path) -> None:
    role = tmp_path / "roles" / "some"
    for name, text in (
        ("meta/argument_specs.yml", {"argument_specs": {"main": {"options": {"port": {"type": "int"}, "other": {"type": "str"}}}}}),
        ("tasks/main.yml", [SAME]),
    ):  # fmt: skip
        (role / name).parent.mkdir(parents=True)
        (role / name).write_text(yaml.safe_dump(text))
    lines = run([], "-e", "port=x", rc=2, roles=["some"], environment={"ANSIBLE_ROLES_PATH": str(tmp_path / "roles")})
    _, summary = parts(lines)
    assert len(summary) == 3
    assert "'port'" in summary[2]
    assert not [line for line in lines if "other" in line]


@pytest.mark.parametrize("report", [True, False])
def test_no_name_moves_the_cursor(report: bool, run: Run) -> None:
    name = "row \x1b[2J\u202e end"
    tasks = [
        {"name": "Change it", "give": {"changed": True}, "loop": [name]},
        {"name": "Tell it", "debug": {"msg": name}},
        {"name": "Refuse it", "give": {"failed": True, "msg": name, "stderr": f"{name}\r"}},
    ]
    text = "\n".join(run(tasks, rc=2, report=report))
    assert ("\x1b" in text, "\u202e" in text, "\r" in text) == (False, False, False)
    assert text.count("row \\x1b[2J\\u202e end") == 4


def test_colours_are_for_a_terminal_that_wants_them(run: Run) -> None:
    command = run.command([CHANGED, REFUSED])

    def seen(**environment: str) -> bytes:
        control, terminal = pty.openpty()
        with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=run.environment(**environment)) as process:
            os.close(terminal)
            output = b""
            try:
                while piece := os.read(control, 65536):
                    output += piece
            except OSError:  # the last one closed it
                pass
        os.close(control)
        assert process.returncode == 2, output
        return output

    assert b"\x1b[0;33mchanged: [a] Change it\x1b[0m" in seen()
    plain = seen(NO_COLOR="1")
    assert (b"changed: [a] Change it" in plain, b"\x1b" in plain) == (True, False)
    assert not [line for line in run([CHANGED]) if "\x1b" in line]


def test_each_item_of_a_loop_shows_its_diff(run: Run) -> None:
    """Which item is the last says nothing of the others."""
    diff = {"before": "", "after": "{{ item }}\n"}
    tasks = [
        {
            "name": "Write",
            "give": {"changed": "{{ item != 'same' | string }}", "diff": diff},
            "loop": ["one", "two", "same"],
        }
    ]
    text = "\n".join(run(tasks, "--diff"))
    assert [text.count(line) for line in ("+one", "+two", "+same")] == [1, 1, 0], text


def test_an_include_that_fails_says_why(run: Run) -> None:
    text = "\n".join(run([{"name": "Include", "include_tasks": "nowhere.yml"}], rc=2))
    assert "no reason given" not in text
    assert "nowhere.yml" in text


def test_a_hangup_that_is_ignored_stays_ignored(run: Run) -> None:
    """A run under nohup outlives its terminal."""
    command = run.command([{"name": "Wait", "pause": {"seconds": 2}}, CHANGED])
    process = subprocess.Popen(
        ["nohup", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=run.environment(),
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    while "Pausing" not in (line := process.stdout.readline()):
        assert line, "it ended"
    os.kill(process.pid, signal.SIGHUP)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 0, text
    assert "changed: [a] Change it" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_cut_short_still_shows_its_failures(run: Run, number: signal.Signals) -> None:
    tasks = [{**REFUSED, "when": "inventory_hostname == 'a'"}, {"name": "Wait", "pause": {"seconds": 60}}]
    command = run.command(tasks, hosts="a,b")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=run.environment(),
        stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    while "Pausing" not in (line := process.stdout.readline()):
        assert line, "it ended"
    time.sleep(0.5)
    os.kill(process.pid, number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert [text.count(line) for line in MESSAGE] == [1, 1], text


def test_a_playbook_of_the_project_says_a_refusal_once(tmp_path: Path) -> None:
    command = [PROGRAM, "migrate.yml", "-e", "postgres_prt=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=Run.environment())
    before, summary = parts([line for line in done.stdout.splitlines() if line])
    assert (done.returncode, len(before), len(summary)) == (2, 2, 2), done.stdout
    assert summary[1].startswith("  failed       ")
    assert (done.stdout + done.stderr).count("`postgres_port`") == 1
