"""Drives pgBackRest inside the backup container: its commands, what it says, and what of it a killed run left.

Source: pgBackRest 2.55 and 2.60, their manual and what they do. `verify` exits 0 whatever it finds; `--config=/dev/stdin` lets
a configuration be tried that isn't written yet, and keeps its secrets out of argument lists. What has a JSON form is read as JSON.
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
"""The most that the retention options take: nothing goes unless we say so."""
ENDED = "063"
"""Its code where it was told to end."""
LOCKED = "050"
"""Its code where another one is at work on the same repository."""
CRYPTO = "095"
"""Its code where what is encrypted isn't what was written, or the password is another one."""
MARK = "das-tern"
"""Annotation of our sets: `incomplete` until the record is written, then `complete`."""
RECORD = f"{MARK}-record"
"""Annotation of a set in a further repository: its record."""
LONGEST_RECORD = 128 * 1024 - 64
"""Bytes of that, with its option as long as one argument of a program can be."""
SEGMENT = 16 * 1024 * 1024
"""Bytes of one file of the WAL, initdb's default."""
FULL = 32 * 1024 * 1024
"""Bytes; with less a failure is for want of them."""
IO_TIMEOUT = 30
"""Seconds without a byte from a further repository after which it is away."""
ARCHIVE_IO_TIMEOUT = 3
"""The same while the log is archived: it tries 6 to 22 times, and so long the first repository waits behind one that is away."""
ARCHIVE_TIMEOUT = 600
"""Seconds for one segment where there are further repositories: of one that is away two or three such rounds."""
PATIENCE = 20.0
"""Seconds after which a pgBackRest that was asked to end is killed."""
LONGEST = 1800.0
"""Seconds that a command may say nothing: copying one file, waiting for one segment."""

ASSERTION = "025"
"""Code of its own mistakes, such as what a damaged manifest leads it to."""
_ERROR = re.compile(r"(?:ERROR|ASSERT): \[(\d{3})\]: (.*)")
_PERCENT = re.compile(r", ([\d.]+)%\)")
_SET_FILE = re.compile(r" P\d+ +INFO: .* '?(\d{8}-\d{6}F(?:_\d{8}-\d{6}[DI])?)/([^\s':]+)")
_SET = re.compile(r"^  backup: (\S+), status: ([\w ]+),", re.MULTILINE)
WAL_FILE = re.compile(r"([\d.]+-\d+)/[0-9A-F]{16}/([0-9A-F]{24})-([0-9a-f]{40})(\.\w+)?")
"""A segment in the archive: where, its name, and the SHA-1 of what it holds when it isn't compressed."""
# Fine, no folder of the stanza, no backups, no data of the stanza.
_STATES = (0, 1, 2, 3)
_NOTHING = hashlib.sha256(b"").hexdigest()
WORKER = "backup:local"
"""Command of a process that copies for a backup. It has the backup's lock, and its whole file to copy if that one is killed."""
# Of the processes that copy, those whose backup is gone.
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


# As the listener does it in `keeper`, for one file that it may not have seen.
_PUSH = f"""
set -e
cd -P {PGDATA}/pg_wal
dd iflag=nofollow,nonblock,fullblock if="./$1" of="/tmp/$1" bs=16M count=1 status=none
trap 'rm -f "/tmp/$1"' EXIT
pgbackrest --stanza={STANZA} --log-level-console=warn --no-archive-async archive-push "/tmp/$1"
"""


class Heard:
    """What a command says, while it says it.

    `backup` tells the label of its set in no other form, and in `info` another one could be newer. How far it is, `info` tells
    as JSON, but by a process and a question to a repository that may be far away; where this text changes, nothing else is lost.
    """

    def __init__(self) -> None:
        self.percent = ""
        self._rest = b""
        self._kept: list[str] = []

    def write(self, content: bytes) -> int:
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if found := _PERCENT.search(text):
                self.percent = found[1]
            elif " DETAIL: " not in text:
                self._kept.append(text)
        return len(content)

    @property
    def text(self) -> str:
        return "\n".join([*self._kept, self._rest.decode(errors="replace")])

    @property
    def label(self) -> str:
        """Of the set that was made."""
        return self.text.rpartition("new backup label = ")[2].split()[0]


@dataclass(frozen=True)
class Info:
    """What the repository says of itself."""

    complete: bool
    """Whether every repository that was asked and answers has its stanza."""
    system: str
    """Identifier of the cluster whose WAL it takes; '' if it takes none yet."""
    systems: dict[int, list[str]]
    """Identifiers of the clusters whose WAL each repository has, the newest last."""
    archive: str
    """Where that goes, such as `17-1`: the server's version and the number of the cluster."""
    sets: list[dict[str, Any]]
    """As `pgbackrest info` describes them, the oldest first; `in` is the archive that has a set's WAL."""
    away: list[str]
    """Repositories that can't be read, each with the reason."""

    def set(self, label: str) -> dict[str, Any] | None:
        return next((one for one in self.sets if one["label"] == label), None)


@dataclass(frozen=True)
class Verified:
    """What `pgbackrest verify` said."""

    sets: dict[str, bool]
    damaged: dict[str, list[str]] = field(default_factory=dict)
    """Files of a set, by its label."""
    wal: set[tuple[str, str]] = field(default_factory=set)
    """Damaged segments: archive and name."""
    ok: bool = True


class PgBackRest:
    """pgBackRest in a running container."""

    def __init__(self, containers: Containers, container: str, nice: int = 0) -> None:
        if not 0 <= nice <= 19:
            raise DasTernError(f"`backup_priority` is {nice}; wanted is a number from 0 to 19. Nothing was done.")
        self.containers, self.container, self.nice = containers, container, nice

    def version(self) -> str:
        """Return its version; refuse one that this project doesn't work with."""
        done = self.containers.execute(self.container, pgbackrest_version.COMMAND)
        return pgbackrest_version.read(f"Container {self.container}", done)

    def run(
        self, command: str, *options: str, config: str = "", stdin: str = "", heard: Heard | None = None,
        silence: float = LONGEST,
    ) -> str:  # fmt: skip
        """What it prints; a failure is a refusal in its own words."""
        words = ["nice", "-n", str(self.nice), "pgbackrest", f"--stanza={STANZA}", command, *options]
        if config:
            words.append("--config=/dev/stdin")
        done = self.containers.execute(self.container, words, config or stdin, silence=silence, into=heard)  # type: ignore[arg-type]
        out = heard.text if heard else done.out
        if done.rc != 0:
            raise _refusal(command, Output(done.rc, out, done.err), self._free())
        return out

    def info(self, config: str = "", *, repository: int = 1, every: bool = False) -> Info:
        """What a repository says of itself; with `every` the others are asked, too, for `systems` and `away`."""
        # It writes a message of several lines as it is into its JSON.
        # For one that is away it waits as long several times; by itself, a minute.
        options = [
            "--output=json",
            "--log-level-console=off",
            "--io-timeout=5",
            *([] if every else [f"--repo={repository}"]),
        ]
        text = self.run("info", *options, config=config)
        if "configuration file contains" in text:  # a warning that stands before the JSON
            raise DasTernError(
                f"`backup_repository_options`: {_first(text.partition('WARN: ')[2].splitlines()[0])}. Nothing was changed."
            )
        told = json.loads(text, strict=False)[0]
        refuse_unreadable(told, repository)
        systems: dict[int, list[str]] = {}
        for one in told["db"]:
            systems.setdefault(one["repo-key"], []).append(str(one["system-id"]))
        archives = {
            one["database"]["id"]: one["id"] for one in told["archive"] if one["database"]["repo-key"] == repository
        }
        sets = [
            {**one, "in": archives.get(one["database"]["id"], "")}
            for one in told["backup"] if one["database"]["repo-key"] == repository
        ]  # fmt: skip
        return Info(
            all(one["status"]["code"] in (0, 2) for one in told["repo"] if one["status"]["code"] in _STATES), systems.get(repository, [""])[-1], systems, archives[max(archives)] if archives else "", sets,
            [
                _password_of(one["key"]) if _other_password(one["status"]["message"])
                else f"repository {one['key']} can't be read: {_first(one['status']['message'])}"
                for one in told["repo"] if one["status"]["code"] not in _STATES
            ],
        )  # fmt: skip

    def misread(self, label: str, repository: int = 1) -> list[str]:
        """Files of the cluster in which a set has pages that aren't what their checksums say."""
        options = (f"--set={label}", f"--repo={repository}", "--output=json", "--log-level-console=off")
        return list(self._set(*options).get("error-list") or [])

    def push(self, name: str) -> None:
        """Put a file of the server's log into the archive; of a link, the target isn't followed. Raises `DasTernError`."""
        done = self.containers.execute(self.container, ["sh", "-c", _PUSH, "sh", name], silence=LONGEST)
        if done.rc:
            raise _refusal("archive-push", done, self._free())

    def links(self, label: str, repository: int = 1) -> list[str]:
        """Return where links in the data led, which a set holds the targets of; tablespaces inside the volume are none."""
        options = (f"--set={label}", f"--repo={repository}", "--output=json", "--log-level-console=off")
        return [f"{link['name']} -> {link['destination']}" for link in self._set(*options).get("link") or []]

    def _set(self, *options: str) -> dict[str, Any]:
        """What pgBackRest tells of one set."""
        told = json.loads(self.run("info", *options), strict=False)
        if not told or not told[0].get("backup"):
            status = (told[0].get("status") or {}).get("message", "") if told else ""
            raise DasTernError(
                f"pgBackRest can't read the set that it made ({options[0]}): {status or 'it lists none'}. `ansible-playbook "
                "playbooks/verify_backups.yml` shows which backups are whole."
            )
        return dict(told[0]["backup"][0])

    def further(self) -> list[int]:
        """Numbers of the repositories besides the first."""
        try:
            told = self.containers.execute(self.container, ["cat", f"{PGBACKREST_FOLDER}/pgbackrest.conf"])
        except DasTernError as refusal:
            if refusal.facts.get("status") not in (404, 409):  # there is none, or it doesn't run
                raise
            return []
        return further(told.out)

    def verify(self, *options: str, silence: float = LONGEST) -> Verified:
        # Without --job-retry a damaged segment is read three times, 15 s apart.
        return verified(self.run("verify", *options, "--output=text", "--verbose", "--job-retry=0", silence=silence))

    def archived(self, repository: int = 1) -> dict[str, set[str]]:
        """Names of the segments in a repository, by archive such as `17-1`."""
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
        found: dict[str, set[str]] = {}
        for path in files:
            if segment := WAL_FILE.fullmatch(path):
                found.setdefault(segment[1], set()).add(segment[2])
        return found

    def histories(self, archive: str, repository: int = 1) -> set[str]:
        """Names of the timelines' histories in an archive such as `17-1`; no recovery goes along a timeline without its own."""
        options = (f"--repo={repository}", "--output=json", "--log-level-console=off")
        told = json.loads(self.run("repo-ls", f"archive/{STANZA}/{archive}", *options))
        return {name for name in told if name.endswith(".history")}

    def sums(self, *files: str, repository: int = 1) -> dict[str, str]:
        """SHA-256 of files of a repository, decrypted; '' where one can't be read."""
        done = self.containers.execute(self.container, ["sh", "-c", _SUMS, str(repository), *files], silence=LONGEST)
        found = dict(line.split(" ", 1) for line in done.out.splitlines())
        return {file: "" if found.get(file) == _NOTHING else found.get(file, "") for file in files}

    def keep(self, repository: int, record: Record) -> None:
        """Put a record into the annotations of its set in a further repository: it is lost with it, and encrypted as it is."""
        words = (f"--repo={repository}", f"--set={record.label}", f"--annotation={RECORD}={_packed(record)}")
        self.patiently(lambda: self.run("annotate", *words))

    def patiently(self, deed: Callable[[], _Result]) -> _Result:
        """Do what may meet another pgBackRest that notes something in the same repository; that takes a moment."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return deed()
            except DasTernError as refusal:
                if LOCKED not in refusal.facts.get("code", []) or time.monotonic() > end:
                    raise
            time.sleep(0.5)

    def mark(self, label: str, state: str) -> None:
        self.run("annotate", "--repo=1", f"--set={label}", f"--annotation={MARK}={state}")

    def expire(self, label: str) -> None:
        """Delete a set and those that depend on it; none is fine."""
        self.run("expire", "--repo=1", f"--set={label}")

    def expire_archive(self, fulls: int) -> None:
        """Delete WAL older than the oldest of `fulls` full backups, which are all that there are."""
        if fulls:
            self.run("expire", "--repo=1", f"--repo1-retention-archive={fulls}")

    def alone(self, seconds: float, say: Callable[[str], None]) -> None:
        """End the backup that a killed run left here; wait `seconds` for somebody else's pgBackRest.

        Whoever calls holds the lock of the backups: at work is at most one of ours into a further repository, which takes
        hours on a slow line, and the first one goes first.
        """
        began = time.monotonic()
        told: dict[str, tuple[str, float]] = {}
        while others := list(self._others()):
            waited = (moment := time.monotonic()) - began
            for pid, command in others:
                if WORKER in command.split():
                    how, words = "KILL", "Ending what is left of a backup whose own process was killed ..."
                    self._end(pid, how)
                elif f"--annotation={MARK}=" in command:
                    # It cleans up inside its signal handler, which can hang.
                    how = "KILL" if moment - told.get(pid, ("", moment))[1] > PATIENCE else "TERM"
                    words = (
                        "Ending a backup that a killed run left behind ..." if "--repo=1" in command.split()
                        else "Ending the backup into a further repository that is still under way ..."
                    )  # fmt: skip
                    if pid not in told or told[pid][0] != how:
                        self._end(pid, how)
                else:
                    how, words = "", f"Waiting for another pgBackRest in container {self.container}: {command} ..."
                if pid not in told:
                    say(words)
                told[pid] = (how, told.get(pid, ("", moment))[1])
            if waited > seconds:
                raise DasTernError(
                    f"Another pgBackRest works in container {self.container}: {others[0][1]} (process {others[0][0]} there). Run "
                    f"again when it is done, or end it: `docker exec {quote(self.container)} kill {others[0][0]}`."
                )
            time.sleep(0.2)

    def _end(self, pid: str, how: str) -> None:
        self.containers.execute(self.container, ["sh", "-c", 'kill -"$1" "$2"', "sh", how, pid])

    def _free(self) -> int | None:
        """Bytes free where the repository is, if the container still answers."""
        with contextlib.suppress(DasTernError, ValueError, IndexError):
            told = self.containers.execute(self.container, ["df", "-B1", "--output=avail", REPOSITORY]).out
            return int(told.split()[1])
        return None

    def _others(self) -> Iterator[tuple[str, str]]:
        told = self.containers.execute(self.container, ["sh", "-c", _PROCESSES])
        for line in told.out.splitlines():
            pid, _, command = line.strip().partition(" ")
            words = command.split()
            if {"backup", WORKER, "expire", "stanza-create", "stanza-upgrade"} & set(words):
                yield pid, command.strip()


def verified(told: str) -> Verified:
    """Return what `verify` said in its text, for it has no JSON form (up to 2.60, `--output` is `none` or `text`).

    A set that isn't in the repository is left out, as 2.55 does; since 2.59 pgBackRest lists it as one without a manifest.
    """
    sets = {label: status == "valid" for label, status in _SET.findall(told) if status != "manifest missing"}
    damaged: dict[str, list[str]] = {}
    wal: set[tuple[str, str]] = set()
    for line in told.splitlines():
        if found := WAL_FILE.search(line):
            wal.add((found[1], found[2]))
        elif (found := _SET_FILE.search(line)) and found[2] not in damaged.setdefault(found[1], []):
            damaged[found[1]].append(found[2])
    return Verified(sets, damaged, wal, bool(re.search(r"^status: ok$", told, re.MULTILINE)))


def refuse_unreadable(told: Mapping[str, Any], repository: int = 1) -> None:
    """Refuse where `info`, which ends well whatever it finds, couldn't read a repository of what it told."""
    status = next(one["status"] for one in told["repo"] if one["key"] == repository)
    message = status["message"]
    if _other_password(message):
        if repository != 1:
            raise DasTernError(f"{_password_of(repository)}. Set the one that it was made with. Nothing was changed.")
        raise DasTernError(
            "The backup repository can't be read with this `backup_cipher_pass`: it was made with another one, or "
            "without. Set the one that it was made with; to begin a new repository, move the folder `repository` in "
            "`postgres_backup_dir` away first. Nothing was changed.",
            crypto=True,
        )
    if status["code"] not in _STATES:
        which = "The backup repository" if repository == 1 else f"Repository {repository}"
        raise DasTernError(f"{which} can't be read: {_first(message)}. Nothing was changed.")


def _other_password(message: str) -> bool:
    """Whether a repository was read with another password than the one it was made with.

    Without one what is encrypted is read as a text, and quoted; a wrong one makes garbage of it once in 256 times.
    """
    garbage = "Salted__" in message or not message.replace("\n", "").isprintable()
    return garbage or "CryptoError" in message or "outside of section at line 1" in message


def _password_of(repository: int) -> str:
    return (
        f"Repository {repository} can't be read with this `repo{repository}-cipher-pass` (`backup_repository_options`): it was made "
        "with another one, or without"
    )


def _first(message: str) -> str:
    return " ".join(re.split(r"HINT|\*\*\* Path", message)[0].split()).rstrip(":")


def configuration(compress_level: int, processes: int, cipher_pass: str, options: Mapping[str, Any]) -> str:
    """The text of pgbackrest.conf."""
    others = sorted({name.partition("-")[0] for name in options})
    further = {f"{repository}-{way}": "y" for repository in others for way in ("bundle", "block")} | dict(options)
    lines = {
        "repo1-path": REPOSITORY,
        # Small files together, and of large ones the blocks that changed: pages. By its own measure, 88 kB for a large file,
        # nearly every block has changed after an update of 1 % of the rows. A backup keeps the blocks of what it builds upon.
        "repo1-bundle": "y",
        "repo1-block": "y",
        "repo1-block-size-map": "16KiB=8KiB",
        # What goes is decided outside, where it is known which backups were verified.
        "repo1-retention-full": FOREVER,
        **({"repo1-cipher-type": "aes-256-cbc", "repo1-cipher-pass": cipher_pass} if cipher_pass else {}),
        **{name: "ny"[value] if isinstance(value, bool) else value for name, value in sorted(further.items())},
        "compress-type": "zst",
        "compress-level": compress_level,
        "process-max": processes,
        "start-fast": "y",
        "log-level-console": "info",
        "log-level-file": "off",
        # The segments that a backup needs reach the first repository behind a few tries of one that is away.
        **({"io-timeout": IO_TIMEOUT, "archive-timeout": ARCHIVE_TIMEOUT} if others else {}),
    }
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    # One segment at a time, the first that a repository which is away doesn't take would keep all later ones from the others.
    aside = "\n[global:archive-push]\n" + "".join(
        f"{name}={value}\n"
        for name, value in (("archive-async", "y"), ("spool-path", SPOOL), ("io-timeout", ARCHIVE_IO_TIMEOUT))
    ) if others else ""  # fmt: skip
    return f"[global]\n{text}{aside}\n[{STANZA}]\npg1-path={PGDATA}\npg1-database=postgres\n"


def folders(text: str) -> list[str]:
    """Return the names of those folders of the backups in which a configuration has repositories."""
    found = re.findall(rf"(?m)^repo\d+-path={BACKUPS}/([^/\n]+)", text)
    return sorted({name for name in found if name not in OURS})


def records_of(sets: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return the records of those sets of a further repository (`Info.sets`) that were copied whole, the newest first."""
    found = []
    for one in sets:
        with contextlib.suppress(*UNREADABLE, zlib.error):
            packed = base64.b64decode(one["annotation"][RECORD], validate=True)
            found.append(Record.read(zlib.decompress(packed).decode(), one["label"]))
    return found[::-1]


def _packed(record: Record) -> str:
    """Return a record as one word; where that would be too long, without what it counted."""

    def word(one: Record) -> str:
        return base64.b64encode(zlib.compress(one.text.encode(), 9)).decode()

    packed = word(record)
    if len(packed) <= LONGEST_RECORD:
        return packed
    why = f"{len(record.census['tables'])} tables are more than the record in a further repository holds"
    nothing: dict[str, Any] = {"tables": {}, "schema": "", "properties": {}, "migrations": []}
    return word(replace(record, census=record.census | nothing, exact=False, uncounted=why))


def masked(text: str) -> str:
    """A configuration without its secrets."""
    return re.sub(r"(?m)^(\S*(?:pass|key|secret|token)[^=\n]*)=.*$", r"\1=********", text)


def segment(timeline: int, lsn: str) -> str:
    """The file of the WAL that ends at `lsn` or holds the byte before it."""
    return segment_name(timeline, max(position(lsn) - 1, 0) // SEGMENT)


def position(lsn: str) -> int:
    """An LSN such as `0/3000028` in bytes."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def segment_number(name: str) -> int:
    """Which segment of its timeline a file is."""
    return int(name[8:16], 16) * (0x100000000 // SEGMENT) + int(name[16:], 16)


def segment_name(timeline: int, number: int) -> str:
    per = 0x100000000 // SEGMENT
    return f"{timeline:08X}{number // per:08X}{number % per:08X}"


def _refusal(command: str, done: Output, free: int | None) -> DasTernError:
    """Why it failed, in its own words and with what mends it; it doesn't always say itself that a disk is full."""
    if done.rc in (137, 143) or done.rc < 0:
        return DasTernError(
            f"pgBackRest was killed during `{command}`. What it left doesn't count as a backup, and the next run removes it: "
            "run again.", code=[ENDED],
        )  # fmt: skip
    found = _ERROR.findall(done.out + done.err)
    words = "; ".join(dict.fromkeys(words for _, words in found)) or done.last_words
    mend = " Run again."
    if any(code in ("031", "032", "037", "038") for code, _ in found):
        mend = " Set `backup_repository_options` right, whose names and values are pgBackRest's."
    elif "FormatError" in words or not words.isprintable():
        words = "what is in the repository can't be read"
        mend = " It was made with another password (`backup_cipher_pass`; of a further one `repo2-cipher-pass` and so on), without one, or is damaged."
    elif "No space left" in done.out + done.err or (free is not None and free < FULL):
        mend = f" Its disk has {amount(free or 0)} left: make room in `postgres_backup_dir`, or move it to another disk; then run again."
    elif "CryptoError" in words or "cipher" in words:
        mend = " Set `backup_cipher_pass` to the one that the repository was made with."
    elif "clock skew" in done.out + done.err:
        mend = (
            " The clock was ahead when that one was taken, or is behind now: set it right (`timedatectl`). Until it is past the "
            "time in that label there are only logical backups: `ansible-playbook playbooks/backup.yml -e backup_type=logical`."
        )
    elif found and found[0][0] == "082":
        mend = (
            " The WAL isn't archived: `docker logs` of the container says why the archive_command fails. Mend that, then "
            "run again."
        )
    return DasTernError(f"pgBackRest failed during `{command}`: {words}.{mend}", code=[code for code, _ in found])
