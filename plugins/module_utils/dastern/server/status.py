"""The status of engine, image, container and server, as far as each can be asked. A missing part is no failure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from shlex import quote
from typing import Any

from ..common import swaps
from ..common.errors import DasTernError
from ..common.quantities import amount, local
from ..common.sql_values import identifier, literal
from ..common.text import told
from ..docker.containers import ROLE_LABEL, Containers
from ..docker.engine import denied
from . import settings
from .psql import Psql
from .survey import bracketed, declared_command, form

ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "required": True},
    "volume": {"type": "str", "required": True},
    "listen_address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "database": {"type": "str", "required": True},
    "memory": {"type": "str", "required": True},
    "shm_size": {"type": "str", "required": True},
    "settings": {"type": "dict", "required": True},
    "settings_extra": {"type": "dict", "default": {}},
    "wal_archive": {"type": "bool", "default": False},
    "archive_timeout": {"type": "str", "default": "60s"},
    "backup_dir": {"type": "path", "default": ""},
    "log_lines": {"type": "int", "default": 0},
}
PROVISION = "ansible-playbook playbooks/provision.yml"

_INSIDE = """
SELECT pg_catalog.json_build_object(
  'bytes', pg_catalog.pg_database_size(pg_catalog.current_database()),
  'environment', pg_catalog.current_setting('dastern.environment', true),
  'tables', (SELECT coalesce(pg_catalog.json_agg(t), '[]') FROM (
     SELECT c.oid::pg_catalog.regclass::pg_catalog.text AS name, pg_catalog.pg_total_relation_size(c.oid) AS bytes, greatest(c.reltuples, 0)::pg_catalog.int8 AS rows
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
     ORDER BY 2 DESC LIMIT 5) t),
  'connections', (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()),
  'checksum_failures', (SELECT pg_catalog.sum(checksum_failures) FROM pg_catalog.pg_stat_database))
"""

# Settings that a database or role gives its sessions, without those that provisioning sets.
_BY_HAND = """
SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('database', datname, 'role', rolname, 'setting', one,
  'resettable', 'NO_RESET' <> ALL (coalesce(pg_catalog.pg_settings_get_flags(pg_catalog.split_part(one, '=', 1)), '{{}}'))) ORDER BY datname, rolname, one), '[]')
FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
  pg_catalog.unnest(setconfig) AS one
WHERE coalesce(datname, {database}) = {database} AND one NOT LIKE 'dastern.environment=%'
  AND NOT (datname IS NULL AND one = 'default_transaction_read_only=on'
           AND s.setrole NOT IN (0, (SELECT datdba FROM pg_catalog.pg_database WHERE pg_database.datname = {database})))
"""


def moment(text: str) -> datetime | None:
    """Return a time that the engine wrote (RFC 3339, nine digits of seconds); None for its `0001-01-01`."""
    parts = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d)$", text)
    if parts is None or text.startswith("0001"):
        return None
    zone = "+00:00" if parts[3] == "Z" else parts[3]
    fraction = (parts[2] or ".0").ljust(7, "0")
    return datetime.fromisoformat(f"{parts[1]}{fraction}{zone}")


def healthy_after(container: Mapping[str, Any] | None) -> float | None:
    """Return the seconds from the container's start to the end of its first good health check still on record."""
    if not container:
        return None
    started = moment(container["State"].get("StartedAt", ""))
    for check in (container["State"].get("Health") or {}).get("Log") or []:
        ended = moment(check["End"])
        if check["ExitCode"] == 0 and started and ended and ended >= started:
            return round((ended - started).total_seconds(), 1)
    return None


def status(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module `postgres_status`: the summary's sections, and the last lines of the log."""
    sections = collect(params, declared_command(params))
    log: list[str] = []
    if params["log_lines"] and "container" in sections["postgres"]:
        log = Containers(params["endpoint"]).logs(params["container"], params["log_lines"]).splitlines()
    return {"changed": False, "sections": sections, "log": log}


def collect(params: Mapping[str, Any], command: list[str]) -> dict[str, dict[str, Any]]:
    """Return the report's sections engine, image and postgres; the last one has the key `running`."""
    if not params["endpoint"]:
        return {"postgres": {"lines": ["absent: the host has no Docker Engine"], "next": [PROVISION], "running": False}}
    containers = Containers(params["endpoint"], timeout=15)
    try:
        version = containers.version()
    except PermissionError as error:
        raise DasTernError(denied(containers.endpoint) or str(error), status=403, denied=True) from None
    except (DasTernError, OSError, ValueError) as error:
        return {
            "engine": {
                "lines": [f"Docker Engine at {params['endpoint']} doesn't answer: {error}"],
                "next": [PROVISION],
            },
            "postgres": {"lines": ["unknown: the engine doesn't answer"], "running": False},
        }
    report: dict[str, dict[str, Any]] = {
        "engine": {
            "lines": [f"Docker Engine {version['Version']} at {params['endpoint']}"],
            "version": version["Version"], "endpoint": params["endpoint"],
        }
    }  # fmt: skip
    container = containers.inspect("container", params["container"])
    folder = params.get("backup_dir")
    swap = swaps.noted(Path(os.path.expanduser(folder)), "pending") if folder else None
    problem = f"problem: {swaps.refusal(params['container'], swap).message}" if swap else ""
    if container is None:
        volume = containers.inspect("volume", params["volume"])
        line = f"container {params['container']} doesn't exist"
        line += f"; volume {params['volume']} with its data does" if volume else ""
        return {**report, "postgres": {
            "lines": [line, *([problem] if problem else [])], "next": [swaps.RESTORE if swap else PROVISION],
            "running": False, "state": "absent",
        }}  # fmt: skip
    image = containers.inspect("image", container["Image"])
    report["image"] = {
        "lines": [
            f"{container['Config']['Image']} ({container['Image'][7:19]}"
            + (f", {amount(image['Size'])}, made {_made(image)})" if image else ")")
        ],
        "reference": container["Config"]["Image"],
        "id": container["Image"],
    }
    report["postgres"] = section = _container(containers, container, params, command)
    if swap:
        section["lines"].append(problem)
        section["next"] = [swaps.RESTORE, *(step for step in section["next"] if step != PROVISION)]
    return report


def _made(image: Mapping[str, Any]) -> str:
    made = moment(image.get("Created") or "")
    return local(made, datetime.now(timezone.utc)) if made else "at an unknown time"


def _container(
    containers: Containers, container: Mapping[str, Any], params: Mapping[str, Any], command: list[str]
) -> dict[str, Any]:
    name, state = params["container"], container["State"]
    health = (state.get("Health") or {}).get("Status", "without health check")
    began = moment(state["StartedAt"] if state["Running"] else state["FinishedAt"])
    since = f"since {local(began, datetime.now(timezone.utc))}" if began else "never run"
    line = f"container {name} {state['Status']}" + (f", {health}" if state["Running"] else f" ({state['ExitCode']})")
    line += f", {since}, {container['RestartCount']} restarts"
    result: dict[str, Any] = {
        "container": name, "state": state["Status"], "health": health if state["Running"] else "", "running": False,
        "restarts": container["RestartCount"], "lines": [line], "next": [],
    }  # fmt: skip
    if (container["Config"]["Labels"] or {}).get(ROLE_LABEL) != "postgres":
        result["lines"].append(f"it isn't ours: no label {ROLE_LABEL}=postgres")
        result["next"].append(f"docker rename {quote(name)} {quote(f'{name}-old')}")
        return result
    if not state["Running"] or state.get("Paused"):
        result["next"].append(PROVISION)
        return result
    try:
        result["running"] = True
        result["published"] = [port.removesuffix(":5432") for port in form(container)["published_ports"]]
        _server(Psql(containers, name), params, command, result)
    except DasTernError as error:
        result["running"] = False
        result["lines"].append(f"the server can't be asked: {error.message}")
        result["next"].append(f"docker logs --tail 20 {quote(name)}")
    return result


def _elsewhere(params: Mapping[str, Any], result: dict[str, Any]) -> str:
    """Report a port that isn't published as declared, and return the command that asks the published one; else ""."""
    address = params["listen_address"]
    declared = f"{bracketed(address)}:{params['port']}"
    if result["published"] == [declared]:
        return ""
    published = " and ".join(result["published"]) or "no port"
    result["lines"].append(
        f"problem: container {params['container']} publishes {published}, expected {declared} (postgres_listen_address, "
        f"postgres_port). A client that uses the declared address meets another server or none; {PROVISION} publishes it"
    )
    if not result["published"]:
        return PROVISION
    other, _, port = result["published"][0].rpartition(":")
    variables = [f"-e postgres_port={port}"]
    if other != bracketed(address):
        variables.append(f"-e postgres_listen_address={quote(other.strip('[]'))}")
    return " ".join(["ansible-playbook playbooks/status.yml", *variables])


def _server(psql: Psql, params: Mapping[str, Any], command: list[str], result: dict[str, Any]) -> None:
    current = psql.settings()
    declared = settings.of_command(command)
    differences = settings.differences(declared, current)
    rows = {row["name"]: row for row in current["settings"]}
    result["server_version"] = current["version"]
    result["differences"] = differences
    result["settings"] = {name: rows[name]["shown"] for name in declared if name in rows}
    result["lines"].append(
        f"PostgreSQL {current['version']} at {' and '.join(result['published']) or 'no port of the host'}"
    )
    if asking := _elsewhere(params, result):
        result["next"].append(asking)
    if differences:
        for row in differences:
            result["lines"].append(f"setting {settings.worded(row)}")
        result["next"].append(PROVISION)
    else:
        result["lines"].append(f"{len(declared)} settings as declared")
    database = params["database"]
    if not psql.value(f"SELECT to_json(EXISTS (SELECT FROM pg_database WHERE datname = {literal(database)}))"):
        result["lines"].append(f"database {database} doesn't exist")
        result["next"].append(PROVISION)
        return
    inside = psql.value(_INSIDE, database)
    limit = int(rows["max_connections"]["setting"])
    result |= {
        "environment": inside["environment"], "database_bytes": inside["bytes"], "tables": inside["tables"],
        "connections": inside["connections"], "max_connections": limit,
        "checksum_failures": inside["checksum_failures"] or 0,
    }  # fmt: skip
    tables = ", ".join(f"{table['name']} {amount(table['bytes'])}" for table in inside["tables"])
    result["lines"].append(
        f"database {database} ({inside['environment'] or 'no environment set'}) {amount(inside['bytes'])}"
        + (f"; largest: {tables}" if tables else ", no tables")
    )
    result["lines"].append(f"{inside['connections']} of {limit} connections used")
    result["settings_by_hand"] = psql.value(_BY_HAND.format(database=literal(database)))
    result["lines"] += [_by_hand(row, params["container"]) for row in result["settings_by_hand"]]
    if inside["checksum_failures"]:
        result["lines"].append(
            f"{inside['checksum_failures']} pages with a wrong checksum: the disk returned other bytes"
        )
        result["next"].append(f"docker logs {quote(params['container'])} 2>&1 | grep -i checksum")


def _by_hand(row: Mapping[str, Any], container: str) -> str:
    """Return a line about a setting that somebody gave to a database or role, with the command that resets it."""
    names = [f"{kind} {identifier(row[kind.lower()])}" for kind in ("ROLE", "DATABASE") if row[kind.lower()]]
    owner = " IN ".join(names) or "ROLE ALL"
    name, _, value = row["setting"].partition("=")
    reset = f"ALTER {owner} RESET {identifier(*name.split('.')) if row['resettable'] else 'ALL'}"
    others = f" (which resets all others there, too; `{PROVISION}` sets the declared ones again)"
    return (
        f"set by hand: {name} = {told(value)} for every session of {owner}; if that isn't intended: "
        f"`docker exec -u postgres {quote(container)} psql -c {quote(reset)}`{'' if row['resettable'] else others}"
    )
