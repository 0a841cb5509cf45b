"""A server made from a backup beside the live one: without network and secrets, reached over its socket, removed
afterwards.

It always recovers to a named target. Without one, PostgreSQL promotes at the first missing or damaged piece of the
write-ahead log and serves a part of the rows without an error.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..backups.kept import REMOVE
from ..backups.pgbackrest import (
    FULL,
    SEGMENT,
    folders,
    position,
    records_of,
    refuse_unreadable,
    segment_name,
    segment_number,
)
from ..backups.received import FOLDER, GET
from ..backups.records import Place, Record
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.sql_values import identifier
from ..common.text_files import current
from ..docker.containers import ROLE_LABEL, Containers, Output
from ..server import cluster, pgbackrest_version, settings
from ..server.backup_folders import RECEIVED, REPOSITORY, TRANSFER, further
from ..server.psql import LONGEST, Psql
from ..server.survey import BACKUPS, MOUNT, PGBACKREST_FOLDER, PGDATA, STANZA

ROLE = "restore"
_SOCKETS = "/var/run/postgresql"
LOCKS = 2048
"""The least `max_locks_per_transaction`: room for 60,000 tables or more, in some 30 MB."""
_OWNED = "rw,noexec,nosuid,nodev,mode=0755,uid=999,gid=999"
_REFUSALS = re.compile(r"^.*?\b(?:FATAL|PANIC|ERROR):\s+(.*)$", re.MULTILINE)
# The recovery settings that pgBackRest writes are removed from the cluster's files: they go to this server's command
# line alone. Since 2.60 pgBackRest refuses a set with damaged pages, which our records describe; older versions warn of
# the variable and continue.
_FILL = r"""
set -eu
folder=$1 label=$2 timeline=$3 tablespaces=$4
shift 4
rm -rf "$folder" "$tablespaces"
mkdir -m 0700 "$folder"
PGBACKREST_CHECKSUM_PAGE_ERROR=n pgbackrest --repo="$REPO" --stanza="$STANZA" --pg1-path="$folder" --set="$label" --type=default "$@" \
  --target-timeline="$timeline" restore || { code=$?; df -B1 --output=avail "$folder"; exit $code; }
# Zero loss comes back when its receiver is there; until then nothing is to wait for it.
sed -i -E '/^# .* by pgBackRest/d; /^(restore_command|recovery_target[a-z_]*|synchronous_standby_names|max_slot_wal_keep_size) *=/d' \
  "$folder/postgresql.auto.conf"
pg_controldata "$folder" | sed -n 's/^Database system identifier: *//p'
"""
_DIRECTORIES = f'cd {MOUNT} && find . -mindepth 1 -maxdepth 1 -type d ! -name "$1" ! -name "$2" -printf "%f\\n"'
_EARLIER = "Reachable targets: a time before it, or a backup's own end (`-e target=LABEL`)."
# The very last record may begin in the segment before the last one, which then may hold no other.
_END = rf"""
set -eu
{GET}
get "$1" "$3" "/tmp/$3"
get "$1" "$2" "/tmp/$2" || set -- "$1" "$3" "$3"
sha1sum "/tmp/$2" "/tmp/$3"
pg_waldump "/tmp/$2" "$3" 2>/tmp/said | tail -n 1
cat /tmp/said
"""
_RESTORE = """\
from={backups}/{folder}/{system}-$(printf %%.8s %f)/%f; \
pgbackrest --repo={repository} --stanza={stanza} --pg1-path={pgdata} archive-get %f "%p" || cp "$from" "%p" 2>/dev/null || cp "$from.partial" "%p" 2>/dev/null"""
_LOOK = r"""
df -B1 --output=avail "$1" | tail -n 1
ls -A "$1" | tr '\n' ' '; echo
[ ! -s "$1/pgdata/global/pg_control" ] || printf 'cluster'; echo
df -B1 --output=avail /backups/transfer | tail -n 1
"""
_HIDDEN = re.compile(rf'"({MOUNT}/[^"]+)": Read-only file system')
_READ = {REPOSITORY: False, RECEIVED: False}
"""The folders of the backups that a server reads which only recovers and counts."""
_ALL = {**_READ, TRANSFER: False}
"""The folders of the backups that our own programs read."""
_NAMES = """
SELECT json_build_object('roles', (SELECT json_agg(rolname) FROM pg_roles), 'tablespaces', (SELECT json_agg(spcname) FROM pg_tablespace))
"""
_SERVE = """
echo 'local all all trust' > /tmp/hba.conf
exec postgres "$@" -c hba_file=/tmp/hba.conf
"""


class Site:
    """The live server as far as it exists: its container, its volume, and one-off containers with the same folders."""

    def __init__(self, params: Mapping[str, Any], place: Place) -> None:
        self.place = place
        self.name: str = params["container"]
        self.helper = f"{self.name}-restore"
        """The name of every container that serves, restores or waits beside the live one: leftovers are found by it."""
        self.config = Path(params["config_dir"]).expanduser()
        self.repository: int = params.get("repository", 1)
        """The repository from which backups and log are read."""
        self.containers = Containers(place.containers.endpoint.url, timeout=900)
        self.psql = Psql(self.containers, self.name)
        self.container = self.containers.inspect("container", self.name)
        if self.container and (self.container["Config"]["Labels"] or {}).get(ROLE_LABEL) != "postgres":
            raise DasTernError(
                f"Container {self.name} isn't ours: it has no label {ROLE_LABEL}=postgres. Nothing was done. Correct "
                "`postgres_container_name`."
            )
        mounts = {mount["Destination"]: mount for mount in (self.container or {}).get("Mounts", [])}
        self.volume: str = mounts.get(MOUNT, {}).get("Name") or params["volume"]
        self.image: str = self.container["Image"] if self.container else params["image"]
        if not self.image or self.containers.inspect("image", self.image) is None:
            raise DasTernError(
                f"Container {self.name} doesn't exist, and neither does the image {self.image or '(none is named)'} to restore "
                "with. `ansible-playbook playbooks/restore.yml` gets or builds the image; the module alone needs `image`."
            )
        self.backups = place.folder
        if self.repository != 1:
            self._refuse_unknown_repository()

    def _refuse_unknown_repository(self) -> None:
        path = self.config / "pgbackrest" / "pgbackrest.conf"
        try:
            configured = further(path.read_text("utf-8"))
        except OSError as error:
            raise DasTernError(f"{path} can't be read: {error.strerror}. Run the play as root.") from None
        if self.repository not in configured:
            raise DasTernError(
                f"Repository {self.repository} isn't configured; further repositories: {', '.join(map(str, configured)) or 'none'}. Nothing "
                f"was done. `backup_repository_options` configures them (repo{self.repository}-type and so on)."
            )

    def records(self, sets: Sequence[Mapping[str, Any]]) -> list[Record]:
        """Return the records of physical backups, the newest first; a further repository keeps them with its `sets`."""
        if self.repository == 1:
            return [record for record in self.place.records() if record.physical]
        return records_of(sets)

    @property
    def running(self) -> bool:
        container = self.containers.inspect("container", self.name)
        return bool(container and container["State"]["Running"])

    def answers(self) -> bool:
        """Return whether the live server answers."""
        try:
            return self.running and self.psql.run("SELECT 1;").strip() == "1"
        except DasTernError:
            return False

    def wait_until_answers(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def start(self) -> None:
        self.containers.call("POST", f"/containers/{quote(self.name)}/start")

    def stop(self, name: str = "") -> None:
        self.containers.call("POST", f"/containers/{quote(name or self.name)}/stop?t=600")

    def volume_there(self) -> bool:
        return self.containers.inspect("volume", self.volume) is not None

    def make_volume(self, volume: str, role: str) -> None:
        if self.containers.inspect("volume", volume) is None:
            self.containers.call("POST", "/volumes/create", {"Name": volume, "Labels": {ROLE_LABEL: role}})

    def remove_volume(self, volume: str) -> bool:
        """Remove a volume, and return whether it existed."""
        try:
            self.containers.call("DELETE", f"/volumes/{quote(volume)}")
        except DasTernError as refusal:
            if refusal.facts.get("status") == 404:
                return False
            raise
        return True

    def remove_left_volume(self) -> bool:
        """Remove the volume that a killed run left, and return whether it existed. Refuse a foreign volume."""
        name = f"{self.helper}-data"
        volume = self.containers.inspect("volume", name)
        if volume and (volume["Labels"] or {}).get(ROLE_LABEL) != ROLE:
            raise DasTernError(
                f"Volume {name} isn't of a restore: it has no label {ROLE_LABEL}={ROLE}, and its name is needed. Nothing "
                "was done. If it is another server's (`postgres_volume_name`), one of the two needs another name."
            )
        return self.remove_volume(name)

    def host_config(self, volume: str, mounts: Mapping[str, bool]) -> dict[str, Any]:
        """Return the host configuration of a container beside the live one; `mounts` maps the backups' folders to
        writable or not.

        pgBackRest's configuration and the network go with the repository, which alone needs them.
        """
        live = (self.container or {}).get("HostConfig", {})
        secrets = []
        if REPOSITORY in mounts:
            configuration = current(self.config / "pgbackrest" / "pgbackrest.conf", " Run the play as root.")
            secrets = [f"{self.config / 'pgbackrest'}:{PGBACKREST_FOLDER}:ro"]
            mounts = {**dict.fromkeys(folders(configuration), False), **mounts}
        return {
            "Binds": [
                *(
                    f"{self.backups / name}:{BACKUPS}/{name}:{'rw' if writes else 'ro'}"
                    for name, writes in mounts.items()
                ),
                *secrets,
                *([f"{volume}:{MOUNT}"] if volume else []),
            ],
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=64m", _SOCKETS: _OWNED},  # noqa: S108 - its own
            # A server in this container listens on no address.
            **({"NetworkMode": live.get("NetworkMode") or "bridge"} if secrets and self.repository != 1 else {}),
            "Memory": live.get("Memory", 0),
            "MemorySwap": live.get("MemorySwap", 0),
            "ShmSize": live.get("ShmSize") or 256 * 1024**2,
        }

    def once(self, script: str, *words: str, volume: str | None = None, stdin: str = "", named: bool = False) -> Output:
        """Run a script beside the live server; if this run is killed, the next one ends a `named` script."""
        if named:
            self.remove_helper()
        return self.containers.run_once(
            self.image, script, words, stdin=stdin, name=self.helper if named else "", labels={ROLE_LABEL: ROLE},
            env={"STANZA": STANZA, "REPO": str(self.repository), "LANG": "C.UTF-8"}, host_config=self.host_config(self.volume if volume is None else volume, _ALL),
            silence=LONGEST,
        )  # fmt: skip

    def seen(self, script: str, *words: str) -> Output:
        """Run a script that reads the data volume, in the live container if that runs: that is five times as fast."""
        if self.running:
            return self.containers.execute(self.name, ["sh", "-c", script, "sh", *words], silence=LONGEST)
        return self.once(script, *words, volume=self.volume if self.volume_there() else "")

    def of_repository(self, script: str, *words: str) -> Output:
        """Run a script that reads the repository, in the backup container if that runs."""
        if self.containers.runs(self.place.keeper):
            environment = {"STANZA": STANZA, "REPO": str(self.repository)}
            command = ["sh", "-c", script, "sh", *words]
            return self.containers.execute(self.place.keeper, command, silence=LONGEST, environment=environment)
        return self.once(script, *words, volume=self.volume if self.volume_there() else "")

    def remove_clusters(self, *folders: str) -> None:
        """Remove clusters beside the live one, each with its tablespaces."""
        self.once(REMOVE, *folders, named=True)

    def remove_helper(self) -> None:
        """Remove the container beside the live one, and wait until its name is free."""
        self.containers.remove(self.helper)
        self.containers.wait_until_gone(self.helper, 60)

    def look(self) -> dict[str, Any]:
        """Return `free` bytes and `entries` of the data volume, whether it holds a `cluster`, and `free_backups`."""
        exists = self.volume_there()
        done = self.seen(_LOOK, MOUNT if exists else f"{BACKUPS}/{TRANSFER}")
        lines = done.out.splitlines()
        if done.rc or len(lines) < 4:
            raise DasTernError(f"Volume {self.volume} can't be read: {done.last_words}.")
        return {
            "free": int(lines[0]), "entries": lines[1].split() if exists else [], "cluster": bool(lines[2].strip()),
            "free_backups": int(lines[3]),
        }  # fmt: skip

    def pgbackrest(self, *words: str) -> str:
        """Return the output of a `pgbackrest` command on the repository, without its log; refuse if it fails."""
        done = self.of_repository(
            'exec pgbackrest --repo="$REPO" --stanza="$STANZA" --log-level-console=off "$@"', *words
        )
        if done.rc:
            raise DasTernError(f"pgBackRest can't read the repository ({words[0]}): {errors_of(done)}.", **done.outside)
        return done.out

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Run an idle container with the volume: a command in it takes a tenth of the time of its own container."""
        self._create(self.volume, ["sleep", "infinity"], [], PGDATA, {})
        try:
            yield
        except BaseException:
            with suppress(DasTernError):  # this mustn't hide the error that ended the swap
                self.remove_helper()
            raise
        self.remove_helper()

    def within(self, script: str, *words: str) -> Output:
        """Run a script in the idle container of `waiting`."""
        return self.containers.execute(self.helper, ["sh", "-c", script, "sh", *words], silence=600)

    def serve(self, volume: str, folder: str, recovery: Mapping[str, str], mounts: Mapping[str, bool]) -> Psql:
        """Start a server on a folder of `volume` with the live server's settings, and wait until it answers.

        `mounts` are as in `host_config`. A server that evaluates the application's code gets none of them.
        """
        live = settings.of_command((self.container or {"Config": {"Cmd": []}})["Config"]["Cmd"])
        own = {
            "listen_addresses": "", "unix_socket_directories": _SOCKETS,
            # Its log has to reach the archive once it is live, and not a moment earlier.
            "archive_mode": "on", "archive_command": "", "archive_timeout": "0",
            # With hot_standby, recovery waits for ever if the backup came from a server with larger settings.
            "hot_standby": "off", "logging_collector": "off", "log_destination": "stderr",
            # pg_dump locks each table of the database.
            "max_locks_per_transaction": str(max(LOCKS, int(live.get("max_locks_per_transaction", 0)))),
            # No standby receives its log: its first commit would wait for ever.
            "synchronous_standby_names": "",
            # Its subscriptions are the live server's, too.
            "max_logical_replication_workers": "0",
            # Programs and libraries in the cluster's own files may come from anybody who could write there.
            "recovery_end_command": "", "archive_cleanup_command": "", "archive_library": "", "ssl_passphrase_command": "",
            "session_preload_libraries": "", "local_preload_libraries": "", "jit_provider": "llvmjit",
            "dynamic_library_path": "$libdir", "shared_preload_libraries": live.get("shared_preload_libraries", ""),
            **recovery,
        }  # fmt: skip
        self._create(volume, ["/bin/sh", "-c", _SERVE, "sh"], settings.command({**live, **own})[1:], folder, mounts)
        psql = Psql(self.containers, self.helper)
        end = time.monotonic() + LONGEST
        while True:
            try:
                if psql.run("SELECT pg_is_in_recovery();").strip() == "f":
                    return psql
            except DasTernError:
                pass  # still starting, or removed
            container = self.containers.inspect("container", self.helper)
            if not container or not container["State"]["Running"] or time.monotonic() > end:
                errors = _REFUSALS.findall(self.containers.logs(self.helper, 60)) if container else ["it was removed"]
                raise DasTernError(
                    "The server made from the backup doesn't start: "
                    + (" / ".join(errors[-4:]) or "it logged no error")
                    + ".",
                    server=errors,
                    # A server killed from outside, as by the memory limit, tells nothing about the backup.
                    **({"status": 0} if not container or container["State"]["ExitCode"] == 137 else {}),
                )
            time.sleep(0.1)

    @contextmanager
    def throwaway(self) -> Iterator[Psql]:
        """Serve an empty cluster for the block, with roles and tablespaces named like the live server's.

        It has no network, no secrets, and no folder of the host: a stranger's code may run there with all rights.
        """
        volume = f"{self.helper}-data"
        self.remove_helper()
        self.remove_left_volume()
        self.make_volume(volume, ROLE)
        try:
            cluster.initialise(self.containers, self.image, volume, self.helper)
            psql = self.serve(volume, PGDATA, {"archive_mode": "off", "fsync": "off"}, {})
            make_names(psql, *names_of(self.psql))
            yield psql
        finally:
            self.remove_helper()
            self.remove_volume(volume)

    def stop_served(self) -> None:
        """Stop the server so that its next start has nothing to recover, and remove its container."""
        self.stop(self.helper)
        code = (self.containers.inspect("container", self.helper) or {"State": {"ExitCode": 0}})["State"]["ExitCode"]
        if code != 0:
            raise DasTernError(f"The server made from the backup doesn't shut down cleanly (exit code {code}).")
        self.remove_helper()

    def _create(
        self, volume: str, entrypoint: list[str], command: list[str], folder: str, mounts: Mapping[str, bool]
    ) -> None:
        self.remove_helper()
        host_config = self.host_config(volume, mounts)
        if volume == self.volume and folder != PGDATA:
            # Recovery creates a tablespace of the log at its own path, which may be the live cluster's: hide all
            # others.
            own = Path(folder).name
            others = self.seen(_DIRECTORIES, own, tablespaces_of(own)).out.splitlines()
            host_config["Tmpfs"] |= {f"{MOUNT}/{name}": "ro,size=4k,mode=0755" for name in others}
        body = {
            "Image": self.image, "User": "postgres", "Entrypoint": entrypoint, "Cmd": command, "StopSignal": "SIGINT",
            "Labels": {ROLE_LABEL: ROLE}, "Env": ["LANG=C.UTF-8", f"PGDATA={folder}"],
            "HostConfig": {
                "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"], **host_config,
            },
        }  # fmt: skip
        self.containers.call("POST", "/containers/create", body, name=self.helper)
        self.containers.call("POST", f"/containers/{quote(self.helper)}/start")


def tablespaces_of(folder: str) -> str:
    """Return the name of the folder with the tablespaces of a cluster restored into `folder`."""
    return f"tablespaces-{folder.removeprefix('restored-')}"


def names_of(psql: Psql) -> tuple[set[str], set[str]]:
    """Return the names of a server's roles and tablespaces."""
    names = psql.value(_NAMES)
    return set(names["roles"]), set(names["tablespaces"])


def make_names(psql: Psql, roles: set[str], tablespaces: set[str]) -> None:
    """Create the roles and tablespaces that a backup's SQL names: roles without rights, in-place tablespaces."""
    known_roles, known_tablespaces = names_of(psql)
    psql.run(
        "SET allow_in_place_tablespaces = on;\n"
        + "".join(f"CREATE ROLE {identifier(name)};\n" for name in sorted(roles - known_roles))
        + "".join(
            f"CREATE TABLESPACE {identifier(name)} LOCATION '';\n" for name in sorted(tablespaces - known_tablespaces)
        )
    )


class RestoredServer:
    """One physical backup, with its files in `folder` of `volume`, served until it is stopped."""

    def __init__(self, site: Site, volume: str, folder: str) -> None:
        self.site, self.volume, self.folder = site, volume, f"{MOUNT}/{folder}"
        self.system = ""
        """The cluster's identifier, once its files are restored."""
        self.tablespaces = f"{MOUNT}/{tablespaces_of(folder)}"
        """The folder of the tablespaces. Its name stays if the cluster's is renamed, as links lead there."""

    def fill(self, label: str, timeline: int, instead: str = "") -> None:
        """Restore the backup's files; pgBackRest compares each with its noted checksum. `instead` names a better
        backup.

        Without a timeline pgBackRest would follow the newest, which an undone restore may have left.
        """
        advice = "`ansible-playbook playbooks/verify_backups.yml` shows which backups are intact"
        advice = f"{advice}. {instead}" if instead else f"{advice}; choose another one (`-e target=LABEL`)."
        try:
            maps = self._tablespace_maps(label)
        except DasTernError as refusal:
            raise DasTernError(
                f"Backup {label} can't be restored: {refusal.message} {advice}", **refusal.facts
            ) from None
        done = self.site.once(
            _FILL, self.folder, label, str(timeline), self.tablespaces, *maps, volume=self.volume, named=True
        )
        if done.rc:
            available = re.search(r"Avail\s+(\d+)\s*$", done.out)
            # pgBackRest doesn't always report a full disk itself.
            full = "No space left" in done.out + done.err or (available is not None and int(available[1]) < FULL)
            if full:
                advice = f"The disk of volume {self.volume} has no space left: make room there (`docker system df` shows what Docker holds), then run again."
            # A failure from outside, or of a full disk, tells nothing about the backup.
            status = {"status": 0} if full else done.outside
            raise DasTernError(f"Backup {label} can't be restored: {errors_of(done)}. {advice}", **status)
        self.system = done.out.split()[-1]

    def _tablespace_maps(self, label: str) -> list[str]:
        """Return pgBackRest's options that put each tablespace of a set into a folder named by its OID.

        With `--tablespace-map-all` the folder would have the tablespace's name, which may be a path such as
        `../pgdata/x`.
        """
        stanzas = json.loads(self.site.pgbackrest("info", f"--set={label}", "--output=json"), strict=False)
        sets = stanzas[0].get("backup") if stanzas else None
        spaces = (sets[0].get("tablespace") or []) if sets else []
        return [f"--tablespace-map={int(space['oid'])}={self.tablespaces}/{int(space['oid'])}" for space in spaces]

    def end_of(self, segment: str, sums: Mapping[str, str]) -> str:
        """Return where the last record up to the end of a segment begins, archived or received.

        Damage looks like an end of the log, and commits after it would be lost without an error. So an archived segment
        has to match its checksum, and a complete segment that was only received has to be readable to its end; an
        unfinished one can't be checked. `sums` is `Archive.sums`.
        """
        before = segment_name(int(segment[:8], 16), segment_number(segment) - 1)
        done = self.site.once(_END, self.folder, before, segment, volume=self.volume, named=True)
        if done.rc:
            raise DasTernError(
                f"The end of the write-ahead log, {segment}, can't be read: {errors_of(done)}. {_EARLIER}"
            )
        end = re.search(r" lsn: ([0-9A-F]+/[0-9A-F]+),", done.out)
        digests = {name: digest for digest, name in re.findall(r"^([0-9a-f]{40})  /tmp/(\w+)$", done.out, re.MULTILINE)}
        damaged = [name for name in sorted(digests) if sums.get(name) and digests[name] != sums[name]]
        if error := re.search(r"^pg_waldump: error: .*\b([0-9A-F]+/[0-9A-F]+)", done.out, re.MULTILINE):
            broken = segment_name(int(segment[:8], 16), position(error[1]) // SEGMENT)
            damaged += [broken] if sums.get(broken) == "" else []
        if damaged or not end:
            readable = f"To restore up to there: `{playbook('restore', target=end[1])}`. " if end else ""
            raise DasTernError(
                f"WAL segment {(damaged or [segment])[0]} is damaged, and the log after it can't be reached; PostgreSQL would take the "
                f"damage for the end of the log. {readable}{_EARLIER}"
            )
        return end[1]

    def serve(self, recovery: Mapping[str, str], *, dumped: bool = False) -> Psql:
        """Recover to `recovery` (settings `recovery_target_*`) and become an ordinary server, which may be `dumped`.

        Only the recovering server has the repository, its secrets and perhaps a network; it is only asked whether it is
        done.
        """
        fetch = _RESTORE.format(
            backups=BACKUPS, folder=FOLDER, system=self.system, stanza=STANZA, pgdata=self.folder,
            repository=self.site.repository,
        )  # fmt: skip
        recovering = {"restore_command": fetch, "recovery_target_action": "promote", "autovacuum": "off", **recovery}
        try:
            self.site.serve(self.volume, self.folder, recovering, _READ)
        except DasTernError as refusal:
            if hidden := _HIDDEN.search(refusal.message):
                raise DasTernError(
                    f"Between the backup and the target the log creates a tablespace at {hidden[1]}, a path that the live cluster uses, "
                    f"too: it can't be created beside that. Take a new backup, which includes it (`{playbook('backup', backup_type='full')}`), "
                    "then choose a later target; or choose one before the tablespace.",
                    tablespace=hidden[1],
                ) from None
            raise
        self.site.stop_served()
        return self.site.serve(self.volume, self.folder, {}, {TRANSFER: True} if dumped else {})

    def stop(self) -> None:
        self.site.stop_served()

    def discard(self) -> None:
        """Remove the server and its files, as far as they exist."""
        self.site.remove_helper()
        if self.volume == self.site.volume:
            self.site.remove_clusters(Path(self.folder).name)
        else:
            self.site.remove_volume(self.volume)


def errors_of(done: Output) -> str:
    """Return the errors that pgBackRest reported."""
    errors = re.findall(r"ERROR: (.*)", done.out + done.err)
    return " / ".join(errors[-3:]) if errors else done.last_words


def info(site: Site) -> dict[str, Any]:
    """Return pgBackRest's information on the stanza; refuse an unsupported version of pgBackRest."""
    source = f"Container {site.name}" if site.container else f"Image {site.image}"
    pgbackrest_version.read(source, site.of_repository(pgbackrest_version.COMMAND[-1]))
    stanzas = json.loads(site.pgbackrest("info", "--output=json") or "[]", strict=False)
    stanza = next((entry for entry in stanzas if entry.get("name") == STANZA), None)
    if stanza:
        refuse_unreadable(stanza, site.repository)
    if stanza is None or not stanza.get("backup"):
        where = site.backups if site.repository == 1 else f"repository {site.repository}"
        raise DasTernError(
            f"There is no physical backup in {where}. `ansible-playbook playbooks/backup.yml` takes one; "
            "`ansible-playbook playbooks/list_backups.yml` lists all backups."
        )
    return dict(stanza)
