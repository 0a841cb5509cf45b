"""The server's declared settings: merged, put on its command line, and compared with pg_settings.

The rules for numbers with units are PostgreSQL's (manual, section 20.1.1; `parse_int` and `convert_to_base_unit` in
guc.c): a fraction is rounded to a multiple of the next smaller unit, then to the setting's own unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..common.errors import DasTernError

_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
_NUMBER = re.compile(r"\s*([+-]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))\s*([A-Za-z]*)\s*")
_BYTES = {"TB": 1024**4, "GB": 1024**3, "MB": 1024**2, "kB": 1024, "B": 1}
_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "min": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1}
_TRUE = {"on", "true", "yes", "1"}
_FALSE = {"off", "false", "no", "0"}

# Settings that the role itself decides, because files, mounts and ports depend on them.
RESERVED = {
    "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file", "listen_addresses", "port",
    "unix_socket_directories", "unix_socket_permissions",
}  # fmt: skip

# A restore and zero loss write these into postgresql.auto.conf. They say where a cluster came from and who receives its
# log, not how it is tuned.
_NO_TUNING = re.compile(
    r"restore_command|recovery_.*|archive_cleanup_command|primary_conninfo|primary_slot_name|promote_trigger_file"
    r"|synchronous_standby_names|max_slot_wal_keep_size"
)

UNDECLARED = "not declared"

# Properties of a cluster that are decided when it is made, as pg_settings shows them.
PRESET = {"data_checksums": "on", "server_encoding": "UTF8"}

READ_BACK = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'loaded', extract(epoch FROM pg_conf_load_time()),
  'settings', (SELECT json_agg(s) FROM (
     SELECT lower(name) AS name, setting, current_setting(name) AS shown, unit, vartype, enumvals, source, sourcefile,
            sourceline FROM pg_settings) s),
  'files', (SELECT coalesce(json_agg(f), '[]') FROM (
     SELECT lower(name) AS name, setting, sourcefile, sourceline, error FROM pg_file_settings) f),
  'hba', (SELECT coalesce(json_agg(h), '[]') FROM (
     SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL) h))
"""
"""Query for everything that `differences` compares, as one JSON document."""


def rendered(name: str, value: Any) -> str:
    """Return a value of the inventory as the server's command line takes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str) and "\0" not in value and "\n" not in value:
        return value
    raise DasTernError(
        f"postgres_settings: {name} is {value!r}; expected a string, a number or true/false. "
        "Correct it in the inventory."
    )


def merged(base: Mapping[Any, Any], extra: Mapping[Any, Any]) -> dict[str, str]:
    """Return `base` overridden by `extra`: names in lower case, as the server compares them, and values as strings."""
    result: dict[str, str] = {}
    for settings in (base, extra):
        for given, value in settings.items():
            name = str(given).lower()
            if not _NAME.fullmatch(name):
                raise DasTernError(f"postgres_settings: {given!r} isn't a setting's name. Correct it in the inventory.")
            if name in RESERVED:
                raise DasTernError(
                    f"postgres_settings: the role itself decides {name} (see postgres_listen_address, postgres_port, "
                    "postgres_volume_name and postgres_hba_extra). Take it out of the inventory."
                )
            result[name] = rendered(name, value)
    return result


def command(settings: Mapping[str, str]) -> list[str]:
    """Return the server's command line."""
    return ["postgres", *(word for name in settings for word in ("-c", f"{name}={settings[name]}"))]


def of_command(words: Sequence[str] | None) -> dict[str, str]:
    """Return the settings on a command line that `command` made."""
    return dict(word.split("=", 1) for word in words or [] if "=" in word)


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the differences in words, such as `max_connections 20 -> 30`."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            lines.append(f"{name} {before.get(name, 'not set')} -> {after.get(name, 'not set')}")
    return lines


def number(text: str, unit: str | None = None) -> float | None:
    """Return `text` in the setting's own `unit` (as in pg_settings, such as `8kB`), or None if it isn't a number."""
    parts = _NUMBER.fullmatch(text)
    if parts is None:
        return None
    value = float(int(parts[1], 16)) if "x" in parts[1].lower() else float(parts[1])
    given = parts[2]
    if not given:
        return value
    base = re.fullmatch(r"(\d*)([A-Za-z]+)", unit or "")
    if base is None:
        return None
    for family in (_BYTES, _MICROSECONDS):
        if base[2] in family and given in family:
            names = list(family)
            smaller = names[names.index(given) + 1 : names.index(given) + 2]
            if value != math.floor(value) and smaller:
                step = family[given] / family[smaller[0]]
                value = round(value * step) / step
            return value * family[given] / (family[base[2]] * int(base[1] or 1))
    return None


def size(text: str) -> int | None:
    """Return the bytes of a size in Docker's (`2g`, `512m`, `1.5GiB`) or PostgreSQL's (`256MB`) form; None for others."""
    parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(?:i?[bB])?\s*", text)
    if parts is None:
        return None
    return int(float(parts[1]) * 1024 ** " kmgt".index(parts[2].lower() or " "))


def same(declared: str, row: Mapping[str, Any]) -> bool:
    """Return whether `declared` means the value in `row` (of pg_settings)."""
    setting, kind = str(row["setting"]), row["vartype"]
    if kind == "bool":
        text = declared.strip().lower()
        for words, result in ((_TRUE, "on"), (_FALSE, "off")):
            # PostgreSQL accepts a beginning that only one word has, so `o` alone isn't enough.
            if any(word.startswith(text) for word in words) and text not in ("", "o"):
                return setting == result
        return False
    if kind in ("integer", "real"):
        expected, current = number(declared, row["unit"]), number(setting)
        if expected is None or current is None:
            return False
        if kind == "integer":
            return round(expected) == current
        return math.isclose(expected, current, rel_tol=1e-5, abs_tol=1e-9)
    if kind == "enum":
        if declared.strip().lower() == setting.lower():
            return True
        aliases = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
        return aliases.get(declared.strip().lower()) == setting.lower()
    if row["name"] in ("timezone", "log_timezone"):
        return declared.strip().lower() == setting.lower()
    return _items(declared) == _items(setting)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def differences(declared: Mapping[str, str], current: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the differences between the declared settings and the `current` ones, the result of READ_BACK.

    Each difference has the keys `setting`, `declared`, `found` and `source`. An undeclared setting that somebody wrote into a
    file of the cluster is a difference, too: tuning has a single channel.
    """
    rows = {row["name"]: row for row in current["settings"]}
    result: list[dict[str, str]] = []
    for name, value in declared.items():
        row = rows.get(name)
        if row is None:
            # A placeholder such as `dastern.something` isn't shown in pg_settings.
            if "." not in name:
                result.append({"setting": name, "declared": value, "found": "no such setting", "source": ""})
        elif row["source"] not in _sources(name) or not same(value, row):
            result.append({"setting": name, "declared": value, "found": row["shown"], "source": _source(row)})
    for name, value in PRESET.items():
        if name in rows and rows[name]["setting"] != value:
            result.append({"setting": name, "declared": value, "found": rows[name]["setting"], "source": "initdb"})
    for row in current["files"]:
        if row["name"] and not _NO_TUNING.fullmatch(row["name"]):
            result.append({
                "setting": row["name"],
                "declared": declared.get(row["name"], UNDECLARED),
                "found": row["setting"],
                "source": f"{row['sourcefile']}:{row['sourceline']}",
            })  # fmt: skip
    return result


def _sources(name: str) -> tuple[str, ...]:
    # The server replaces the command line's values for its own files by their full paths.
    return ("command line", "override") if name in RESERVED else ("command line",)


def _source(row: Mapping[str, Any]) -> str:
    return f"{row['sourcefile']}:{row['sourceline']}" if row["sourcefile"] else str(row["source"])


def worded(row: Mapping[str, str]) -> str:
    """Return a difference in words."""
    declared = row["declared"] if row["declared"] == UNDECLARED else f"declared {row['declared']}"
    return f"{row['setting']}: {declared}, found {row['found']} (source: {row['source'] or 'none'})"


def check_memory(settings: Mapping[str, str], limit: str) -> None:
    """Refuse a shared_buffers that leaves sessions too little memory: the kernel would kill the server."""
    allowed, buffers = size(limit), number(settings.get("shared_buffers", "0"), "B")
    if allowed is None:
        raise DasTernError(f"postgres_memory is `{limit}`, expected a size such as 2g. Correct it in the inventory.")
    if buffers is not None and settings.get("shared_buffers", "").strip().isdigit():
        buffers *= 8192
    if buffers is not None and buffers > allowed * 3 // 4:
        raise DasTernError(
            f"shared_buffers {settings['shared_buffers']} leaves less than a quarter of postgres_memory {limit} to the "
            "sessions, and the kernel would end the server. Lower shared_buffers or raise postgres_memory in the inventory."
        )
