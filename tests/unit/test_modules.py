"""What a module documents is what it takes."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.dastern.controller.host_action import INSTANCE
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
INSTANCE_CHOICES = ["development", "staging", "production"]
MODULES = sorted((PLUGINS / "modules").glob("*.py"))
DOCUMENTED = [
    path
    for folder in ("modules", "doc_fragments", "callback", "inventory")
    for path in sorted((PLUGINS / folder).glob("*.py"))
]


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"module_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented(module: Any) -> dict[str, Any]:
    """The options that a module documents."""
    documentation = yaml.safe_load(module.DOCUMENTATION)
    options: dict[str, Any] = documentation.get("options", {})
    for fragment in documentation.get("extends_documentation_fragment", []):
        shared = load(PLUGINS / "doc_fragments" / f"{fragment}.py").ModuleDocFragment.DOCUMENTATION
        options = {**options, **yaml.safe_load(shared).get("options", {})}
    assert {"check_mode", "diff_mode", "idempotent"} <= set(documentation["attributes"])
    return options


@cache
def taken(path: Path) -> dict[str, Any]:
    """The options that a module takes; of one that is documentation alone those that its action plugin takes."""
    got: list[dict[str, Any]] = []

    def build(*_: Any, argument_spec: dict[str, Any], **__: Any) -> None:
        got.append(argument_spec)
        raise SystemExit

    module = load(path)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(module, "main"):
            patch.setattr(module, "HostModule" if hasattr(module, "HostModule") else "AnsibleModule", build)
            run = module.main
        else:
            plugin = load(PLUGINS / "action" / path.name).ActionModule
            patch.setattr(ActionBase, "run", lambda *_: {})
            patch.setattr(ActionBase, "validate_argument_spec", build)
            action = plugin.__new__(plugin)
            action._task = SimpleNamespace(args={}, _role=None)
            run = action.run
        with pytest.raises(SystemExit):
            run()
    (spec,) = got
    return spec


OF_OPTION = {"description", "type", "default", "required", "choices", "elements", "suboptions"}
OF_RESULT = {"description", "type", "returned", "sample", "elements", "contains"}
OF_ATTRIBUTE = {"description", "support"}


def malformed(entries: dict[str, Any], keys: set[str], within: str = "") -> list[str]:
    """Entries with a key that isn't one of `keys`, or a description that isn't text.

    `{description: One, two., type: str}` is a description `One` and a key `two.` without a value to YAML.
    """
    found = []
    for name, entry in entries.items():
        path = f"{within}{name}"
        found += [f"{path}: {key}" for key in entry if key not in keys]
        texts = entry.get("description")
        if not texts or not all(isinstance(text, str) for text in (texts if isinstance(texts, list) else [texts])):
            found.append(f"{path}: description")
        found += malformed(entry.get("suboptions") or entry.get("contains") or {}, keys, f"{path}.")
    return found


def differing(options: dict[str, Any], spec: dict[str, Any], within: str = "") -> list[str]:
    """What of the documented `options` isn't as in `spec`."""
    found = [f"{within}{name}" for name in options.keys() ^ spec.keys()]
    for name in options.keys() & spec.keys():
        said, wanted = options[name], spec[name]
        for key in ("type", "default", "required", "choices", "elements"):
            one, other = said.get(key), wanted.get(key)
            if key == "required":
                one, other = bool(one), bool(other)
            if (type(one), one) != (type(other), other):
                found.append(f"{within}{name}: {key}")
        found += differing(said.get("suboptions") or {}, wanted.get("options") or {}, f"{within}{name}.")
    return found


def variables(module: str) -> dict[str, dict[str, Any]]:
    """Return what the roles whose tasks call `module` declare, by the option that an action plugin gives it as."""
    options: dict[str, dict[str, Any]] = {}
    declared: dict[str, dict[str, Any]] = {}
    for role in sorted((PLUGINS.parent / "roles").iterdir()):
        specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))["argument_specs"]
        own = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
        declared |= own
        if any(f"\n  {module}:" in path.read_text("utf-8") for path in (role / "tasks").glob("*.yml")):
            options |= {name.removeprefix(f"{role.name}_"): option for name, option in own.items()}
    options |= {option: declared[name] for option, name in INSTANCE.items() if name in declared}
    return {**options, "endpoint": {"type": "str"}, "password_file": {"type": "path"}, "image": {"type": "str"}}


def alike(variable: dict[str, Any], option: dict[str, Any]) -> bool:
    """Return whether a variable may be handed over as an option: a path is text to a role."""
    types = {variable["type"], option["type"]}
    same = len(types) == 1 or types == {"str", "path"}
    return same and variable.get("choices") in (option.get("choices"), INSTANCE_CHOICES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_an_option_is_documented_once_by_the_module_or_by_a_role(path: Path) -> None:
    options, spec = documented(load(path)), taken(path)
    rest = {name: option for name, option in spec.items() if name not in options}
    assert differing(options, {name: option for name, option in spec.items() if name in options}) == []
    if rest:
        assert "variables" in yaml.safe_load(load(path).DOCUMENTATION)["extends_documentation_fragment"]
    known = variables(path.stem)
    assert [name for name, option in rest.items() if name not in known or not alike(known[name], option)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_documentation_is_read_as_it_was_written(path: Path) -> None:
    module = load(path)
    assert malformed(documented(module), OF_OPTION) == []
    assert malformed(yaml.safe_load(module.DOCUMENTATION)["attributes"], OF_ATTRIBUTE) == []
    assert malformed(yaml.safe_load(module.RETURN) or {}, OF_RESULT) == []


def repeated_keys(text: str) -> list[str]:
    """Return the keys that a mapping in a YAML text has more than once, of which YAML takes the last."""
    keys: list[str] = []
    nodes = [yaml.compose(text)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            keys += [name for name in dict.fromkeys(names) if names.count(name) > 1]
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    return keys


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_no_key_of_a_documentation_is_repeated(path: Path) -> None:
    module = load(path)
    texts = [getattr(module, name, "") for name in ("DOCUMENTATION", "EXAMPLES", "RETURN")]
    if path.parent.name == "doc_fragments":
        texts = [module.ModuleDocFragment.DOCUMENTATION]
    assert any(texts)
    assert [key for text in texts for key in repeated_keys(text)] == []


def test_a_repeated_key_is_found() -> None:
    assert repeated_keys("{options: {a: {type: str}}, options: {}}") == ["options"]
    assert repeated_keys("[{a: {b: 1, c: 2, b: 3}}]") == ["b"]
    assert repeated_keys("{a: {type: str}, b: {type: str}}") == repeated_keys("") == []


def test_a_description_that_a_comma_cuts_is_found() -> None:
    assert malformed(yaml.safe_load("{a: {description: One, two., type: str}}"), OF_OPTION) == ["a: two."]
    assert malformed(yaml.safe_load('{a: {description: "One, two.", type: str}}'), OF_OPTION) == []
    assert malformed(yaml.safe_load("{a: {description: [One: two.]}}"), OF_OPTION) == ["a: description"]
    inside = "{a: {description: One., suboptions: {b: {description: One, two.}}}}"
    assert malformed(yaml.safe_load(inside), OF_OPTION) == ["a.b: two."]


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


SENT = [
    {"name": "1_a", "sql": "SELECT 'text of up';", "down": "SELECT 'text of down';"},
    {"name": "2_b", "sql": "COMMIT;"},
]
# Options whose value is a file's text. A module that gets one has to be in this test.
TEXTS: dict[str, Any] = {
    "migrations": SENT,
    "former": ["SELECT 'text of former';"],
    "declared": '[{"file": "users.yml", "row": "text of a row"}]',
}
WITH_TEXTS = [path for path in MODULES if TEXTS.keys() & taken(path).keys()]


def logged(path: Path, monkeypatch: pytest.MonkeyPatch, replaced: type | None = None) -> tuple[str, dict[str, Any]]:
    """What the module `path` writes into the journal when it is called, and what arguments it has then."""
    lines: list[str] = []
    got: dict[str, Any] = {}
    module = load(path)
    name = "HostModule" if hasattr(module, "HostModule") else "AnsibleModule"
    ansible = replaced or getattr(module, name)

    class Called(ansible):  # type: ignore[misc, valid-type]
        def log(self, msg: str, log_args: dict[str, Any] | None = None) -> None:
            lines.append(f"{msg} {log_args}")

    def build(**options: Any) -> None:
        got.update(Called(**options).params)
        raise SystemExit

    monkeypatch.setattr(module, name, build)
    words = {"str": "x", "path": "/x", "int": 1, "bool": False}
    arguments = {
        option: TEXTS.get(option, (spec.get("choices") or [words.get(spec["type"])])[0])
        for option, spec in module.ARGUMENT_SPEC.items()
        if option in TEXTS or spec.get("required")
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    return "\n".join(lines), got


def test_the_modules_that_get_the_text_of_files() -> None:
    assert [path.stem for path in WITH_TEXTS] == [
        "migration", "migration_baseline", "migration_drift", "migration_rehearsal", "migration_resolve",
        "migration_rollback", "seed",
    ]  # fmt: skip


@pytest.mark.parametrize("path", WITH_TEXTS, ids=lambda path: path.stem)
def test_the_journal_has_names_and_checksums_and_no_sql(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, got = logged(path, monkeypatch)
    assert "Invoked with" in said
    assert "text of" not in said
    assert "COMMIT;" not in said
    if "migrations" in got:
        assert [one["sql"] for one in got["migrations"]] == [one["sql"] for one in SENT]
        assert "1_a" in said
        assert hashlib.sha256(b"COMMIT;").hexdigest() in said
        # Ansible's own class would have written it: the test looks at the right place.
        assert "text of up" in logged(path, monkeypatch, AnsibleModule)[0]
