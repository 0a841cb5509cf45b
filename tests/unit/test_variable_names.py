import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("variable_names", ROOT / "plugins" / "action" / "variable_names.py")
assert spec
assert spec.loader
variable_names = importlib.util.module_from_spec(spec)
spec.loader.exec_module(variable_names)


def test_a_typing_error_is_named_with_its_neighbour() -> None:
    known = {"postgres_port", "postgres_image_tag", "seed_allowed"}
    found = ["postgres_prot", "postgres_port", "postgres_frobnicate", "seeds", "postgres", "ansible_user"]
    assert variable_names.unknown_names(found, known, ["postgres", "postgres_image", "seed"]) == {
        "postgres_prot": "postgres_port",
        "postgres_frobnicate": None,
    }


def test_every_role_is_known() -> None:
    known = variable_names.known_names()
    for name in ("postgres_container_name", "postgres_volume_name", "postgres_port", "postgres_database"):
        assert name in known
    for name in ("postgres_app_user", "migrations_dir", "backend_env_file", "postgres_image_source", "seed_scale"):
        assert name in known
