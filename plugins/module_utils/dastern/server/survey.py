"""The survey that the postgres role makes before it touches anything, and all its refusals."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from ..common import scram, swaps
from ..common.errors import DasTernError
from ..common.files import absolute
from ..common.quantities import cut
from ..common.sql_values import identifier, literal
from ..docker.containers import ROLE_LABEL, Containers
from . import backup_folders, hba, pgbackrest_version, settings
from .backup_folders import LOGICAL, RECEIVED, TRANSFER
from .psql import Psql, session_options

ROLE = "postgres"
MAJOR = "17"
SUPERUSER = "postgres"
MOUNT = "/var/lib/postgresql/data"
PGDATA = f"{MOUNT}/pgdata"
HBA_FOLDER = "/etc/das-tern/server"
HBA_FILE = f"{HBA_FOLDER}/pg_hba.conf"
IDENT_FILE = f"{HBA_FOLDER}/pg_ident.conf"
BACKUPS = "/backups"
"""Folder in a container that has the parts of `postgres_backup_dir` which this container needs."""
ARCHIVED = "/run/das-tern"
"""Folder in which the backup container notes, for the server's container, the log files that are in the repository."""
PGBACKREST_FOLDER = "/etc/pgbackrest"
ARCHIVER = "pgbackrest-archive"
"""The archive_command's program. pgBackRest takes no backup unless its own name is part of the archive_command."""
_ARCHIVE = f"""#!/bin/bash
# Written by the postgres role, run by the server as archive_command: waits until the backup container, which alone has the
# repository, notes that this very file is in it. Nothing is sent: that container sees which files are ready.
notes={ARCHIVED} name=$1
file=$(stat -c '%F %i %s %.9Y %.9Z' "pg_wal/$name") || exit 1
fail() {{ echo "archive-push: $1" >&2; exit 1; }}
end=$((SECONDS + 30))
while :; do
  known=''
  read -r known 2>/dev/null < "$notes/$name"
  [ "$known" != "$file" ] || exit 0
  beat=$(stat -c %Y "$notes/alive" 2>/dev/null) || fail "the backup container doesn't exist (ansible-playbook playbooks/provision.yml)"
  [ $(($(date +%s) - beat)) -lt 10 ] || fail "the backup container doesn't run (docker start, or ansible-playbook playbooks/provision.yml)"
  if [ $SECONDS -ge $((end - 27)) ] && read -r why 2>/dev/null < "$notes/$name.failed"; then fail "$why"; fi
  [ $SECONDS -lt $end ] || fail "the backup container hasn't archived it in 30 s"
  sleep 0.1
done
"""
NAMES = "synchronous_standby_names"
STANZA = "dastern"
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not bound to
FREE_BYTES = 512 * 1024**2

ARGUMENT_SPEC: dict[str, Any] = {
    "endpoint": {"type": "str", "required": True},
    "container": {"type": "str", "required": True},
    "volume": {"type": "str", "required": True},
    "network": {"type": "str", "required": True},
    "image": {"type": "str", "default": ""},
    "listen_address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "memory": {"type": "str", "required": True},
    "shm_size": {"type": "str", "required": True},
    "settings": {"type": "dict", "required": True},
    "settings_extra": {"type": "dict", "default": {}},
    "hba_extra": {"type": "list", "elements": "str", "default": []},
    "database": {"type": "str", "required": True},
    "app_user": {"type": "str", "required": True},
    "app_createdb": {"type": "bool", "default": False},
    "readonly_user": {"type": "str", "required": True},
    "app_password": {"type": "str", "default": "", "no_log": True},
    "readonly_password": {"type": "str", "default": "", "no_log": True},
    "config_dir": {"type": "path", "required": True},
    "backup_dir": {"type": "path", "required": True},
    "wal_archive": {"type": "bool", "default": False},
    "archive_timeout": {"type": "str", "default": "60s"},
    "zero_loss": {"type": "bool", "default": False},
    "new_folder": {"type": "bool", "default": False},
}

_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LOOK_INTO_VOLUME = """
cd /volume || exit 1
for file in pgdata/PG_VERSION PG_VERSION; do
  if [ -s "$file" ]; then printf 'version %s %s\\n' "$file" "$(cat "$file")"; fi
done
ls -A | head -20 | sed 's/^/entry /'
"""


def checked_names(params: Mapping[str, Any]) -> None:
    """Refuse names that Docker or PostgreSQL can't take or would read as something else."""
    for option in ("container", "volume"):
        if not _CONTAINER_NAME.fullmatch(params[option]):
            raise DasTernError(
                f"postgres_{option}_name is `{params[option]}`; expected letters, digits, `_`, `.` and `-`, "
                "beginning with a letter or digit. Correct it in the inventory."
            )
    absolute("postgres_config_dir", params["config_dir"])
    absolute("postgres_backup_dir", params["backup_dir"])
    if not 1 <= params["port"] <= 65535:
        raise DasTernError(f"postgres_port is {params['port']}; expected 1 to 65535. Correct it in the inventory.")
    reserved = {SUPERUSER, "public", "none", "current_user", "session_user", "current_role"}
    for option, variable in (("app_user", "postgres_app_user"), ("readonly_user", "postgres_readonly_user"),
                             ("database", "postgres_database")):  # fmt: skip
        name = params[option]
        wrong = ""
        if not name or len(name.encode()) > 63 or any(ord(character) < 32 for character in name):
            wrong = "a name has 1 to 63 bytes and no control characters"
        elif name.startswith("/") or (option == "database" and "=" in name):
            wrong = "pg_hba.conf reads a name that begins with `/` as a pattern, and libpq a database name with `=` as parameters"
        elif option == "database" and name in ("postgres", "template0", "template1"):
            wrong = "this database belongs to the server itself"
        elif option != "database" and (name in reserved or name.startswith("pg_")):
            wrong = "PostgreSQL reserves this name for itself"
        if wrong:
            raise DasTernError(f"{variable} is `{name}`: {wrong}. Choose another name in the inventory.")
    if params["app_user"] == params["readonly_user"]:
        raise DasTernError(
            f"postgres_app_user and postgres_readonly_user are both `{params['app_user']}`; they have different rights. "
            "Choose two names in the inventory."
        )


def checked_passwords(params: Mapping[str, Any]) -> None:
    """Refuse passwords that can't be compared or are too short. The message doesn't depend on the password."""
    for option in ("app_password", "readonly_password"):
        if params[option] and not scram.acceptable(params[option]):
            raise DasTernError(
                f"postgres_{option} has to be printable ASCII, {scram.MINIMUM_LENGTH} characters or more. "
                "Set another password in the inventory, or none to have one generated."
            )


def refuse_masked(params: Mapping[str, Any], texts: Iterable[str]) -> None:
    """Refuse a password that is part of `texts`, which roles write: Ansible would put asterisks in its place there."""
    for option in ("app_password", "readonly_password"):
        if params[option] and any(params[option] in text for text in texts):
            raise DasTernError(
                f"postgres_{option} is part of the server's configuration, as the name of a role is: it isn't secret. "
                "Set another password in the inventory, or none to have one generated."
            )


def declared_command(params: Mapping[str, Any]) -> list[str]:
    """Return the server's command line, from both dictionaries and the settings that the role itself decides."""
    declared = settings.merged(params["settings"], params["settings_extra"])
    settings.check_memory(declared, params["memory"])
    if settings.size(params["shm_size"]) is None:
        raise DasTernError(
            f"postgres_shm_size is `{params['shm_size']}`, expected a size such as 256m. Correct it in the inventory."
        )
    own = {
        "listen_addresses": "*", "unix_socket_directories": "/var/run/postgresql", "hba_file": HBA_FILE,
        "ident_file": IDENT_FILE,
    }  # fmt: skip
    if params["wal_archive"]:
        own |= {
            "archive_mode": "on",
            "archive_command": f"bash {HBA_FOLDER}/{ARCHIVER} %f",
            "archive_timeout": params["archive_timeout"],
        }
    return settings.command({**own, **declared})


def check_zero_loss(declared: bool, wal_archive: bool, own: Mapping[str, str]) -> None:
    """Refuse settings that rule out zero loss, before anything is touched; `own` are the declared settings."""
    if declared and not wal_archive:
        raise DasTernError(
            "`backup_zero_loss` is true, but `postgres_wal_archive` is false: no backup would lead up to the received log. Set "
            "`postgres_wal_archive: true`, too. Nothing was changed."
        )
    if declared and own.get(NAMES):
        raise DasTernError(
            f"`postgres_settings_extra` sets {NAMES} to `{own[NAMES]}`, but `backup_zero_loss` sets it itself. Take it out. Nothing "
            "was changed."
        )


def survey(params: Mapping[str, Any], *, check_mode: bool = False) -> dict[str, Any]:
    """Return the state of engine, container, volume, image and folders without changing anything.

    Raise `DasTernError` for the first thing that is impossible or not allowed.
    """
    checked_names(params)
    checked_passwords(params)
    command = declared_command(params)
    check_zero_loss(params["zero_loss"], params["wal_archive"], settings.of_command(command))
    rules = hba.content(
        SUPERUSER, params["database"], params["app_user"], params["readonly_user"], params["hba_extra"],
        createdb=params["app_createdb"],
    )  # fmt: skip
    containers = Containers(params["endpoint"])
    container = own_container(containers, params["container"])
    swap = swaps.left_to_restore(params, serves=bool(container and _serves(container)))
    check_volume_kept(container, params)
    running = bool(container and container["State"]["Running"])
    if check_mode and container and container["State"].get("Paused"):
        running = False  # a check unpauses nothing
    check_port(containers, container if running else None, params)

    image = containers.inspect("image", params["image"]) if params["image"] else None
    other_image = bool(container and image and container["Image"] != image["Id"])
    volume = containers.inspect("volume", params["volume"])
    initialise = volume is None
    if image and (not running or other_image):
        check_image(image, params["image"])
        if volume:
            initialise = volume_needs_cluster(containers, params)
        if initialise:
            check_disk(containers, volume)
    elif not check_mode and not image:
        raise DasTernError(
            f"Image {params['image']} is not on this host. `ansible-playbook playbooks/provision.yml` gets or builds it."
        )

    reasons = differing(container, image, command, params) if container else []
    if image and params["wal_archive"] and (not running or reasons):
        check_pgbackrest(containers, params["image"])
    hba_path = Path(params["config_dir"]) / "server" / "pg_hba.conf"
    server_files = {"pg_hba.conf": rules, "pg_ident.conf": hba.IDENT, ARCHIVER: _ARCHIVE}
    refuse_masked(params, [*server_files.values(), *command])
    hba_differs = any(_text(hba_path.with_name(name)) != text for name, text in server_files.items())
    folders = mounted_folders(params)
    awake = bool(running and container and not container["State"].get("Paused"))
    if volume and not initialise:
        psql = Psql(containers, params["container"]) if awake else None
        check_database(hba.database_of(_text(hba_path) or ""), psql, params)
    replaced = stale_folders(containers, params["container"], container, folders) if awake else []
    reasons += [f"{folder} was removed or replaced" for folder in replaced]
    pending = backup_folders.steps(params, check_mode=True)
    # A check starts no stopped server: later roles plan for an empty database, or know that they can't look at it.
    idle = check_mode and not running
    return {
        "exists": container is not None,
        "running": running,
        "healthy": bool(container and container["State"].get("Health", {}).get("Status") == "healthy"),
        "swap": swap,
        "status": container["State"]["Status"] if container else "absent",
        "image_present": image is not None,
        "network_exists": containers.inspect("network", params["network"]) is not None,
        "volume_exists": volume is not None,
        "initialise": initialise,
        "reasons": reasons,
        "stale": bool(replaced),
        "folders": pending,
        "rehearse": image is not None and (container is None or bool(reasons) or hba_differs),
        "command": command,
        "hba": rules,
        "server_files": server_files,
        "session": session_options(),
        "hba_path": str(hba_path),
        "hba_differs": hba_differs,
        "former": _served_by(form(container), command) if container and running and reasons else {},
        "psycopg": find_spec("psycopg") is not None,
        "python": sys.executable,
        "python_of_distribution": sys.prefix == "/usr",
        "apt": os.path.exists("/usr/bin/apt-get"),
        "ansible_facts": {
            "postgres_absent": idle and initialise,
            "postgres_stopped": idle and not initialise,
            "postgres_folders_pending": check_mode and bool(pending),
        },
        "changed": False,
    }


def mounted_folders(params: Mapping[str, Any]) -> dict[str, Path]:
    """Return the folders of the host that the server's container mounts, by their path in the container.

    The container writes only to `transfer`. The repository, and pgBackRest's means of writing there, are the backup container's.
    """
    config, backups = (Path(os.path.expanduser(params[name])) for name in ("config_dir", "backup_dir"))
    return {
        HBA_FOLDER: config / "server",
        ARCHIVED: config / "archived",
        **{f"{BACKUPS}/{name}": backups / name for name in (LOGICAL, TRANSFER, RECEIVED)},
    }


def stale_folders(
    containers: Containers, name: str, container: Mapping[str, Any] | None, folders: Mapping[str, Path]
) -> list[Path]:
    """Return the `folders` that were replaced since the running container mounted them: it still uses the old ones."""
    mounted = {mount["Destination"] for mount in (container or {}).get("Mounts", [])}
    targets = [target for target in folders if target in mounted]
    listed = containers.execute(name, ["stat", "-c", "%d %i", *targets]) if targets else None
    if listed is None or listed.rc != 0:
        return []
    stale = []
    for target, line in zip(targets, listed.out.splitlines(), strict=True):
        try:
            status = folders[target].stat()
        except OSError:
            stale.append(folders[target])
            continue
        if line != f"{status.st_dev} {status.st_ino}":
            stale.append(folders[target])
    return stale


def own_container(containers: Containers, name: str) -> dict[str, Any] | None:
    """Return the container called `name`, None if there is none. Refuse a container that isn't this role's."""
    container = containers.inspect("container", name)
    if container and (container["Config"]["Labels"] or {}).get(ROLE_LABEL) != ROLE:
        raise DasTernError(
            f"Container {name} exists and isn't ours: it runs {container['Config']['Image']} and has no label "
            f"{ROLE_LABEL}={ROLE}. Choose another postgres_container_name in the inventory, or, if nobody needs that "
            f"container, rename it: `docker rename {quote(name)} {quote(f'{name}-old')}`."
        )
    return container


def check_volume_kept(container: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    """Refuse to move a container to another volume, where the database would seem to be empty."""
    for mount in container["Mounts"] if container else []:
        if mount["Destination"] == MOUNT and mount.get("Name") != params["volume"]:
            raise DasTernError(
                f"Container {params['container']} keeps its data in volume {mount.get('Name') or mount['Source']}, the "
                f"inventory says {params['volume']}. Correct postgres_volume_name; or, to use volume {params['volume']}, "
                "remove the container first (`ansible-playbook playbooks/remove.yml` keeps the data)."
            )


def _serves(container: Mapping[str, Any]) -> bool:
    state = container["State"]
    return bool(state["Running"] and not state.get("Paused") and state.get("Health", {}).get("Status") == "healthy")


def check_database(former: str | None, psql: Psql | None, params: Mapping[str, Any]) -> None:
    """Refuse to serve another database while `former`, the one that the current pg_hba.conf is for, still exists.

    The rules let the read-only role into one database, and backups and their retention are for one database. `psql` is None
    if the server can't be asked. If `former` was renamed or dropped, the new name is right.
    """
    database = params["database"]
    if former is None or former == database:
        return
    if psql is not None and not psql.value(
        f"SELECT to_json(EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {literal(former)}))"
    ):
        return
    name = quote(f"{params['container']}-2")
    back = f"Set `postgres_database` back to {former}" + (
        ""
        if psql is not None
        else f", so that the server is started (while it is down it can't be asked whether {former} was renamed), then run again"
    )
    raise DasTernError(
        f"Container {params['container']} serves database {former}, but `postgres_database` is {database}: a server has one database, and "
        f"{params['readonly_user']} would be shut out of {former}. Nothing was changed. {back}. Or give {database} a server of its own, with "
        f"`-e postgres_container_name={name} -e postgres_port={params['port'] + 1}`: its volume, passwords and backups are named after it. "
        f"To rename {former} to {database}, first run `ALTER DATABASE {identifier(former)} RENAME TO {identifier(database)}`.",
        serves=former,
    )


def check_port(containers: Containers, running: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    """Refuse a port that somebody else holds; `running` is our own container if it runs."""
    address, port = params["listen_address"], params["port"]
    if _listener(address, 0) is None:
        raise DasTernError(
            f"postgres_listen_address {address} isn't an address of this host. Choose one from `ip -brief address`, "
            "or 127.0.0.1."
        )
    if running and f"{address}:{port}:5432" in form(running)["published_ports"]:
        return
    holder = ""
    own = False
    for other in containers.listed(publish=[f"{port}/tcp"], status=["running"]):
        names = [name.lstrip("/") for name in other["Names"]]
        if params["container"] in names:
            own = True
        elif _meet(address, [item.get("IP", "") for item in other["Ports"] if item.get("PublicPort") == port]):
            holder = f"container {names[0]}"
    if not holder and not own:
        holder = _listener(address, port) or ""
    if "docker-proxy" in holder:
        holder += ", which belongs to another engine, or is left over from a killed engine (then `kill` it)"
    if holder:
        raise DasTernError(
            f"Port {port} on {address} is taken by {holder}. Choose another postgres_port in the inventory "
            "(`-e postgres_port=5433` for one run), or stop the holder."
        )


def _meet(address: str, others: list[str]) -> bool:
    return address in EVERYWHERE or any(other == address or other in EVERYWHERE for other in others)


def _listener(address: str, port: int) -> str | None:
    """Return who listens on address and port, '' if nobody does; None if the host doesn't have the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Past connections in TIME_WAIT don't count, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return _process(port) or "another process"
            if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                return None
    return ""


def _process(port: int) -> str:
    """Return name and number of the process that listens on `port`, '' if /proc doesn't show it to this user."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").iterdir() if inodes else ():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                for descriptor in (folder / "fd").iterdir():
                    if os.readlink(descriptor) in inodes:
                        return f"process {(folder / 'comm').read_text().strip()} ({folder.name})"
    return ""


def check_image(image: Mapping[str, Any], reference: str) -> None:
    """Refuse an image of another major version. PG_MAJOR is part of the official image's contract."""
    environment = dict(item.split("=", 1) for item in image["Config"].get("Env") or [] if "=" in item)
    major = environment.get("PG_MAJOR", "")
    if major != MAJOR:
        raise DasTernError(
            f"Image {reference} holds "
            + (f"PostgreSQL {major}" if major else "no PostgreSQL (PG_MAJOR isn't set)")
            + f"; this project runs PostgreSQL {MAJOR}. Name another image in the inventory (postgres_image_*)."
        )


def check_pgbackrest(containers: Containers, reference: str) -> None:
    """Refuse to archive with an image that has no pgBackRest, or a release that this project doesn't work with."""
    done = containers.run_once(reference, pgbackrest_version.COMMAND[-1], labels={ROLE_LABEL: "postgres-look"})
    if done.rc == pgbackrest_version.MISSING:
        raise DasTernError(
            f"Image {reference} has no pgBackRest, but postgres_wal_archive is true. Let it be added "
            "(`-e postgres_image_pgbackrest=true`), use an image that has it (`-e postgres_image_source=build "
            "-e postgres_image_refresh=true`), or set postgres_wal_archive to false, which leaves only logical backups."
        )
    pgbackrest_version.read(f"Image {reference}", done)


def volume_needs_cluster(containers: Containers, params: Mapping[str, Any]) -> bool:
    """Return whether the existing volume has no cluster yet. Refuse a volume with anything that isn't ours to serve."""
    name = params["volume"]
    done = containers.run_once(
        params["image"], _LOOK_INTO_VOLUME, user="0:0", labels={ROLE_LABEL: "postgres-look"},
        host_config={"Binds": [f"{name}:/volume:ro,nocopy"], "CapAdd": ["DAC_READ_SEARCH"], "Tmpfs": {MOUNT: ""}},
    )  # fmt: skip
    if done.rc:
        raise DasTernError(
            f"Volume {name} can't be read: {done.last_words}. See `docker volume inspect {quote(name)}`."
        )
    versions: dict[str, str] = {}
    entries: list[str] = []
    for line in done.out.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "version":
            path, _, version = rest.partition(" ")
            versions[path] = version.strip()
        elif kind == "entry":
            entries.append(rest)
    for path, version in versions.items():
        if version != MAJOR:
            raise DasTernError(
                f"Volume {name} holds a cluster of PostgreSQL {version} ({path}); this project runs PostgreSQL {MAJOR}, "
                "which can't read it. Choose another postgres_volume_name in the inventory, and copy the data there with "
                f"pg_dump from PostgreSQL {version}."
            )
    if "pgdata/PG_VERSION" in versions:
        return False
    foreign = [entry for entry in entries if entry not in ("lost+found", ".initialising")]
    if "PG_VERSION" in versions:
        raise DasTernError(
            f"Volume {name} holds a cluster that this role didn't make (at its root, not in pgdata/). Choose another "
            "postgres_volume_name in the inventory, and copy the data there with pg_dump."
        )
    if folders := [entry for entry in foreign if entry.startswith(("replaced-", "restored-"))]:
        raise swaps.refusal(
            params["container"], None, f": the data of volume {name} is in {', '.join(cut(folders, 5))}"
        )
    if foreign:
        raise DasTernError(
            f"Volume {name} holds entries that aren't a PostgreSQL cluster: {', '.join(cut(foreign, 5))}. Choose another "
            f"postgres_volume_name in the inventory, or remove this volume if nobody needs it: `docker volume rm {quote(name)}`."
        )
    return True


def check_disk(containers: Containers, volume: Mapping[str, Any] | None) -> None:
    """Refuse to create a cluster on a disk that hardly has space for it."""
    path = volume["Mountpoint"] if volume else containers.call("GET", "/info")["DockerRootDir"]
    try:
        free = os.statvfs(path)
    except OSError:
        # This user can't see the folder; initdb itself will find out.
        return
    available = free.f_bavail * free.f_frsize
    if available < FREE_BYTES:
        raise DasTernError(
            f"{path} has {available // 1024**2} MB free; a new cluster needs {FREE_BYTES // 1024**2} MB. "
            "Make room (`docker system df` shows what Docker holds)."
        )


def form(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties by which a container can be made again as it was."""
    host = container["HostConfig"]
    ports = [
        f"[{item['HostIp']}]:{item['HostPort']}:5432" if ":" in item["HostIp"]
        else f"{item['HostIp'] or EVERYWHERE[1]}:{item['HostPort']}:5432"
        for item in (host.get("PortBindings") or {}).get("5432/tcp") or []
    ]  # fmt: skip
    return {
        "image": container["Image"],
        "command": container["Config"]["Cmd"],
        "memory": str(host.get("Memory") or 0),
        "shm_size": str(host.get("ShmSize") or 0),
        "published_ports": ports,
    }


def bracketed(address: str) -> str:
    """Return an address as it stands before a port: an IPv6 address gets brackets."""
    return f"[{address}]" if ":" in address else address


def _served_by(former: dict[str, Any], command: list[str]) -> dict[str, Any]:
    """Return a container's former form, with the new container's values of settings that depend on its mounts."""
    new, old = settings.of_command(command), settings.of_command(former["command"])
    for name in ("hba_file", "ident_file", "archive_command"):
        if name in new:
            old[name] = new[name]
    return {**former, "command": settings.command(old)}


def differing(
    container: Mapping[str, Any], image: Mapping[str, Any] | None, command: list[str], params: Mapping[str, Any]
) -> list[str]:
    """Return the reasons, in words, why the container has to be replaced."""
    current = form(container)
    reasons = settings.changes(settings.of_command(current["command"]), settings.of_command(command))
    if image and image["Id"] != current["image"]:
        reasons.append(f"image {current['image'][7:19]} -> {image['Id'][7:19]}")
    for option in ("memory", "shm_size"):
        size = settings.size(params[option])
        if size != int(current[option]):
            reasons.append(f"{option} {current[option]} -> {size} bytes")
    published = f"{bracketed(params['listen_address'])}:{params['port']}:5432"
    if not container["HostConfig"].get("Init"):
        reasons.append("process 1 postgres -> init")
    mounted = {mount["Destination"]: mount["Source"] for mount in container["Mounts"]}
    for target, folder in mounted_folders(params).items():
        if mounted.get(target) != str(folder):
            reasons.append(f"mount of {target} {mounted.get(target, 'none')} -> {folder}")
    if [published] != current["published_ports"]:
        reasons.append(f"port {', '.join(current['published_ports']) or 'none'} -> {published}")
    return reasons


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
