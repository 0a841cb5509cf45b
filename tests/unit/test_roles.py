"""What a role declares is what it does: argument specifications, defaults, inventories, collections."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import ansible_collections
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "path": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "dict": dict,
    "list": list,
    "raw": object,
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8")) if path.exists() else None


def specs(role: Path) -> dict[str, Any]:
    found = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_default_is_specified_with_the_same_value_and_type(role: Path) -> None:
    defaults = load(role / "defaults" / "main.yml") or {}
    specified: dict[str, Any] = {}
    for entry_point in specs(role).values():
        for name, option in entry_point.get("options", {}).items():
            assert specified.setdefault(name, option) == option, f"{name} differs between entry points"
    assert {name for name, option in specified.items() if not option.get("required")} == set(defaults)
    for name, value in defaults.items():
        assert specified[name]["default"] == value, name
        assert type(specified[name]["default"]) is type(value), name
        assert specified[name]["description"], name
        template = isinstance(value, str) and "{{" in value
        assert template or isinstance(value, TYPES[specified[name]["type"]]), name
        assert not (isinstance(value, bool) and specified[name]["type"] == "int"), name
        if "choices" in specified[name]:
            assert template or value in specified[name]["choices"], name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_public_variable_carries_its_roles_name(role: Path) -> None:
    for name in load(role / "defaults" / "main.yml") or {}:
        # `backend_env_file` and `dastern_environment` are names that users know from elsewhere.
        assert name.startswith(f"{role.name}_") or name in ("backend_env_file", "dastern_environment"), name
    for name in load(role / "vars" / "main.yml") or {}:
        assert name.startswith(f"__{role.name}_"), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_is_a_file_and_says_what_it_does(role: Path) -> None:
    for name, entry_point in specs(role).items():
        assert (role / "tasks" / f"{name}.yml").exists()
        assert entry_point["short_description"]


def test_every_entry_point_that_a_playbook_calls_is_specified() -> None:
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in load(path):
            for task in play.get("tasks", []):
                if role := task.get("ansible.builtin.import_role"):
                    assert role.get("tasks_from", "main") in specs(ROOT / "roles" / role["name"]), path.name


@pytest.mark.parametrize("environment", ["development", "staging", "production"])
def test_inventories_set_only_what_roles_know(environment: str) -> None:
    known = {name for role in ROLES for point in specs(role).values() for name in point.get("options", {})}
    found = load(ROOT / "inventories" / environment / "group_vars" / "dastern.yml")
    assert found["dastern_environment"] == environment
    for name, value in found.items():
        assert name in known, name
        option = next(
            point["options"][name]
            for role in ROLES
            for point in specs(role).values()
            if name in point.get("options", {})
        )
        assert isinstance(value, TYPES[option["type"]]), name
        assert "choices" not in option or value in option["choices"], name


def test_production_is_never_seedable() -> None:
    assert "seed_allowed" not in load(ROOT / "inventories/production/group_vars/dastern.yml")
    assert load(ROOT / "roles/seed/defaults/main.yml")["seed_allowed"] is False


def test_installed_collections_are_in_the_ranges_asked_for() -> None:
    for wanted in load(ROOT / "requirements.yml")["collections"]:
        namespace, name = wanted["name"].split(".")
        for folder in ansible_collections.__path__:
            manifest = Path(folder) / namespace / name / "MANIFEST.json"
            if manifest.exists():
                found = yaml.safe_load(manifest.read_text("utf-8"))["collection_info"]["version"]
                assert found in SpecifierSet(wanted["version"]), wanted["name"]
                break
        else:
            pytest.fail(f"{wanted['name']} is not installed")


def test_pinned_packages_are_the_installed_ones() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith(("#", "-")):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                assert str(requirement.specifier) == f"=={version(requirement.name)}"
