"""The worked examples for staging and production: they parse, and every value is what its role wants.

And what a mistyped inventory, limit or variable does: nothing.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Validation happens on the controller: no host of an example is ever connected to.
VALIDATE = """\
- hosts: dastern
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: postgres, tasks_from: connection}
    - ansible.builtin.include_vars: {file: "{{ item }}", name: declared}
      loop: "{{ query('ansible.builtin.fileglob', root ~ '/inventories/' ~ dastern_environment ~ '/group_vars/*.yml') }}"
    - ansible.builtin.validate_argument_spec:
        argument_spec: >-
          {{ (lookup('ansible.builtin.file', root ~ '/roles/' ~ item ~ '/meta/argument_specs.yml')
              | from_yaml).argument_specs.main.options }}
        provided_arguments: >-
          {{ declared | dict2items | selectattr('key', 'in', (lookup('ansible.builtin.file',
             root ~ '/roles/' ~ item ~ '/meta/argument_specs.yml') | from_yaml).argument_specs.main.options)
             | items2dict | combine({'dastern_environment': dastern_environment} if item in ['postgres', 'seed'] else {}) }}
      loop: [docker_engine, postgres_image, postgres, migrations, seed]
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_every_playbook_parses(environment: str) -> None:
    playbooks = ["migrate.yml", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "playbooks").glob("*.yml")))]
    done = run("-i", f"inventories/{environment}", "--syntax-check", *playbooks)
    assert done.returncode == 0, done.stderr
    for playbook in playbooks:
        assert f"playbook: {playbook}" in done.stdout


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_every_value_is_what_its_role_wants(environment: str, tmp_path: Path) -> None:
    playbook = tmp_path / "validate.yml"
    playbook.write_text(VALIDATE)
    done = run("-i", f"inventories/{environment}", "-e", f"root={ROOT}", str(playbook))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_report_without_its_folder_ends_the_play_before_its_first_task(tmp_path: Path) -> None:
    playbook, touched, folder = tmp_path / "play.yml", tmp_path / "touched", tmp_path / "none"
    options = ["-i", "localhost,", "-c", "local", "-e", f"report_file={folder}/x.json"]
    options += ["-e", f"ansible_python_interpreter={sys.executable}"]
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.copy: {{dest: {touched}, content: '', mode: '0600'}}\n"
    )
    done = run(*options, str(playbook))
    assert done.returncode != 0
    assert f"mkdir -p {folder}" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr
    assert [folder.exists(), touched.exists()] == [False, False]
    folder.mkdir()
    done = run(*options, str(playbook))
    assert done.returncode == 0, done.stderr
    assert (folder / "x.json").exists()


def test_a_wrong_value_would_be_found(tmp_path: Path) -> None:
    playbook = tmp_path / "validate.yml"
    wrong = "combine({'postgres_port': 'harbour'} if item == 'postgres' else {}) | combine({"
    playbook.write_text(VALIDATE.replace("combine({", wrong))
    done = run("-i", "inventories/production", "-e", f"root={ROOT}", str(playbook))
    assert done.returncode != 0
    assert "postgres_port" in done.stdout + done.stderr


# --- one wrong word does nothing

PLAYBOOKS = ["migrate.yml", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "playbooks").glob("*.yml")))]
HOSTS = """\
dastern:
  hosts:
    dastern-production: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}
others:
  hosts:
    another: {ansible_connection: local}
"""


@pytest.fixture
def production(tmp_path: Path) -> Path:
    """A copy of the example whose hosts are this machine, in a folder with a blank in its name."""
    copy = tmp_path / "my inventories" / "production"
    shutil.copytree(ROOT / "inventories" / "production", copy)
    (copy / "hosts.yml").write_text(HOSTS)
    return copy


def reported(done: subprocess.CompletedProcess[str], report: Path) -> dict[str, Any]:
    assert report.exists(), done.stdout + done.stderr
    return dict(json.loads(report.read_text()))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_run_without_hosts_fails(playbook: str, production: Path) -> None:
    """Of a play whose hosts are all outside the limit Ansible itself says rc 0."""
    done = run("-i", str(production), "--limit", "another", playbook)
    assert (done.returncode, "PLAY [" in done.stdout) == (1, False), done.stdout
    for word in ("`dastern`", "`another`", "dastern-production", "production matches"):
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-i", "inventories/prod"], ["inventories/prod", "inventories/production", "inventories/staging"]),
        (["-i", "inventories/production", "-i", "inventories/prod"], ["inventories/prod", "inventories/production"]),
        (["-i", "README.md"], ["README.md"]),
        (["-i", "localhost,"], ["`dastern`", "localhost"]),
        (["--limit", "prod"], ["prod"]),
        (["--limit", "localhost,prod"], ["prod"]),
    ],
)
def test_an_inventory_or_limit_that_is_none_fails(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments, "playbooks/status.yml")
    assert done.returncode != 0
    assert "PLAY [" not in done.stdout
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "unknown"),
    [
        (["-e", 'tagret="2026-11-30 13:38:00+07"', "-e", "confirm=dastern"], "target"),
        (["-e", "@{file}"], "confirm"),
    ],
)
def test_a_mistyped_variable_stops_before_anything(
    arguments: list[str], unknown: str, production: Path, tmp_path: Path
) -> None:
    (tmp_path / "file.yml").write_text("confrim: dastern\n")
    report = tmp_path / "report.json"
    given = [one.format(file=tmp_path / "file.yml") for one in arguments]
    done = run("-i", str(production), "playbooks/restore.yml", *given, "-e", f"report_file={report}")
    result = reported(done, report)
    assert (done.returncode, {host["counts"]["ok"] for host in result["hosts"].values()}) == (2, {0}), done.stdout
    (failure,) = result["failures"]
    assert f"Did you mean `{unknown}`?" in failure["message"]


def test_other_peoples_variables_pass_in_an_inventory(production: Path, tmp_path: Path) -> None:
    (production / "group_vars" / "all.yml").write_text(
        "postgres_exporter_port: 9187\nbackup_server: nas01\npostgres_prot: 1\n"
    )
    folder = tmp_path / "migrations"
    folder.mkdir()
    new = ("playbooks/new_migration.yml", "-e", f"migrations_dir={folder}", "-e", "migration_name=add_it", "--check")
    done = run("-i", str(production), *new)
    assert done.returncode == 0, done.stdout
    assert "`postgres_prot`" in done.stderr
    assert "postgres_exporter_port" not in done.stderr
    assert "backup_server" not in done.stderr
    foreign = ("-e", "backup_server=nas01")
    assert run("-i", str(production), *new, *foreign).returncode == 2
    listed = run("-i", str(production), *new, *foreign, "-e", "dastern_foreign_variables=backup_server,postgres_prot")
    assert (listed.returncode, "`postgres_prot`" in listed.stderr) == (0, False), listed.stdout


def test_a_printed_command_acts_on_the_same_host(production: Path, tmp_path: Path) -> None:
    """Pasted into a shell it reaches the host and the instance that the run was for."""
    report = tmp_path / "report.json"
    here = (
        "-e",
        "ansible_become=false",
        "-e",
        "postgres_container_name=dastern-test-none",
        "-e",
        f"report_file={report}",
    )
    asked = ("-i", str(production), "--limit", "dastern-production", "playbooks/status.yml", *here)
    done = run(*asked, "-e", f"postgres_config_dir={tmp_path}/none")
    host = reported(done, report)["hosts"]["dastern-production"]
    command = next(one for one in host["next"] if "provision.yml" in one)
    assert f"-i '{production}' --limit dastern-production" in command
    assert "-e postgres_container_name=dastern-test-none" in command
    assert "report_file" not in command
    assert command in done.stdout
    pasted = subprocess.run(
        ["sh", "-c", f"{command} --list-hosts"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (pasted.returncode, "dastern-production" in pasted.stdout) == (0, True), pasted.stderr
