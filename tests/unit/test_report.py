"""What the summary at the end of a play shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "plugins" / "callback" / "dastern_report.py"


def load() -> ModuleType:
    """The callback's module."""
    spec = importlib.util.spec_from_file_location("dastern_report", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shown() -> Any:
    """Displays one host's summary; the lines."""
    module = load()

    def show(section: dict[str, Any], given: dict[str, Any] | None = None, failure: str = "") -> list[str]:
        callback, lines = module.CallbackModule(), []
        callback._display = SimpleNamespace(display=lines.append)
        manager = SimpleNamespace(extra_vars=given or {})
        callback.v2_playbook_on_play_start(SimpleNamespace(get_variable_manager=lambda: manager))
        if failure:
            callback._failures["here"] = {"message": failure}
        callback._show("here", {"failed": bool(failure), "changed": 0, "sections": {"backup": section}}, 1.0)
        return [line.strip() for line in lines[1:]]

    return show


def test_commands_are_for_the_instance_that_was_named(shown: Any) -> None:
    section = {"lines": ["taken"], "next": ["ansible-playbook playbooks/list_backups.yml"]}
    given = {"postgres_container_name": "second one", "postgres_port": 5433, "backup_cipher_pass": "hidden"}
    assert shown(section)[-1] == "next         ansible-playbook playbooks/list_backups.yml"
    assert shown(section, given)[-1] == "each with    -e 'postgres_container_name=second one' -e postgres_port=5433"
    assert shown({"lines": ["taken"]}, given) == ["backup       taken"]


def test_a_failure_of_arguments_says_which(shown: Any) -> None:
    failure = "Validation of arguments failed:\nvalue of backup_type must be one of: full, incr, got: ful"
    told = shown({}, failure=failure)
    assert told == [
        "failed       Validation of arguments failed: value of backup_type must be one of: full, incr, got: ful"
    ]
    assert shown({}, failure="It failed.\nin detail") == ["failed       It failed."]


def test_a_report_that_can_t_be_written_ends_the_play_before_it_begins(tmp_path: Path) -> None:
    module = load()
    (tmp_path / "file").touch()

    def begun(report_file: Any) -> list[str]:
        callback, errors = module.CallbackModule(), []
        callback._display = SimpleNamespace(error=lambda words, wrap_text: errors.append(words))
        manager = SimpleNamespace(extra_vars={"report_file": report_file})
        play = SimpleNamespace(get_variable_manager=lambda: manager)
        if not module.unwritable(report_file):
            callback.v2_playbook_on_play_start(play)
            return errors
        with pytest.raises(SystemExit) as ended:
            callback.v2_playbook_on_play_start(play)
        assert ended.value.code == 1
        return errors

    for path in (tmp_path / "none" / "x.json", tmp_path, tmp_path / "file" / "x.json"):
        (words,) = begun(str(path))
        assert str(path) in words
        assert "Nothing was done" in words
    assert begun(str(tmp_path / "x.json")) == begun(None) == begun("") == []
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]
