"""Records of backups, and the lock of those who work with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.dastern.backups.records import Place
from ansible.module_utils.dastern.common.errors import DasTernError
from samples import record


@pytest.fixture
def params(tmp_path: Path) -> dict[str, str]:
    return {"endpoint": f"unix://{tmp_path}/none.sock", "container": "pg", "database": "d", "backup_dir": str(tmp_path)}


@pytest.fixture
def place(params: dict[str, str]) -> Place:
    return Place(params)


def test_backups_are_worked_with_by_one_at_a_time(place: Place, params: dict[str, str]) -> None:
    with (
        place.alone(0, "a backup"),
        pytest.raises(DasTernError, match="a backup, process"),
        Place(params).alone(0, "x"),
    ):
        pass
    with place.alone(0, "a restore"):
        pass


@pytest.mark.parametrize("change", ["label", "a digit", "no sum"])
def test_a_record_that_isnt_what_was_written_is_damaged(place: Place, change: str) -> None:
    place.save(record(7))
    path = place.record_path("07")
    text = path.read_text()
    path.write_text({
        "label": text.replace('"07"', '"08"'), "a digit": text.replace('"bytes": 1', '"bytes": 2'),
        "no sum": text.replace("sha256", "sha255"),
    }[change])  # fmt: skip
    assert (place.records(), place.damaged()) == ([], ["07"])
    with pytest.raises(DasTernError, match="is damaged"):
        place.find("07")
