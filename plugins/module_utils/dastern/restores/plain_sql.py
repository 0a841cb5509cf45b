r"""Plain SQL out of a database and into a new one, like `pg_dump > file` and `psql < file`, but whole or not at all.

A file written here is one transaction that ends at the first error: cut short, or run where its tables exist already,
it changes nothing, even with `psql < file`. It states how many rows each table has.

A file that is read runs first in a throwaway server without network, secrets or a folder of the host, so that its code
can do no harm. It is one transaction, with psql's own commands forbidden (`\restrict`). The result is dumped there and
restored into a new database of the live server by that database's owner, like a backup. A COPY that is cut short
swallows the statements after it; a marker that has to come at the very end reveals that.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import IO, Any

from ..backups.logical import APPLICATION, IN_CONTAINER, RESTORING, SESSION, fill, look, refuse_full_disk, why
from ..backups.records import UNREADABLE, WAIT, Place
from ..catalogue.census import COUNTS, LONGEST, Census, count
from ..catalogue.comparison import SHOWN
from ..common.commands import playbook
from ..common.confirmation import SPEC as CONFIRMATION
from ..common.confirmation import is_confirmed, wanted, word
from ..common.errors import DasTernError
from ..common.files import absolute, sync_folder
from ..common.quantities import amount, cut, local
from ..common.sql_values import identifier, literal, new_database
from ..server.blockers import in_the_way
from ..server.connection import conninfo
from ..server.psql import Psql
from . import database_copy
from .request import SITE_SPEC, kept_words, refuse_hours
from .restored_server import Site
from .run import swap_in

ARGUMENT_SPEC: dict[str, Any] = {
    **SITE_SPEC,
    "out": {"type": "path", "default": ""},
    "file": {"type": "path", "default": ""},
    "into": {"type": "str", "default": ""},
    **CONFIRMATION,
    "keep_old_hours": {"type": "int", "default": 72},
}
_LOCK_WAIT = "10s"
_PLAIN_DUMP = ".plain-"
_OWNERS = (
    "Write the file with `pg_dump --no-owner --no-privileges`: then all of it belongs to the owner of the new database."
)
_PATH = {"search_path": '"$user",public'}
"""PostgreSQL's default: a file written by hand names tables without their schema."""
_MARK = "-- das-tern: "
_STOP = "\\set ON_ERROR_STOP on\n"
_HEAD = f"""-- Plain SQL of a database of Das Tern, written at {{at}}, all of it as of one moment.
-- Into a new database: ansible-playbook playbooks/plain_sql.yml -e file=FILE -e into=NAME. Elsewhere, into an empty one of a server
-- that has its roles: psql -X -d NAME -f FILE (zcat FILE | psql -X -d NAME).
-- It is one transaction: cut short, or run where its tables are already, it changes nothing.
{_STOP}BEGIN;
"""
_END = "COMMIT;\n"
_PLAIN = 'pg_dump --no-subscriptions --snapshot="$SNAPSHOT" --lock-wait-timeout="$LOCK_WAIT" -d "$TO"'
_OUT = 'export TO="$1" LOCK_WAIT="$2"\nexec psql -XqAt -v ON_ERROR_STOP=1 -v VERBOSITY=terse -d "$TO"'
# The input that psql leaves unread has to be read, else the engine's connection breaks before psql's messages arrive.
_IN = """
psql -XqAt -o /dev/null -v ON_ERROR_STOP=1 -d "$1"
code=$?
cat > /dev/null
exit $code
"""
_THERE = """
SELECT json_build_object('there', (SELECT json_agg(datname) FROM pg_database), 'owner', (SELECT pg_get_userbyid(datdba)
  FROM pg_database WHERE datname = {database}))
"""
_DUMP, _WHOLE, _CLUSTER = (
    f"-- PostgreSQL database {what}".encode() for what in ("dump\n", "dump complete\n", "cluster dump\n")
)


def plain_sql(params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Write `out`, or read `file` into the new database `into`; the keys of `params` are the module's options.

    Returns `changed` and `lines`. Raises `DasTernError`, and then leaves no new file and no new database.
    """
    place = Place(params)
    if bool(params["out"]) == bool(params["file"]) or bool(params["file"]) != bool(params["into"]):
        raise DasTernError(
            "Expected: `-e out=PATH` for plain SQL out of the database, or `-e file=PATH -e into=NAME` for plain SQL into a "
            "new database, or into the live one, which is then replaced."
        )
    if params["out"]:
        absolute("`out`", params["out"])
        return write(place, Path(os.path.expanduser(params["out"])), check_mode=check_mode)
    absolute("`file`", params["file"])
    path = Path(os.path.expanduser(params["file"]))
    if params["into"] == place.database:
        return replace(place, path, params, check_mode=check_mode)
    return read(place, path, params["into"], check_mode=check_mode)


def write(place: Place, path: Path, *, check_mode: bool = False) -> dict[str, Any]:
    """Write the database of `place` to the new file `path`, compressed if its name ends in `.gz`."""
    if path.exists():
        raise DasTernError(f"{path} exists already. Nothing was written: name another file, or delete that one.")
    if not path.parent.is_dir():
        raise DasTernError(
            f"There is no folder {path.parent}. Create it (`mkdir -p {quote(str(path.parent))}`), or name another."
        )
    partial = path.with_name(path.name + ".partial")
    _refuse_others(partial)
    if check_mode:
        return {"changed": True, "lines": [f"{path} would be written: all of database {place.database}"]}
    with place.alone(WAIT, "plain SQL out"):
        size = look(place, place.database)["size"]
        refuse_full_disk(path.parent, size, place.database, "name a file on another disk")
        try:
            partial.unlink(missing_ok=True)
            # O_EXCL, so that a link which somebody sets meanwhile isn't followed.
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    if path.suffix == ".gz":
                        with gzip.GzipFile(path.stem, "wb", 6, file) as packed:
                            _write(place, packed)
                    else:
                        _write(place, file)
                    file.flush()
                    os.fsync(file.fileno())
                    stored = os.fstat(file.fileno()).st_size
                partial.rename(path)
                sync_folder(path.parent)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise DasTernError(f"{path} can't be written: {error.strerror or error}. No part of it is left.") from None
    lines = [f"{path} ({amount(stored)}): all of database {place.database}, in one transaction"]
    return {"changed": True, "lines": lines, "bytes": stored}


def _refuse_others(partial: Path) -> None:
    """Refuse to delete a file that no killed run of this user left: in /tmp, say, anybody may have set a link."""
    with suppress(FileNotFoundError):
        status = partial.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise DasTernError(
                f"{partial} exists already, and isn't a file that a killed run of this user left (`ls -ld {quote(str(partial))}`). "
                "Nothing was written: delete it, or name another file."
            )


def read(place: Place, path: Path, into: str, *, check_mode: bool = False) -> dict[str, Any]:
    """Make the database `into` from the plain SQL in `path`, and compare row counts if the file states them."""
    stated = _stated_rows(path)
    new_database("into", into, 55)
    databases, owner = _databases_and_owner(place)
    if into in databases:
        raise DasTernError(
            f"Database {into} exists already. Nothing was done. Plain SQL goes into a new database: name another "
            f"(`{playbook('plain_sql', file=str(path), into=f'{place.database}_restored')}`)."
        )
    if check_mode:
        return {"changed": True, "lines": [f"database {into} would be made from {path}"]}
    partial = f"{into}.partial"
    with place.alone(WAIT, "plain SQL in"):
        place.superuser.drop_database(partial)
        place.superuser.run(f"CREATE DATABASE {identifier(partial)} TEMPLATE template0 OWNER {identifier(owner.user)};")
        try:
            place.superuser.run(f"REVOKE ALL ON DATABASE {identifier(partial)} FROM PUBLIC;")
            rows = _filled(place, owner, path, stated, partial).tables
            place.superuser.run(f"ALTER DATABASE {identifier(partial)} RENAME TO {identifier(into)};")
        except BaseException:
            with suppress(DasTernError):
                place.superuser.drop_database(partial)
            raise
    comparison = "as many as the file states" if stated else "the file doesn't state how many it had"
    lines = [f"database {into} made from {path}: {sum(rows.values())} rows in {len(rows)} tables, {comparison}"]
    return {"changed": True, "lines": lines, "tables": rows, "compared": bool(stated)}


def replace(place: Place, path: Path, params: dict[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Make the plain SQL in `path` the live database, by the swap of a restore.

    The former live database is kept, and `undo` brings it back. The new one gets its owner, privileges and settings.
    Raises `DasTernError`, and then leaves the live one as it was.
    """
    refuse_hours(params)
    stated = _stated_rows(path)
    _, owner = _databases_and_owner(place)
    live = count(place.superuser, place.database)
    plan = [
        f"{path} becomes database {place.database}, which has {live.rows} rows in {len(live.tables)} tables",
        f"the file states {sum(stated.values())} rows in {len(stated)} tables" if stated else "the file doesn't state how many rows it has",
        f"steps: read into a database beside {place.database} as its owner, count, then swap; {kept_words(params['keep_old_hours'])}",
    ]  # fmt: skip
    needed = word(params, place.database)
    if not is_confirmed(params, place.database):
        command = playbook("plain_sql", file=str(path), into=place.database, confirm=needed)
        if check_mode:
            return {"changed": True, "lines": plan, "next": [command], "confirm": needed}
        raise DasTernError(
            f"This replaces the live database {place.database}. Nothing was done. {wanted(params, place.database)} To do it: "
            f"`{command}`.",
            preflight=plan,
            confirm=needed,
        )
    if check_mode:
        return {"changed": True, "lines": plan}

    def make(name: str) -> Census:
        database_copy.create(place.superuser, name, live)
        census = _filled(place, owner, path, stated, name)
        database_copy.limit_connections(place.superuser, name, live)
        return census

    with place.alone(WAIT, "plain SQL in"):
        result = swap_in(params, place, make, f"plain SQL {path}", lambda _: None)
    result["next"] = ["ansible-playbook playbooks/provision.yml", *result["next"]]
    return {"changed": True, "compared": bool(stated), **result}


def _databases_and_owner(place: Place) -> tuple[list[str], Psql]:
    """Return the names of the existing databases, and a session as the owner of the live one."""
    server = place.superuser.value(_THERE.format(database=literal(place.database)))
    if server["owner"] is None:
        raise DasTernError(
            f"Database {place.database} does not exist in container {place.container}, and the new one would get its owner. "
            "Nothing was done. `ansible-playbook playbooks/provision.yml` creates it."
        )
    return server["there"], place.superuser.as_owner(server["owner"])


def _filled(place: Place, owner: Psql, path: Path, stated: Mapping[str, int], name: str) -> Census:
    """Fill the empty database `name` from the file, and compare its rows with the numbers that the file states."""
    for leftover in place.logical_folder.glob(f"{_PLAIN_DUMP}*"):
        shutil.rmtree(leftover)
    folder = place.logical_folder / f"{_PLAIN_DUMP}{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o755)
        _dumped(place, owner.user, path, folder / "dump")
        try:
            refused = fill(
                owner, place.superuser, name, f"{IN_CONTAINER}/{folder.name}/dump", place.database, otherwise=_OWNERS
            )
            if refused:
                raise DasTernError("; ".join(cut(list(map(str, refused)), SHOWN)) + ".")
        except DasTernError as refusal:
            raise DasTernError(
                f"The objects that {path} makes can't be restored: {refusal.message} No database was made.",
                **refusal.facts,
            ) from None
    except OSError as error:
        raise DasTernError(f"{folder} can't be written: {error.strerror}. Make room there, then run again.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    census = count(place.superuser, name)
    wrong = [f"{table} has {census.tables.get(table, 'no')} rows instead of {rows}" for table, rows in stated.items()
             if census.tables.get(table) != rows]  # fmt: skip
    if wrong:
        raise DasTernError(
            f"{path} didn't give the rows that it states: {'; '.join(cut(wrong, 10))}. No database was made from it."
        )
    return census


class _Tail:
    """A file whose last bytes are remembered."""

    def __init__(self, file: Any) -> None:
        self._file, self.tail = file, b""

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self.tail = (self.tail + content[-64:])[-64:]


def _write(place: Place, file: Any) -> None:
    file.write(_HEAD.format(at=local(datetime.now(UTC))).encode())
    into: Any = _Tail(file)
    script = (
        SESSION.format(lock_wait=literal(_LOCK_WAIT))
        + f"\\! printf %s '{_MARK}'\n{COUNTS}\\! {_PLAIN} && echo '{_END.strip()}'\nCOMMIT;\n"
    )
    command = ["sh", "-c", _OUT, "sh", conninfo(place.database, APPLICATION), _LOCK_WAIT]
    done = place.superuser.execute(command, script, silence=LONGEST, into=into)
    if done.rc != 0 or not into.tail.endswith(f"\n{_END}".encode()):
        reason = done.last_words or "pg_dump was killed"
        raise DasTernError([
            f"Database {place.database} could not be written as plain SQL: {reason}.{why(done.err)} No part of it is left.",
            *(in_the_way(place.superuser, place.database) if why(done.err) else []),
        ])  # fmt: skip


def _open(path: Path) -> IO[bytes]:
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # opening a FIFO would wait for its writer
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DasTernError(f"{path} isn't a regular file. Nothing was done. Name the file that holds the SQL.")
    return gzip.open(file, "rb") if path.suffix == ".gz" else file  # type: ignore[return-value]


def _stated_rows(path: Path) -> dict[str, int]:
    """Return the rows by table that the file states, {} if none; refuse a file that isn't plain SQL of one database."""
    try:
        with _open(path) as file:
            head = file.read(1 << 20)
    except (OSError, EOFError, zlib.error) as error:
        raise DasTernError(
            f"{path} can't be read or is cut short: {getattr(error, 'strerror', None) or error}."
        ) from None
    if head.startswith((b"PGDMP", b"\x28\xb5\x2f\xfd", b"\x1f\x8b")):
        raise DasTernError(
            f"{path} isn't plain SQL: it is compressed, or in pg_dump's custom format. Decompress it (a file named *.gz is "
            "decompressed here), or restore it with pg_restore."
        )
    if _CLUSTER in head:
        raise DasTernError(
            f"{path} is of a whole cluster (pg_dumpall). Expected: a file of one database, written by pg_dump."
        )
    first = re.search(rf"^{_MARK}(.*)$".encode(), head, re.MULTILINE)
    if not first or not first[1]:
        return {}
    try:
        return {table: int(rows) for table, rows in json.loads(first[1]).items()}
    except UNREADABLE:
        raise DasTernError(
            f"{path} is damaged: its first line `{_MARK.strip()}`, which states the rows of each table, can't be read. Nothing was "
            "done. Use another copy; or delete that line, and the rows aren't compared."
        ) from None


class _Script:
    """A file in the form in which psql runs it, read by `Containers.execute`."""

    def __init__(self, file: IO[bytes], token: str) -> None:
        self._lines = self._all(file, token)
        self.whole = True

    def read(self, size: int) -> bytes:
        parts, length = [], 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if length >= size:
                break
        return b"".join(parts)

    def _all(self, file: IO[bytes], token: str) -> Iterator[bytes]:
        yield f"BEGIN;\n\\restrict {token}\n".encode()
        dropped = {_STOP.encode()}
        of_pg_dump = whole = False
        for number, line in enumerate(file):
            if number < 100:
                of_pg_dump = of_pg_dump or line == _DUMP
                if match := re.fullmatch(rb"\\restrict (\w+)\n", line):
                    dropped |= {line, b"\\unrestrict " + match[1] + b"\n"}
            whole = whole or line == _WHOLE
            if line not in dropped:
                yield line
        if of_pg_dump and not whole:
            self.whole = False
            return  # without a COMMIT
        yield f"\n\\unrestrict {token}\nCOMMIT;\n\\echo {token}\n".encode()


def _dumped(place: Place, owner: str, path: Path, into: Path) -> None:
    """Run the file in a throwaway server as the role `owner`, a superuser there, and dump the result as an archive."""
    site = Site({"container": place.container, "config_dir": str(place.folder), "volume": ""}, place)
    with site.throwaway() as psql:
        psql.run(
            f"ALTER ROLE {identifier(owner)} LOGIN SUPERUSER;\nCREATE DATABASE plain OWNER {identifier(owner)} TEMPLATE template0;"
        )
        _read(psql.of_throwaway(owner), path, "plain")
        command = ["pg_dump", "-Fc", "--compress=zstd:1", "--no-subscriptions", "-d", "plain"]
        with into.open("wb") as file:
            done = psql.execute(command, silence=LONGEST, into=file)
        if done.rc:
            raise DasTernError(
                f"The database that {path} made can't be dumped: {done.last_words}. No database was made.",
                **done.outside,
            )
        into.chmod(0o644)


def _read(owner: Psql, path: Path, database: str) -> None:
    token = secrets.token_hex(16)
    try:
        with _open(path) as file:
            script = _Script(file, token)
            command = ["sh", "-c", _IN, "sh", conninfo(database, RESTORING)]
            done = owner.execute(command, script, silence=LONGEST, settings={**_PATH, "synchronous_commit": "off"})
    except (EOFError, zlib.error, OSError) as error:
        raise DasTernError(f"{path} is damaged or cut short: {error}. No database was made.") from None
    if done.rc != 0 and script.whole:
        reason = next(
            (line for line in done.err.splitlines() if not re.search("WARNING:|NOTICE:", line)), done.last_words
        )
        advice = (
            " Write it without psql's own commands (pg_dump without --create)." if "are restricted" in reason else ""
        )
        raise DasTernError(f"{path} can't be run: {reason.strip()}. No database was made.{advice}")
    if token not in done.out:
        raise DasTernError(f"{path} is cut short: its end is missing. No database was made.")
