"""One-off containers of the server's image, which make a volume's cluster and rehearse declared settings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from ..common.errors import DasTernError
from ..common.files import alone
from ..docker.containers import ROLE_LABEL, Containers
from . import settings
from .survey import MOUNT, PGDATA

# `builtin` C.UTF-8 sorts by code point inside the server itself: no upgrade of libc or ICU, and no other base image,
# can change an order that indexes are built on. A query asks for Khmer order where it needs it: COLLATE "km-x-icu".
INITDB = (
    "initdb --username=postgres --auth-local=peer --auth-host=scram-sha-256 --data-checksums --encoding=UTF8"
    " --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 --no-instructions"
)

SCRATCH = "/tmp"  # noqa: S108 - a file system in memory that only the one-off container has

_INITIALISE = f"""
set -eu
cd {MOUNT}
if [ -s pgdata/PG_VERSION ]; then echo present; exit 0; fi
rm -rf .initialising
trap 'rm -rf {MOUNT}/.initialising' EXIT
{INITDB} --pgdata {MOUNT}/.initialising >/tmp/initdb.log 2>&1 || {{ cat /tmp/initdb.log >&2; exit 71; }}
echo '# Settings come from the command line of the server; a line here is reported as a difference.' \
  > .initialising/postgresql.conf
sync .initialising/postgresql.conf .initialising
mv .initialising pgdata
sync {MOUNT}
echo made
"""

_REHEARSE = f"""
set -u
cat > /tmp/candidate.conf
{INITDB} --no-sync --pgdata {PGDATA} >/tmp/initdb.log 2>&1 || {{ cat /tmp/initdb.log >&2; exit 71; }}
: > {PGDATA}/postgresql.conf
echo 'local all all peer' > /tmp/hba.conf
postgres "$@" -c hba_file=/tmp/hba.conf -c archive_mode=off -c logging_collector=off -c log_destination=stderr >/tmp/server.log 2>&1 &
server=$!
tries=0
until pg_isready -q -h /var/run/postgresql; do
  tries=$((tries + 1))
  if ! kill -0 $server 2>/dev/null || [ $tries -gt 300 ]; then cat /tmp/server.log >&2; exit 72; fi
  sleep 0.1
done
cp /tmp/candidate.conf /tmp/hba.conf
psql -XqAt -v ON_ERROR_STOP=1 -U postgres -d postgres -c "$QUERY" || exit 73
kill -INT $server
wait $server
exit 0
"""


def provide(params: Mapping[str, Any]) -> bool:
    """Ensure that the network, the volume and a cluster in it exist. Return whether any of them was created.

    This happens under a lock of the host, because the engine creates a second network of the same name when asked twice at
    once. `params` are the options of the module `postgres_init`.
    """
    containers = Containers(params["endpoint"])
    made = False
    with alone(Path(params["config_dir"])):
        for kind, path in (("network", "/networks/create"), ("volume", "/volumes/create")):
            if containers.inspect(kind, params[kind]) is None:
                containers.call("POST", path, {"Name": params[kind], "Labels": params["labels"]})
                made = True
        return initialise(containers, params["image"], params["volume"], params["container"]) or made


def initialise(containers: Containers, image: str, volume: str, container: str, wait: float = 120) -> bool:
    """Create a cluster in `volume`; return False if it has one already.

    initdb works in a folder of its own, which is renamed when it is complete and on disk: a cluster whose initdb was killed
    is never served, and the next run removes its remains. If another run is creating one already, wait for it.
    """
    name = f"{container}-init"
    for _ in range(2):
        if not containers.wait_until_gone(name, wait):
            raise DasTernError(
                f"Container {name} has been creating a cluster for more than {wait:g} s. See `docker logs {quote(name)}`; "
                f"`docker rm -f {quote(name)}` ends it, and the next run starts again."
            )
        try:
            done = containers.run_once(
                image, _INITIALISE, name=name, labels={ROLE_LABEL: "postgres-init"},
                env={"LANG": "C.UTF-8"}, host_config={"Binds": [f"{volume}:{MOUNT}"], "Tmpfs": {SCRATCH: ""}},
            )  # fmt: skip
        except DasTernError as refusal:
            if refusal.facts.get("status") != 409:
                raise
            continue
        if done.rc:
            full = "No space left" in done.err
            raise DasTernError(
                f"No cluster could be created in volume {volume}: {done.last_words}. Nothing of it is left. "
                + (
                    "Make room on its disk, then run again."
                    if full
                    else f"See `docker volume inspect {quote(volume)}`."
                )
            )
        return done.out.strip() == "made"
    raise DasTernError(f"Another run keeps creating container {name}. Wait for it, then run again.")


def rehearse(
    containers: Containers, image: str, command: Sequence[str], hba: str, *, memory: int, shm_size: int
) -> list[str]:
    """Start the server briefly with its future command line on an empty cluster in memory. Return its refusals, if any.

    This finds unknown names, values that the server doesn't take or takes as something else, and wrong lines of pg_hba.conf,
    before the running server is touched.
    """
    owner = "uid=999,gid=999,mode=0700"
    done = containers.run_once(
        image, _REHEARSE, list(command[1:]), stdin=hba,
        labels={ROLE_LABEL: "postgres-rehearsal"},
        env={"PGDATA": PGDATA, "LANG": "C.UTF-8", "QUERY": settings.READ_BACK},
        host_config={
            "Memory": memory,
            "ShmSize": shm_size,
            "Tmpfs": {SCRATCH: "mode=1777", MOUNT: owner, "/var/run/postgresql": owner},
        },
    )  # fmt: skip
    if done.rc:
        logged = [line.strip() for line in done.err.splitlines()]
        reasons = [line for line in logged if re.search(r"\b(FATAL|PANIC|ERROR|HINT|DETAIL):", line)] or logged[-4:]
        return [" ".join(re.sub(r"^.*?\b(?=(?:FATAL|PANIC|ERROR|HINT|DETAIL):)", "", line) for line in reasons)]
    current: dict[str, Any] = json.loads(done.out)
    lines = hba.splitlines()
    refusals = [
        f"pg_hba.conf line {row['line_number']} `{lines[row['line_number'] - 1]}`: {row['error']}"
        for row in current["hba"]
    ]
    declared = {
        name: value for name, value in settings.of_command(command).items()
        if name not in ("hba_file", "archive_mode", "archive_command", "logging_collector", "log_destination")
    }  # fmt: skip
    refusals += [settings.worded(row) for row in settings.differences(declared, {**current, "files": []})]
    return refusals
