"""The worked examples for staging and production: they parse, and every value is what its role wants."""

import os
import subprocess
import sys
from pathlib import Path

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
