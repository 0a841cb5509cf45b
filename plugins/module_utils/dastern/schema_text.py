"""A schema as text: SQL that makes it from nothing, and a description with an entity diagram in Markdown.

Both are the same for the same schema on any server: no time, no version, no name of a role that provisioning makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .catalogue import Item, read_catalogue
from .connection import ARGUMENT_SPEC as CONNECTION
from .connection import connect
from .drift import against_defaults
from .errors import DasTernError
from .schema_dump import dump
from .sql_values import identifier

try:
    import psycopg
except ImportError:  # `connect` says so in words
    pass

APPLICATION = "das-tern schema"
ARGUMENT_SPEC: dict[str, Any] = {
    **CONNECTION,
    "endpoint": {"type": "str", "default": ""},
    "container": {"type": "str", "default": ""},
    "schema": {"type": "str", "default": "public"},
    "readonly_user": {"type": "str", "default": ""},
    "sql_file": {"type": "str", "required": True},
    "docs_file": {"type": "str", "required": True},
    "check": {"type": "bool", "default": False},
}
WRITE = "ansible-playbook playbooks/schema.yml"
_HEADING = f"""\
-- The whole schema as it is after all migrations, as pg_dump writes it: kept by `{WRITE}`.
-- For reading and comparing; the migrations are what makes it. The ledger, what provisioning gives the read-only role,
-- publications, subscriptions, mappings of users and settings of the database are not in here. Everything belongs to the
-- role that runs this file.
"""
_SHORT_TYPES = (
    (r"character varying", "varchar"),
    (r"timestamp(\(\d\))? with time zone", r"timestamptz\1"),
    (r"timestamp(\(\d\))? without time zone", r"timestamp\1"),
    (r"time(\(\d\))? with time zone", r"timetz\1"),
    (r"time(\(\d\))? without time zone", r"time\1"),
    (r"character\b", "char"),
)


def snapshot(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the module `schema_snapshot` returns: `sql` and `docs` as text; the database is only read."""
    try:
        with connect(dict(params), APPLICATION) as connection:
            items = read_catalogue(connection, params["schema"])
            dumped = dump(connection, params, _closed(items, params["readonly_user"]))
    except psycopg.Error as error:
        raise DasTernError(
            f"Reading schema {params['schema']} of database {params['database']} failed: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}. If somebody changed the schema meanwhile, run again."
        ) from None
    notes = [f"-- Its database's owner can't make: {one}\n" for one in dumped.refused]
    return {
        "changed": False,
        "sql": "".join([_HEADING, *notes, "\n", dumped.sql]),
        "docs": schema_docs(dumped.items or items),
        "tables": sum(item.kind == "table" for item in items),
        "objects": len(items),
        "refused": list(dumped.refused),
    }


def _closed(items: Sequence[Item], readonly_user: str) -> list[str]:
    """Statements that close tables to the read-only role which provisioning would let it read."""
    if not readonly_user:
        return []
    role = f"(?:{re.escape(readonly_user)}|{re.escape(identifier(readonly_user))})"
    given = re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE .* GRANT SELECT ON TABLES TO {role}")
    provisioned = [item for item in items if item.kind == "default privileges" and given.fullmatch(item.definition)]
    return [item.create for item in against_defaults(items, provisioned)]


def schema_docs(items: Sequence[Item]) -> str:
    """Markdown: an entity diagram, a table per table, the enums, the views."""
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
    comments = {item.name: item.definition.partition(" IS ")[2].strip()[1:-1] for item in by_kind.get("comment", [])}
    lines = ["# Schema", "", f"Written by `{WRITE}` from the live catalogue; don't edit.", ""]
    tables = by_kind.get("table", [])
    lines += ["```mermaid", "erDiagram", *_diagram(tables, by_kind), "```", ""]
    for one in tables:
        lines += [f"## {_plain(one.name)}", ""]
        if one.key in comments:
            lines += [_cell(comments[one.key]), ""]
        lines += ["| Column | Type | Null | Default | Key |", "| --- | --- | --- | --- | --- |"]
        for column in _columns(one, by_kind):
            default = _of(column, "default", by_kind) or _of(column, "identity", by_kind)
            note = f" {_cell(comments[column.key])}" if column.key in comments else ""
            cells = [
                f"`{column.facts['column']}`{note}",
                _cell(_short(column.definition)),
                "" if _of(column, "not null", by_kind) else "yes",
                f"`{_cell(default.definition)}`" if default else "",
                "; ".join(_keys(column, one, by_kind)),
            ]
            lines.append("| " + " | ".join(cells).replace("  ", " ") + " |")
        rest = [f"- `{item.kind}` `{item.definition}`" for kind in ("constraint", "index", "trigger", "policy", "row security")
                for item in by_kind.get(kind, []) if item.parent == one.key and item.facts.get("type") not in ("p", "f")]  # fmt: skip
        lines += ["", *(re.sub(r"\s+", " ", line) for line in rest), *([""] if rest else [])]
    if "enum" in by_kind:
        lines += ["## Enums", "", "| Enum | Values |", "| --- | --- |"]
        lines += [
            f"| `{_plain(one.name)}` | {', '.join(f'`{_cell(label)}`' for label in one.facts['labels'])} |"
            for one in by_kind["enum"]
        ]
        lines.append("")
    for kind in ("view", "materialized view", "function", "procedure", "domain", "composite type", "sequence"):
        if kind in by_kind:
            lines += [f"## {kind.capitalize()}s" if kind != "sequence" else "## Sequences", ""]
            for one in by_kind[kind]:
                lines += [f"`{one.name}`", "", "```sql", one.definition, "```", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _columns(one: Item, by_kind: Mapping[str, list[Item]]) -> list[Item]:
    found = [item for item in by_kind.get("column", []) if item.parent == one.key]
    return sorted(found, key=lambda item: int(item.facts["number"]))


def _of(column: Item, kind: str, by_kind: Mapping[str, list[Item]]) -> Item | None:
    return next((item for item in by_kind.get(kind, []) if item.parent == column.key), None)


def _constraints(one: Item, by_kind: Mapping[str, list[Item]], contype: str) -> list[Item]:
    return [item for item in by_kind.get("constraint", []) if item.parent == one.key and item.facts["type"] == contype]


def _unique(one: Item, by_kind: Mapping[str, list[Item]]) -> list[list[str]]:
    """The column lists that are unique in a table, by constraint or by index."""
    found = [item.facts["columns"] for contype in "pu" for item in _constraints(one, by_kind, contype)]
    return found + [
        item.facts["columns"] for item in by_kind.get("index", []) if item.parent == one.key and item.facts["columns"]
    ]


def _keys(column: Item, one: Item, by_kind: Mapping[str, list[Item]]) -> list[str]:
    name = column.facts["column"]
    keys = ["primary key" for item in _constraints(one, by_kind, "p") if name in item.facts["columns"]]
    for columns in _unique(one, by_kind):
        if columns == [name] and not keys:
            keys.append("unique")
    for item in _constraints(one, by_kind, "f"):
        if name in item.facts["columns"]:
            keys.append(_cell(item.definition.partition(" REFERENCES ")[2]).join(("→ `", "`")))
    return keys


def _diagram(tables: Sequence[Item], by_kind: Mapping[str, list[Item]]) -> list[str]:
    lines = []
    for one in tables:
        lines.append(f"    {_entity(one.name)} {{")
        primary = [name for item in _constraints(one, by_kind, "p") for name in item.facts["columns"]]
        foreign = [name for item in _constraints(one, by_kind, "f") for name in item.facts["columns"]]
        for column in _columns(one, by_kind):
            name = column.facts["column"]
            marks = [mark for mark, names in (("PK", primary), ("FK", foreign)) if name in names]
            if [name] in _unique(one, by_kind) and name not in primary:
                marks.append("UK")
            kind = re.sub(r"[^\w()\[\]-]", "_", _short(column.facts["type"]).replace('"', ""))
            lines.append(f"        {kind} {_word(name)}" + (f" {', '.join(marks)}" if marks else ""))
        lines.append("    }")
    for one in tables:
        for item in _constraints(one, by_kind, "f"):
            columns = item.facts["columns"]
            required = {column.facts["column"] for column in _columns(one, by_kind) if _of(column, "not null", by_kind)}
            left = "||" if set(columns) <= required else "|o"
            right = "o|" if columns in _unique(one, by_kind) else "o{"
            if item.facts["references"]:
                lines.append(
                    f'    {_entity(item.facts["references"])} {left}--{right} {_entity(one.name)} : "{", ".join(columns)}"'
                )
    return lines


def _plain(name: str) -> str:
    return name.strip('"').replace('""', '"')


def _entity(name: str) -> str:
    plain = _plain(name)
    return plain if re.fullmatch(r"[A-Za-z_]\w*", plain, re.ASCII) else '"' + plain.replace('"', "'") + '"'


def _word(name: str) -> str:
    """An attribute's name as Mermaid takes it: letters, digits, hyphens, underscores, beginning with a letter."""
    word = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return word if word[:1].isalpha() else f"c_{word}"


def _short(kind: str) -> str:
    for pattern, word in _SHORT_TYPES:
        kind = re.sub(pattern, word, kind)
    return kind


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
