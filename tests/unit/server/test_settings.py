"""Settings: merged, rendered, and compared with pg_settings after normalising."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.dastern.common.errors import DasTernError
from ansible.module_utils.dastern.server import settings


def row(setting: str, kind: str = "string", unit: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": "work_mem", "setting": setting, "shown": setting, "vartype": kind, "unit": unit, "enumvals": None,
        "source": "command line", "sourcefile": None, "sourceline": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("256MB", row("32768", "integer", "8kB")),
        ("32768", row("32768", "integer", "8kB")),
        ("0.25GB", row("32768", "integer", "8kB")),
        ("262144kB", row("32768", "integer", "8kB")),
        ("1.5GB", row("1536", "integer", "MB")),
        ("1GB", row("131072", "integer", "8kB")),
        ("0x10", row("16", "integer")),
        ("1s", row("1000", "integer", "ms")),
        ("1000", row("1000", "integer", "ms")),
        ("5min", row("300", "integer", "s")),
        ("1d", row("1440", "integer", "min")),
        ("2.5", row("2", "integer")),
        ("-1", row("-1", "integer", "8kB")),
        ("0.9", row("0.9", "real")),
        ("1.10", row("1.1", "real")),
        ("2ms", row("2", "real", "ms")),
        ("500us", row("0.5", "real", "ms")),
        ("on", row("on", "bool")),
        ("TRUE", row("on", "bool")),
        ("1", row("on", "bool")),
        ("f", row("off", "bool")),
        ("of", row("off", "bool")),
        ("REPLICA", row("replica", "enum")),
        ("true", row("on", "enum")),
        ("asia/phnom_penh", row("Asia/Phnom_Penh", name="timezone")),
        ("a,b", row("a, b")),
        ("", row("")),
    ],
)
def test_the_same_value_in_another_form_is_the_same(declared: str, found: dict[str, Any]) -> None:
    assert settings.same(declared, found)


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ("256MB", row("32767", "integer", "8kB")),
        ("256", row("32768", "integer", "8kB")),
        ("256mb", row("32768", "integer", "8kB")),
        ("20 apples", row("20", "integer")),
        ("0.9", row("0.91", "real")),
        ("o", row("on", "bool")),
        ("", row("on", "bool")),
        ("minimal", row("replica", "enum")),
        ("A", row("a")),
        ("30", row("20", "integer")),
    ],
)
def test_another_value_is_another(declared: str, found: dict[str, Any]) -> None:
    assert not settings.same(declared, found)


def found(*rows: dict[str, Any], files: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"settings": list(rows), "files": files or []}


def test_the_source_counts_as_well_as_the_value() -> None:
    given = row("4096", "integer", "kB", source="database", shown="4MB")
    assert settings.differences({"work_mem": "4MB"}, found(given)) == [
        {"setting": "work_mem", "declared": "4MB", "found": "4MB", "source": "database"}
    ]
    assert settings.differences({"work_mem": "4MB"}, found({**given, "source": "command line"})) == []


def test_a_setting_in_a_file_of_the_cluster_is_a_difference() -> None:
    line = {
        "name": "work_mem",
        "setting": "64MB",
        "sourcefile": "/d/postgresql.auto.conf",
        "sourceline": 3,
        "error": None,
    }
    assert settings.differences({}, found(files=[line])) == [
        {"setting": "work_mem", "declared": "not declared", "found": "64MB", "source": "/d/postgresql.auto.conf:3"}
    ]


def test_settings_that_a_restore_writes_are_no_differences() -> None:
    for name in ("restore_command", "recovery_target_time", "primary_conninfo"):
        line = {"name": name, "setting": "x", "sourcefile": "/d/postgresql.auto.conf", "sourceline": 3, "error": None}
        assert settings.differences({}, found(files=[line])) == []


def test_an_unknown_setting_and_a_preset_are_differences() -> None:
    rows = found(row("off", "bool", name="data_checksums"))
    assert [item["setting"] for item in settings.differences({"wrok_mem": "1"}, rows)] == ["wrok_mem", "data_checksums"]
    # A custom one isn't shown in pg_settings.
    assert settings.differences({"dastern.note": "x"}, found()) == []


def test_extra_settings_go_over_the_defaults_whatever_the_case() -> None:
    merged = settings.merged({"TimeZone": "UTC", "jit": False, "max_connections": 20}, {"timezone": "Asia/Phnom_Penh"})
    assert merged == {"timezone": "Asia/Phnom_Penh", "jit": "off", "max_connections": "20"}
    assert settings.of_command(settings.command(merged)) == merged
    assert settings.command({"a": "b=c"}) == ["postgres", "-c", "a=b=c"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max connections": 1}, "isn't a setting's name"),
        ({"-c": 1}, "isn't a setting's name"),
        ({"work_mem": None}, "work_mem is None"),
        ({"work_mem": [1]}, "work_mem is [1]"),
        ({"work_mem": "1\n2"}, "work_mem is '1\\n2'"),
        ({"PORT": 1}, "the role itself decides port"),
        ({"listen_addresses": "*"}, "the role itself decides listen_addresses"),
    ],
)
def test_what_can_not_be_declared_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DasTernError, match="postgres_settings") as refusal:
        settings.merged({}, given)
    assert message in refusal.value.message


def test_changes_are_named_with_both_values() -> None:
    assert settings.changes({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b 2 -> 3", "c not set -> 4"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 << 30), ("512m", 512 << 20), ("1.5GiB", 3 << 29), ("100", 100), ("x", None), ("2 apples", None)],
)
def test_sizes_as_docker_writes_them(text: str, size: int | None) -> None:
    assert settings.size(text) == size


def test_shared_buffers_have_to_leave_memory_for_sessions() -> None:
    settings.check_memory({"shared_buffers": "1GB"}, "2g")
    for value in ("1800MB", "262144"):
        with pytest.raises(DasTernError, match="leaves less than a quarter of postgres_memory 2g"):
            settings.check_memory({"shared_buffers": value}, "2g")
    with pytest.raises(DasTernError, match="expected a size"):
        settings.check_memory({}, "two")
