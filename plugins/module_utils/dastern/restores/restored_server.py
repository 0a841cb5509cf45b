"""A server made of a backup, beside the live one: without network and secrets, reached over its socket alone, gone afterwards.

It recovers to a target that is always named. Without one, PostgreSQL promotes at the first piece of the write-ahead log
that is missing or damaged, and serves part of the rows without a word.
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
"""`max_locks_per_transaction` at least: room for 60,000 tables or more, in some 30 MB."""
_OWNED = "rw,noexec,nosuid,nodev,mode=0755,uid=999,gid=999"
_REFUSALS = re.compile(r"^.*?\b(?:FATAL|PANIC|ERROR):\s+(.*)$", re.MULTILINE)
# What pgBackRest writes of a recovery stays out of the cluster's files: it goes to this server's command line alone. Since 2.60 it
# would refuse a set with damaged pages, of which ours say what they are; what is older warns of the variable, and goes on.
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
_EARLIER = "A time before it can be reached, or a backup's own end (`-e target=LABEL`)."
# The last record of all may begin in the segment before the last, and be the only one there.
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
"""What a server reads that only recovers and counts."""
_ALL = {**_READ, TRANSFER: False}
"""What one of our own programs reads."""
_NAMES = """
SELECT json_build_object('roles', (SELECT json_agg(rolname) FROM pg_roles), 'tablespaces', (SELECT json_agg(spcname) FROM pg_tablespace))
"""
_SERVE = """
echo 'local all all trust' > /tmp/hba.conf
exec postgres "$@" -c hba_file=/tmp/hba.conf
"""


class Site:
    """The live server as far as it is there: its container, its volume, and one-off containers that see what it sees."""

    def __init__(self, params: Mapping[str, Any], place: Place) -> None:
        self.place = place
        self.name: str = params["container"]
        self.helper = f"{self.name}-restore"
        """Whatever serves, restores or waits for a swap beside the live container is called so: what was left is found."""
        self.config = Path(params["config_dir"]).expanduser()
        self.repository: int = params.get("repository", 1)
        """The one that backups and log are read from."""
        self.containers = Containers(place.containers.endpoint.url, timeout=900)
        self.psql = Psql(self.containers, self.name)
        self.container = self.containers.inspect("container", self.name)
        if self.container and (self.container["Config"]["Labels"] or {}).get(ROLE_LABEL) != "postgres":
            raise DasTernError(
                f"Container {self.name} isn't ours: it has no label {ROLE_LABEL}=postgres. Nothing was done; set "
                "`postgres_container_name` right."
            )
        mounts = {mount["Destination"]: mount for mount in (self.container or {}).get("Mounts", [])}
        self.volume: str = mounts.get(MOUNT, {}).get("Name") or params["volume"]
        self.image: str = self.container["Image"] if self.container else params["image"]
        if not self.image or self.containers.inspect("image", self.image) is None:
            raise DasTernError(
                f"Container {self.name} isn't there, and neither is the image {self.image or '(none is named)'} to restore "
                "with. `ansible-playbook playbooks/restore.yml` gets or builds it; a module alone is given `image`."
            )
        self.backups = place.folder
        if self.repository != 1:
            self._refuse_unknown_repository()

    def _refuse_unknown_repository(self) -> None:
        path = self.config / "pgbackrest" / "pgbackrest.conf"
        try:
            there = further(path.read_text("utf-8"))
        except OSError as error:
            raise DasTernError(f"{path} can't be read: {error.strerror}. Run the play as root.") from None
        if self.repository not in there:
            raise DasTernError(
                f"Repository {self.repository} isn't configured; further ones are: {', '.join(map(str, there)) or 'none'}. Nothing was "
                f"done. `backup_repository_options` names them (repo{self.repository}-type and so on)."
            )

    def records(self, sets: Sequence[Mapping[str, Any]]) -> list[Record]:
        """Those of physical backups, the newest first; of a further repository what came with its sets, as `info` tells of them."""
        if self.repository == 1:
            return [record for record in self.place.records() if record.kind == "physical"]
        return records_of(sets)

    @property
    def running(self) -> bool:
        found = self.containers.inspect("container", self.name)
        return bool(found and found["State"]["Running"])

    def answers(self) -> bool:
        """Whether the live server does."""
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
        """Whether it was there."""
        try:
            self.containers.call("DELETE", f"/volumes/{quote(volume)}")
        except DasTernError as refusal:
            if refusal.facts.get("status") == 404:
                return False
            raise
        return True

    def remove_left_volume(self) -> bool:
        """Remove the volume of a server that a killed run left; whether there was one. Refuse one that isn't ours."""
        name = f"{self.helper}-data"
        volume = self.containers.inspect("volume", name)
        if volume and (volume["Labels"] or {}).get(ROLE_LABEL) != ROLE:
            raise DasTernError(
                f"Volume {name} isn't of a restore: it has no label {ROLE_LABEL}={ROLE}, and its name is needed. Nothing "
                "was done; is it another server's (`postgres_volume_name`)? Then one of the two needs another name."
            )
        return self.remove_volume(name)

    def host_config(self, volume: str, mounts: Mapping[str, bool]) -> dict[str, Any]:
        """Return how a container beside the live one is made; `mounts` are folders of the backups, and whether it writes there.

        Configuration and network go with the repository, for that alone needs them.
        """
        live = (self.container or {}).get("HostConfig", {})
        secret = []
        if REPOSITORY in mounts:
            configuration = current(self.config / "pgbackrest" / "pgbackrest.conf", " Run the play as root.")
            secret = [f"{self.config / 'pgbackrest'}:{PGBACKREST_FOLDER}:ro"]
            mounts = {**dict.fromkeys(folders(configuration), False), **mounts}
        return {
            "Binds": [
                *(
                    f"{self.backups / name}:{BACKUPS}/{name}:{'rw' if writes else 'ro'}"
                    for name, writes in mounts.items()
                ),
                *secret,
                *([f"{volume}:{MOUNT}"] if volume else []),
            ],
            "Tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=64m", _SOCKETS: _OWNED},  # noqa: S108 - its own
            # A server in it listens nowhere.
            **({"NetworkMode": live.get("NetworkMode") or "bridge"} if secret and self.repository != 1 else {}),
            "Memory": live.get("Memory", 0),
            "MemorySwap": live.get("MemorySwap", 0),
            "ShmSize": live.get("ShmSize") or 256 * 1024**2,
        }

    def once(self, script: str, *words: str, volume: str | None = None, stdin: str = "", named: bool = False) -> Output:
        """Run a script beside the live server; a `named` one is ended by the next run, if this one is killed."""
        if named:
            self.remove_helper()
        return self.containers.run_once(
            self.image, script, words, stdin=stdin, name=self.helper if named else "", labels={ROLE_LABEL: ROLE},
            env={"STANZA": STANZA, "REPO": str(self.repository), "LANG": "C.UTF-8"}, host_config=self.host_config(self.volume if volume is None else volume, _ALL),
            silence=LONGEST,
        )  # fmt: skip

    def seen(self, script: str, *words: str) -> Output:
        """Run a script that reads the data volume, in the live container if it runs: that takes a fifth of the time."""
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
        """Remove clusters that are beside the live one, each with its tablespaces."""
        self.once(REMOVE, *folders, named=True)

    def remove_helper(self) -> None:
        """Have neither the container beside the live one nor its name in use."""
        self.containers.remove(self.helper)
        self.containers.wait_until_gone(self.helper, 60)

    def look(self) -> dict[str, Any]:
        """`free` bytes and `entries` of the data volume, whether it holds a `cluster`, and `free_backups`."""
        there = self.volume_there()
        done = self.seen(_LOOK, MOUNT if there else f"{BACKUPS}/{TRANSFER}")
        lines = done.out.splitlines()
        if done.rc or len(lines) < 4:
            raise DasTernError(f"Volume {self.volume} can't be read: {done.last_words}.")
        return {
            "free": int(lines[0]), "entries": lines[1].split() if there else [], "cluster": bool(lines[2].strip()),
            "free_backups": int(lines[3]),
        }  # fmt: skip

    def pgbackrest(self, *words: str) -> str:
        """What `pgbackrest` says of the repository, without its log; a refusal where it fails."""
        done = self.of_repository(
            'exec pgbackrest --repo="$REPO" --stanza="$STANZA" --log-level-console=off "$@"', *words
        )
        if done.rc:
            raise DasTernError(f"pgBackRest can't read the repository ({words[0]}): {errors_of(done)}.", **done.outside)
        return done.out

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A container that sees the volume and does nothing: a command in it costs a tenth of a container of its own."""
        self._create(self.volume, ["sleep", "infinity"], [], PGDATA, {})
        try:
            yield
        except BaseException:
            with suppress(DasTernError):  # of what ended the swap, nothing is to be lost
                self.remove_helper()
            raise
        self.remove_helper()

    def within(self, script: str, *words: str) -> Output:
        """Run a script in the container that waits."""
        return self.containers.execute(self.helper, ["sh", "-c", script, "sh", *words], silence=600)

    def serve(self, volume: str, folder: str, recovery: Mapping[str, str], mounts: Mapping[str, bool]) -> Psql:
        """Start a server on a folder of `volume` with the live one's settings, and wait until it answers.

        `mounts` are as in `host_config`. A server that evaluates what the application wrote is given none of them.
        """
        live = settings.of_command((self.container or {"Config": {"Cmd": []}})["Config"]["Cmd"])
        own = {
            "listen_addresses": "", "unix_socket_directories": _SOCKETS,
            # What it writes has to reach the archive once it is the live one, and not a moment earlier.
            "archive_mode": "on", "archive_command": "", "archive_timeout": "0",
            # With it, a recovery waits for ever where the backup came from a server of larger settings.
            "hot_standby": "off", "logging_collector": "off", "log_destination": "stderr",
            # It is dumped whole, and pg_dump locks each table.
            "max_locks_per_transaction": str(max(LOCKS, int(live.get("max_locks_per_transaction", 0)))),
            # Nobody receives what it writes: its first commit would wait for ever.
            "synchronous_standby_names": "",
            # A subscription that it has is the live one's, too.
            "max_logical_replication_workers": "0",
            # What the cluster's own files say of programs and libraries is whoever's who could write there.
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
                pass  # still starting, or not there any more
            found = self.containers.inspect("container", self.helper)
            if not found or not found["State"]["Running"] or time.monotonic() > end:
                words = _REFUSALS.findall(self.containers.logs(self.helper, 60)) if found else ["it was removed"]
                raise DasTernError(
                    "The server made of the backup doesn't start: "
                    + (" / ".join(words[-4:]) or "it says nothing")
                    + ".",
                    server=words,
                    # Ended from outside, as by the memory limit, it says nothing of the backup.
                    **({"status": 0} if not found or found["State"]["ExitCode"] == 137 else {}),
                )
            time.sleep(0.1)

    @contextmanager
    def throwaway(self) -> Iterator[Psql]:
        """Serve an empty cluster of its own for as long as the block lasts, with roles and tablespaces called as the live server's.

        It has no network, no secrets, and no folder of the host: what a stranger wrote may run there with all rights.
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
        """Stop it so that its next start has nothing to recover, and remove its container."""
        self.stop(self.helper)
        code = (self.containers.inspect("container", self.helper) or {"State": {"ExitCode": 0}})["State"]["ExitCode"]
        if code != 0:
            raise DasTernError(f"The server made of the backup doesn't stop in order ({code}).")
        self.remove_helper()

    def _create(
        self, volume: str, entrypoint: list[str], command: list[str], folder: str, mounts: Mapping[str, bool]
    ) -> None:
        self.remove_helper()
        made = self.host_config(volume, mounts)
        if volume == self.volume and folder != PGDATA:
            # A tablespace that the log makes is made at its own path, which may be the live cluster's: nothing of that is seen.
            own = Path(folder).name
            beside = self.seen(_DIRECTORIES, own, tablespaces_of(own)).out.splitlines()
            made["Tmpfs"] |= {f"{MOUNT}/{name}": "ro,size=4k,mode=0755" for name in beside}
        body = {
            "Image": self.image, "User": "postgres", "Entrypoint": entrypoint, "Cmd": command, "StopSignal": "SIGINT",
            "Labels": {ROLE_LABEL: ROLE}, "Env": ["LANG=C.UTF-8", f"PGDATA={folder}"],
            "HostConfig": {
                "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges:true"], **made,
            },
        }  # fmt: skip
        self.containers.call("POST", "/containers/create", body, name=self.helper)
        self.containers.call("POST", f"/containers/{quote(self.helper)}/start")


def tablespaces_of(folder: str) -> str:
    """Name of the folder that has the tablespaces of a cluster restored into `folder`."""
    return f"tablespaces-{folder.removeprefix('restored-')}"


def names_of(psql: Psql) -> tuple[set[str], set[str]]:
    """Return the names of a server's roles and tablespaces."""
    found = psql.value(_NAMES)
    return set(found["roles"]), set(found["tablespaces"])


def make_names(psql: Psql, roles: set[str], tablespaces: set[str]) -> None:
    """Give a throwaway server what the SQL of a backup names: roles that may do nothing, and tablespaces in its own data directory."""
    known_roles, known_tablespaces = names_of(psql)
    psql.run(
        "SET allow_in_place_tablespaces = on;\n"
        + "".join(f"CREATE ROLE {identifier(name)};\n" for name in sorted(roles - known_roles))
        + "".join(
            f"CREATE TABLESPACE {identifier(name)} LOCATION '';\n" for name in sorted(tablespaces - known_tablespaces)
        )
    )


class RestoredServer:
    """One physical backup, its files in `folder` of `volume`, served for as long as it is asked."""

    def __init__(self, site: Site, volume: str, folder: str) -> None:
        self.site, self.volume, self.folder = site, volume, f"{MOUNT}/{folder}"
        self.system = ""
        """The cluster's identifier, once its files are there."""
        self.tablespaces = f"{MOUNT}/{tablespaces_of(folder)}"
        """They get a folder of their own, which stays theirs whatever the cluster's is called later: links lead there."""

    def fill(self, label: str, timeline: int, instead: str = "") -> None:
        """Have the backup's files there; pgBackRest compares each with the checksum that it noted. `instead` names a better one.

        Without a timeline it would follow the newest, which a restore that was undone may have left.
        """
        mend = "`ansible-playbook playbooks/verify_backups.yml` shows which backups are whole"
        mend = f"{mend}. {instead}" if instead else f"{mend}; take another one (`-e target=LABEL`)."
        try:
            maps = self._tablespace_maps(label)
        except DasTernError as refusal:
            raise DasTernError(f"Backup {label} can't be restored: {refusal.message} {mend}", **refusal.facts) from None
        done = self.site.once(
            _FILL, self.folder, label, str(timeline), self.tablespaces, *maps, volume=self.volume, named=True
        )
        if done.rc:
            left = re.search(r"Avail\s+(\d+)\s*$", done.out)
            # pgBackRest doesn't always say that itself.
            full = "No space left" in done.out + done.err or (left is not None and int(left[1]) < FULL)
            if full:
                mend = f"The disk of volume {self.volume} has no space left: make room there (`docker system df` shows what Docker holds), then run again."
            # What was ended from outside, or by a full disk, says nothing of the backup.
            status = {"status": 0} if full else done.outside
            raise DasTernError(f"Backup {label} can't be restored: {errors_of(done)}. {mend}", **status)
        self.system = done.out.split()[-1]

    def _tablespace_maps(self, label: str) -> list[str]:
        """Return pgBackRest's options that put each tablespace of a set into a folder called by its OID.

        With `--tablespace-map-all` the folder would have the tablespace's name, which may be a path such as `../pgdata/x`.
        """
        told = json.loads(self.site.pgbackrest("info", f"--set={label}", "--output=json"), strict=False)
        sets = told[0].get("backup") if told else None
        spaces = (sets[0].get("tablespace") or []) if sets else []
        return [f"--tablespace-map={int(one['oid'])}={self.tablespaces}/{int(one['oid'])}" for one in spaces]

    def end_of(self, segment: str, sums: Mapping[str, str]) -> str:
        """Where the last record up to the end of a segment begins, in the archive or in what was received.

        Damage looks like an end, and commits behind it would be lost without a word. So an archived segment has to be what
        was archived, and a complete one that was only received has to be readable to its end; of one that was still being
        written nothing of the kind is known. `sums` is `Archive.sums`.
        """
        before = segment_name(int(segment[:8], 16), segment_number(segment) - 1)
        done = self.site.once(_END, self.folder, before, segment, volume=self.volume, named=True)
        if done.rc:
            raise DasTernError(
                f"The end of the write-ahead log, {segment}, can't be read: {errors_of(done)}. {_EARLIER}"
            )
        end = re.search(r" lsn: ([0-9A-F]+/[0-9A-F]+),", done.out)
        found = {name: digest for digest, name in re.findall(r"^([0-9a-f]{40})  /tmp/(\w+)$", done.out, re.MULTILINE)}
        damaged = [name for name in sorted(found) if sums.get(name) and found[name] != sums[name]]
        if said := re.search(r"^pg_waldump: error: .*\b([0-9A-F]+/[0-9A-F]+)", done.out, re.MULTILINE):
            broken = segment_name(int(segment[:8], 16), position(said[1]) // SEGMENT)
            damaged += [broken] if sums.get(broken) == "" else []
        if damaged or not end:
            readable = f"Up to there: `{playbook('restore', target=end[1])}`. " if end else ""
            raise DasTernError(
                f"WAL segment {(damaged or [segment])[0]} is damaged, and what comes behind can't be reached; by itself it would "
                f"look like the end of the log. {readable}{_EARLIER}"
            )
        return end[1]

    def serve(self, recovery: Mapping[str, str], *, dumped: bool = False) -> Psql:
        """Recover to `recovery` (settings `recovery_target_*`) and become an ordinary server, which may be `dumped`.

        Only what recovers has the repository, its secrets and perhaps a network; nobody asks it anything but whether it is done.
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
                    f"Between the backup and the target the log makes a tablespace at {hidden[1]}, a path that the live cluster has, "
                    f"too: it can't be made beside that. Take a new backup, which has it (`{playbook('backup', backup_type='full')}`), "
                    "then a later target; or name a target from before it.",
                    tablespace=hidden[1],
                ) from None
            raise
        self.site.stop_served()
        return self.site.serve(self.volume, self.folder, {}, {TRANSFER: True} if dumped else {})

    def stop(self) -> None:
        self.site.stop_served()

    def discard(self) -> None:
        """Remove the server and its files, whatever is there of them."""
        self.site.remove_helper()
        if self.volume == self.site.volume:
            self.site.remove_clusters(Path(self.folder).name)
        else:
            self.site.remove_volume(self.volume)


def errors_of(done: Output) -> str:
    """pgBackRest's own words of what went wrong."""
    found = re.findall(r"ERROR: (.*)", done.out + done.err)
    return " / ".join(found[-3:]) if found else done.last_words


def info(site: Site) -> dict[str, Any]:
    """What pgBackRest knows of the stanza; refuses a pgBackRest that this project doesn't work with."""
    asked = f"Container {site.name}" if site.container else f"Image {site.image}"
    pgbackrest_version.read(asked, site.of_repository(pgbackrest_version.COMMAND[-1]))
    told = json.loads(site.pgbackrest("info", "--output=json") or "[]", strict=False)
    found = next((one for one in told if one.get("name") == STANZA), None)
    if found:
        refuse_unreadable(found, site.repository)
    if found is None or not found.get("backup"):
        where = site.backups if site.repository == 1 else f"repository {site.repository}"
        raise DasTernError(
            f"No physical backup is in {where}. `ansible-playbook playbooks/backup.yml` takes one; "
            "`ansible-playbook playbooks/list_backups.yml` shows what is there."
        )
    return dict(found)
