"""What a module documents is what it takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
MODULES = sorted((PLUGINS / "modules").glob("*.py"))


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"module_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented(module: Any) -> dict[str, Any]:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    options: dict[str, Any] = documentation.get("options", {})
    for fragment in documentation.get("extends_documentation_fragment", []):
        shared = load(PLUGINS / "doc_fragments" / f"{fragment}.py").ModuleDocFragment.DOCUMENTATION
        options = {**options, **yaml.safe_load(shared)["options"]}
    assert {"check_mode", "diff_mode", "idempotent"} <= set(documentation["attributes"])
    return options


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_documentation_is_the_argument_spec(path: Path) -> None:
    module = load(path)
    options = documented(module)
    if not hasattr(module, "ARGUMENT_SPEC"):
        return  # said once, in `main`
    assert set(options) == set(module.ARGUMENT_SPEC)
    for name, option in module.ARGUMENT_SPEC.items():
        for key in ("type", "default", "required", "choices"):
            wanted = option.get(key)
            assert options[name].get(key) == wanted or (key == "required" and not wanted), (name, key)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("backup", "take"),
        ("backup_setup", "setup"),
        ("backup_verify", "verify"),
        ("backup_zero_loss", "keep"),
        ("restore", "restore"),
    ],
)
def test_the_host_s_journal_has_how_far_a_module_is(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    module = load(PLUGINS / "modules" / f"{name}.py")
    ansible = SimpleNamespace(params={}, check_mode=False, log=said.append, exit_json=lambda **_: None)
    monkeypatch.setattr(module, "AnsibleModule", lambda **_: ansible)
    monkeypatch.setattr(module, function, lambda *_, say, **__: say("half way") or {})
    module.main()
    assert said == ["half way"]
