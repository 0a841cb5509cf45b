"""Physical backups: sets of pgBackRest's repository that have a record, and the WAL that they need.

A set counts when it was verified and its record written. Everything before that, a killed run's leftover too, is
annotated `das-tern=incomplete` in the repository and deleted by the next run.
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
from .pgbackrest import CRYPTO, ENDED, LOCKED, MARK, STANZA, Heard, Info, PgBackRest, Verified, records_of
from .records import PAGES, Check, Place, Record, now

ARCHIVE_SECONDS = 120.0
"""How long a finished segment of the WAL may take into the repository, where there are no further ones."""
TELL_SECONDS = 10.0
MANIFEST = ("backup.manifest", "backup.manifest.copy")
_SERVER = """
SELECT json_build_object('system', (SELECT system_identifier::text FROM pg_control_system()),
  'version', current_setting('server_version'), 'archiving', current_setting('archive_mode') <> 'off')
"""
# An archiver whose command failed or was killed sleeps for a minute, as long as pgBackRest waits for it: this wakes it. A
# killed pgBackRest's session may still hold the lock that keeps backups apart; its process is gone when this is asked.
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
class Found:
    """What a verification found."""

    checks: dict[str, Check] = field(default_factory=dict)
    """By label."""
    problems: list[str] = field(default_factory=list)
    """What concerns no single backup and is to be mended."""
    notes: list[str] = field(default_factory=list)
    """What can't be mended any more, and goes with the backups before it."""


@contextmanager
def telling(what: Callable[[], str], say: Callable[[str], None]) -> Iterator[None]:
    """Say `what` every `TELL_SECONDS`."""
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
    return Server(**place.superuser.value(_SERVER))


def usable(place: Place, program: PgBackRest) -> tuple[Server, Info]:
    """Server and repository, which belong together; refused in words where they don't."""
    found = server(place)
    if not found.archiving:
        raise DasTernError(
            f"Container {place.container} doesn't archive its WAL (archive_mode is off), which physical backups need. Set "
            "`postgres_wal_archive: true` and run `ansible-playbook playbooks/provision.yml`, or take a logical one: "
            "`ansible-playbook playbooks/backup.yml -e backup_type=logical`."
        )
    keeper.refuse_away(place)
    refuse_elsewhere(place, REPOSITORY, container=place.keeper)
    info = program.info()
    if not info.system:
        raise DasTernError(
            f"{place.folder} has no repository for container {place.container}. `ansible-playbook playbooks/provision.yml` makes "
            "it, unless this server's backups are in another folder or on a disk that isn't mounted."
        )
    if info.system != found.system:
        raise DasTernError(
            f"The repository in {place.folder} takes backups of cluster {info.system}, and container {place.container} runs "
            f"cluster {found.system}. If the data of that one was lost, `ansible-playbook playbooks/restore.yml` brings it back. If this "
            "cluster replaced it, run `ansible-playbook playbooks/provision.yml -e backup_new_cluster=true`: its backups are then kept "
            "beside the former ones. If neither, give this server a `postgres_backup_dir` of its own."
        )
    return found, info


def incomplete(place: Place, info: Info) -> list[str]:
    """Labels of our sets that have no record, whatever became of their run."""
    known = {record.label for record in place.records()} | set(place.damaged())
    return [
        one["label"] for one in info.sets
        if (one.get("annotation") or {}).get(MARK) == "incomplete" and one["label"] not in known
    ]  # fmt: skip


def unknown(place: Place, info: Info) -> list[str]:
    """Labels of sets that somebody else made, or whose record was lost or damaged: they are kept, and never shown good."""
    known, swept = {record.label for record in place.records()}, incomplete(place, info)
    return [one["label"] for one in info.sets if one["label"] not in known and one["label"] not in swept]


def sweep(place: Place, program: PgBackRest, info: Info) -> list[str]:
    """Delete what killed runs left, and may go; their labels."""
    gone = leftovers(place, info)
    for label in gone:
        program.expire(label)
    return gone


def leftovers(place: Place, info: Info, new: str = "") -> list[str]:
    """What killed runs left, unless something else needs it, or it is the last full set: that is never deleted.

    `new` is the type of a set that will be there by then.
    """
    left = incomplete(place, info)
    kept = [one for one in info.sets if one["label"] not in left]
    spared = {label for one in kept for label in needs(one)}
    if "full" not in (new, *(one["type"] for one in kept)):
        spared |= set([one["label"] for one in info.sets if one["type"] == "full"][-1:])
    return [label for label in reversed(left) if label not in spared]


def needs(one: dict[str, Any]) -> list[str]:
    """Labels of the sets that a set is restored from, besides itself."""
    return [*(one.get("reference") or []), *([one["prior"]] if one.get("prior") else [])]


def needed(place: Place, info: Info) -> list[str]:
    """What may not go because sets that we don't know are built upon it."""
    strange = unknown(place, info)
    return [label for one in info.sets if one["label"] in strange for label in needs(one)]


def effective(place: Place, info: Info, wanted: str) -> tuple[str, str]:
    """Which type a backup will be, and why not `wanted`, if so.

    Only what was verified is built upon: pgBackRest itself takes the newest set, whatever became of it.
    """
    if wanted == "full":
        return "full", ""
    swept = incomplete(place, info)
    sets = [
        one for one in info.sets
        if one["in"] == info.archive and one["label"] not in swept and (wanted != "diff" or one["type"] == "full")
    ]  # fmt: skip
    if not sets:
        return "full", "there is no full one to build upon" if wanted else ""
    base = {record.label: record for record in place.records()}.get(sets[-1]["label"])
    if base is None or not base.good:
        return "full", f"{sets[-1]['label']}, which it would build upon, isn't verified"
    return wanted or "incr", ""


def take(
    place: Place, program: PgBackRest, found: Server, kind: str, name: str, reason: str, wait: float,
    say: Callable[[str], None],
) -> Record:  # fmt: skip
    """Back the cluster up, verify that, and write the record; raises, and leaves what the next run deletes.

    One of a cluster that has damaged pages itself is far better than none: it has a record, and isn't `good`.
    """
    _refuse_broken_names(place)
    began, clock = now(), time.monotonic()
    place.superuser.run(_READY)
    try:
        label = _copied(program, kind, say)
    except DasTernError as refusal:
        if LOCKED not in refusal.facts.get("code", []):
            raise
        program.alone(wait, say)  # a copy into a further repository began in the same moment
        place.superuser.run(_READY)
        label = _copied(program, kind, say)
    say(f"{label}: copied in {time.monotonic() - clock:.1f} s; counting, and waiting for its WAL ...")
    with telling(lambda: "counting, and waiting for its WAL", say):
        record = _counted(place, program, found, label, began, clock, name, reason)
    say(f"{label}: verifying ...")
    with telling(lambda: "verifying", say):
        check = verify(place, program, [record], f"--set={label}").checks[label]
    if not check.ok and not check.message.startswith(PAGES):
        raise DasTernError(
            f"The backup {label} was made but isn't right, and doesn't count: {check.message}. Look at the disk of "
            f"{place.folder}, then run again.",
            label=label,
        )
    record = replace(record, verified=check)
    place.save(record)
    program.mark(label, "complete")
    return record


def _refuse_broken_names(place: Place) -> None:
    """Refuse where a database has a line end in its name: pgBackRest writes it as it is, and can't read its manifest again."""
    query = "SELECT coalesce(json_agg(datname ORDER BY 1), '[]') FROM pg_database WHERE datname ~ '[\\n\\r]'"
    for name in place.superuser.value(query):
        escaped = "".join(f"\\{ord(one):04X}" if ord(one) < 32 or one in '\\"' else one for one in name)
        rename = f'ALTER DATABASE U&"{escaped}" RENAME TO "{re.sub(r"[^A-Za-z0-9_]", "_", name)}"'
        raise DasTernError(
            f"Database {name!r} has a line end in its name, with which pgBackRest's backups can't be read again. Nothing was backed up. "
            f"Rename it: `docker exec -u postgres {quote(place.container)} psql -c {quote(rename)}`; or drop it.",
            database=name,
        )


def _copied(program: PgBackRest, kind: str, say: Callable[[str], None], repository: int = 1) -> str:
    """Have pgBackRest copy the cluster into a repository; the label of the set."""
    heard = Heard()
    mark, what = ("incomplete", f"{kind} backup") if repository == 1 else ("further", f"repository {repository}")
    with telling(lambda: f"{what}: {heard.percent or 0} %", say):
        program.run(
            "backup", f"--repo={repository}", f"--type={kind}", f"--annotation={MARK}={mark}", "--log-level-console=detail",
            heard=heard, silence=_silence(repository),
        )  # fmt: skip
    return heard.label


def _silence(repository: int) -> float:
    """Seconds that pgBackRest may say nothing: one file on a slow line takes hours; one that is away it gives up itself."""
    return pgbackrest.LONGEST if repository == 1 else census.LONGEST


def _counted(
    place: Place, program: PgBackRest, found: Server, label: str, began: str, clock: float, name: str, reason: str,
    repository: int = 1,
) -> Record:  # fmt: skip
    """The record of a set, with what the database holds at a restore point behind it."""
    point = f"das-tern-{label}"
    one = program.info(repository=repository).set(label)
    if one is None:
        raise DasTernError(f"pgBackRest doesn't list the backup {label} that it made. Run again.")
    if links := program.links(label, repository):
        raise DasTernError(
            f"The data of container {place.container} has links in it, which pgBackRest follows: {', '.join(links)}. What they lead "
            f"to would be in the backup {label}, and come back with it; so it doesn't count, and the next run deletes it. Nothing of "
            f"ours makes such links. Look at them (`docker exec {quote(place.container)} find {PGDATA} -type l -ls`), remove them, "
            "then run again.",
            links=links,
        )
    pages, uncounted = _pages(place, program, one, repository), ""
    try:
        counted, exact = census.count_at(place.superuser, place.database, point)
    except DasTernError as refusal:
        barred = census.is_barred(refusal)
        if not pages and not barred:
            raise
        blocked = in_the_way(place.superuser, place.database) if barred and "closed" not in refusal.facts else []
        uncounted = " ".join([refusal.message, *(line.strip() for line in blocked)])
        # A recovery stops at the first point of that name.
        place.superuser.run(f"SELECT pg_create_restore_point({literal(point)});")
        counted, exact = census.Census(place.database, {}, "", {}, [], one["info"]["size"]), False
    timeline, lsn = archive_all(place, repository)
    manifest = program.sums(f"backup/{STANZA}/{label}/{MANIFEST[0]}", repository=repository).popitem()[1]
    if not manifest:
        raise DasTernError(f"{MANIFEST[0]} of the backup {label} can't be read back. Run again.")
    return Record(
        label=label, kind="physical", type=one["type"], database=place.database, system=found.system,
        server=found.version, tool=f"pgBackRest {one['backrest']['version']}", began=began,
        seconds=round(time.monotonic() - clock, 1), bytes=one["info"]["size"],
        stored=one["info"]["repository"]["delta"], census=counted.as_dict(), exact=exact, uncounted=uncounted, name=name, reason=reason,
        restore_point=point, lsn=lsn, timeline=timeline, prior=one["prior"] or "",
        files={MANIFEST[0]: {"sha256": manifest}}, verified=Check(now(), False, 0, pages) if pages else None,
    )  # fmt: skip


def _pages(place: Place, program: PgBackRest, one: Mapping[str, Any], repository: int) -> str:
    """`PAGES` with their files and tables, if a set has such."""
    if not one.get("error"):
        return ""
    files = program.misread(one["label"], repository)
    relations = {file: re.sub(r"(_[a-z]+)?(\.\d+)?$", "", file) for file in files[:5]}
    names: dict[str, str] = {}
    with contextlib.suppress(DasTernError):  # what is damaged may be the catalogue
        query = _RELATIONS.format(files=", ".join(map(literal, relations.values())) or "''")
        names = place.superuser.value(query, place.database)
    shown = [f"{file} ({names[path]})" if path in names else file for file, path in relations.items()]
    more = f" and {len(files) - 5} more files" if len(files) > 5 else ""
    return f"{PAGES}, in {', '.join(shown)}{more}"


def damaged_pages(place: Place, record: Record) -> str:
    """What to do where a backup found pages of the live database damaged."""
    whole = next((one for one in place.records() if one.physical and one.good), None)
    beside = playbook("restore", what="database", into=f"{place.database}_whole")
    back = (
        f"The newest good one is {whole.label}; restored from it and from the log since, what was in those pages comes back: `{beside}`."
        if whole else "No good physical one is there: save what can be read (`ansible-playbook playbooks/backup.yml -e backup_type=logical`)."
    )  # fmt: skip
    return (
        f"Backup {record.label} was taken and is kept, but isn't good: {record.fault}. It takes no good one's place, and nothing is "
        f"built upon it. Look at the disk of the data (`dmesg`), and at what else is damaged: `docker exec -u postgres "
        f"{quote(place.container)} pg_amcheck --install-missing {quote(place.database)}`. {back}"
    )


def verify(place: Place, program: PgBackRest, records: Sequence[Record], *only: str, repository: int = 1) -> Found:
    """Read everything in a repository, and say of each of `records`, its physical ones, whether it can be restored.

    `only`, an option such as `--set=LABEL`, reads the files of one.
    """
    clock = time.monotonic()
    found = Found()
    info = program.info(repository=repository)
    sums = program.sums(
        *(f"backup/{STANZA}/{record.label}/{file}" for record in records for file in MANIFEST),
        *(f"{kind}/{STANZA}/{kind}.info{copy}" for kind in ("archive", "backup") for copy in ("", ".copy")),
        repository=repository,
    )
    told = _read(program, info, records, sums, only, repository, found)
    segments = program.archived(repository)
    own = {_history(record.timeline) for record in records if record.timeline > 1}
    archives = {info.archive, *(one["in"] for one in info.sets)} if own or not only else set()
    histories = {archive: program.histories(archive, repository) for archive in archives if archive}
    torn = {
        (archive, name) for archive, names in histories.items() for name in names
        if (name in own or not only) and _torn(program, archive, name, repository)
    }  # fmt: skip
    bad: dict[str, list[str]] = {}
    unreadable: set[str] = set()
    for record in sorted(records, key=lambda one: one.began):
        one = info.set(record.label)
        words = bad[record.label] = []
        read = told.sets.get(record.label)
        if one is None or (read is None and not any(_sum(sums, record, file) for file in MANIFEST)):
            words.append("it isn't in the repository any more")
            unreadable.add(record.label)
            continue
        files = told.damaged.get(record.label, [])
        if read is False:
            words.append(f"damaged: {', '.join(cut(files, 5)) or 'its files or those that it is built upon'}")
        for file in MANIFEST:
            found_sum = _sum(sums, record, file)
            if not found_sum and repository != 1 and read:  # the line broke meanwhile
                raise DasTernError(f"{file} of {record.label} can't be read. Run again.")
            if found_sum != record.files[MANIFEST[0]]["sha256"]:
                words.append(f"damaged: {file}")
        if read is None and not words:
            words.append("pgBackRest didn't read it")
        if record.prior in unreadable:
            words.append(f"it needs {record.prior}, which isn't right")
        if words:
            unreadable.add(record.label)
        first, last = one["archive"]["start"], pgbackrest.segment(record.timeline, record.lsn)
        if record.timeline > 1 and (history := _history(record.timeline)) not in histories.get(one["in"], set()):
            words.append(f"{history} is missing, without which nothing is recovered along its timeline")
        elif record.timeline > 1 and (one["in"], history) in torn:
            words.append(f"{history} is damaged, without which nothing is recovered along its timeline")
        words += _broken(one["in"], first, last, segments.get(one["in"], set()), told.wal)
        words += filter(None, [_pages(place, program, one, repository)])
    seconds = round(time.monotonic() - clock, 1)
    found.checks = {label: Check(now(), not words, seconds, "; ".join(words)) for label, words in bad.items()}
    for kind in ("archive", "backup"):
        path = f"{kind}/{STANZA}/{kind}.info"
        if sums[path] != sums[f"{path}.copy"] or not sums[path]:
            found.problems.append(
                f"{path} and its copy aren't the same: one of them is damaged. Copy the good one over it"
            )
    if only:
        return found
    for archive, name in sorted(torn):
        damage = f"the history {archive}/{name} is damaged, without which nothing is recovered along its timeline"
        if archive != info.archive:  # nobody archives into it any more
            found.notes.append(damage)
            continue
        found.problems.append(
            f"{damage}. Where the server has it, it comes back: `docker exec -u postgres {quote(place.keeper)} pgbackrest "
            f"--stanza={STANZA} archive-push --no-archive-async {PGDATA}/pg_wal/{quote(name)}`"
        )
    find_gaps(info, segments, told.wal, found)
    if repository != 1 and not (told.ok or found.problems or found.notes or any(bad.values())):
        found.problems.append(f"`pgbackrest --repo={repository} verify` reports damage")
    return found


def _sum(sums: Mapping[str, str], record: Record, file: str) -> str:
    return sums[f"backup/{STANZA}/{record.label}/{file}"]


def _read(
    program: PgBackRest, info: Info, records: Sequence[Record], sums: Mapping[str, str], only: Sequence[str], repository: int,
    found: Found,
) -> Verified:  # fmt: skip
    """What `pgbackrest verify` says.

    One damaged manifest can end it before it says anything: then each other set is read by itself, with what it is built upon
    each time.
    """

    def read(*options: str) -> Verified:
        # It speaks at its end, when it has read everything.
        return program.verify(f"--repo={repository}", *options, silence=census.LONGEST)

    try:
        return read(*only)
    except DasTernError as refusal:
        if only or pgbackrest.ASSERTION not in refusal.facts.get("code", []):
            raise
    others = sorted({one["label"] for one in info.sets} - {record.label for record in records})
    unread = ", ".join(["the WAL between the backups", *others])
    found.problems.append(f"a damaged manifest ended `pgbackrest verify`, so this wasn't read: {unread}")
    every = Verified({})
    for record in records:
        if _sum(sums, record, MANIFEST[0]) != record.files[MANIFEST[0]]["sha256"]:
            continue
        one = read(f"--set={record.label}")
        every.sets.update(one.sets)
        every.damaged.update(one.damaged)
        every.wal.update(one.wal)
    return every


def _note(program: PgBackRest, repository: int, records: Sequence[Record], found: Found) -> None:
    """Put what was found into the records of a further repository."""
    try:
        for record in records:
            if record.label in found.checks:
                program.keep(repository, replace(record, verified=found.checks[record.label]))
    except DasTernError as refusal:
        if LOCKED not in refusal.facts.get("code", []):
            raise
        found.notes.append(
            "this verification isn't noted there, as a backup is being copied into it. Verify again afterwards"
        )


def verify_further(place: Place, program: PgBackRest, wait: float, note: bool) -> Found:
    """Read everything in the other repositories, and note it in the records there; only what is wrong is told.

    That takes hours on a slow line, in which other runs come and go.
    """
    all_found = Found()
    for number in program.further():
        found = Found()
        try:
            records = records_of(program.info(repository=number).sets)
            found = verify(place, program, records, repository=number)
            with place.alone(wait, "noting a verification") if note else nullcontext():
                sets = program.info(repository=number).sets
                labels, records = [one["label"] for one in sets], records_of(sets)
                found.checks = {label: check for label, check in found.checks.items() if label in labels}
                if note:
                    _note(program, number, records, found)
            if lacking := sorted(set(labels) - {record.label for record in records}):
                told = found.notes if records else found.problems
                told.append(
                    f"{', '.join(lacking)} can't be restored: no readable record is there. It wasn't copied whole, is being counted, "
                    "or the record is damaged"
                )
        except DasTernError as refusal:
            found.problems.append(refusal.message)
        wrong = [f"{label} is damaged: {check.message}" for label, check in found.checks.items() if not check.ok]
        all_found.problems += [f"repository {number}: {words}" for words in wrong + found.problems]
        all_found.notes += [f"repository {number}: {words}" for words in found.notes]
    return all_found


def remove(place: Place, program: PgBackRest, labels: Sequence[str]) -> None:
    """Delete these, the newest first; killed anywhere, what is left doesn't count and the next run deletes it."""
    there = {one["label"] for one in program.info().sets} if labels else set()
    for label in sorted(labels, reverse=True):
        if label in there:
            program.mark(label, "incomplete")
        place.forget(label)
        program.expire(label)


def trim(program: PgBackRest) -> None:
    """Delete the WAL from before the oldest full backup, which nothing needs."""
    program.expire_archive(sum(one["type"] == "full" for one in program.info().sets))


def further(place: Place, program: PgBackRest, first: Record, say: Callable[[str], None]) -> list[str]:
    """The same backup as `first` in the other repositories, whose retention their options say; why it wasn't possible.

    Nobody waits for it: the lock of the backups isn't held, and the next backup ends one that is under way.
    """
    failed = []
    found = Server(first.system, first.server, archiving=True)
    for repository in program.further():
        try:
            began, clock = now(), time.monotonic()
            label = program.patiently(lambda: _copied(program, first.type, say, repository))  # noqa: B023
            with telling(lambda: f"repository {repository}: counting, and waiting for its WAL", say):  # noqa: B023
                record = _counted(place, program, found, label, began, clock, first.name, first.reason, repository)
                program.keep(repository, record)
        except DasTernError as refusal:
            failed.append(f"repository {repository}: {refusal.message}")
            if ENDED in refusal.facts.get("code", []):
                break  # by a backup that goes first, also before the next repository
    return failed


def _broken(archive: str, first: str, last: str, there: set[str], damaged: set[tuple[str, str]]) -> list[str]:
    """What lacks of the WAL from `first` to `last`, which are of one timeline."""
    timeline = int(first[:8], 16)
    wanted = [
        pgbackrest.segment_name(timeline, n)
        for n in range(pgbackrest.segment_number(first), pgbackrest.segment_number(last) + 1)
    ]
    missing = [name for name in wanted if name not in there]
    wrong = [name for name in wanted if (archive, name) in damaged]
    return [
        *([f"its WAL is missing: {', '.join(cut(missing, 5))}"] if missing else []),
        *([f"its WAL is damaged: {', '.join(cut(wrong, 5))}"] if wrong else []),
    ]


def find_gaps(info: Info, segments: dict[str, set[str]], damaged: set[tuple[str, str]], found: Found) -> None:
    """Breaks in the archive, beyond what one backup needs: no moment behind them can be restored from before them."""
    starts: dict[str, list[str]] = {}
    for one in info.sets:
        starts.setdefault(one["in"], []).append(one["archive"]["start"])
    for archive, names in segments.items():
        oldest, newest = min(starts.get(archive, ["~"])), max(starts.get(archive, [""]))
        broken = {name for of, name in damaged if of == archive and name >= oldest}
        for timeline in {name[:8] for name in names}:
            own = sorted(name for name in names if name[:8] == timeline and name >= oldest)
            if own:
                all_of_them = range(pgbackrest.segment_number(own[0]), pgbackrest.segment_number(own[-1]) + 1)
                broken |= {pgbackrest.segment_name(int(timeline, 16), n) for n in all_of_them} - set(own)
        behind = sorted(name for name in broken if name >= newest)
        if behind:
            found.problems.append(
                f"WAL {', '.join(cut(behind, 5))} is missing or damaged: no moment behind it can be restored until there is a new "
                "backup"
            )
        if older := sorted(broken - set(behind)):
            found.notes.append(
                f"WAL {', '.join(cut(older, 5))} is missing or damaged: no backup from before it reaches beyond it"
            )


def forget_received(place: Place, program: PgBackRest) -> None:
    """Delete what the receiver of zero loss wrote and nothing needs, as the archive has it by now."""
    if not (place.folder / received.FOLDER).exists():
        return
    # First what still waits: commits wait for the receiver again from when it has all of that.
    system, timeline, waiting = place.superuser.value(_TIMELINE)
    info = program.info()
    archived = program.archived().get(info.archive, set()) - set(waiting)
    starts = [one["archive"]["start"] for one in info.sets if one["in"] == info.archive]
    oldest = min(starts, key=lambda start: start[8:], default="")
    receiving = place.containers.inspect("container", f"{place.container}-receiver") is not None
    received.prune(place.folder, system, int(timeline, 16), archived, oldest, receiving)


def archive_all(place: Place, repository: int = 1) -> tuple[int, str]:
    """Have all WAL up to now in a repository; timeline and position."""
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
    """Whether a history in a repository is seen not to be what was written."""
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
    """The server archives it once, when the timeline begins: a repository that was made later doesn't have it.

    One that is damaged there is written anew.
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
    """Wait until a repository has the log up to segment `name`; `otherwise` says in a refusal what follows."""
    program = PgBackRest(place.containers, place.keeper)
    several = bool(program.further())
    limit = pgbackrest.ARCHIVE_TIMEOUT if several else ARCHIVE_SECONDS
    end = time.monotonic() + limit
    while waiting := set((state := place.superuser.value(_ARCHIVED.format(name=name)))["waiting"]):
        # For another repository alone, perhaps.
        if several and waiting <= program.archived(repository).get(program.info(repository=repository).archive, set()):
            return
        if time.monotonic() > end:
            raise DasTernError(
                f"WAL segment {name} isn't in the repository after {limit:.0f} s"
                + (f": the archive_command fails at {state['failed']}" if state["failed"] else "")
                + f". `docker logs --tail 20 {quote(place.container)}` says why; mend that, then run again. {otherwise}"
            )
        time.sleep(2 if several else 0.1)
