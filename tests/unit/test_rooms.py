"""The rooms of the logic: each imports only what its docstring names, without a circle."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "plugins" / "module_utils" / "dastern"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def declared(room: str) -> set[str]:
    """Return the rooms that a room's docstring says it may import."""
    docstring = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text("utf-8"))) or ""
    names = re.search(r"^Imports: (.*)\.$", docstring, re.MULTILINE)
    assert names, f"{room} doesn't say what it imports"
    return set(names[1].split(", ")) - {"nothing"}


def imported(room: str) -> set[str]:
    """Return the rooms that a room's files import, also within functions."""
    rooms = set()
    for path in (PACKAGE / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level < 3, path
                if node.level == 2:
                    assert node.module, f"{path} imports a room as a whole"
                    rooms.add(node.module.partition(".")[0])
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert "dastern" not in (node.module or ""), f"{path}: imports between rooms are relative"
    return rooms


@cache
def floor(room: str) -> int:
    return 1 + max((floor(below) for below in declared(room)), default=0)


def test_a_room_imports_what_it_says() -> None:
    assert {room: imported(room) for room in ROOMS} == {room: declared(room) for room in ROOMS}


def test_there_are_no_more_than_seven_floors() -> None:
    assert max(floor(room) for room in ROOMS) <= 7


def test_every_file_stands_in_a_room() -> None:
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(ROOMS)


def test_unit_tests_mirror_the_rooms() -> None:
    tests = {path.parent.name for path in Path(__file__).parent.glob("*/test_*.py")}
    assert tests == set(ROOMS)
