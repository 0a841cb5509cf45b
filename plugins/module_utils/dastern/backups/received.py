"""What the receiver of zero loss wrote of the write-ahead log, as far as the archive doesn't have it yet.

Segments are in `<backup_dir>/received/<system>-<timeline>/`, the newest with `.partial` behind its name: a cluster that
was restored goes on along a timeline of its own, and one that comes back by an undo along its former one.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from ..server import backup_folders
from ..server.survey import BACKUPS
from .pgbackrest import position, segment_number
from .retention import received_surplus

FOLDER = backup_folders.RECEIVED
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_NAME = re.compile(r"([0-9A-F]{24})(\.partial)?")
_FORK = re.compile(r"\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)(\s.*)?")
GET = f"""
get() {{
  pgbackrest --repo="$REPO" --stanza="$STANZA" --pg1-path="$1" archive-get "$2" "$3" >&2 && return
  system=$(pg_controldata "$1" | sed -n 's/^Database system identifier: *//p')
  file={BACKUPS}/{FOLDER}/$system-$(printf %.8s "$2")/$2
  cp "$file" "$3" 2>/dev/null || cp "$file.partial" "$3" 2>/dev/null
}}
"""
"""Shell: `get FOLDER-OF-A-CLUSTER SEGMENT TO`, from the archive or else from here."""


def forks(text: str, timeline: int) -> list[tuple[int, int]]:
    """The timelines in the history of `timeline`, and where each was left; ValueError where it isn't one.

    Their numbers rise, as PostgreSQL wants. The places needn't: a recovery along a timeline may end before it began.
    """
    found = []
    for line in filter(str.strip, text.splitlines()):
        if not line.lstrip().startswith("#"):
            if (fork := _FORK.fullmatch(line)) is None:
                raise ValueError(f"not a line of a history: {line}")
            found.append((int(fork[1]), position(fork[2])))
    numbers = [*(line for line, _ in found), timeline]
    if len(numbers) == 1 or numbers != sorted(set(numbers)):
        raise ValueError(f"not a history of timeline {timeline}")
    return found


class Received:
    """What is there of one cluster."""

    def __init__(self, backups: Path, system: str) -> None:
        self.files: dict[int, dict[str, Path]] = {}
        """By timeline and name of the segment."""
        self.complete: set[str] = set()
        """Names of those segments that aren't written to any more."""
        self.forks: dict[int, list[tuple[int, int]]] = {}
        self.damaged: dict[int, Path] = {}
        """Histories that can't be read; without one nothing is deleted by it."""
        self.written: dict[str, float] = {}
        """When each file was written last, in seconds since 1970, by its name."""
        for folder, name, content, found in _files(backups, system):
            path = backups / FOLDER / folder / name
            if segment := _NAME.fullmatch(name):
                self.files.setdefault(int(segment[1][:8], 16), {})[segment[1]] = path
                self.written[segment[1]] = found.st_mtime
                if not segment[2]:
                    self.complete.add(segment[1])
            elif history := _HISTORY.fullmatch(name):
                timeline = int(history[1], 16)
                try:
                    self.forks[timeline] = forks(content.decode(), timeline)
                except ValueError:
                    self.damaged[timeline] = path

    def times(self) -> dict[int, dict[int, float]]:
        """When each segment was written last, in seconds since 1970, by timeline and number."""
        return {
            line: {segment_number(name): self.written[name] for name in files} for line, files in self.files.items()
        }


def _folders(backups: Path, system: str) -> Iterator[tuple[str, int]]:
    """Each folder of a cluster by its name, opened; the receiver's container can write there, so that no link is followed."""
    try:
        with backup_folders.opened(backups, FOLDER) as top:
            for name in sorted(os.listdir(top)):
                if not name.startswith(f"{system}-"):
                    continue
                try:
                    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                except OSError:  # somebody else tidies up at this moment, or it is no folder
                    continue
                try:
                    yield name, folder
                finally:
                    os.close(folder)
    except FileNotFoundError:
        return


def _files(backups: Path, system: str) -> Iterator[tuple[str, str, bytes, os.stat_result]]:
    """Each plain file by folder and name, with the content of a history."""
    for name, folder in _folders(backups, system):
        for entry in os.listdir(folder):
            try:
                file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            except OSError:
                continue
            try:
                found = os.fstat(file)
                if stat.S_ISREG(found.st_mode):
                    yield name, entry, os.read(file, 1 << 20) if entry.endswith(".history") else b"", found
            finally:
                os.close(file)


def prune(
    backups: Path, system: str, timeline: int, archived: Collection[str], oldest: str, receiving: bool = True
) -> None:
    """Delete that, and folders with nothing left in them where nothing is received any more."""
    there = Received(backups, system)
    forks = there.forks.get(timeline, [])
    surplus = received_surplus(there.files, forks, timeline, archived, oldest, receiving)
    gone = {(path.parent.name, path.name) for path in surplus}
    over = []
    for name, folder in _folders(backups, system):
        for entry in os.listdir(folder):
            if (name, entry) in gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=folder)
        own = receiving and name == f"{system}-{timeline:08X}"
        if not own and all(entry.endswith(".history") for entry in os.listdir(folder)):
            over.append(name)
    for name in over:
        backup_folders.remove_tree(backups, FOLDER, name)
