"""The list of `make mutants` names lines that are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "mutants.py"


def test_every_mutation_finds_its_line() -> None:
    spec = importlib.util.spec_from_file_location("mutants", SCRIPT)
    assert spec
    assert spec.loader
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    assert len(mutants.MUTATIONS) > 40
    assert [wrong for wrong in map(mutants.misplaced, mutants.MUTATIONS) if wrong] == []
