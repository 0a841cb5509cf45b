"""The backup container: pgBackRest beside the server, and the only container that has the repository and its secrets.

It reads the server's data and can't write there; the server's container has no access to the repository. It finds the files
that are ready to be archived in the data itself, in PostgreSQL's own list (`pg_wal/archive_status/*.ready`). When a file is
in the repository, the container notes that in a folder that the server can only read, and the server's archive_command waits
for the note. So an attacker who took over the server can neither write nor delete in the repository, only add to its log.
(pgBackRest's own TLS server was tried: whoever has a stanza's certificate may overwrite and delete all of it by `repo-put`
(up to 2.59), `stanza-delete` or a `backup` with another retention.)

pgBackRest's few statements (`pg_backup_start` and the like) come over the private network, from a role without other rights.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..common.text_files import current, give, given
from ..server import access
from ..server.backup_folders import UID, make_for_containers
from ..server.hba import BACKUP_ROLE
from ..server.psql import session_options
from ..server.survey import ARCHIVED, MOUNT
from .pgbackrest import BACKUPS, PGBACKREST_FOLDER, PGDATA, STANZA, folders
from .records import Place
from .sidecar import Sidecar

ROLE = "backup"
ALIVE = 20.0
"""Seconds until a new container has to archive."""
_FIX = " Run the play as root."
_SHARES, _PERIOD = 128, 10_000
"""An eighth of every other container's share if processors are scarce; and the period, in microseconds, of which a quota gives
a part. In Docker's default period of 100,000 a quota is spent in one go, while the application waits."""
_RIGHTS = "LOGIN NOSUPERUSER NOREPLICATION NOCREATEROLE NOCREATEDB NOBYPASSRLS"
# The functions that pgBackRest 2.55 to 2.60 calls for a backup and to check archiving, found by revoking one after the other.
_FUNCTIONS = (
    "pg_backup_start(text, boolean)", "pg_backup_stop(boolean)", "pg_create_restore_point(text)", "pg_switch_wal()",
)  # fmt: skip
_GRANTS = "; ".join([
    f"GRANT pg_read_all_settings TO {BACKUP_ROLE}",
    *(f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {BACKUP_ROLE}" for function in _FUNCTIONS),
])  # fmt: skip
_FOUND = f"""
SELECT json_build_object(
  'verifier', rolpassword,
  'right', rolcanlogin AND NOT (rolsuper OR rolreplication OR rolcreaterole OR rolcreatedb OR rolbypassrls)
    AND pg_has_role(oid, 'pg_read_all_settings', 'MEMBER')
    AND {" AND ".join(f"has_function_privilege(oid, 'pg_catalog.{function}', 'EXECUTE')" for function in _FUNCTIONS)})
FROM pg_authid WHERE rolname = '{BACKUP_ROLE}'
"""
_LISTEN = rf"""#!/bin/bash
# Written by the module backup_setup: archives what the server has ready, for as long as this container runs.
# The server names nothing here. Of what its data shows, only plain files with PostgreSQL's names are read: no link is followed.
wal=$PGDATA/pg_wal said={ARCHIVED} staged=/tmp/staged
umask 022
shopt -s nullglob
mkdir -p "$staged"
mkfifo /tmp/never 2>/dev/null
exec 9<>/tmp/never  # a wait that starts no process
form='%F %i %s %.9Y %.9Z'
further='^repo\([2-9]\|[1-9][0-9]\+\)-'
# Beside the loop: one file may take long.
( while :; do printf . > "$said/alive"; sleep 1; done ) &
tell() {{ printf '%s\n' "$2" > "$said/.new" && mv -f "$said/.new" "$said/$1"; }}
sum() {{ sha256sum | cut -d ' ' -f 1; }}
# Whether the newest cluster of the repository has such a history; earlier ones have theirs.
archived() {{
  repository=$(sed -n 's/^repo1-path=//p' {PGBACKREST_FOLDER}/pgbackrest.conf)/archive/{STANZA}
  current=$(printf '%s\n' "$repository"/*/ | sort -V | tail -n 1)
  [ -n "$current" ] && [ -e "$current$1" ]
}}
# A history decides where recoveries go: it is one, and the one that this cluster has there stays.
history() {{
  awk -v own="$((16#${{1%.history}}))" '!NF || /^[[:space:]]*#/ {{ next }}
    !/^[[:space:]]*[0-9]+[[:space:]]+[0-9A-F]+\/[0-9A-F]+([[:space:]]|$)/ || $1 <= last || $1 >= own {{ bad = 1 }}
    {{ last = $1; n++ }} END {{ exit bad || !n }}' "$2" || {{ echo "$1 isn't a history of its timeline"; return 1; }}
  archived "$1" || return 0
  [ "$(sum < "$2")" = "$(pgbackrest --repo=1 --stanza={STANZA} --log-level-console=off repo-get "archive/{STANZA}/${{current#"$repository"/}}$1" | sum)" ] ||
    {{ echo "another $1 is in the repository already"; return 1; }}
}}
stage() {{
  dd iflag=nofollow,nonblock,fullblock if="./$1" of="$staged/$1" bs=16M count=1 status=none || return
  case $1 in *.history) history "$1" "$staged/$1";; esac
}}
# A recovery takes the first timeline that has no history in the archive: nothing of it may be there before.
lineage() {{
  case $1 in 00000001* | *.history) return;; esac
  archived "${{1:0:8}}.history" && return
  [ -f "./${{1:0:8}}.history" ] || {{ echo "$1 is of a timeline that has no history"; return 1; }}
  stage "${{1:0:8}}.history" && push_first "$staged/${{1:0:8}}.history"
}}
push() {{ pgbackrest --stanza={STANZA} --log-level-console=warn --no-archive-async archive-push "$@" 9<&-; }}
# Into the first repository by itself, so that it never waits for a further one.
push_first() {{
  sed "/$further/d" {PGBACKREST_FOLDER}/pgbackrest.conf > /tmp/first.conf && push --config=/tmp/first.conf "$1"
}}
declare -A first  # what the first repository has of what isn't everywhere yet
while :; do
  read -r -t 0.2 -u 9
  {{ cd -P "$wal" && [ "$PWD" = "$wal" ]; }} 2>/dev/null || continue
  wrong='' away=''
  for path in archive_status/*.ready; do
    name=${{path#archive_status/}} name=${{name%.ready}}
    [[ $name =~ ^([0-9A-F]{{24}}(\.[0-9A-F]{{8}}\.backup|\.partial)?|[0-9A-F]{{8}}\.history)$ ]] || continue
    file=$(stat -c "$form" "./$name" 2>/dev/null) || continue
    known=''
    read -r known 2>/dev/null < "$said/$name"
    [ "$known" != "$file" ] || continue
    case $file in "regular file "* | "regular empty file "*) ;; *) tell "$name.failed" "$name isn't a plain file"; continue;; esac
    [ -z "$away" ] || [ "${{first[$name]}}" != "$file" ] || continue
    words=$(lineage "$name" 2>&1) && words=$(stage "$name" 2>&1) &&
      {{ [ "${{first[$name]}}" = "$file" ] || words=$(push_first "$staged/$name" 2>&1); }}
    code=$?
    if [ $code = 0 ] && [ "$(stat -c "$form" "./$name" 2>/dev/null)" = "$file" ]; then
      first[$name]=$file
      if [ -z "$away" ] && grep -q "$further" {PGBACKREST_FOLDER}/pgbackrest.conf; then
        words=$(push "$staged/$name" 2>&1) || away=1
      fi
      if [ -z "$away" ]; then
        tell "$name" "$file"
        rm -f "$said/$name.failed"
      fi
    else
      wrong=1
    fi
    if [ -n "$wrong$away" ]; then
      words=${{words//[[:cntrl:]]/ }}
      tell "$name.failed" "${{words:0:600}}"
    fi
    rm -f "$staged/$name"
    [ -z "$wrong" ] || break
  done
  for path in "$said"/[0-9A-F]*; do
    name=${{path##*/}} name=${{name%.failed}}
    [ -e "archive_status/$name.ready" ] || {{ rm -f "$path"; unset "first[$name]"; }}
  done
  [ -z "$wrong$away" ] || read -r -t 1 -u 9
done
"""


class Keeper:
    """The backup container of one server, and what belongs to it."""

    def __init__(self, params: Mapping[str, Any], place: Place, configuration: str) -> None:
        """Take a configuration of pgBackRest that may not be written yet, and that names the folders of the repositories."""
        self.place = place
        self.params = params
        config = Path(params["config_dir"]).expanduser()
        self.folder = config / "pgbackrest"
        self.archived = config / "archived"
        self.passfile, self.listen = self.folder / "passfile", self.folder / "listen"
        written = current(self.folder / "pgbackrest.conf", _FIX)
        self.repositories = sorted({*folders(configuration), *folders(written)})
        self.sidecar = Sidecar(place.containers, place.keeper, ROLE)

    def ensure(self, *, check_mode: bool, idle: Callable[[], None] = lambda: None) -> list[str]:
        """Ensure that it runs as declared; return the steps taken, or those that would be. Raises `DasTernError`.

        `idle` is called before a container is replaced, as a backup may be running in it.
        """
        superuser = self.place.superuser
        role = superuser.value(_FOUND)
        password = current(self.passfile, _FIX).rstrip("\n").rpartition(":")[2] or secrets.token_urlsafe(32)
        files = {self.passfile: f"*:*:*:{BACKUP_ROLE}:{password}\n", self.listen: _LISTEN}
        differing = [path for path, text in files.items() if not given(path, text, self._owner(path), _FIX)]
        steps = [f"write {path}" for path in differing]
        sql = access.login(BACKUP_ROLE, _RIGHTS, password, role)
        if sql:
            sql += f"; {_GRANTS}"
            steps.append(f"{'make' if role is None else 'change'} role {BACKUP_ROLE}")
        form = self._form()
        mounted = {f"{BACKUPS}/{name}": self.place.folder / name for name in self.repositories}
        missing = [path for path in mounted.values() if not path.exists()]
        steps += [f"make {path}" for path in missing]
        state = self.sidecar.differs(form, {PGBACKREST_FOLDER: self.folder, ARCHIVED: self.archived, **mounted})
        if not state and self.listen in differing:
            state = "replace"
        if state:
            steps.append(f"{state} container {self.place.keeper}")
        if check_mode or not steps:
            return steps
        try:  # the files first: a password that only the server has would be lost with this process
            for path in missing:
                make_for_containers(path)
            for path in differing:
                give(path, files[path], self._owner(path))
        except OSError as error:
            raise DasTernError(f"{error.filename} can't be written: {error.strerror}. Run the play as root.") from None
        if sql:
            superuser.run(";\n".join([*access.BEGIN, sql, "COMMIT;"]))
        if state:
            if self.sidecar.running:
                idle()
            self.sidecar.start(form)
            self._wait()
            superuser.run("SELECT pg_reload_conf()")  # wakes the archiver, which sleeps a minute after three failures
        return steps

    def _owner(self, path: Path) -> int:
        """Return the owner of a file: the container reads the password, and anybody may read the program."""
        return UID if path == self.passfile else 0

    def _wait(self) -> None:
        """Wait until the container archives. Raise `DasTernError` on timeout."""
        end = time.monotonic() + ALIVE
        began = time.time()
        while True:
            try:
                if (self.archived / "alive").lstat().st_mtime >= began - 1:
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                log = " / ".join(self.place.containers.logs(self.place.keeper, 5).splitlines())
                raise DasTernError(
                    f"Container {self.place.keeper}, which archives the log and has the backups, doesn't start within "
                    f"{ALIVE:.0f} s: {log}. See `docker logs {quote(self.place.keeper)}`."
                )
            time.sleep(0.1)

    def _form(self) -> dict[str, Any]:
        """Return the body with which the engine creates the container."""
        containers, cpus = self.place.containers, float(self.params["cpus"])
        most = containers.call("GET", "/info")["NCPU"] if cpus else 0
        if cpus and not 0.1 <= cpus <= most:
            raise DasTernError(
                f"`backup_cpus` is {cpus:g}. Expected: 0 for all processors, or a number from 0.1 to the {most} of "
                "this host. Nothing was changed."
            )
        server = containers.inspect("container", self.place.container)
        assert server is not None
        volume = next(mount["Name"] for mount in server["Mounts"] if mount["Destination"] == MOUNT)
        return {
            "Image": server["Image"], "User": "postgres", "Entrypoint": ["/bin/bash", f"{PGBACKREST_FOLDER}/listen"], "Cmd": [],
            "Env": [
                "LANG=C.UTF-8", f"PGDATA={PGDATA}", f"PGHOST={self.place.container}", f"PGUSER={BACKUP_ROLE}",
                f"PGPASSFILE={PGBACKREST_FOLDER}/passfile", f"PGOPTIONS={session_options(BACKUP_ROLE)}", "PGCONNECT_TIMEOUT=10",
            ],
            "HostConfig": {
                "NetworkMode": self.params["network"], "RestartPolicy": {"Name": "unless-stopped"}, "Init": True,
                "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"],
                "Binds": [
                    f"{volume}:{MOUNT}:ro",
                    *(f"{self.place.folder / name}:{BACKUPS}/{name}" for name in self.repositories),
                    f"{self.folder}:{PGBACKREST_FOLDER}:ro",
                    f"{self.archived}:{ARCHIVED}",
                ],
                # For locks, pgBackRest's spool, and one WAL segment at a time.
                "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=128m"},  # noqa: S108 - its own
                "CpuShares": _SHARES, **({"CpuPeriod": _PERIOD, "CpuQuota": int(cpus * _PERIOD)} if cpus else {}),
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
            },
        }  # fmt: skip


def there(place: Place) -> bool:
    """Return whether the backup container runs."""
    return place.containers.runs(place.keeper)


def refuse_away(place: Place) -> None:
    """Refuse if the backup container doesn't run."""
    if there(place):
        return
    container = place.containers.inspect("container", place.keeper)
    state, remedy = ("doesn't exist", "creates it") if container is None else ("doesn't run", "starts it")
    raise DasTernError(
        f"Container {place.keeper}, which alone has the backups and archives the log, {state}. `ansible-playbook "
        f"playbooks/provision.yml` {remedy}.",
        keeper=place.keeper,
    )
