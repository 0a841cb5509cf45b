"""The seed folder on the controller: `*.yml`, `*.yaml` and `*.sql`, in the byte order of their names.

YAML is read strictly and plainly: a mapping key given twice is an error; `true`, `false`, `null`, integers and decimal
numbers have their plain meaning; everything else, also dates, `yes` and `+855...`, is text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

import yaml

from ..common.errors import DasTernError
from ..common.migration_files import decoded
from ..common.sql_text import each_statement, outline

_TAG = "tag:yaml.org,2002:"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for _kind, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)\.[0-9]+", list("-0123456789")),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), _first)


def read_folder(folder: str, environment: str) -> list[dict[str, Any]]:
    """Return every seed file of `folder`: `{name, blocks}` for YAML, `{name, sql}` for SQL."""
    try:
        names = sorted((entry.name for entry in os.scandir(folder) if entry.is_file()), key=os.fsencode)
    except (FileNotFoundError, NotADirectoryError):
        raise DasTernError(
            f"There is no seed folder {folder} for the environment {environment}. Create it with `mkdir -p {quote(str(folder))}` and "
            "put *.yml or *.sql files there, or set `seed_environment` to one that has a folder."
        ) from None
    except PermissionError:
        raise DasTernError(
            f"This user can't read the seed folder {folder}: `chmod -R u+rX {quote(str(folder))}` fixes that."
        ) from None
    return [
        _read(Path(folder) / name)
        for name in names
        if name.endswith((".yml", ".yaml", ".sql")) and not name.startswith(".")
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DasTernError(
            f"{path} can't be read: {error.strerror}. `chmod u+r {quote(str(path))}` fixes that."
        ) from None
    text = decoded(content, path)
    if path.suffix == ".sql":
        return {"name": path.name, "sql": _checked_sql(path.name, text)}
    return {"name": path.name, "blocks": read_blocks(text, path.name)}


def _checked_sql(name: str, sql: str) -> str:
    for statement in each_statement(outline(sql).text):
        if statement.transaction_control:
            raise DasTernError(
                f"{name}, line {statement.line}: {statement.words[0]} begins or ends a transaction. All seeds run in one "
                "transaction so that a failure leaves nothing behind: remove the statement."
            )
    return sql


def read_blocks(text: str, name: str) -> list[dict[str, Any]]:
    """Return the blocks of one YAML seed: `{table, key, rows: [{line, values}]}`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DasTernError(f"{name}, line {line}: the YAML can't be read: {error.problem or error}.") from None
    except yaml.YAMLError as error:
        raise DasTernError(f"{name}: the YAML can't be read: {' '.join(str(error).split())}.") from None
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise DasTernError(
            f"{name}: the file holds no list. Expected: a list of blocks, each with `table`, `key` and `rows`."
        )
    return [_block(child, name) for child in node.value]


def _block(node: yaml.Node, name: str) -> dict[str, Any]:
    where = f"{name}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        raise DasTernError(f"{where}: this is no block. Expected: `table`, `key` and `rows`.")
    fields = _fields(node, name)
    unknown = sorted(set(fields) - {"table", "key", "rows"})
    if unknown:
        raise DasTernError(f"{where}: a block can't have `{unknown[0]}`. Expected: `table`, `key` and `rows`.")
    table = _plain(fields["table"], name) if "table" in fields else None
    if not isinstance(table, str) or not table:
        raise DasTernError(f"{where}: `table` is {table!r}. Expected: `table: <name>`.")
    key = _plain(fields["key"], name) if "key" in fields else []
    if not isinstance(key, list) or not all(isinstance(column, str) and column for column in key):
        raise DasTernError(
            f"{where}: `key` of {table} is {key!r}. Expected: a list of columns, e.g. `key: [phoneNumber]`."
        )
    rows = fields.get("rows")
    if not isinstance(rows, yaml.SequenceNode):
        raise DasTernError(f"{where}: the block of {table} has no list of `rows`.")
    return {"table": table, "key": key, "rows": [_row(child, name, table) for child in rows.value]}


def _row(node: yaml.Node, name: str, table: str) -> dict[str, Any]:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise DasTernError(f"{name}, line {line}: a row of {table} must map columns to values.")
    return {"line": line, "values": {column: _plain(value, name) for column, value in _fields(node, name).items()}}


def _fields(node: yaml.MappingNode, name: str) -> dict[str, yaml.Node]:
    fields: dict[str, yaml.Node] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise DasTernError(f"{name}, line {line}: a name must be plain text.")
        if key_node.value in fields:
            raise DasTernError(f"{name}, line {line}: `{key_node.value}` is given twice in one mapping. Remove one.")
        fields[key_node.value] = value
    return fields


def _plain(node: yaml.Node, name: str, depth: int = 0) -> Any:
    line = node.start_mark.line + 1
    if depth > 50:
        raise DasTernError(f"{name}, line {line}: nested more than 50 deep (or an alias within itself).")
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return {key: _plain(value, name, depth + 1) for key, value in _fields(node, name).items()}
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_plain(child, name, depth + 1) for child in node.value]
    match node.tag.removeprefix(_TAG):
        case "str":
            return node.value
        case "null":
            return None
        case "bool":
            return node.value == "true"
        case "int":
            if len(node.value) > 100:
                raise DasTernError(f"{name}, line {line}: the number has {len(node.value)} digits. Write it as text.")
            return int(node.value)
        case "float":
            return float(node.value)
    raise DasTernError(f"{name}, line {line}: the tag {node.tag} is unknown here. Write a plain value.")
