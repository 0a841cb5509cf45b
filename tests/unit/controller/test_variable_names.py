"""Which variables pass: on the command line what something reads, in the inventory everybody's but for typing errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.module_utils.dastern.controller.variables import STATES, near_misses, role_names, short_names, unknown
from ansible.utils.context_objects import CLIArgs

ROOT = Path(__file__).resolve().parents[3]
PLAYBOOKS = [ROOT / "migrate.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
ROLES = role_names(ROOT)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`check(playbook, extra, inventory)`: what the action says."""
    spec = importlib.util.spec_from_file_location(
        "variable_names_action", ROOT / "plugins" / "action" / "variable_names.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.ActionBase, "run", lambda *_: None)
    monkeypatch.setattr(module.ActionBase, "validate_argument_spec", lambda *_, **__: None)

    def run(playbook: str, extra: dict[str, Any], inventory: dict[str, Any] | None = None) -> Any:
        monkeypatch.setattr(context, "CLIARGS", CLIArgs({"args": [str(ROOT / playbook)]}))
        monkeypatch.setattr(module, "load_extra_vars", lambda _: extra)
        action = module.ActionModule.__new__(module.ActionModule)
        action._loader, action._templar = None, SimpleNamespace(template=lambda value: value)
        return action.run(task_vars={**(inventory or {}), **extra})

    return run


def plays(path: Path) -> list[dict[str, Any]]:
    """The plays of a playbook in the order in which they run."""
    found = []
    for play in yaml.safe_load(path.read_text()):
        imported = play.get("ansible.builtin.import_playbook")
        found += plays(path.parent / imported) if imported else [play]
    return found


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_begins_with_the_check(path: Path) -> None:
    first = plays(path)[0]
    assert "variable_names" in first["tasks"][0]
    assert not first.get("roles")
    assert not first.get("pre_tasks")


@pytest.mark.parametrize(
    ("playbook", "wrong", "near"),
    [
        ("playbooks/restore.yml", "tagret", "target"),
        ("playbooks/restore.yml", "confrim", "confirm"),
        ("playbooks/backup.yml", "backuptype", "backup_type"),
        ("migrate.yml", "migration_dir", "migrations_dir"),
        ("playbooks/migration_status.yml", "postgres_prot", "postgres_port"),
        ("playbooks/site.yml", "target", None),
        ("playbooks/backup.yml", "_raw_params", None),
        ("playbooks/restore.yml", "nas01", None),
    ],
)
def test_a_name_that_nothing_reads_is_refused(check: Any, playbook: str, wrong: str, near: str | None) -> None:
    result = check(playbook, {wrong: "x", "postgres_port": 5432})
    assert result["failed"]
    assert (list(result["unknown"]), result["declared"]) == ([wrong], [])
    assert near is None or result["unknown"][wrong] == near


@pytest.mark.parametrize("name", ["ansible_check_mode", "ansible_diff_mode"])
def test_modes_are_set_by_their_options(check: Any, name: str) -> None:
    assert check("migrate.yml", {name: True})["unknown"].keys() == {name}
    assert check("migrate.yml", {"ansible_user": "x"})["near"] == {}


@pytest.mark.parametrize("name", sorted(STATES))
def test_what_roles_find_out_is_not_said_by_an_operator(check: Any, name: str) -> None:
    assert check("migrate.yml", {name: True})["unknown"].keys() == {name}
    assert check("migrate.yml", {}, {name: True}) == {"changed": False, "near": {}}


@pytest.mark.parametrize(
    ("playbook", "extra"),
    [
        ("playbooks/restore.yml", ["target", "what", "confirm", "undo", "_raw_params", "report_file"]),
        ("playbooks/restore.yml", ["backup_type", "seed_scale", "ansible_become", "postgres_image_reference"]),
        ("playbooks/plain_sql.yml", ["file", "into", "out"]),
        ("playbooks/reset.yml", ["confirm", "seed_allowed"]),
        ("playbooks/remove.yml", ["confirm", "postgres_remove_volume"]),
        ("playbooks/new_migration.yml", ["name", "down"]),
    ],
)
def test_what_is_read_passes(check: Any, playbook: str, extra: list[str]) -> None:
    assert check(playbook, dict.fromkeys(extra, "x")) == {"changed": False, "near": {}}


@pytest.mark.parametrize("listed", [["nas*", "site"], "nas01, nas_*,site"])
def test_exceptions_are_listed(check: Any, listed: Any) -> None:
    extra = {"nas01": 1, "nas_user": 2, "site": 3}
    if listed == ["nas*", "site"]:
        assert not check("migrate.yml", extra, {"dastern_foreign_variables": listed}).get("failed")
    assert not check("migrate.yml", {**extra, "dastern_foreign_variables": listed}).get("failed")
    assert check("migrate.yml", {"nat": 1}, {"dastern_foreign_variables": listed})["failed"]


def test_an_inventory_has_other_peoples_variables(check: Any) -> None:
    others = {"postgres_exporter_port": 9187, "backup_server": "nas01", "repository": "https://example.org", "seeds": 1}
    assert check("migrate.yml", {}, others) == {"changed": False, "near": {}}
    near = check("migrate.yml", {}, {**others, "postgres_prot": 1, "migration_dir": "x", "restore_undoo": 1})["near"]
    assert near == {
        "postgres_prot": "postgres_port",
        "migration_dir": "migrations_dir",
        "restore_undoo": "restore_undo",
    }
    assert check("migrate.yml", {}, {"postgres_prot": 1, "dastern_foreign_variables": ["postgres_prot"]})["near"] == {}


def test_an_inventory_confirms_nothing(check: Any) -> None:
    """Nor does it say which repository: a playbook would take other people's variable for its own."""
    inventory = {"confirm": "dastern", "repository": "https://example.org"}
    result = check("playbooks/restore.yml", {"target": "latest"}, inventory)
    assert (result["failed"], result["declared"]) == (True, ["confirm", "repository"])
    assert not check("playbooks/restore.yml", {"confirm": "dastern", "repository": 1}, inventory).get("failed")


def test_short_names_are_collected_from_the_playbooks(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text(
        "- hosts: a\n  vars: {restore_into: \"{{ somewhere | default('') }}\"}\n  tasks:\n"
        '    - {debug: {msg: "{% if deep.er %}{{ postgres_port }}{% endif %}"}, when: sometimes | bool}\n'
    )
    (tmp_path / "two.yml").write_text("- import_playbook: one.yml\n  when: again is defined\n")
    assert short_names([tmp_path / "two.yml"], ROLES) == {"somewhere", "deep", "sometimes", "again"}
    every = short_names(PLAYBOOKS, ROLES)
    assert {"target", "what", "into", "confirm", "label", "undo", "to", "state", "upto", "source"} <= every


def test_the_nearest_name_is_known() -> None:
    known = {"postgres_port", "target"}
    assert unknown(["postgres_prot", "tagret", "frobnicate", "ansible_user", "target"], known) == {
        "frobnicate": None,
        "postgres_prot": "postgres_port",
        "tagret": "target",
    }
    assert near_misses(["postgres_port", "postgres_prots", "postgres_prxyz", "prot"], known) == {
        "postgres_prots": "postgres_port"
    }


def test_every_role_is_known() -> None:
    for name in ("postgres_container_name", "postgres_volume_name", "postgres_port", "postgres_database"):
        assert name in ROLES
    for name in ("postgres_app_user", "migrations_dir", "backend_env_file", "postgres_image_source", "seed_scale"):
        assert name in ROLES
