"""A schema as text: SQL that creates it from nothing, and a description with an entity diagram in Markdown.

Both are the same for the same schema on any server: no time, no version, no name of a role that provisioning creates.
"""

from __future__ import annotations

import html
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from ..common.errors import DasTernError
from ..common.sql_values import identifier
from ..common.text import shown
from ..server.connection import ARGUMENT_SPEC as CONNECTION
from ..server.connection import connect
from .drift import against_defaults
from .objects import Item, read_catalogue, schemas_besides
from .schema_dump import dump

try:
    import psycopg
except ImportError:  # `connect` reports it
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
_Under = Mapping[tuple[str, str], list[Item]]
"""Items by their kind and their parent's key."""
WRITE = "ansible-playbook playbooks/schema.yml"
_HEADING = f"""\
-- The whole schema after all migrations, as pg_dump writes it; `{WRITE}` keeps it current.
-- For reading and comparing only: the migrations create the schema. Left out are the ledger, privileges that provisioning
-- gives the read-only role, publications, subscriptions, user mappings and settings of the database. Everything belongs to
-- the role that runs this file.
"""
LARGEST = 45_000
"""Maximum number of characters in a diagram; Mermaid's renderers take 50,000 (`maxTextSize`)."""
_SPLIT = (
    "The diagram is in {} parts, because renderers take 50,000 characters. Tables that foreign keys connect stand together as "
    "far as they fit; a box without columns is a table of another part."
)
_SHORT_TYPES = (
    (r"character varying", "varchar"),
    (r"timestamp(\(\d\))? with time zone", r"timestamptz\1"),
    (r"timestamp(\(\d\))? without time zone", r"timestamp\1"),
    (r"time(\(\d\))? with time zone", r"timetz\1"),
    (r"time(\(\d\))? without time zone", r"time\1"),
    (r"character\b", "char"),
)


def snapshot(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of the module `schema_snapshot`, with `sql` and `docs` as text; the database is only read."""
    try:
        with connect(dict(params), APPLICATION) as connection:
            items = read_catalogue(connection, params["schema"], schemas_besides(connection, params["schema"]))
            dumped = dump(connection, params, _closed(items, params["readonly_user"]))
    except psycopg.Error as error:
        raise DasTernError(
            f"Reading schema {params['schema']} of database {params['database']} failed: {error.sqlstate or 'connection lost'}: "
            f"{' '.join(str(error).split())}. If somebody changed the schema meanwhile, run the playbook again."
        ) from None
    notes = [f"-- The database's owner can't create: {refusal}\n" for refusal in dumped.refused]
    return {
        "changed": False,
        "sql": "".join([_HEADING, *notes, "\n", dumped.sql]),
        "docs": schema_docs(dumped.items or items),
        "tables": sum(item.kind == "table" for item in items),
        "objects": len(items),
        "refused": list(dumped.refused),
    }


def _closed(items: Sequence[Item], readonly_user: str) -> list[str]:
    """Return statements that close tables to the read-only role although provisioning would let it read them."""
    if not readonly_user:
        return []
    role = f"(?:{re.escape(readonly_user)}|{re.escape(identifier(readonly_user))})"
    pattern = re.compile(rf"ALTER DEFAULT PRIVILEGES FOR ROLE .* GRANT SELECT ON TABLES TO {role}")
    provisioned = [item for item in items if item.kind == "default privileges" and pattern.fullmatch(item.definition)]
    return [item.create for item in against_defaults(items, provisioned)]


def schema_docs(items: Sequence[Item]) -> str:
    """Return the schema as Markdown: an entity diagram, a table per table, the enums, the views."""
    by_kind: dict[str, list[Item]] = {}
    under: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
        under.setdefault((item.kind, item.parent), []).append(item)
    comments = {item.name: item.definition.partition(" IS ")[2].strip()[1:-1] for item in by_kind.get("comment", [])}
    lines = ["# Schema", "", f"Written by `{WRITE}` from the live catalogue; don't edit.", ""]
    tables = by_kind.get("table", [])
    diagrams = _diagrams(tables, under)
    if len(diagrams) > 1:
        lines += [_SPLIT.format(len(diagrams)), ""]
    for diagram in diagrams:
        lines += ["```mermaid", "erDiagram", *diagram, "```", ""]
    for entry in tables:
        lines += [f"## {_prose(_plain(entry.name))}", ""]
        if entry.key in comments:
            lines += [_prose(comments[entry.key]), ""]
        lines += ["| Column | Type | Null | Default | Key |", "| --- | --- | --- | --- | --- |"]
        for column in _columns(entry, under):
            default = _of(column, "default", under) or _of(column, "identity", under)
            note = f" {_prose(comments[column.key])}" if column.key in comments else ""
            cells = [
                f"{_code(column.facts['column'])}{note}",
                _prose(_short(column.definition)),
                "" if _of(column, "not null", under) else "yes",
                _code(default.definition) if default else "",
                "; ".join(_keys(column, entry, under)),
            ]
            lines.append("| " + " | ".join(cells).replace("  ", " ") + " |")
        rest = [f"- `{item.kind}` {_code(item.definition, in_table=False)}" for kind in ("constraint", "index", "trigger", "policy", "row security")
                for item in under.get((kind, entry.key), []) if item.facts.get("type") not in ("p", "f")]  # fmt: skip
        lines += ["", *rest, *([""] if rest else [])]
    if "enum" in by_kind:
        lines += ["## Enums", "", "| Enum | Values |", "| --- | --- |"]
        lines += [
            f"| {_code(_plain(entry.name))} | {', '.join(map(_code, entry.facts['labels']))} |"
            for entry in by_kind["enum"]
        ]
        lines.append("")
    for kind in ("view", "materialized view", "function", "procedure", "domain", "composite type", "sequence"):
        if kind in by_kind:
            lines += [f"## {kind.capitalize()}s" if kind != "sequence" else "## Sequences", ""]
            for entry in by_kind[kind]:
                fence = "`" * max(3, _longest_run(entry.definition) + 1)
                lines += [
                    _code(entry.name, in_table=False),
                    "",
                    f"{fence}sql",
                    shown(entry.definition, lines=True),
                    fence,
                    "",
                ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _columns(table: Item, under: _Under) -> list[Item]:
    return sorted(under.get(("column", table.key), []), key=lambda item: int(item.facts["number"]))


def _of(column: Item, kind: str, under: _Under) -> Item | None:
    return next(iter(under.get((kind, column.key), [])), None)


def _constraints(table: Item, under: _Under, contype: str) -> list[Item]:
    return [item for item in under.get(("constraint", table.key), []) if item.facts["type"] == contype]


def _unique(table: Item, under: _Under) -> list[list[str]]:
    """Return the column lists that are unique in a table, by constraint or by index."""
    columns = [item.facts["columns"] for contype in "pu" for item in _constraints(table, under, contype)]
    return columns + [item.facts["columns"] for item in under.get(("index", table.key), []) if item.facts["columns"]]


def _keys(column: Item, table: Item, under: _Under) -> list[str]:
    name = column.facts["column"]
    keys = ["primary key" for item in _constraints(table, under, "p") if name in item.facts["columns"]]
    for columns in _unique(table, under):
        if columns == [name] and not keys:
            keys.append("unique")
    for item in _constraints(table, under, "f"):
        if name in item.facts["columns"]:
            keys.append(f"→ {_code(item.definition.partition(' REFERENCES ')[2])}")
    return keys


def _diagrams(tables: Sequence[Item], under: _Under) -> list[list[str]]:
    """Return the lines of one diagram, or of several where one would be too large for its renderers.

    Tables that foreign keys connect stand together as far as they fit.
    """
    names = {table.name for table in tables}
    boxes = {table.name: _box(table, under) for table in tables}
    keys: dict[str, list[tuple[str, str]]] = {table.name: _relations(table, under) for table in tables}
    near: dict[str, list[str]] = {name: [] for name in names}
    for name, relations in keys.items():
        for target, _ in relations:
            if target in names and target != name:
                near[name].append(target)
                near[target].append(name)
    size = {name: sum(len(line) + 1 for line in [*boxes[name], *(line for _, line in keys[name])]) for name in names}
    diagrams: list[list[str]] = []
    room = 0
    for cluster in _clusters(near):
        # A cluster that doesn't fit into the room that is left begins a new diagram; a cluster that fits into none is cut.
        fits = sum(size[name] for name in cluster) <= room
        for number, name in enumerate(cluster):
            if size[name] > room or (number == 0 and not fits):
                diagrams.append([])
                room = LARGEST
            diagrams[-1].append(name)
            room -= size[name]
    return [
        [line for name in sorted(members) for line in boxes[name]]
        + [line for name in sorted(members) for _, line in keys[name]]
        for members in diagrams
    ] or [[]]


def _clusters(near: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return clusters of connected tables, largest first; each table follows one that it is connected with."""
    clusters: list[list[str]] = []
    seen: set[str] = set()
    for first in sorted(near, key=lambda name: (-len(near[name]), name)):
        if first in seen:
            continue
        cluster, waiting = [], deque([first])
        seen.add(first)
        while waiting:
            cluster.append(name := waiting.popleft())
            for other in sorted(near[name]):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        clusters.append(cluster)
    return sorted(clusters, key=lambda cluster: (-len(cluster), cluster[0]))


def _box(table: Item, under: _Under) -> list[str]:
    primary = [name for item in _constraints(table, under, "p") for name in item.facts["columns"]]
    foreign = [name for item in _constraints(table, under, "f") for name in item.facts["columns"]]
    unique, rows = _unique(table, under), []
    for column in _columns(table, under):
        name = column.facts["column"]
        marks = [mark for mark, names in (("PK", primary), ("FK", foreign)) if name in names]
        if [name] in unique and name not in primary:
            marks.append("UK")
        kind = re.sub(r"[^\w()\[\]-]", "_", _short(column.facts["type"]).replace('"', ""))
        rows.append((f"        {kind} {_word(name)}" + (f" {', '.join(marks)}" if marks else ""), bool(marks)))
    if sum(len(row) + 1 for row, _ in rows) > LARGEST // 2:  # with hundreds of columns, only keys are shown
        rows = [(row, marked) for row, marked in rows if marked]
    return [f"    {_entity(table.name)} {{", *(row for row, _ in rows), "    }"]


def _relations(table: Item, under: _Under) -> list[tuple[str, str]]:
    """Return the tables that a table refers to, each with its line in the diagram."""
    relations = []
    unique = _unique(table, under)
    required = {column.facts["column"] for column in _columns(table, under) if _of(column, "not null", under)}
    for item in _constraints(table, under, "f"):
        columns, target = item.facts["columns"], item.facts["references"]
        left = "||" if set(columns) <= required else "|o"
        right = "o|" if columns in unique else "o{"
        if target:
            relations.append(
                (target, f'    {_entity(target)} {left}--{right} {_entity(table.name)} : "{_label(columns)}"')
            )
    return relations


def _plain(name: str) -> str:
    """Return a name, qualified or not, without the quotes of SQL."""
    parts = re.findall(r'"((?:[^"]|"")*)"|([^".]+)', name)
    return ".".join(quoted.replace('""', '"') or plain for quoted, plain in parts)


def _entity(name: str) -> str:
    plain = shown(" ".join(_plain(name).split()))
    return plain if re.fullmatch(r"[A-Za-z_]\w*", plain, re.ASCII) else '"' + plain.replace('"', "'") + '"'


def _word(name: str) -> str:
    """Return a name that Mermaid takes for an attribute: letters, digits, hyphens, underscores, beginning with a letter."""
    word = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    return word if word[:1].isalpha() else f"c_{word}"


def _short(kind: str) -> str:
    for pattern, word in _SHORT_TYPES:
        kind = re.sub(pattern, word, kind)
    return kind


def _label(columns: Sequence[str]) -> str:
    return shown(" ".join(", ".join(columns).split())).replace('"', "'")


def _prose(text: str) -> str:
    """Return `text` as one line in a table's cell, with its HTML and Markdown escaped."""
    return re.sub(r"([\\`|\[\]])", r"\\\1", html.escape(shown(" ".join(text.split())), quote=False))


def _code(text: str, *, in_table: bool = True) -> str:
    """Return `text` in one line as code; a vertical bar would end a table's cell even within code."""
    line = shown(" ".join(text.split()))
    line = line.replace("|", "\\|") if in_table else line
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (_longest_run(line) + 1)
    return f"{fence} {line} {fence}"


def _longest_run(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
