"""Run pgBackRest inside the backup container: its commands, its output, and the processes that a killed run left.

Source: the manual and the behaviour of pgBackRest 2.55 and 2.60. `verify` exits 0 whatever it finds; `--config=/dev/stdin`
tries a configuration that isn't written yet, and keeps its secrets out of argument lists. Output with a JSON form is read as
JSON.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any, TypeVar

from ..common.errors import DasTernError
from ..common.quantities import amount
from ..docker.containers import Containers, Output
from ..server import pgbackrest_version
from ..server.backup_folders import OURS, further
from ..server.survey import BACKUPS, PGBACKREST_FOLDER, PGDATA, STANZA
from .records import UNREADABLE, Record

_Result = TypeVar("_Result")

REPOSITORY = f"{BACKUPS}/repository"
SPOOL = "/tmp/pgbackrest-spool"  # noqa: S108 - the container's own
FOREVER = 9999999
"""The maximum of the retention options, so that pgBackRest deletes nothing by itself."""
ENDED = "063"
"""pgBackRest's code for: it was told to end."""
LOCKED = "050"
"""pgBackRest's code for: another one is at work on the same repository."""
CRYPTO = "095"
"""pgBackRest's code for: encrypted data is damaged, or the password is another one."""
MARK = "das-tern"
"""The annotation of our sets: `incomplete` until the record is written, then `complete`."""
RECORD = f"{MARK}-record"
"""The annotation that holds the record of a set in a further repository."""
LONGEST_RECORD = 128 * 1024 - 64
"""The most bytes for that: with its option it is as long as one argument of a program can be."""
SEGMENT = 16 * 1024 * 1024
"""Bytes in a WAL segment, initdb's default."""
FULL = 32 * 1024 * 1024
"""Free bytes below which a failure is blamed on the full disk."""
IO_TIMEOUT = 30
"""Seconds without a byte from a further repository until it counts as away."""
ARCHIVE_IO_TIMEOUT = 3
"""The same while WAL is archived: it is tried 6 to 22 times, during which the first repository waits for one that is away."""
ARCHIVE_TIMEOUT = 600
"""Seconds for one segment if there are further repositories: two or three such rounds of one that is away."""
PATIENCE = 20.0
"""Seconds until a pgBackRest that was asked to end is killed."""
LONGEST = 1800.0
"""Seconds that a command may be silent, while it copies one file or waits for one segment."""

ASSERTION = "025"
"""pgBackRest's code for its own failed assertions, such as a damaged manifest can cause."""
_ERROR = re.compile(r"(?:ERROR|ASSERT): \[(\d{3})\]: (.*)")
_PERCENT = re.compile(r", ([\d.]+)%\)")
_SET_FILE = re.compile(r" P\d+ +INFO: .* '?(\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?)/([^\s':]+)")
_SET = re.compile(r"^  backup: (\S+), status: ([\w ]+),", re.MULTILINE)
WAL_FILE = re.compile(r"([\d.]+-\d+)/[0-9A-F]{16}/([0-9A-F]{24})-([0-9a-f]{40})(\.\w+)?")
"""The path of an archived segment: archive, name, SHA-1 of the uncompressed content, and suffix."""
# Status codes for: fine, no folder of the stanza, no backups, no data of the stanza.
_STATES = (0, 1, 2, 3)
_NOTHING = hashlib.sha256(b"").hexdigest()
WORKER = "backup:local"
"""The command of a process that copies for a backup. If the backup is killed, it keeps the lock and copies its whole file."""
# Lists pgBackRest's processes; of those that copy, only the ones whose backup is gone.
_PROCESSES = rf"""
words() {{ tr '\0' ' ' < "/proc/$1/cmdline" 2>/dev/null; }}
for p in /proc/[0-9]*; do
  c=$(words "${{p#/proc/}}") || continue
  case $c in
    "pgbackrest "*" {WORKER} "*)
      case $(words "$(sed -n 's/^PPid:[[:space:]]*//p' "$p/status" 2>/dev/null)") in "pgbackrest "*) continue;; esac;;
    "pgbackrest "*) ;;
    *) continue;;
  esac
  echo "${{p#/proc/}} $c"
done
"""
_SUMS = r"""
for f; do
  s=$(pgbackrest --repo="$0" --log-level-console=off --log-level-stderr=off repo-get "$f" | sha256sum)
  echo "$f ${s%% *}"
done
"""


# Archives one file as the listener in `keeper` does, in case the listener hasn't seen it.
_PUSH = f"""
set -e
cd -P {PGDATA}/pg_wal
dd iflag=nofollow,nonblock,fullblock if="./$1" of="/tmp/$1" bs=16M count=1 status=none
trap 'rm -f "/tmp/$1"' EXIT
pgbackrest --stanza={STANZA} --log-level-console=warn --no-archive-async archive-push "/tmp/$1"
"""


class Progress:
    """The output of a command while it runs.

    `backup` reports the label of its set in no other form, and in `info` another set could be newer. Its progress is in
    `info` as JSON, too, but that takes a process and a request to a repository that may be far away. If pgBackRest changes
    this text, only the progress is lost.
    """

    def __init__(self) -> None:
        self.percent = ""
        self._rest = b""
        self._kept: list[str] = []

    def write(self, content: bytes) -> int:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if match := _PERCENT.search(text):
                self.percent = match[1]
            elif " DETAIL: " not in text:
                self._kept.append(text)
        return len(content)

    @property
    def text(self) -> str:
        return "\n".join([*self._kept, self._rest.decode(errors="replace")])

    @property
    def label(self) -> str:
        """The label of the set that was taken."""
        return self.text.rpartition("new backup label = ")[2].split()[0]


@dataclass(frozen=True)
class Info:
    """The state of a repository, by its own report."""

    complete: bool
    """Whether every repository that answered has its stanza."""
    system: str
    """Identifier of the cluster whose WAL it takes; empty if it takes none yet."""
    systems: dict[int, list[str]]
    """Identifiers of the clusters whose WAL each repository has, the newest last."""
    archive: str
    """The archive that takes this WAL, such as `17-1`: the server's version and the number of the cluster."""
    sets: list[dict[str, Any]]
    """The sets as `pgbackrest info` describes them, the oldest first; `in` is the archive that has a set's WAL."""
    away: list[str]
    """Repositories that can't be read, each with the reason."""

    def set(self, label: str) -> dict[str, Any] | None:
        return next((backup_set for backup_set in self.sets if backup_set["label"] == label), None)


@dataclass(frozen=True)
class Verified:
    """The result of `pgbackrest verify`."""

    sets: dict[str, bool]
    """Whether each set is valid, by its label."""
    damaged: dict[str, list[str]] = field(default_factory=dict)
    """The damaged files of each set, by its label."""
    wal: set[tuple[str, str]] = field(default_factory=set)
    """The damaged segments: archive and name."""
    ok: bool = True


class PgBackRest:
    """pgBackRest in a running container."""

    def __init__(self, containers: Containers, container: str, nice: int = 0) -> None:
        if not 0 <= nice <= 19:
            raise DasTernError(f"`backup_priority` is {nice}. Expected: a number from 0 to 19. Nothing was done.")
        self.containers, self.container, self.nice = containers, container, nice

    def version(self) -> str:
        """Return pgBackRest's version. Refuse one that this project doesn't support."""
        done = self.containers.execute(self.container, pgbackrest_version.COMMAND)
        return pgbackrest_version.read(f"Container {self.container}", done)

    def run(
        self, command: str, *options: str, config: str = "", stdin: str = "", progress: Progress | None = None,
        silence: float = LONGEST,
    ) -> str:  # fmt: skip
        """Run a command and return its output. A failure is a refusal in pgBackRest's own words."""
        words = ["nice", "-n", str(self.nice), "pgbackrest", f"--stanza={STANZA}", command, *options]
        if config:
            words.append("--config=/dev/stdin")
        done = self.containers.execute(self.container, words, config or stdin, silence=silence, into=progress)  # type: ignore[arg-type]
        out = progress.text if progress else done.out
        if done.rc != 0:
            raise _refusal(command, Output(done.rc, out, done.err), self._free())
        return out

    def info(self, config: str = "", *, repository: int = 1, every: bool = False) -> Info:
        """Return the state of a repository; with `every` the others are asked, too, for `systems` and `away`."""
        # pgBackRest writes messages of several lines unescaped into its JSON (so `strict=False`). For a repository that is
        # away it waits several times as long as this timeout, by default a minute each.
        options = [
            "--output=json",
            "--log-level-console=off",
            "--io-timeout=5",
            *([] if every else [f"--repo={repository}"]),
        ]
        text = self.run("info", *options, config=config)
        if "configuration file contains" in text:  # a warning before the JSON
            raise DasTernError(
                f"`backup_repository_options`: {_first(text.partition('WARN: ')[2].splitlines()[0])}. Nothing was changed."
            )
        report = json.loads(text, strict=False)[0]
        refuse_unreadable(report, repository)
        systems: dict[int, list[str]] = {}
        for database in report["db"]:
            systems.setdefault(database["repo-key"], []).append(str(database["system-id"]))
        archives = {
            archive["database"]["id"]: archive["id"]
            for archive in report["archive"] if archive["database"]["repo-key"] == repository
        }  # fmt: skip
        sets = [
            {**backup_set, "in": archives.get(backup_set["database"]["id"], "")}
            for backup_set in report["backup"] if backup_set["database"]["repo-key"] == repository
        ]  # fmt: skip
        states = {each["key"]: each["status"] for each in report["repo"]}
        return Info(
            complete=all(state["code"] in (0, 2) for state in states.values() if state["code"] in _STATES),
            system=systems.get(repository, [""])[-1],
            systems=systems,
            archive=archives[max(archives)] if archives else "",
            sets=sets,
            away=[
                _password_of(number) if _other_password(state["message"])
                else f"repository {number} can't be read: {_first(state['message'])}"
                for number, state in states.items() if state["code"] not in _STATES
            ],
        )  # fmt: skip

    def misread(self, label: str, repository: int = 1) -> list[str]:
        """Return the files of the cluster in which a set has pages with wrong checksums."""
        options = (f"--set={label}", f"--repo={repository}", "--output=json", "--log-level-console=off")
        return list(self._set(*options).get("error-list") or [])

    def push(self, name: str) -> None:
        """Archive a file of the server's WAL. A link isn't followed. Raises `DasTernError`."""
        done = self.containers.execute(self.container, ["sh", "-c", _PUSH, "sh", name], silence=LONGEST)
        if done.rc:
            raise _refusal("archive-push", done, self._free())

    def links(self, label: str, repository: int = 1) -> list[str]:
        """Return the links in the data whose targets a set contains. Tablespaces inside the volume don't count."""
        options = (f"--set={label}", f"--repo={repository}", "--output=json", "--log-level-console=off")
        return [f"{link['name']} -> {link['destination']}" for link in self._set(*options).get("link") or []]

    def _set(self, *options: str) -> dict[str, Any]:
        """Return pgBackRest's report on one set."""
        reports = json.loads(self.run("info", *options), strict=False)
        if not reports or not reports[0].get("backup"):
            status = (reports[0].get("status") or {}).get("message", "") if reports else ""
            raise DasTernError(
                f"pgBackRest can't read the set that it made ({options[0]}): {status or 'it lists none'}. `ansible-playbook "
                "playbooks/verify_backups.yml` shows which backups are whole."
            )
        return dict(reports[0]["backup"][0])

    def further(self) -> list[int]:
        """Return the numbers of the repositories besides the first."""
        try:
            configuration = self.containers.execute(self.container, ["cat", f"{PGBACKREST_FOLDER}/pgbackrest.conf"])
        except DasTernError as refusal:
            if refusal.facts.get("status") not in (404, 409):  # the container doesn't exist, or doesn't run
                raise
            return []
        return further(configuration.out)

    def verify(self, *options: str, silence: float = LONGEST) -> Verified:
        """Read the files of all sets and the WAL, as far as `options` don't say less."""
        # Without --job-retry a damaged segment is read three times, 15 s apart.
        return verified(self.run("verify", *options, "--output=text", "--verbose", "--job-retry=0", silence=silence))

    def archived(self, repository: int = 1) -> dict[str, set[str]]:
        """Return the names of the segments in a repository, by archive such as `17-1`."""
        files = json.loads(
            self.run(
                "repo-ls",
                f"archive/{STANZA}",
                f"--repo={repository}",
                "--recurse",
                "--output=json",
                "--log-level-console=off",
            )
        )
        segments: dict[str, set[str]] = {}
        for path in files:
            if match := WAL_FILE.fullmatch(path):
                segments.setdefault(match[1], set()).add(match[2])
        return segments

    def histories(self, archive: str, repository: int = 1) -> set[str]:
        """Return the names of the timeline histories in an archive such as `17-1`. A recovery along a timeline needs its history."""
        options = (f"--repo={repository}", "--output=json", "--log-level-console=off")
        names = json.loads(self.run("repo-ls", f"archive/{STANZA}/{archive}", *options))
        return {name for name in names if name.endswith(".history")}

    def sums(self, *files: str, repository: int = 1) -> dict[str, str]:
        """Return the SHA-256 of decrypted files of a repository; it is empty for a file that can't be read."""
        done = self.containers.execute(self.container, ["sh", "-c", _SUMS, str(repository), *files], silence=LONGEST)
        sums = dict(line.split(" ", 1) for line in done.out.splitlines())
        return {file: "" if sums.get(file) == _NOTHING else sums.get(file, "") for file in files}

    def keep(self, repository: int, record: Record) -> None:
        """Save a record in the annotations of its set in a further repository, so that it shares the set's fate and encryption."""
        words = (f"--repo={repository}", f"--set={record.label}", f"--annotation={RECORD}={_packed(record)}")
        self.patiently(lambda: self.run("annotate", *words))

    def patiently(self, action: Callable[[], _Result]) -> _Result:
        """Run `action`, and again while another pgBackRest notes something in the same repository, which takes a moment."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return action()
            except DasTernError as refusal:
                if LOCKED not in refusal.facts.get("code", []) or time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def mark(self, label: str, state: str) -> None:
        """Annotate a set as `incomplete` or `complete`."""
        self.run("annotate", "--repo=1", f"--set={label}", f"--annotation={MARK}={state}")

    def expire(self, label: str) -> None:
        """Delete a set, if it exists, and those that depend on it."""
        self.run("expire", "--repo=1", f"--set={label}")

    def expire_archive(self, fulls: int) -> None:
        """Delete WAL older than the oldest full backup; `fulls` is the number of all full backups."""
        if fulls:
            self.run("expire", "--repo=1", f"--repo1-retention-archive={fulls}")

    def alone(self, seconds: float, say: Callable[[str], None]) -> None:
        """End the backup that a killed run left here; wait up to `seconds` for somebody else's pgBackRest.

        The caller holds the lock of the backups, so at most one backup of ours is running: into a further repository, which
        takes hours on a slow line. A backup into the first repository takes precedence over it.
        """
        began = time.monotonic()
        ended: dict[str, tuple[str, float]] = {}
        """The signal that each process got last, and when it was seen first."""
        while others := list(self._others()):
            waited = (moment := time.monotonic()) - began
            for pid, command in others:
                if WORKER in command.split():
                    how, message = "KILL", "Ending what is left of a backup whose own process was killed ..."
                    self._end(pid, how)
                elif f"--annotation={MARK}=" in command:
                    # It cleans up inside its signal handler, which can hang.
                    how = "KILL" if moment - ended.get(pid, ("", moment))[1] > PATIENCE else "TERM"
                    message = (
                        "Ending a backup that a killed run left behind ..." if "--repo=1" in command.split()
                        else "Ending the backup into a further repository that is still under way ..."
                    )  # fmt: skip
                    if pid not in ended or ended[pid][0] != how:
                        self._end(pid, how)
                else:
                    how, message = "", f"Waiting for another pgBackRest in container {self.container}: {command} ..."
                if pid not in ended:
                    say(message)
                ended[pid] = (how, ended.get(pid, ("", moment))[1])
            if waited > seconds:
                raise DasTernError(
                    f"Another pgBackRest works in container {self.container}: {others[0][1]} (process {others[0][0]} there). Run "
                    f"again when it has finished, or end it: `docker exec {quote(self.container)} kill {others[0][0]}`."
                )
            time.sleep(0.2)

    def _end(self, pid: str, how: str) -> None:
        self.containers.execute(self.container, ["sh", "-c", 'kill -"$1" "$2"', "sh", how, pid])

    def _free(self) -> int | None:
        """Return the free bytes on the disk of the repository, or None if the container doesn't answer."""
        with contextlib.suppress(DasTernError, ValueError, IndexError):
            done = self.containers.execute(self.container, ["df", "-B1", "--output=avail", REPOSITORY])
            return int(done.out.split()[1])
        return None

    def _others(self) -> Iterator[tuple[str, str]]:
        """Yield process and command of each pgBackRest that changes a repository."""
        done = self.containers.execute(self.container, ["sh", "-c", _PROCESSES])
        for line in done.out.splitlines():
            pid, _, command = line.strip().partition(" ")
            words = command.split()
            if {"backup", WORKER, "expire", "stanza-create", "stanza-upgrade"} & set(words):
                yield pid, command.strip()


def verified(text: str) -> Verified:
    """Return the result in the output of `verify`, which has no JSON form (up to 2.60, `--output` is `none` or `text`).

    A set that isn't in the repository is left out, as 2.55 does; since 2.59 pgBackRest lists it as a set without a manifest.
    """
    sets = {label: status == "valid" for label, status in _SET.findall(text) if status != "manifest missing"}
    damaged: dict[str, list[str]] = {}
    wal: set[tuple[str, str]] = set()
    for line in text.splitlines():
        if match := WAL_FILE.search(line):
            wal.add((match[1], match[2]))
        elif (match := _SET_FILE.search(line)) and match[2] not in damaged.setdefault(match[1], []):
            damaged[match[1]].append(match[2])
    return Verified(sets, damaged, wal, bool(re.search(r"^status: ok$", text, re.MULTILINE)))


def refuse_unreadable(report: Mapping[str, Any], repository: int = 1) -> None:
    """Refuse a repository that `info`, which succeeds whatever it finds, reports as unreadable."""
    status = next(each["status"] for each in report["repo"] if each["key"] == repository)
    message = status["message"]
    if _other_password(message):
        if repository != 1:
            raise DasTernError(
                f"{_password_of(repository)}. Set the one that it was created with. Nothing was changed."
            )
        raise DasTernError(
            "The backup repository can't be read with this `backup_cipher_pass`: it was created with another one, or "
            "without. Set the one that it was created with; to begin a new repository, move the folder `repository` in "
            "`postgres_backup_dir` away first. Nothing was changed.",
            crypto=True,
        )
    if status["code"] not in _STATES:
        which = "The backup repository" if repository == 1 else f"Repository {repository}"
        raise DasTernError(f"{which} can't be read: {_first(message)}. Nothing was changed.")


def _other_password(message: str) -> bool:
    """Return whether a repository was read with another password than it was created with.

    Without a password, encrypted data is read as text and quoted; a wrong one turns it into garbage once in 256 times.
    """
    garbage = "Salted__" in message or not message.replace("\n", "").isprintable()
    return garbage or "CryptoError" in message or "outside of section at line 1" in message


def _password_of(repository: int) -> str:
    return (
        f"Repository {repository} can't be read with this `repo{repository}-cipher-pass` (`backup_repository_options`): it was created "
        "with another one, or without"
    )


def _first(message: str) -> str:
    return " ".join(re.split(r"HINT|\*\*\* Path", message)[0].split()).rstrip(":")


def configuration(compress_level: int, processes: int, cipher_pass: str, options: Mapping[str, Any]) -> str:
    """Return the text of pgbackrest.conf."""
    others = sorted({name.partition("-")[0] for name in options})
    further = {f"{repository}-{way}": "y" for repository in others for way in ("bundle", "block")} | dict(options)
    lines = {
        "repo1-path": REPOSITORY,
        # Bundle small files, and copy only the changed blocks of large ones. With pgBackRest's default, 88 kB for a large file,
        # nearly every block has changed after an update of 1 % of the rows. A backup keeps the block size of its base.
        "repo1-bundle": "y",
        "repo1-block": "y",
        "repo1-block-size-map": "16KiB=8KiB",
        # Retention is decided elsewhere, where it is known which backups were verified.
        "repo1-retention-full": FOREVER,
        **({"repo1-cipher-type": "aes-256-cbc", "repo1-cipher-pass": cipher_pass} if cipher_pass else {}),
        **{name: "ny"[value] if isinstance(value, bool) else value for name, value in sorted(further.items())},
        "compress-type": "zst",
        "compress-level": compress_level,
        "process-max": processes,
        "start-fast": "y",
        "log-level-console": "info",
        "log-level-file": "off",
        # The segments that a backup needs reach the first repository after a few attempts at one that is away.
        **({"io-timeout": IO_TIMEOUT, "archive-timeout": ARCHIVE_TIMEOUT} if others else {}),
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    # Archiving one segment at a time, a repository that is away would keep all later segments from the others.
    push = "\n[global:archive-push]\n" + "".join(
        f"{name}={value}\n"
        for name, value in (("archive-async", "y"), ("spool-path", SPOOL), ("io-timeout", ARCHIVE_IO_TIMEOUT))
    ) if others else ""  # fmt: skip
    return f"[global]\n{text}{push}\n[{STANZA}]\npg1-path={PGDATA}\npg1-database=postgres\n"


def folders(text: str) -> list[str]:
    """Return the names of the backup folders in which a configuration has repositories."""
    names = re.findall(rf"(?m)^repo\d+-path={BACKUPS}/([^/\n]+)", text)
    return sorted({name for name in names if name not in OURS})


def records_of(sets: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the records of the sets of a further repository (`Info.sets`) that were copied completely, the newest first."""
    records = []
    for backup_set in sets:
        with contextlib.suppress(*UNREADABLE, zlib.error):
            packed = base64.b64decode(backup_set["annotation"][RECORD], validate=True)
            records.append(Record.read(zlib.decompress(packed).decode(), backup_set["label"]))
    return records[::-1]


def _packed(record: Record) -> str:
    """Return a record as one word, without its census if that would be too long."""

    def word(content: Record) -> str:
        return base64.b64encode(zlib.compress(content.text.encode(), 9)).decode()

    packed = word(record)
    if len(packed) <= LONGEST_RECORD:
        return packed
    why = f"{len(record.census['tables'])} tables are more than the record in a further repository can hold"
    nothing: dict[str, Any] = {"tables": {}, "schema": "", "properties": {}, "migrations": []}
    return word(replace(record, census=record.census | nothing, exact=False, uncounted=why))


def masked(text: str) -> str:
    """Return a configuration without its secrets."""
    return re.sub(r"(?m)^(\S*(?:pass|key|secret|token)[^=\n]*)=.*$", r"\1=********", text)


def segment(timeline: int, lsn: str) -> str:
    """Return the name of the WAL segment that ends at `lsn` or holds the byte before it."""
    return segment_name(timeline, max(position(lsn) - 1, 0) // SEGMENT)


def position(lsn: str) -> int:
    """Return an LSN such as `0/3000028` in bytes."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_number(name: str) -> int:
    """Return the number of a segment within its timeline."""
    return int(name[8:16], 16) * (0x100000000 // SEGMENT) + int(name[16:], 16)


def segment_name(timeline: int, number: int) -> str:
    """Return the name of a segment, by its number within its timeline."""
    per = 0x100000000 // SEGMENT
    return f"{timeline:08X}{number // per:08X}{number % per:08X}"


def _refusal(command: str, done: Output, free: int | None) -> DasTernError:
    """Return why pgBackRest failed, in its own words, and what fixes it. A full disk it doesn't always report itself."""
    if done.rc in (137, 143) or done.rc < 0:
        return DasTernError(
            f"pgBackRest was killed during `{command}`. What it left doesn't count as a backup, and the next run deletes it: "
            "run again.", code=[ENDED],
        )  # fmt: skip
    errors = _ERROR.findall(done.out + done.err)
    message = "; ".join(dict.fromkeys(text for _, text in errors)) or done.last_words
    fix = " Run again."
    if any(code in ("031", "032", "037", "038") for code, _ in errors):
        fix = " Set `backup_repository_options` right; its names and values are those of pgBackRest."
    elif "FormatError" in message or not message.isprintable():
        message = "the content of the repository can't be read"
        fix = " It was created with another password (`backup_cipher_pass`; of a further one `repo2-cipher-pass` and so on), without one, or is damaged."
    elif "No space left" in done.out + done.err or (free is not None and free < FULL):
        fix = f" Its disk has {amount(free or 0)} left: make room in `postgres_backup_dir`, or move it to another disk; then run again."
    elif "CryptoError" in message or "cipher" in message:
        fix = " Set `backup_cipher_pass` to the one that the repository was created with."
    elif "clock skew" in done.out + done.err:
        fix = (
            " The clock was ahead when that backup was taken, or is behind now: set it right (`timedatectl`). Until it is past the "
            "time in that label only logical backups are possible: `ansible-playbook playbooks/backup.yml -e backup_type=logical`."
        )
    elif errors and errors[0][0] == "082":
        fix = (
            " The WAL isn't archived: `docker logs` of the container says why the archive_command fails. Fix that, then "
            "run again."
        )
    return DasTernError(f"pgBackRest failed during `{command}`: {message}.{fix}", code=[code for code, _ in errors])
