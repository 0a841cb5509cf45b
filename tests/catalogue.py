"""The catalogue of a database and the facts it must equal, both in one shape."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Query = Callable[..., list[tuple[Any, ...]]]
FACTS = Path(__file__).parent / "facts" / "schema.yml"
LEDGER = "_prisma_migrations"

_ENUMS = """
SELECT typname, array_agg(enumlabel::text ORDER BY enumsortorder)
FROM pg_type JOIN pg_enum ON enumtypid = pg_type.oid
WHERE typnamespace = 'public'::regnamespace GROUP BY 1
"""
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
_INDEXES = "SELECT tablename, indexname, replace(indexdef, '\"', '') FROM pg_indexes WHERE schemaname = 'public'"
_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype::text || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
"""
_OTHERS = """
SELECT 'relation ' || relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind NOT IN ('r', 'i')
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'policy ' || polname FROM pg_policy
"""


def catalogue(query: Query) -> dict[str, Any]:
    """What schema `public` holds, besides the ledger."""
    found: dict[str, Any] = {"enums": dict(query(_ENUMS)), "columns": {}, "indexes": {}, "constraints": {}}
    for table, name, kind, required, default in query(_COLUMNS):
        short = kind.replace("character varying", "varchar").replace('"', "")
        short = re.sub(r"timestamp\((\d)\) with time zone", r"timestamptz(\1)", short)
        plain = None if default is None else re.sub(r"::.*", "", default)
        found["columns"].setdefault(table, []).append((name, short, required, plain))
    for key, text in (("indexes", _INDEXES), ("constraints", _CONSTRAINTS)):
        for table, name, definition in query(text):
            found[key].setdefault(table, {})[name] = definition
    found["others"] = [name for (name,) in query(_OTHERS)]
    for key in ("columns", "indexes", "constraints"):
        found[key].pop(LEDGER, None)
    return found


def expected() -> dict[str, Any]:
    """The same from the facts, with the names that Prisma derives."""
    facts = yaml.safe_load(FACTS.read_text("utf-8"))
    rules = {"cascade": "CASCADE", "set null": "SET NULL"}
    wanted: dict[str, Any] = {"enums": facts["enums"], "columns": {}, "indexes": {}, "constraints": {}, "others": []}
    for table, fact in facts["tables"].items():
        wanted["columns"][table] = [
            (column["name"], column["type"], column["required"], column.get("default")) for column in fact["columns"]
        ]
        wanted["indexes"][table] = {
            "_".join([table, *columns, suffix]): f"CREATE {unique}INDEX {'_'.join([table, *columns, suffix])} "
            f"ON public.{table} USING btree ({', '.join(columns)})"
            for unique, suffix, lists in (
                ("UNIQUE ", "key", fact.get("unique", [])),
                ("", "idx", fact.get("indexes", [])),
            )
            for columns in lists
        } | {f"{table}_pkey": f"CREATE UNIQUE INDEX {table}_pkey ON public.{table} USING btree (id)"}
        wanted["constraints"][table] = {
            f"{table}_{key['column']}_fkey": f'f FOREIGN KEY ("{key["column"]}") REFERENCES {key["references"]}(id) '
            f"ON UPDATE CASCADE ON DELETE {rules[key['on_delete']]}"
            for key in fact.get("foreign_keys", [])
        } | {f"{table}_pkey": "p PRIMARY KEY (id)"}
    return wanted
