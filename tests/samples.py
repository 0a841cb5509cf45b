"""Values and helpers that several unit tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ansible.module_utils.dastern.backups.records import Check, Record

ROOT = Path(__file__).resolve().parents[1]
NOW = "2026-03-31T00:00:00+00:00"
"""The time at which the retention looks at the records."""


def callback(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "plugins" / "callback" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(day: int, kind: str = "full", prior: str = "", ok: bool | None = True, **changes: Any) -> Record:
    """Return the record of a backup of a day in March, labelled with that day."""
    return Record(**{
        "label": f"{day:02d}", "kind": "logical" if kind == "logical" else "physical", "type": kind, "database": "d",
        "system": "1", "server": "17.12", "tool": "t", "began": f"2026-03-{day:02d}T00:00:00+00:00", "seconds": 1,
        "bytes": 1, "stored": 1, "census": {}, "exact": True, "prior": prior,
        "verified": None if ok is None else Check(NOW, ok, 1), **changes,
    })  # fmt: skip
