"""Physical backups: sets in pgBackRest's repository that have a record, and the WAL that they need.

A set counts once it is verified and its record is written. Until then, and after a killed run, it is annotated
`das-tern=incomplete` in the repository, and the next run deletes it.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from ..catalogue import census
from ..common.commands import playbook
from ..common.errors import DasTernError
from ..common.quantities import cut
from ..common.sql_values import literal
from ..server.backup_folders import REPOSITORY
from ..server.blockers import in_the_way
from ..server.survey import PGDATA
from . import keeper, pgbackrest, received
from .logical import refuse_elsewhere
from .pgbackrest import CRYPTO, ENDED, LOCKED, MARK, STANZA, Info, PgBackRest, Progress, Verified, records_of
from .records import PAGES, Check, Place, Record, now

ARCHIVE_SECONDS = 120.0
"""Seconds until a finished WAL segment has to be in the repository, if there are no further repositories."""
TELL_SECONDS = 10.0
"""Seconds between two progress lines."""
MANIFEST = ("backup.manifest", "backup.manifest.copy")
_SERVER = """
SELECT json_build_object('system', (SELECT system_identifier::text FROM pg_control_system()),
  'version', current_setting('server_version'), 'archiving', current_setting('archive_mode') <> 'off')
"""
# An archiver whose command failed or was killed sleeps for a minute, as long as pgBackRest waits for it; the reload wakes it.
# The session of a killed pgBackRest may still hold the lock that keeps backups apart; its process is gone by then.
_READY = """
SELECT pg_reload_conf();
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest [backup]%';
"""
_TIMELINE = """
SELECT json_build_array((SELECT system_identifier::text FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
  (SELECT coalesce(json_agg(left(name, 24)), '[]') FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'))
"""
_RELATIONS = """
SELECT coalesce(pg_catalog.json_object_agg(pg_catalog.pg_relation_filepath(oid), oid::pg_catalog.regclass::pg_catalog.text), '{{}}')
FROM pg_catalog.pg_class WHERE pg_catalog.pg_relation_filepath(oid) IN ({files})
"""
_ARCHIVED = """
SELECT json_build_object('waiting', (SELECT coalesce(json_agg(left(name, 24)), '[]') FROM pg_ls_archive_statusdir()
    WHERE name ~ '^[0-9A-F]{{24}}\\.ready$' AND left(name, 24) <= '{name}'),
  'failed', (SELECT last_failed_wal FROM pg_stat_archiver WHERE last_failed_time > coalesce(last_archived_time, '-infinity')))
"""


@dataclass(frozen=True)
class Server:
    """The running server."""

    system: str
    version: str
    archiving: bool


@dataclass
class Findings:
    """The result of a verification."""

    checks: dict[str, Check] = field(default_factory=dict)
    """The checks of the backups, by label."""
    problems: list[str] = field(default_factory=list)
    """Faults of no single backup that can be fixed."""
    notes: list[str] = field(default_factory=list)
    """Faults that can't be fixed any more; they go when the backups before them expire."""


@contextmanager
def telling(what: Callable[[], str], say: Callable[[str], None]) -> Iterator[None]:
    """Report the progress `what` every `TELL_SECONDS`."""
    done, clock = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(TELL_SECONDS):
            say(f"{what()}, {time.monotonic() - clock:.0f} s ...")

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def server(place: Place) -> Server:
    """Return the facts of the running server."""
    return Server(**place.superuser.value(_SERVER))


def usable(place: Place, program: PgBackRest) -> tuple[Server, Info]:
    """Return server and repository. Refuse if they don't belong together, or physical backups aren't possible."""
    running = server(place)
    if not running.archiving:
        raise DasTernError(
            f"Container {place.container} doesn't archive its WAL (archive_mode is off), which physical backups need. Set "
            "`postgres_wal_archive: true` and run `ansible-playbook playbooks/provision.yml`, or take a logical backup: "
            "`ansible-playbook playbooks/backup.yml -e backup_type=logical`."
        )
    keeper.refuse_away(place)
    refuse_elsewhere(place, REPOSITORY, container=place.keeper)
    info = program.info()
    if not info.system:
        raise DasTernError(
            f"{place.folder} has no repository for container {place.container}. `ansible-playbook playbooks/provision.yml` creates "
            "it, unless this server's backups are in another folder or on a disk that isn't mounted."
        )
    if info.system != running.system:
        raise DasTernError(
            f"The repository in {place.folder} takes backups of cluster {info.system}, and container {place.container} runs "
            f"cluster {running.system}. If the data of the former was lost, `ansible-playbook playbooks/restore.yml` brings it back. If this "
            "cluster replaced it, run `ansible-playbook playbooks/provision.yml -e backup_new_cluster=true`: its backups are then kept "
            "beside the former ones. If neither, give this server a `postgres_backup_dir` of its own."
        )
    return running, info


def incomplete(place: Place, info: Info) -> list[str]:
    """Return the labels of our sets that have no record because their run was killed or failed."""
    known = {record.label for record in place.records()} | set(place.damaged())
    return [
        own["label"] for own in info.sets
        if (own.get("annotation") or {}).get(MARK) == "incomplete" and own["label"] not in known
    ]  # fmt: skip


def unknown(place: Place, info: Info) -> list[str]:
    """Return the labels of sets that somebody else made, or whose record was lost or damaged.

    They are kept, and never shown as good.
    """
    known = {record.label for record in place.records()} | set(incomplete(place, info))
    return [foreign["label"] for foreign in info.sets if foreign["label"] not in known]


def sweep(place: Place, program: PgBackRest, info: Info) -> list[str]:
    """Delete the leftovers of killed runs; return their labels."""
    gone = leftovers(place, info)
    for label in gone:
        program.expire(label)
    return gone


def leftovers(place: Place, info: Info, new: str = "") -> list[str]:
    """Return the labels of sets that killed runs left and that may go.

    A set stays if another one needs it, or if it is the last full set, which is never deleted. `new` is the type of a set
    that will exist by then.
    """
    left = incomplete(place, info)
    kept = [other for other in info.sets if other["label"] not in left]
    spared = {label for other in kept for label in needs(other)}
    if "full" not in (new, *(other["type"] for other in kept)):
        spared |= set([other["label"] for other in info.sets if other["type"] == "full"][-1:])
    return [label for label in reversed(left) if label not in spared]


def needs(backup_set: dict[str, Any]) -> list[str]:
    """Return the labels of the other sets that a set is restored from."""
    return [*(backup_set.get("reference") or []), *([backup_set["prior"]] if backup_set.get("prior") else [])]


def needed(place: Place, info: Info) -> list[str]:
    """Return the labels of sets that must stay because a foreign set depends on them."""
    foreign = unknown(place, info)
    return [label for other in info.sets if other["label"] in foreign for label in needs(other)]


def effective(place: Place, info: Info, wanted: str) -> tuple[str, str]:
    """Return the type that a backup will have, and why it isn't the `wanted` one, if it isn't.

    Backups are built only upon verified ones: pgBackRest itself takes the newest set, whatever its state.
    """
    if wanted == "full":
        return "full", ""
    swept = incomplete(place, info)
    sets = [
        base for base in info.sets
        if base["in"] == info.archive and base["label"] not in swept and (wanted != "diff" or base["type"] == "full")
    ]  # fmt: skip
    if not sets:
        return "full", "there is no full backup to build upon" if wanted else ""
    record = {record.label: record for record in place.records()}.get(sets[-1]["label"])
    if record is None or not record.good:
        return "full", f"{sets[-1]['label']}, which it would build upon, isn't verified"
    return wanted or "incr", ""


def take(
    place: Place, program: PgBackRest, running: Server, type_: str, name: str, reason: str, wait: float,
    say: Callable[[str], None],
) -> Record:  # fmt: skip
    """Back the cluster up, verify the backup, and write its record. A failure leaves a set that the next run deletes.

    A backup of a cluster with damaged pages is far better than none: it gets a record, but isn't `good`.
    """
    _refuse_broken_names(place)
    began, clock = now(), time.monotonic()
    place.superuser.run(_READY)
    try:
        label = _copied(program, type_, say)
    except DasTernError as refusal:
        if LOCKED not in refusal.facts.get("code", []):
            raise
        program.alone(wait, say)  # a copy into a further repository began in the same moment
        place.superuser.run(_READY)
        label = _copied(program, type_, say)
    say(f"{label}: copied in {time.monotonic() - clock:.1f} s; counting, and waiting for its WAL ...")
    with telling(lambda: "counting, and waiting for its WAL", say):
        record = _counted(place, program, running, label, began, clock, name, reason)
    say(f"{label}: verifying ...")
    with telling(lambda: "verifying", say):
        check = verify(place, program, [record], f"--set={label}").checks[label]
    if not check.ok and not check.message.startswith(PAGES):
        raise DasTernError(
            f"The backup {label} was taken but is damaged, and doesn't count: {check.message}. Look at the disk of "
            f"{place.folder}, then run again.",
            label=label,
        )
    record = replace(record, verified=check)
    place.save(record)
    program.mark(label, "complete")
    return record


def _refuse_broken_names(place: Place) -> None:
    """Refuse a database with a line end in its name: pgBackRest writes the name as it is, and can't read its manifest again."""
    query = "SELECT coalesce(json_agg(datname ORDER BY 1), '[]') FROM pg_database WHERE datname ~ '[\\n\\r]'"
    for name in place.superuser.value(query):
        escaped = "".join(f"\\{ord(char):04X}" if ord(char) < 32 or char in '\\"' else char for char in name)
        rename = f'ALTER DATABASE U&"{escaped}" RENAME TO "{re.sub(r"[^A-Za-z0-9_]", "_", name)}"'
        raise DasTernError(
            f"Database {name!r} has a line end in its name, and pgBackRest couldn't read its backups again. Nothing was backed up. "
            f"Rename it: `docker exec -u postgres {quote(place.container)} psql -c {quote(rename)}`; or drop it.",
            database=name,
        )


def _copied(program: PgBackRest, type_: str, say: Callable[[str], None], repository: int = 1) -> str:
    """Let pgBackRest copy the cluster into a repository; return the label of the set."""
    progress = Progress()
    mark, what = ("incomplete", f"{type_} backup") if repository == 1 else ("further", f"repository {repository}")
    with telling(lambda: f"{what}: {progress.percent or 0} %", say):
        program.run(
            "backup", f"--repo={repository}", f"--type={type_}", f"--annotation={MARK}={mark}", "--log-level-console=detail",
            progress=progress, silence=_silence(repository),
        )  # fmt: skip
    return progress.label


def _silence(repository: int) -> float:
    """Return the seconds that pgBackRest may be silent.

    One file takes hours on a slow line. A repository that is away pgBackRest gives up by itself.
    """
    return pgbackrest.LONGEST if repository == 1 else census.LONGEST


def _counted(
    place: Place, program: PgBackRest, running: Server, label: str, began: str, clock: float, name: str, reason: str,
    repository: int = 1,
) -> Record:  # fmt: skip
    """Return the record of a set, with the census of the database at a restore point after it."""
    point = f"das-tern-{label}"
    taken = program.info(repository=repository).set(label)
    if taken is None:
        raise DasTernError(f"pgBackRest doesn't list the backup {label} that it took. Run again.")
    if links := program.links(label, repository):
        raise DasTernError(
            f"The data of container {place.container} has links in it, which pgBackRest follows: {', '.join(links)}. Their targets "
            f"would be in the backup {label}, and come back with it; so it doesn't count, and the next run deletes it. Nothing of "
            f"ours makes such links. Look at them (`docker exec {quote(place.container)} find {PGDATA} -type l -ls`), remove them, "
            "then run again.",
            links=links,
        )
    pages, uncounted = _pages(place, program, taken, repository), ""
    try:
        counted, exact = census.count_at(place.superuser, place.database, point)
    except DasTernError as refusal:
        barred = census.is_barred(refusal)
        if not pages and not barred:
            raise
        blocked = in_the_way(place.superuser, place.database) if barred and "closed" not in refusal.facts else []
        uncounted = " ".join([refusal.message, *(line.strip() for line in blocked)])
        # A second restore point of that name does no harm: a recovery stops at the first.
        place.superuser.run(f"SELECT pg_create_restore_point({literal(point)});")
        counted, exact = census.Census(place.database, {}, "", {}, [], taken["info"]["size"]), False
    timeline, lsn = archive_all(place, repository)
    manifest = program.sums(f"backup/{STANZA}/{label}/{MANIFEST[0]}", repository=repository).popitem()[1]
    if not manifest:
        raise DasTernError(f"{MANIFEST[0]} of the backup {label} can't be read back. Run again.")
    return Record(
        label=label, kind="physical", type=taken["type"], database=place.database, system=running.system,
        server=running.version, tool=f"pgBackRest {taken['backrest']['version']}", began=began,
        seconds=round(time.monotonic() - clock, 1), bytes=taken["info"]["size"],
        stored=taken["info"]["repository"]["delta"], census=counted.as_dict(), exact=exact, uncounted=uncounted, name=name, reason=reason,
        restore_point=point, lsn=lsn, timeline=timeline, prior=taken["prior"] or "",
        files={MANIFEST[0]: {"sha256": manifest}}, verified=Check(now(), False, 0, pages) if pages else None,
    )  # fmt: skip


def _pages(place: Place, program: PgBackRest, backup_set: Mapping[str, Any], repository: int) -> str:
    """Return `PAGES` with the files and tables concerned, or nothing if a set has no damaged pages."""
    if not backup_set.get("error"):
        return ""
    files = program.misread(backup_set["label"], repository)
    relations = {file: re.sub(r"(_[a-z]+)?(\.\d+)?$", "", file) for file in files[:5]}
    names: dict[str, str] = {}
    with contextlib.suppress(DasTernError):  # the damage may be in the catalogue
        query = _RELATIONS.format(files=", ".join(map(literal, relations.values())) or "''")
        names = place.superuser.value(query, place.database)
    shown = [f"{file} ({names[path]})" if path in names else file for file, path in relations.items()]
    more = f" and {len(files) - 5} more files" if len(files) > 5 else ""
    return f"{PAGES}, in {', '.join(shown)}{more}"


def damaged_pages(place: Place, record: Record) -> str:
    """Return what to do after a backup that found damaged pages in the live database."""
    whole = next((other for other in place.records() if other.physical and other.good), None)
    beside = playbook("restore", what="database", into=f"{place.database}_whole")
    back = (
        f"The newest good one is {whole.label}; a restore from it and from the log since brings the content of those pages back: `{beside}`."
        if whole else "There is no good physical backup: save what can be read (`ansible-playbook playbooks/backup.yml -e backup_type=logical`)."
    )  # fmt: skip
    return (
        f"Backup {record.label} was taken and is kept, but isn't good: {record.fault}. It displaces no good backup, and nothing is "
        f"built upon it. Look at the disk of the data (`dmesg`), and for further damage: `docker exec -u postgres "
        f"{quote(place.container)} pg_amcheck --install-missing {quote(place.database)}`. {back}"
    )


def verify(place: Place, program: PgBackRest, records: Sequence[Record], *only: str, repository: int = 1) -> Findings:
    """Read everything in a repository and check whether each of its physical backups, `records`, can be restored.

    With `only`, an option such as `--set=LABEL`, the files of one set are read.
    """
    clock = time.monotonic()
    findings = Findings()
    info = program.info(repository=repository)
    sums = program.sums(
        *(f"backup/{STANZA}/{record.label}/{file}" for record in records for file in MANIFEST),
        *(f"{kind}/{STANZA}/{kind}.info{copy}" for kind in ("archive", "backup") for copy in ("", ".copy")),
        repository=repository,
    )
    verified = _read(program, info, records, sums, only, repository, findings)
    segments = program.archived(repository)
    own = {_history(record.timeline) for record in records if record.timeline > 1}
    archives = {info.archive, *(backup_set["in"] for backup_set in info.sets)} if own or not only else set()
    histories = {archive: program.histories(archive, repository) for archive in archives if archive}
    torn = {
        (archive, name) for archive, names in histories.items() for name in names
        if (name in own or not only) and _torn(program, archive, name, repository)
    }  # fmt: skip
    faults: dict[str, list[str]] = {}
    bad: set[str] = set()
    for record in sorted(records, key=lambda record: record.began):
        backup_set = info.set(record.label)
        fault = faults[record.label] = []
        read = verified.sets.get(record.label)
        if backup_set is None or (read is None and not any(_sum(sums, record, file) for file in MANIFEST)):
            fault.append("it isn't in the repository any more")
            bad.add(record.label)
            continue
        files = verified.damaged.get(record.label, [])
        if read is False:
            fault.append(f"damaged: {', '.join(cut(files, 5)) or 'its files, or those of a backup that it needs'}")
        for file in MANIFEST:
            checksum = _sum(sums, record, file)
            if not checksum and repository != 1 and read:  # the line broke meanwhile
                raise DasTernError(f"{file} of {record.label} can't be read. Run again.")
            if checksum != record.files[MANIFEST[0]]["sha256"]:
                fault.append(f"damaged: {file}")
        if read is None and not fault:
            fault.append("pgBackRest didn't read it")
        if record.prior in bad:
            fault.append(f"it needs {record.prior}, which is damaged")
        if fault:
            bad.add(record.label)
        first, last = backup_set["archive"]["start"], pgbackrest.segment(record.timeline, record.lsn)
        if record.timeline > 1 and (history := _history(record.timeline)) not in histories.get(backup_set["in"], set()):
            fault.append(f"{history} is missing, and without it nothing can be recovered along its timeline")
        elif record.timeline > 1 and (backup_set["in"], history) in torn:
            fault.append(f"{history} is damaged, and without it nothing can be recovered along its timeline")
        fault += _broken(backup_set["in"], first, last, segments.get(backup_set["in"], set()), verified.wal)
        fault += filter(None, [_pages(place, program, backup_set, repository)])
    seconds = round(time.monotonic() - clock, 1)
    findings.checks = {label: Check(now(), not fault, seconds, "; ".join(fault)) for label, fault in faults.items()}
    for kind in ("archive", "backup"):
        path = f"{kind}/{STANZA}/{kind}.info"
        if sums[path] != sums[f"{path}.copy"] or not sums[path]:
            findings.problems.append(
                f"{path} and its copy differ, so one of them is damaged. Copy the good one over it"
            )
    if only:
        return findings
    for archive, name in sorted(torn):
        damage = f"the history {archive}/{name} is damaged, and without it nothing can be recovered along its timeline"
        if archive != info.archive:  # nobody archives into it any more
            findings.notes.append(damage)
            continue
        findings.problems.append(
            f"{damage}. If the server still has it, archive it again: `docker exec -u postgres {quote(place.keeper)} pgbackrest "
            f"--stanza={STANZA} archive-push --no-archive-async {PGDATA}/pg_wal/{quote(name)}`"
        )
    find_gaps(info, segments, verified.wal, findings)
    if repository != 1 and not (verified.ok or findings.problems or findings.notes or any(faults.values())):
        findings.problems.append(f"`pgbackrest --repo={repository} verify` reports damage")
    return findings


def _sum(sums: Mapping[str, str], record: Record, file: str) -> str:
    return sums[f"backup/{STANZA}/{record.label}/{file}"]


def _read(
    program: PgBackRest, info: Info, records: Sequence[Record], sums: Mapping[str, str], only: Sequence[str], repository: int,
    findings: Findings,
) -> Verified:  # fmt: skip
    """Return the result of `pgbackrest verify`.

    One damaged manifest can end it before it reports anything. Then each other set is read by itself, each time with the
    sets that it needs.
    """

    def read(*options: str) -> Verified:
        # It reports only at the end, when it has read everything.
        return program.verify(f"--repo={repository}", *options, silence=census.LONGEST)

    try:
        return read(*only)
    except DasTernError as refusal:
        if only or pgbackrest.ASSERTION not in refusal.facts.get("code", []):
            raise
    others = sorted({other["label"] for other in info.sets} - {record.label for record in records})
    unread = ", ".join(["the WAL between the backups", *others])
    findings.problems.append(f"a damaged manifest ended `pgbackrest verify`, so this wasn't read: {unread}")
    total = Verified({})
    for record in records:
        if _sum(sums, record, MANIFEST[0]) != record.files[MANIFEST[0]]["sha256"]:
            continue
        part = read(f"--set={record.label}")
        total.sets.update(part.sets)
        total.damaged.update(part.damaged)
        total.wal.update(part.wal)
    return total


def _note(program: PgBackRest, repository: int, records: Sequence[Record], findings: Findings) -> None:
    """Note the checks in the records of a further repository."""
    try:
        for record in records:
            if record.label in findings.checks:
                program.keep(repository, replace(record, verified=findings.checks[record.label]))
    except DasTernError as refusal:
        if LOCKED not in refusal.facts.get("code", []):
            raise
        findings.notes.append(
            "this verification isn't noted there, as a backup is being copied into it. Verify again afterwards"
        )


def verify_further(place: Place, program: PgBackRest, wait: float, note: bool) -> Findings:
    """Read everything in the further repositories and note it in the records there. Return only the faults.

    On a slow line that takes hours, during which other runs come and go.
    """
    total = Findings()
    for number in program.further():
        findings = Findings()
        try:
            records = records_of(program.info(repository=number).sets)
            findings = verify(place, program, records, repository=number)
            with place.alone(wait, "noting a verification") if note else nullcontext():
                sets = program.info(repository=number).sets
                labels, records = [backup_set["label"] for backup_set in sets], records_of(sets)
                findings.checks = {label: check for label, check in findings.checks.items() if label in labels}
                if note:
                    _note(program, number, records, findings)
            if lacking := sorted(set(labels) - {record.label for record in records}):
                faults = findings.notes if records else findings.problems
                faults.append(
                    f"{', '.join(lacking)} can't be restored without a readable record. It wasn't copied completely, is being "
                    "counted, or its record is damaged"
                )
        except DasTernError as refusal:
            findings.problems.append(refusal.message)
        wrong = [f"{label} is damaged: {check.message}" for label, check in findings.checks.items() if not check.ok]
        total.problems += [f"repository {number}: {problem}" for problem in wrong + findings.problems]
        total.notes += [f"repository {number}: {note}" for note in findings.notes]
    return total


def remove(place: Place, program: PgBackRest, labels: Sequence[str]) -> None:
    """Delete these sets, the newest first. If the run is killed, the rest doesn't count and the next run deletes it."""
    present = {backup_set["label"] for backup_set in program.info().sets} if labels else set()
    for label in sorted(labels, reverse=True):
        if label in present:
            program.mark(label, "incomplete")
        place.forget(label)
        program.expire(label)


def trim(program: PgBackRest) -> None:
    """Delete the WAL from before the oldest full backup, which nothing needs."""
    program.expire_archive(sum(backup_set["type"] == "full" for backup_set in program.info().sets))


def further(place: Place, program: PgBackRest, first: Record, say: Callable[[str], None]) -> list[str]:
    """Take the same backup as `first` into the further repositories; return what failed.

    The options of these repositories set their retention. Nobody waits for this: the lock of the backups isn't held, and
    the next backup ends one that is under way.
    """
    failed = []
    running = Server(first.system, first.server, archiving=True)
    for repository in program.further():
        try:
            began, clock = now(), time.monotonic()
            label = program.patiently(lambda: _copied(program, first.type, say, repository))  # noqa: B023
            with telling(lambda: f"repository {repository}: counting, and waiting for its WAL", say):  # noqa: B023
                record = _counted(place, program, running, label, began, clock, first.name, first.reason, repository)
                program.keep(repository, record)
        except DasTernError as refusal:
            failed.append(f"repository {repository}: {refusal.message}")
            if ENDED in refusal.facts.get("code", []):
                break  # by a backup that takes precedence, also over the next repository
    return failed


def _broken(archive: str, first: str, last: str, present: set[str], damaged: set[tuple[str, str]]) -> list[str]:
    """Return what is missing or damaged of the WAL from `first` to `last`, which are of one timeline."""
    timeline = int(first[:8], 16)
    names = [
        pgbackrest.segment_name(timeline, n)
        for n in range(pgbackrest.segment_number(first), pgbackrest.segment_number(last) + 1)
    ]
    missing = [name for name in names if name not in present]
    bad = [name for name in names if (archive, name) in damaged]
    return [
        *([f"its WAL is missing: {', '.join(cut(missing, 5))}"] if missing else []),
        *([f"its WAL is damaged: {', '.join(cut(bad, 5))}"] if bad else []),
    ]


def find_gaps(info: Info, segments: dict[str, set[str]], damaged: set[tuple[str, str]], findings: Findings) -> None:
    """Find the breaks in the archive beyond what one backup needs: no backup from before a break leads beyond it."""
    starts: dict[str, list[str]] = {}
    for backup_set in info.sets:
        starts.setdefault(backup_set["in"], []).append(backup_set["archive"]["start"])
    for archive, names in segments.items():
        oldest, newest = min(starts.get(archive, ["~"])), max(starts.get(archive, [""]))
        broken = {name for of, name in damaged if of == archive and name >= oldest}
        for timeline in {name[:8] for name in names}:
            own = sorted(name for name in names if name[:8] == timeline and name >= oldest)
            if own:
                numbers = range(pgbackrest.segment_number(own[0]), pgbackrest.segment_number(own[-1]) + 1)
                broken |= {pgbackrest.segment_name(int(timeline, 16), n) for n in numbers} - set(own)
        behind = sorted(name for name in broken if name >= newest)
        if behind:
            findings.problems.append(
                f"WAL {', '.join(cut(behind, 5))} is missing or damaged: nothing after it can be restored until there is a new "
                "backup"
            )
        if older := sorted(broken - set(behind)):
            findings.notes.append(
                f"WAL {', '.join(cut(older, 5))} is missing or damaged: no backup from before it leads beyond it"
            )


def forget_received(place: Place, program: PgBackRest) -> None:
    """Delete the received WAL that nothing needs, because the archive has it by now."""
    if not (place.folder / received.FOLDER).exists():
        return
    # Ask first for what still waits: commits wait for the receiver again once it has all of that.
    system, timeline, waiting = place.superuser.value(_TIMELINE)
    info = program.info()
    archived = program.archived().get(info.archive, set()) - set(waiting)
    starts = [backup_set["archive"]["start"] for backup_set in info.sets if backup_set["in"] == info.archive]
    oldest = min(starts, key=lambda start: start[8:], default="")
    receiving = place.containers.inspect("container", f"{place.container}-receiver") is not None
    received.prune(place.folder, system, int(timeline, 16), archived, oldest, receiving)


def archive_all(place: Place, repository: int = 1) -> tuple[int, str]:
    """Ensure that a repository has all WAL up to now; return timeline and position."""
    lsn, current = place.superuser.value(
        "SELECT json_build_array(lsn, pg_walfile_name(lsn)) FROM pg_switch_wal() AS lsn"
    )
    timeline = int(current[:8], 16)
    wait_until_archived(place, pgbackrest.segment(timeline, lsn), repository, "The backup doesn't count.")
    _archive_history(PgBackRest(place.containers, place.keeper), timeline, repository)
    return timeline, lsn


def _history(timeline: int) -> str:
    return f"{timeline:08X}.history"


def _torn(program: PgBackRest, archive: str, name: str, repository: int) -> bool:
    """Return whether a history in a repository is damaged. Raise `DasTernError` if that can't be determined."""
    try:
        options = (f"--repo={repository}", "--log-level-console=off")
        received.forks(program.run("repo-get", f"archive/{STANZA}/{archive}/{name}", *options), int(name[:8], 16))
    except ValueError:
        return True
    except DasTernError as refusal:
        code = refusal.facts.get("code", [ENDED])
        if ENDED in code or (repository != 1 and CRYPTO not in code):  # or the line broke meanwhile
            raise
        return True
    return False


def _archive_history(program: PgBackRest, timeline: int, repository: int) -> None:
    """Ensure that a repository has the history of `timeline`, and replace a damaged one.

    The server archives it once, when the timeline begins, so a repository that was created later doesn't have it.
    """
    name = _history(timeline)
    if timeline == 1:
        return
    archive = program.info(repository=repository).archive
    if name in program.histories(archive, repository) and not _torn(program, archive, name, repository):
        return
    try:
        program.push(name)
    except DasTernError:  # perhaps for another repository that is away
        if name not in program.histories(archive, repository):
            raise


def wait_until_archived(place: Place, name: str, repository: int, otherwise: str) -> None:
    """Wait until a repository has the log up to segment `name`. Refuse on timeout; `otherwise` says what that means."""
    program = PgBackRest(place.containers, place.keeper)
    several = bool(program.further())
    limit = pgbackrest.ARCHIVE_TIMEOUT if several else ARCHIVE_SECONDS
    end = time.monotonic() + limit
    while waiting := set((state := place.superuser.value(_ARCHIVED.format(name=name)))["waiting"]):
        # Perhaps they wait for another repository alone.
        if several and waiting <= program.archived(repository).get(program.info(repository=repository).archive, set()):
            return
        if time.monotonic() > end:
            raise DasTernError(
                f"WAL segment {name} isn't in the repository after {limit:.0f} s"
                + (f": the archive_command fails at {state['failed']}" if state["failed"] else "")
                + f". `docker logs --tail 20 {quote(place.container)}` says why. Fix that, then run again. {otherwise}"
            )
        time.sleep(2 if several else 0.1)
