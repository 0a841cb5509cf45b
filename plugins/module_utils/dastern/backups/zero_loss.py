"""Zero loss: a receiver beside the server that has a commit on disk before the commit is acknowledged.

A container of its own runs `pg_receivewal --synchronous` into the folder of the backups. Whether commits wait for it is set
in the cluster's postgresql.auto.conf. A small script that the healthcheck of the server's container runs keeps that setting
right, because no timeout of PostgreSQL ends the wait for a receiver that is away. Both scripts are data to their containers,
so neither the server nor its command line changes when zero loss is turned on or off.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..common.text_files import current, give, given
from ..server import access
from ..server.backup_folders import UID
from ..server.hba import RECEIVER
from ..server.psql import session_options
from ..server.survey import BACKUPS, HBA_FOLDER, check_zero_loss
from . import physical, received, records
from . import run as backup_run
from .pgbackrest import PgBackRest
from .records import Place
from .run import Say
from .sidecar import Sidecar

ARGUMENT_SPEC: dict[str, Any] = {
    **records.ARGUMENT_SPEC,
    "config_dir": {"type": "path", "required": True},
    "network": {"type": "str", "required": True},
    "wal_archive": {"type": "bool", "required": True},
    "enabled": {"type": "bool", "default": False},
    "away": {"type": "str", "default": "block", "choices": ["block", "continue"]},
    "wait": {"type": "int", "default": 600},
    "assume_absent": {"type": "bool", "default": False},
}
ROLE = "receiver"
FOLDER = "/etc/das-tern/receiver"
"""Where the receiver's container sees its script and its password."""
STREAMS = 30.0
"""Seconds until the receiver has to be connected, and until commits have to wait for it."""
_INSIDE = f"{HBA_FOLDER}/zero-loss"
"""Where the healthcheck finds the switch."""
_RECEIVED = f"{BACKUPS}/{received.FOLDER}"
_WATCH = f"""\
# Written by the module backup_zero_loss, run by the healthcheck of the server's container.
# Commits wait for the receiver from when it has all of the log. When it is away: block, continue, or off.
away=@AWAY@
umask 077
exec 9> /var/run/postgresql/.zero-loss
flock -w "${{1:-0}}" 9 || exit 0
conf=$PGDATA/postgresql.auto.conf
export PGCONNECT_TIMEOUT=2 PGOPTIONS={shlex.quote(session_options(statement_timeout="2s"))}
ask() {{ psql -XqAt -v ON_ERROR_STOP=1 -U postgres -d postgres -c "$1"; }}
keep() {{
  {{ sed -E '/^(synchronous_standby_names|max_slot_wal_keep_size) *=/d' "$conf" && printf '%b' "$1"; }} > "$conf.tmp" &&
  sync "$conf.tmp" && mv "$conf.tmp" "$conf" && sync "$PGDATA" &&
  ask 'SELECT pg_reload_conf()'
}}
# What an absent receiver still needs mustn't fill the data's disk. With more it begins anew, where the archive ends.
limit="max_slot_wal_keep_size = '1GB'\\n"
# Whether it has all that the archive doesn't have yet, is asked of what it wrote.
state=$(ask "SELECT current_setting('synchronous_standby_names') || ' ' || CASE
  WHEN NOT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{RECEIVER}' AND state = 'streaming') THEN 'away'
  WHEN EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready' AND name < (
    SELECT min(file) FROM pg_control_system(), pg_ls_dir('{BACKUPS}/{received.FOLDER}/' || system_identifier || '-'
      || left(pg_walfile_name(pg_current_wal_lsn()), 8), true, false) AS file WHERE file ~ '^[0-9A-F]{{24}}')) THEN 'behind'
  ELSE 'there' END") || exit 0
case "$away $state" in
"off "*) ! grep -qE '^(synchronous_standby_names|max_slot_wal_keep_size) *=' "$conf" || keep '' ;;
*"  there") keep "${{limit}}synchronous_standby_names = '{RECEIVER}'\\n" ;;
"continue {RECEIVER} away") keep "$limit" ;;
*"  away" | *"  behind") grep -q '^max_slot_wal_keep_size *=' "$conf" || keep "$limit" ;;
esac
"""
_RUN = f"""\
# Written by the module backup_zero_loss: receives the log of the server on host $1 for as long as this container runs.
umask 077
server="host=$1 user={RECEIVER} application_name={RECEIVER} connect_timeout=5 keepalives_idle=5 keepalives_interval=2
  keepalives_count=3 tcp_user_timeout=10000 options='-c wal_sender_timeout=5s'"
ask() {{ psql -XqAt -F ' ' -d "$server dbname=postgres replication=true" -c "$1"; }}
say() {{ [ "$said" = "$*" ] || {{ said=$*; echo "$said"; }}; }}
trap 'kill $child; exit 0' TERM INT
said='' child=''
receive() {{
  cluster=$(ask IDENTIFY_SYSTEM) || return
  set -- $cluster
  case $1 in ''|*[!0-9]*) echo "a strange cluster: $1"; return 1;; esac
  folder={BACKUPS}/{received.FOLDER}/$1-$(printf %08X "$2")
  mkdir -p "$folder" && sync "$folder" "${{folder%/*}}" || return
  # Made and filled with zeros only in part when the disk was full.
  find "$folder" -name '*.partial' ! -size 16777216c -delete
  # Kept for longer than max_slot_wal_keep_size: it has a name and no position.
  case $(ask "READ_REPLICATION_SLOT {RECEIVER}") in "physical  "*) ask "DROP_REPLICATION_SLOT {RECEIVER} WAIT";; esac
  pg_receivewal -d "$server" -S {RECEIVER} --create-slot --if-not-exists || return
  echo "receiving into $folder"
  pg_receivewal -d "$server" -S {RECEIVER} -D "$folder" --synchronous --no-loop & child=$!
  wait $child
}}
while :; do
  receive > /tmp/said 2>&1
  say "$(cat /tmp/said)"
  # The server removes what is in the archive alone: all that is here is there. The slot has gone back to it, too.
  if grep -q 'has already been removed' /tmp/said; then
    rm -f "${{folder:?}}"/*
    ask "DROP_REPLICATION_SLOT {RECEIVER} WAIT"
  fi
  sleep 0.3
done
"""
_FOUND = f"""
SELECT json_build_object(
  'names', current_setting('synchronous_standby_names'),
  'source', (SELECT source FROM pg_settings WHERE name = 'synchronous_standby_names'),
  'kept', EXISTS (SELECT FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'
             AND name IN ('synchronous_standby_names', 'max_slot_wal_keep_size')),
  'role', (SELECT json_build_object('verifier', rolpassword, 'right', rolcanlogin AND rolreplication
             AND NOT (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls)) FROM pg_authid WHERE rolname = '{RECEIVER}'),
  'slot', EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{RECEIVER}'),
  'connected', EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{RECEIVER}'),
  'streaming', EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{RECEIVER}' AND state = 'streaming'),
  'sync', EXISTS (SELECT FROM pg_stat_replication WHERE application_name = '{RECEIVER}' AND sync_state = 'sync'))
"""
_CHANGE = ";\n".join([*access.BEGIN, "SET LOCAL lock_timeout = '10s'", "{sql}", "COMMIT;"])
_FIX = " Run the play as root."
_RIGHTS = "LOGIN REPLICATION NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS"


class ZeroLoss:
    """The receiver of one server, and what belongs to it."""

    def __init__(self, params: Mapping[str, Any], place: Place) -> None:
        self.params, self.place = params, place
        self.name = f"{place.container}-receiver"
        config = Path(params["config_dir"]).expanduser()
        self.folder = config / "receiver"
        self.passfile = self.folder / "passfile"
        self.run = self.folder / "run"
        self.switch = config / "server" / "zero-loss"
        self.diff: dict[str, str] = {}
        self.containers = place.containers
        self.sidecar = Sidecar(self.containers, self.name, ROLE)

    def state(self) -> dict[str, Any]:
        """Return what the server reports of the receiver, its role and its slot."""
        return dict(self.place.superuser.value(_FOUND))

    def _differs_from(self, names: str, enabled: bool) -> None:
        """Note for --diff the state and the declared state."""
        running = self.sidecar.running
        away = re.search(r"(?m)^away=(\w+)$", current(self.switch, _FIX))

        def text(names: str, running: bool, away: str) -> str:
            return f"receiver: {'running' if running else 'none'}\nsynchronous_standby_names = '{names}'\nwhile it is away: {away}\n"

        self.diff = {
            "before_header": "zero loss", "before": text(names, running, away[1] if away else "-"), "after_header": "zero loss",
            "after": text(RECEIVER, True, self.params["away"]) if enabled else text("" if names == RECEIVER else names, False, "-"),
        }  # fmt: skip

    def on(self, check_mode: bool, say: Say) -> list[str]:
        """Enable zero loss and return the steps taken."""
        state = self.state()
        if state["names"] not in ("", RECEIVER) or state["source"] == "command line":
            raise DasTernError(
                f"synchronous_standby_names is `{state['names']}` ({state['source']}), and `backup_zero_loss` sets it itself. "
                "Remove it from `postgres_settings_extra` and run `ansible-playbook playbooks/provision.yml`. Nothing was changed."
            )
        self._differs_from(state["names"], enabled=True)
        steps = []
        password = current(self.passfile, _FIX).rstrip("\n").rpartition(":")[2] or secrets.token_urlsafe(32)
        sql = access.login(RECEIVER, _RIGHTS, password, state["role"])
        if sql:
            steps.append(f"{'make' if state['role'] is None else 'change'} role {RECEIVER}")
        files = {
            self.passfile: f"*:*:*:{RECEIVER}:{password}\n", self.run: _RUN,
            self.switch: _WATCH.replace("@AWAY@", self.params["away"]),
        }  # fmt: skip
        steps += [f"write {path}" for path in self._differing(files)]
        form = self._form()
        folders = {FOLDER: self.folder, _RECEIVED: self.place.folder / received.FOLDER}
        change = self.sidecar.differs(form, folders)
        if not change and f"write {self.run}" in steps:
            change = "replace"
        if change:
            steps.append(f"{change} container {self.name}")
        if not state["sync"]:
            steps.append("make commits wait for it")
        if check_mode or not steps:
            return steps
        # The files first: a password that only the server has would be lost with this process.
        self._write(files)
        if sql:
            self.place.superuser.run(_CHANGE.format(sql=sql))
        if change:
            say(f"Starting {self.name} ...")
            self.sidecar.start(form)
        if not self._until(lambda now: now["streaming"]):
            log = self.containers.logs(self.name, 5)
            waits = " Commits wait meanwhile." if state["names"] and self.params["away"] == "block" else ""
            raise DasTernError(
                f"The receiver {self.name} doesn't receive within {STREAMS:.0f} s: {' / '.join(log.split(chr(10)))}.{waits} "
                f"Fix that (`docker logs {quote(self.name)}`), then run `{backup_run.PROVISION}` again."
            )
        if not self._until(lambda now: now["sync"]):
            raise DasTernError(
                f"Commits don't wait for the receiver {self.name} within {STREAMS:.0f} s: synchronous_standby_names is "
                f"`{self.state()['names']}`. It has to go on from the end of the archive: `docker logs --tail 20 "
                f"{quote(self.place.container)}` shows whether WAL is archived. Then run `{backup_run.PROVISION}` again."
            )
        return steps

    def off(self, check_mode: bool) -> list[str]:
        """Disable zero loss and return the steps taken."""
        state = self.state()
        self._differs_from(state["names"], enabled=False)
        steps = [f"remove container {self.name}"] if self.sidecar.container else []
        if state["names"] == RECEIVER:
            steps.append("let commits go without it")
        if state["role"] or state["slot"]:
            steps.append(f"drop role and slot {RECEIVER}")
        files = [path for path in (self.passfile, self.run, self.switch) if path.exists()]
        steps += [f"remove {path}" for path in files]
        if check_mode or not steps:
            return steps
        self._write({self.switch: _WATCH.replace("@AWAY@", "off")})
        if not self._until(lambda now: now["names"] != RECEIVER and not now["kept"]):
            raise DasTernError(
                f"synchronous_standby_names is still `{self.state()['names']}`: commits wait for the receiver. See "
                f"`docker logs --tail 20 {quote(self.place.container)}`, then run `{backup_run.PROVISION}` again."
            )
        self.sidecar.remove()
        if not self._until(lambda now: not now["connected"]):
            raise DasTernError(f"Container {self.name} was removed, but its session is still there. Run again.")
        if state["slot"]:
            self.place.superuser.run(f"SELECT pg_drop_replication_slot('{RECEIVER}');")
        if state["role"]:
            self.place.superuser.run(_CHANGE.format(sql=f"DROP ROLE {RECEIVER}"))
        self._forget_received()
        for path in files:
            path.unlink(missing_ok=True)
        self.switch.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return steps

    def _forget_received(self) -> None:
        """Delete the received log that the archive has. The rest may be the only copy, and a later backup deletes it.

        The first deletion comes before the archiving, which may need the room.
        """
        if not physical.server(self.place).archiving:
            return
        program = PgBackRest(self.place.containers, self.place.keeper)
        physical.forget_received(self.place, program)
        physical.archive_all(self.place)
        physical.forget_received(self.place, program)

    def _until(self, done: Callable[[dict[str, Any]], bool]) -> bool:
        """Run the watchdog until `done` holds. Return False on timeout.

        It runs at least once, and after one that is running already, which may have read the former switch.
        """
        end = time.monotonic() + STREAMS
        while True:
            self.containers.execute(self.place.container, ["sh", "-c", f"[ ! -r {_INSIDE} ] || sh {_INSIDE} 10"])
            if done(self.state()):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.1)

    def _differing(self, files: Mapping[Path, str]) -> list[Path]:
        return [path for path, text in files.items() if not given(path, text, self._owner(path), _FIX)]

    def _owner(self, path: Path) -> int:
        """Return the owner of a file: the container reads the password, and anybody may read the programs."""
        return UID if path == self.passfile else 0

    def _write(self, files: Mapping[Path, str]) -> None:
        try:
            for path in self._differing(files):
                give(path, files[path], self._owner(path))
        except OSError as error:
            raise DasTernError(f"{error.filename} can't be written: {error.strerror}. Run the play as root.") from None

    def _form(self) -> dict[str, Any]:
        """Return the body with which the engine creates the container."""
        server = self.containers.inspect("container", self.place.container)
        assert server is not None
        return {
            "Image": server["Image"], "User": "postgres", "Entrypoint": ["/bin/sh", f"{FOLDER}/run"],
            "Cmd": [self.place.container], "Env": ["LANG=C.UTF-8", f"PGPASSFILE={FOLDER}/passfile"],
            "HostConfig": {
                "NetworkMode": self.params["network"], "RestartPolicy": {"Name": "always"}, "Init": True,
                "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"],
                "Binds": [f"{self.folder}:{FOLDER}:ro", f"{self.place.folder / received.FOLDER}:{_RECEIVED}"],
                "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=1m"},  # noqa: S108 - its own
                "Memory": 128 * 1024**2, "MemorySwap": 128 * 1024**2,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}},
            },
        }  # fmt: skip


def keep(params: Mapping[str, Any], check_mode: bool = False, say: Say = print) -> dict[str, Any]:
    """Ensure zero loss as declared; `steps` of the result are what was or would be done."""
    enabled = params["enabled"]
    check_zero_loss(enabled, params["wal_archive"], {})
    if params["assume_absent"]:
        return _result(["make a receiver that every commit waits for"] if enabled else [], True, params)
    place = Place(dict(params))
    if not backup_run.running(place):
        if not check_mode:
            raise backup_run.not_running(place)
        return _result([f"make a receiver, once container {place.container} runs"] if enabled else [], True, params)

    def steps(check_mode: bool) -> tuple[list[str], dict[str, str]]:
        zero_loss = ZeroLoss(params, place)
        return (zero_loss.on(check_mode, say) if enabled else zero_loss.off(check_mode)), zero_loss.diff

    taken, diff = steps(check_mode=True)
    if taken and not check_mode:
        with place.alone(params["wait"], "setting up zero loss"):
            taken, diff = steps(check_mode=False)
    return {**_result(taken, check_mode, params), "diff": diff if taken else {}}


_PAST = {"make": "made", "change": "changed", "write": "wrote", "replace": "replaced", "start": "started",
         "let": "let", "remove": "removed", "drop": "dropped"}  # fmt: skip


def _result(steps: list[str], check_mode: bool, params: Mapping[str, Any]) -> dict[str, Any]:
    lines = [f"would {step}" if check_mode else _done(step) for step in steps]
    if not check_mode and params["enabled"]:
        away = "they wait" if params["away"] == "block" else "they go on without"
        lines.append(f"commits wait for the receiver; while it is away {away}")
    return {"changed": bool(steps), "steps": steps, "lines": lines}


def _done(step: str) -> str:
    verb, _, rest = step.partition(" ")
    return f"{_PAST[verb]} {rest}"
